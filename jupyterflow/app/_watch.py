"""A run as a live table in the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TextIO

from jupyterflow.app._base import dumps

if TYPE_CHECKING:
    from rich.console import Console

_ENDED = ("finished", "stopped", "failed")
_TICK = 0.5


def watch(run: Any, *, limit: float | None = None, out: TextIO | None = None, until: tuple[str, ...] = _ENDED) -> None:
    """Show the table twice a second until the run has ended, or for *limit* seconds (FlowTimeout).

    Where `out` is no terminal the table is printed once, at the end. Raises FlowError if the flow failed.
    """
    from rich.live import Live

    from jupyterflow.model import FlowTimeout
    from jupyterflow.views import GraphModel, table

    model = GraphModel(run.flow, run)
    model.poll()
    left = limit
    console = _console(out or sys.stdout)
    with Live(table(model), console=console, auto_refresh=False) as live:
        while True:
            try:
                run.wait(_TICK if left is None else max(0.0, min(_TICK, left)))
                break
            except FlowTimeout:
                left = None if left is None else left - _TICK
                if left is not None and left <= 0:
                    raise
            finally:
                model.poll()
                live.update(table(model), refresh=True)
    if not console.is_terminal:
        console.line()  # rich ends the line on terminals only


def snapshot(run: Any) -> dict[str, Any]:
    """The run as plain data: flow, state, version, metrics and edges."""
    return {
        "flow": run.name,
        "state": run.state,
        "version": run.version,
        "metrics": run.metrics(),
        "edges": run.edges(),
    }


def stream(run: Any) -> None:
    """A line of JSON twice a second until the run has ended."""
    from jupyterflow.model import FlowTimeout

    while True:
        print(dumps(snapshot(run)), flush=True)
        if run.state in _ENDED:
            return
        try:
            run.wait(_TICK)
        except FlowTimeout:
            continue


def _console(out: TextIO) -> Console:
    from rich.console import Console

    # A pipe has no width of its own: wide enough that no number is cut.
    return Console(file=out, width=None if out.isatty() else 140)
