"""Show a TLS server a certificate that no decent client would, and say what it makes of it.

    python -m lab.probes.present TARGET PORT     certificate and key in PEM on standard input

Line: alert: what the server's TLS answered, in OpenSSL's words; null when it let us in.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import sys

from lab.probes.lines import say

_WAIT = 5.0  # s
_ALPN = "twosite/1"


def main() -> None:
    """Shake hands, then read: TLS 1.3 refuses a client only after its own handshake is done."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    memory = os.memfd_create("certificate and key")
    os.write(memory, sys.stdin.buffer.read())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # who the server is, is not the question
    context.set_alpn_protocols([_ALPN])
    context.load_cert_chain(f"/proc/self/fd/{memory}")
    alert = None
    try:
        with (
            socket.create_connection((arguments.target, arguments.port), _WAIT) as plain,
            context.wrap_socket(plain) as channel,
        ):
            channel.settimeout(_WAIT)
            if not channel.recv(1):
                alert = "closed without a word"
    except TimeoutError:
        alert = None  # it waits for our hello: we are in
    except ssl.SSLError as error:
        alert = (error.reason or str(error)).lower().replace("_", " ")
    except OSError as error:
        alert = f"no TLS: {error.strerror or error}"
    say(alert=alert)


if __name__ == "__main__":
    main()
