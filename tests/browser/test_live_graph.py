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
    page.theme("JupyterLab Light")
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


CHANGE = """
from jupyterflow.model import Edge, Node
from jupyterflow.views import hub
run.state = 'running'
del flow.nodes['parse']; flow.nodes['clean'] = Node('clean', 'operator', 'filter')
flow.edges = [Edge('bids', 'clean'), Edge('clean', 'euros')] + [e for e in flow.edges if 'parse' not in (e.upstream, e.downstream)]
hub().bind(flow)
print(len(hub().views))
"""


def test_a_change_of_the_flow_shows_in_the_open_graph(lab: Any) -> None:
    page = lab.open_notebook([SETUP, CHANGE, "flow.nodes['alerts'].position = (500, 400); hub().bind(flow); print(7)"])
    page.run(0)
    page.until(lambda: page.playwright.locator(".jf-face").count() == 7, "the seven cards")
    page.run(1)
    names = {"bids", "rates", "clean", "euros", "total", "seen", "alerts"}
    page.until(lambda: set(page.cytoscape(LABELS)) == names, "the new node")
    page.until(
        lambda: set(page.playwright.locator(".jf-face .jf-name").all_inner_texts()) == names, "cards of these nodes"
    )
    assert page.cytoscape("(cy) => cy.edges().length") == 6
    edges = page.cytoscape("(cy) => cy.edges().map((e) => e.data('up') + '>' + e.data('down'))")
    assert {"bids>clean", "clean>euros"} <= set(edges)
    places = page.cytoscape(PLACES)
    assert places["bids"]["x"] < places["clean"]["x"] < places["euros"]["x"]
    page.until(lambda: "/s" in page.cytoscape(LABELS)["clean"], "its numbers")
    page.run(2)
    page.until(lambda: page.cytoscape(PLACES)["alerts"] == {"x": 500, "y": 400}, "the place that was set")
    assert page.errors == []


def test_a_cell_that_is_run_again_shows_one_graph_and_closes_the_old(lab: Any) -> None:
    page = lab.open_notebook([SETUP, "print(len(hub().views), 'open')"])
    for _ in range(3):
        page.run(0)
    page.until(lambda: page.playwright.locator(".jf-face").count() == 7, "the seven cards")
    page.run(1)
    assert "1 open" in page.output(1)
    assert page.errors == []


def test_a_frozen_graph_stays_in_the_saved_notebook_as_a_picture(page: Any, tmp_path: Path) -> None:
    page.playwright.evaluate("() => window.jupyterapp.shell.currentWidget.content.activeCellIndex = 3")
    page.playwright.evaluate(
        "() => window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.setSource("
        "'run.state = \"finished\"; graph.freeze(); print(graph.hub.views)')"
    )
    page.run(3)
    page.until(lambda: page.playwright.locator(".jp-RenderedSVG").count() == 1, "the picture")
    page.until(lambda: page.playwright.locator(".jf-face").count() == 0, "the live view to go")
    assert page.output(3).strip() == "[]"
    bundle = page.save()["cells"][0]["outputs"][0]["data"]
    picture = "".join(bundle["image/svg+xml"])
    assert picture.startswith("<svg xmlns")
    assert "finished" in picture
    page.screenshot(tmp_path / "frozen.png")
    assert "".join(bundle["text/plain"]).startswith("prices · v3 · finished")
    assert page.errors == []


def test_a_page_that_is_loaded_again_shows_the_live_graph(page: Any) -> None:
    page.run(1)
    page.until(lambda: "has counted" in page.output(1), "prints")
    page.save()
    page.playwright.reload()
    page.until(lambda: page.playwright.locator(".jf-face").count() == 7, "the seven cards again")
    before = page.until(lambda: page.cytoscape(LABELS), "labels")
    page.until(lambda: page.cytoscape(LABELS) != before, "the labels to change", 10)
    page.until(lambda: "has counted" in page.output(1), "prints again")
    assert page.errors == []


BROKEN = """
import jupyterflow.views._widgets as w
real = w.static
w.static = lambda name: 'export default { initialize({ model }) { model.send({ hooked: false }) } }' if name == 'driver.js' else (
    '' if name == 'common.js' else real(name))
"""


def test_without_its_driver_the_graph_still_shows_moving_numbers(lab: Any, tmp_path: Path) -> None:
    page = lab.open_notebook([BROKEN, SETUP])
    page.run(0)
    page.run(1)
    shown = "(cy) => cy.nodes().map((n) => n.style('label')).join(' | ')"
    first = page.until(lambda: page.cytoscape(shown), "labels")
    page.until(lambda: "/s" in (page.cytoscape(shown) or ""), "rates in the labels")
    first = page.cytoscape(shown)
    page.until(lambda: page.cytoscape(shown) != first, "the labels to change", 10)
    page.screenshot(tmp_path / "plain.png")
    assert page.playwright.locator(".jf-face").count() == 0
    assert page.errors == []


def test_hostile_names_and_samples_are_text(lab: Any) -> None:
    cells = [
        SETUP.replace(
            "graph = ",
            "from jupyterflow.model import Node; flow.nodes['<img src=x onerror=alert(1)>'] = "
            "Node('<img src=x onerror=alert(1)>', 'source', '<b>list</b>')\ngraph = ",
        ),
        "Readout(hub(), '<img src=x onerror=alert(1)>')",
    ]
    page = lab.open_notebook(cells)
    asked: list[str] = []
    page.playwright.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.run(0)
    page.run(1)
    page.until(lambda: page.playwright.locator(".jf-face", has_text="<img src=x").count() == 1, "the name as text")
    page.until(lambda: "<img src=x onerror" in page.output(1), "the name as text in the readout")
    assert page.playwright.locator(".jf-face img, .jf-readout img, .jf-face b, .jf-readout b").count() == 0
    assert asked == []
    assert page.errors == []
