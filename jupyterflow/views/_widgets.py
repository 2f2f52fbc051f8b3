"""The widget models. Only what shows a widget imports this module: it brings ipywidgets and anywidget."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import anywidget
import ipywidgets
import traitlets as t


@cache
def static(name: str) -> str:
    """The text of a file in `static/`."""
    return files("jupyterflow.views").joinpath("static", name).read_text(encoding="utf-8")


def reference(widget: Any) -> str:
    """How the state of one widget names another."""
    return f"IPY_MODEL_{widget.model_id}"


def dispose(widget: Any) -> None:
    """Close *widget* and the layout that came with it, which `close()` leaves open."""
    layout = getattr(widget, "layout", None)
    widget.close()
    if layout is not None:
        layout.close()


class Channel(ipywidgets.Widget):  # type: ignore[misc, unused-ignore]
    """A model without a view whose state all graphs and readouts show.

    A core model and not an anywidget: its messages never wait for a module to load. `frame` and `prints` are
    state, so that a page that is loaded again has the last picture at once.
    """

    frame = t.Dict().tag(sync=True)
    prints = t.Dict().tag(sync=True)


class ReadoutWidget(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
    """The strip under a cell: names its flow, its node and the channel."""

    channel = t.Unicode().tag(sync=True)
    flow = t.Unicode().tag(sync=True)
    node = t.Unicode().tag(sync=True)
    role = t.Unicode().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        self._esm = static("common.js") + static("readout.js")
        self._css = static("readout.css")
        super().__init__(**traits)


class Driver(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
    """Never shown itself: reaches the live cytoscape instances of `target` and draws the channel's frames."""

    channel = t.Unicode().tag(sync=True)
    target = t.Unicode().tag(sync=True)
    flow = t.Unicode().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        self._esm = static("common.js") + static("driver.js")
        self._css = static("driver.css")
        super().__init__(**traits)
