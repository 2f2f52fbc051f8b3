"""LiveGraph: the flow as an ipycytoscape graph, kept live by a small driver beside it."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from jupyterflow.model import Flow
from jupyterflow.views._cytoscape import edge_data, node_data, plain_style, tick_style
from jupyterflow.views._layout import HEIGHT
from jupyterflow.views.hub import Hub
from jupyterflow.views.hub import hub as kernel_hub
from jupyterflow.views.readout import in_notebook
from jupyterflow.views.svg import svg
from jupyterflow.views.tree import tree

_HOOK_WITHIN = 6.0  # seconds until the driver counts as missing
_KEEP: Any = object()


class LiveGraph:
    """A live picture of *flow* and its *run*; display it to see it.

    Its data come from the hub's `GraphModel` (`self.model`). Dragged nodes keep their places in
    `flow.nodes[name].position`. `freeze()` puts a static SVG in its place; `close()` lets go of everything.
    """

    node: str | None = None

    def __init__(self, flow: Flow, run: Any = _KEEP, hub: Hub | None = None) -> None:
        self.hub = hub or kernel_hub()
        self.model = self.hub.bind(flow) if run is _KEEP else self.hub.bind(flow, run)
        self.flow = flow.name
        self.key = _cell()
        self.hooked: bool | None = None  # None: not known yet
        self._widget: Any = None
        self._driver: Any = None
        self._parts: list[Any] = []
        self._drawn: tuple[Any, ...] = ()
        self._shown_at = 0.0
        self._displays: list[str] = []
        self._generation = 0
        self._lock = threading.RLock()  # the hub's thread refreshes while cells change and close

    @property
    def widget(self) -> Any:
        """The ipycytoscape widget; made, with its driver, when first asked for."""
        if self._widget is None:
            from jupyterflow.views._canvas import Canvas
            from jupyterflow.views._widgets import Driver, reference

            self._widget = Canvas(
                # `fit` here is for views without a driver, which fits by itself.
                cytoscape_layout={"name": "preset", "fit": True, "padding": 24, "animate": False},
                cytoscape_style=plain_style(),
                tooltip_source="__none__",
                auto_unselectify=False,
                min_zoom=0.1,
                max_zoom=3.0,
                wheel_sensitivity=0.3,
            )
            self._widget.layout.height = f"{self._height}px"
            self._draw()
            self._driver = Driver(
                channel=reference(self.hub.channel),
                target=reference(self._widget),
                flow=self.flow,
            )
            self._driver.on_msg(self._heard)
        return self._widget

    @property
    def _height(self) -> int:
        tops = [face.y for face in self.model.faces.values()] or [0.0]
        return int(min(max(max(tops) - min(tops) + HEIGHT + 110, 220), 640))

    def _draw(self) -> None:
        """Put the model's nodes and edges into the widget: clear, then fresh objects at preset places.

        Removing any element but the last corrupts ipycytoscape's view; ids are never used twice.
        """
        from ipycytoscape import Edge, Node

        old, self._parts = self._parts, []
        self._generation += 1
        graph = self._widget.graph
        if old:
            graph.clear()
        ids = {name: f"n{self._generation}_{i}" for i, name in enumerate(self.model.faces)}
        nodes = [
            Node(data=node_data(face, ids[name]), position={"x": face.x, "y": face.y}, selectable=True)
            for name, face in self.model.faces.items()
        ]
        edges = [
            Edge(data=edge_data(wire, f"e{self._generation}_{i}", ids), classes=" directed ")
            for i, wire in enumerate(self.model.wires.values())
        ]
        if nodes:
            graph.add_nodes(nodes)
        if edges:
            graph.add_edges(edges, directed=True)
        self._parts = [*nodes, *edges]
        for part in old:
            part.close()
        self._drawn = self._shape()

    def _shape(self) -> tuple[Any, ...]:
        faces = tuple((face.name, face.kind, face.role) for face in self.model.faces.values())
        return faces, tuple(self.model.wires)

    def set_flow(self, flow: Flow, run: Any = _KEEP) -> None:
        """Show *flow* (perhaps the same one after a change) in place; the positions of its nodes stay."""
        self.model = self.hub.bind(flow) if run is _KEEP else self.hub.bind(flow, run)
        self.flow = flow.name
        if self._driver is not None:
            self._driver.flow = flow.name
        self.refresh()

    def refresh(self) -> None:
        """Draw again if nodes or edges have changed; without a driver, send the numbers as a style."""
        with self._lock:
            model = self.hub.models.get(self.flow)
            if model is not None and self._widget is not None:
                self.model = model
                self._refresh()

    def _refresh(self) -> None:
        if self._drawn != self._shape():
            self._draw()
            self._widget.layout.height = f"{self._height}px"
        self._place()
        if self.hooked is not True and self._shown_at and time.monotonic() - self._shown_at > _HOOK_WITHIN:
            self._widget.cytoscape_style = tick_style(self.model, self._generation)

    def _place(self) -> None:
        """Tell the widget of nodes that stand elsewhere than it thinks: moved in another view, or by a program."""
        for face, part in zip(self.model.faces.values(), self._parts, strict=False):
            if (part.position.get("x"), part.position.get("y")) != (face.x, face.y):
                part.position = {"x": face.x, "y": face.y}

    def _heard(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """What the driver says: that it hooked (or cannot), and where nodes were dragged to."""
        if not isinstance(content, dict):
            return
        if "hooked" in content:
            self.hooked = bool(content["hooked"])
            if self.hooked:
                self._widget.cytoscape_style = plain_style()
            else:
                self._shown_at = time.monotonic() - 2 * _HOOK_WITHIN
                self.hub.wake()
        moved = content.get("moved")
        if isinstance(moved, dict):
            for name, place in moved.items():
                if isinstance(place, list) and [type(p) in (int, float) for p in place] == [True, True]:
                    self.model.move(str(name), place[0], place[1])
            self.hub.wake()

    def show(self) -> None:
        """Display it in this cell's output."""
        from IPython.display import display

        if not in_notebook():
            print(tree(self.model.flow))
            return
        self.hub.frozen.pop(self.key, None)
        self._displays.append(f"jupyterflow-{os.urandom(16).hex()}")
        widget = self.widget
        self.hub.open(self)
        display(widget, display_id=self._displays[-1])
        self._shown_at = time.monotonic()
        self.hub.wake()

    def _ipython_display_(self) -> None:
        self.show()

    def static(self) -> dict[str, str]:
        """The picture as it is now, by mime type: SVG and text.

        No Mermaid beside it: JupyterLab prefers that, draws it itself and saves its drawing over our SVG.
        """
        return {
            "image/svg+xml": svg(self.model),
            "text/plain": f"{self.model.headline}\n\n{tree(self.model.flow)}",
        }

    def freeze(self) -> None:
        """Replace the live view by a static picture that stays in the saved notebook, and close it."""
        from IPython.display import publish_display_data

        self.hub.look(self.flow)
        picture = self.static()
        for shown in self._displays:
            publish_display_data(picture, transient={"display_id": shown}, update=True)
        displays, self._displays = self._displays, []
        self.close()
        self.hub.frozen[self.key or tuple(displays)] = (self, displays)

    def thaw(self, displays: list[str]) -> None:
        """Live again where it was frozen: the flow runs once more."""
        from IPython.display import update_display

        self._displays = displays
        widget = self.widget
        self.hub.open(self)
        for shown in displays:
            update_display(widget, display_id=shown)
        self._shown_at = time.monotonic()
        self.hub.wake()

    def close(self) -> None:
        """Close the widget, its elements and the driver."""
        self.hub.drop(self)
        with self._lock:
            if self._widget is None:
                return
            from jupyterflow.views._widgets import dispose

            parts = [*self._parts, self._driver, *self._widget.orphans, self._widget.graph, self._widget]
            self._parts, self._driver, self._widget, self._shown_at = [], None, None, 0.0
            for part in parts:
                dispose(part)


def _cell() -> str | None:
    """A key for the cell that is running: a re-run replaces its graph. None where cells have no id."""
    if not in_notebook():
        return None
    from IPython import get_ipython

    metadata = (get_ipython().kernel.get_parent() or {}).get("metadata") or {}
    return f"graph/{metadata['cellId']}" if metadata.get("cellId") else None
