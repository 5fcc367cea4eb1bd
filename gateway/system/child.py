"""Work in a child process: what it read and which rights it gave up is nothing of ours."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

from gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Callable


def in_child(work: Callable[[], object]) -> None:
    """Do it there. Raises its GatewayError here, as one line. Call it before any thread starts."""
    told, telling = os.pipe()
    child = os.fork()
    if child == 0:
        status = 70  # EX_SOFTWARE of sysexits.h: a bug
        try:
            work()
            status = 0
        except GatewayError as error:
            os.write(telling, str(error).encode())
            status = 0
        except Exception:  # noqa: BLE001 - told below
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(telling)
    with os.fdopen(told, "rb") as reading:
        text = reading.read().decode()
    _, status = os.waitpid(child, 0)
    if text:
        raise GatewayError(text)
    if status:
        raise GatewayError("a child process failed, see above; this is a bug")
