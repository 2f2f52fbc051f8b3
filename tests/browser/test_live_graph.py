"""The live graph and the readouts as a person sees them, in JupyterLab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent

SETUP = f"""
import sys; sys.path.insert(0, {str(HERE)!r})
from fake_flow import FakeRun, make_flow
from jupyterflow.views import LiveGraph, Readout, hub
flow = make_flow(); run = FakeRun(flow)
graph = LiveGraph(flow, run)
graph
"""
LABELS = "(cy) => Object.fromEntries(cy.nodes().map((n) => [n.data('name'), n.data('label')]))"
PLACES = "(cy) => Object.fromEntries(cy.nodes().map((n) => [n.data('name'), n.position()]))"


@pytest.fixture
def page(lab: Any) -> Any:
    page = lab.open_notebook(
        [
            SETUP,
            "Readout(hub(), 'seen')",
            "Readout(hub(), 'parse')",
            "print(flow.nodes['euros'].position, graph.hooked)",
        ]
    )
    page.run(0)
    page.until(lambda: page.playwright.locator(".jf-face").count() == 7, "the seven cards")
    return page


def test_the_graph_stands_left_to_right_and_its_numbers_move(page: Any, tmp_path: Path) -> None:
    places = page.cytoscape(PLACES)
    for up, down in (("bids", "parse"), ("parse", "euros"), ("rates", "euros"), ("euros", "total"), ("total", "seen")):
        assert places[up]["x"] < places[down]["x"], f"{up} is left of {down}"
    page.until(lambda: "/s" in page.cytoscape(LABELS)["parse"], "rates on the faces")
    before = page.cytoscape(LABELS)
    page.until(lambda: page.cytoscape(LABELS) != before, "the labels to change", 10)
    page.until(lambda: "running" in page.playwright.locator(".jf-bar .jf-head").inner_text(), "the headline")
    page.run(1)
    page.run(2)
    page.until(lambda: "has counted" in page.output(1), "the sink's prints under its cell")
    page.until(lambda: "onmouseover" in page.output(2), "the sample as text")
    assert page.playwright.locator(".jf-readout b, .jf-readout i").count() == 0
    page.screenshot(tmp_path / "light.png")
    page.theme("JupyterLab Dark")
    page.screenshot(tmp_path / "dark.png")
    assert page.errors == []


def test_a_dragged_node_keeps_its_place_in_the_flow(page: Any) -> None:
    page.cell(0).scroll_into_view_if_needed()
    box = page.playwright.locator(".jf-face", has_text="euros").bounding_box()
    mouse = page.playwright.mouse
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + 20, y + 30, steps=4)
    mouse.move(x + 40, y + 60, steps=4)
    mouse.up()
    place = page.cytoscape(PLACES)["euros"]
    page.run(3)
    text = page.output(3).strip()
    assert text.endswith("True"), "the driver has hooked"
    kept = eval(text.rsplit(" ", 1)[0])
    assert kept == pytest.approx((place["x"], place["y"]), abs=0.2)
    assert page.errors == []
