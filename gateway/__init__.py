"""The VPN gateway: joins a site to its peers through one encrypted tunnel.

Vocabulary (the same words in code, logs and docs):

gateway   the VPN endpoint                       peer      a remote gateway as this one knows it
control   the TLS connection to a peer           data      the UDP datagrams
session   one set of keys, named by an index     record    what is sealed once
frame     what one TUN read or write carries     fragment  the part of a record in one datagram
suite     how records are sealed                 endpoint  a peer's UDP address

The data's way, and the process that owns each step:

              .---------------- data plane (no capability) ----------------.
  TUN -> route -> session -> seal -> fragments -> UDP                       outbound.py
  TUN <- source, transit <- frames <- open <- assemble <- replay <- UDP     inbound.py
              '------------------------^------------------------------------'
                        keys, routes   |   counters             link.py
              .------------------------v------------------------------------.
  TLS <-> messages <-> handshake -> sessions -> kernel routes               control/
              '---------------- control plane (NET_ADMIN alone) ------------'

  supervisor.py opens the devices and sockets, starts both, restarts whichever dies.

Imports point one way: cli -> supervisor, control, dataplane -> protocol. The two planes meet only
in the messages of `link.py`. `protocol/` is pure: no socket, no clock, no thread.
"""

__version__ = "0.1.0"
