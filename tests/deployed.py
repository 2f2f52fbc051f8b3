"""What tests of deployments share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], Any], seconds: float = 20.0, what: str = "") -> Any:
    """Wait until a condition holds; what it gave."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, what or f"not within {seconds} s"
        time.sleep(0.05)


def notebook(*cells: str) -> dict[str, Any]:
    """A namespace in which the cells have run, as in IPython."""
    space: dict[str, Any] = {"__name__": "__main__", "_ih": [""]}
    for number, cell in enumerate(cells):
        space["_ih"].append(cell)
        exec(compile(cell, f"<ipython-input-{number}-abc>", "exec", dont_inherit=True), space)
    return space
