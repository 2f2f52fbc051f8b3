"""A lock between processes on a file; the system releases it when its holder dies."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jupyterflow.model import FlowTimeout


@contextmanager
def locked(path: Path, timeout: float, what: str) -> Iterator[None]:
    """Hold the lock on *path* (made if missing, never removed) for the block.

    Waits *timeout* seconds at most. Raises `FlowTimeout` (JF501), which names *what* the holder is doing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    # Inheritable by nobody: a broker started under the lock must not hold it for its lifetime.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        while not _try_lock(handle):
            if time.monotonic() > deadline:
                raise FlowTimeout("JF501", f"{what}: another process has been at it for {timeout:.0f} s ({path})")
            time.sleep(0.05)
        yield
    finally:
        os.close(handle)


if os.name == "nt":  # pragma: no cover

    def _try_lock(handle: int) -> bool:
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True

else:

    def _try_lock(handle: int) -> bool:
        import fcntl

        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
