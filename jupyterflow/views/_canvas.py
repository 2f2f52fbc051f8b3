"""The ipycytoscape widget. Only a graph that is shown imports this module: it brings pandas."""

from __future__ import annotations

from typing import Any

import ipycytoscape


class Canvas(ipycytoscape.CytoscapeWidget):  # type: ignore[misc, unused-ignore]
    """A CytoscapeWidget that remembers the Graph which its constructor makes and drops, so that it can be closed."""

    def __init__(self, **traits: Any) -> None:
        self.orphans: list[Any] = []
        self.observe(self._replaced, "graph")
        super().__init__(**traits)

    def _replaced(self, change: Any) -> None:
        if isinstance(change["old"], ipycytoscape.Graph):
            self.orphans.append(change["old"])
