"""What user code prints, kept by node instead of shown at once.

`sys.stdout` is wrapped while a run is on; a thread that runs user code says into which list its text goes.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from typing import Any, TextIO

LIMIT = 1_000  # pieces of text kept for one node between two commits
_local = threading.local()
_lock = threading.Lock()
_users = 0


def redirect(target: list[str] | None) -> None:
    """From now on what this thread prints goes to *target*; None: to the real stdout."""
    _local.target = target


class _Stdout:
    def __init__(self, real: TextIO) -> None:
        self.real = real

    def write(self, text: str) -> int:
        target = getattr(_local, "target", None)
        if target is None:
            return self.real.write(text)
        if len(target) < LIMIT:
            target.append(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def install() -> None:
    """Wrap stdout; balanced by `uninstall()`."""
    global _users
    with _lock:
        _users += 1
        if not isinstance(sys.stdout, _Stdout):
            sys.stdout = _Stdout(sys.stdout)


def uninstall() -> None:
    """Give stdout back when nobody needs it wrapped any more."""
    global _users
    with _lock:
        _users -= 1
        if _users == 0 and isinstance(sys.stdout, _Stdout):
            sys.stdout = sys.stdout.real
