"""Faces and wires as cytoscape.js elements and styles; for a view without the driver they must suffice."""

from __future__ import annotations

from typing import Any

from jupyterflow.views._layout import HEIGHT, WIDTH
from jupyterflow.views._palette import FILLS, colours
from jupyterflow.views.graph import Face, GraphModel, Wire


def node_data(face: Face, element: str) -> dict[str, Any]:
    """The `data` of a node's element: its id, and what the driver and the plain style show."""
    return {
        "id": element,
        "name": face.name,
        "title": face.title,
        "kind": face.what[:40],
        "role": face.role,
        "state": face.state,
        "label": face.label,
        "colour": colours(face.state)[0],
    }


def edge_data(wire: Wire, element: str, ids: dict[str, str]) -> dict[str, Any]:
    """The `data` of an edge's element."""
    return {
        "id": element,
        "source": ids[wire.upstream],
        "target": ids[wire.downstream],
        "up": wire.upstream,
        "down": wire.downstream,
        "label": wire.label,
        "colour": FILLS[wire.level][0],
    }


def plain_style() -> list[dict[str, Any]]:
    """Rounded cards with two lines of text and arrows with their rates, for a light background."""
    return [
        {
            "selector": "node",
            "style": {
                "shape": "round-rectangle",
                "width": WIDTH,
                "height": HEIGHT,
                "background-color": "#ffffff",
                "border-width": 2,
                "border-color": "data(colour)",
                "label": "data(label)",
                "color": "#1b2430",
                "font-size": 11,
                "line-height": 1.5,
                "text-wrap": "wrap",
                "text-max-width": WIDTH - 16,
                "text-valign": "center",
                "text-halign": "center",
            },
        },
        {"selector": "node:selected", "style": {"border-width": 3}},
        {
            "selector": "edge",
            "style": {
                "curve-style": "bezier",
                "width": 1.8,
                "line-color": "data(colour)",
                "target-arrow-color": "data(colour)",
                "target-arrow-shape": "triangle",
                "label": "data(label)",
                "font-size": 10.5,
                "color": "#5f6b7a",
                "text-wrap": "wrap",
                "text-background-color": "#ffffff",
                "text-background-opacity": 0.9,
                "text-background-padding": 2,
            },
        },
    ]


def tick_style(model: GraphModel, generation: int) -> list[dict[str, Any]]:
    """`plain_style` and the numbers of this tick by `#id`: one message that needs no driver."""
    style = plain_style()
    for i, face in enumerate(model.faces.values()):
        css = {"label": face.label, "border-color": colours(face.state)[0]}
        style.append({"selector": f"#n{generation}_{i}", "style": css})
    for i, wire in enumerate(model.wires.values()):
        colour = FILLS[wire.level][0]
        css = {"label": wire.label, "line-color": colour, "target-arrow-color": colour}
        style.append({"selector": f"#e{generation}_{i}", "style": css})
    return style
