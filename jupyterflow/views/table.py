"""A flow's nodes as a table for terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jupyterflow.views import _numbers as n
from jupyterflow.views._palette import colours

if TYPE_CHECKING:
    from rich.table import Table

    from jupyterflow.views.graph import GraphModel


def table(model: GraphModel) -> Table:
    """A rich table, a row a node: state, totals in and out, rates, p95, lag, errors; the headline as its title."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    out = Table(title=escape(model.headline), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    out.add_column("node", overflow="ellipsis", max_width=32, no_wrap=True)
    out.add_column("state", no_wrap=True)
    for heading in ("in", "out", "in/s", "out/s", "p95", "lag", "errors"):
        out.add_column(heading, justify="right", no_wrap=True)
    for face in model.faces.values():
        quiet = face.state == "draft"
        source, sink = face.role == "source", face.role == "sink"
        out.add_row(
            Text(n.clip(face.name, 100)),
            Text(face.state, style=colours(face.state)[1]),
            "" if source or quiet else n.count(face.records_in),
            "" if sink or quiet else n.count(face.records_out),
            "" if source or quiet else n.human(face.rate_in),
            "" if sink or quiet else n.human(face.rate_out),
            face.latency,
            "" if quiet else n.count(face.lag),
            Text(n.count(face.errors), style=colours("failed")[1]) if face.errors else "",
        )
    return out
