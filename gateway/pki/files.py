"""How the CA's files come to be: whole, together, with their mode from the first byte.

Every file is written under another name and synced; when all of them are, each takes its place. So
a full disk changes nothing, and after a crash each file is the old one or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class New(NamedTuple):
    """A file to be: nobody's before, unless it may replace what is there."""

    path: Path
    content: bytes
    mode: int = 0o644
    replace: bool = False


def write(files: Sequence[New]) -> None:
    """Make all of these appear. Raises GatewayError: then none is there that was not before."""
    for file in files:  # asked before anything is written
        if not file.replace and os.path.lexists(file.path):
            raise _taken(file.path)
    with contextlib.ExitStack() as undo:
        drafts = [undo.enter_context(_draft(file)) for file in files]
        with contextlib.ExitStack() as alone:
            for file, draft in zip(files, drafts, strict=True):
                _place(file, draft)
                if not file.replace:
                    alone.callback(file.path.unlink)  # a lone key would stand in the next try's way
            alone.pop_all()


@contextmanager
def _draft(file: New) -> Iterator[Path]:
    draft = file.path.with_name(f".{file.path.name}.{secrets.token_hex(8)}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(draft, flags, file.mode), "wb") as handle:
            handle.write(file.content)
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise _failed(file.path, error) from None
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _place(file: New, draft: Path) -> None:
    try:
        if file.replace:
            draft.replace(file.path)
        else:
            file.path.hardlink_to(draft)  # unlike a rename it never overwrites
    except FileExistsError:
        raise _taken(file.path) from None
    except OSError as error:
        raise _failed(file.path, error) from None


def _taken(path: Path) -> GatewayError:
    return GatewayError(f"{path}: is already there; take another folder, or --force")


def _failed(path: Path, error: OSError) -> GatewayError:
    return GatewayError(f"{path}: cannot be written: {error.strerror}")


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Keep every other `gateway pki` out of a CA's folder meanwhile. Raises GatewayError."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise GatewayError(
            f"{directory}: no such folder; make a CA with: gateway pki init {directory}"
        ) from None
    except OSError as error:
        raise GatewayError(f"{directory}: cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # and the lock with it
