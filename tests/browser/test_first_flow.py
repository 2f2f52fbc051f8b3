"""The main job as a person does it: three cells, the graph, run, deploy, the kernel's death, and attach."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kafka

CELLS = [
    "%load_ext jupyterflow",
    "%%flow source numbers --rate 1000\nimport random\nwhile True:\n    yield random.randrange(1, 1000)",
    "%%flow map factors --from numbers\ndef factors(n: int) -> list[int]:\n"
    "    return [d for d in range(1, n + 1) if n % d == 0]",
    "%%flow sink show --from factors\nif len(value) > 20:\n    print('many factors:', value[-1])",
    "%flow",
    "%flow run",
    "%flow stop",
    "%flow up --workers 2",
    "%flow deploy",
    "sum(range(10))",
    "%flow stop",
    "%flow down",
]
AGAIN = ["%load_ext jupyterflow", "%flow connect", "%flow attach flow", "%flow stop", "%flow metrics", "%flow down"]
LABELS = "(cy) => Object.fromEntries(cy.nodes().map((n) => [n.data('name'), n.data('label')]))"
PLACES = "(cy) => Object.fromEntries(cy.nodes().map((n) => [n.data('name'), n.position().x]))"


@pytest.fixture
def tidy(lab: Any) -> Iterator[Any]:
    """The lab, whose workers and Kafka are ended whatever becomes of the test."""
    yield lab
    code = "from jupyterflow.cluster import down; down(purge=True)"
    subprocess.run([sys.executable, "-c", code], env=lab.env, timeout=60, check=True)


def moving(page: Any) -> None:
    """Wait until the graph shows rates that change."""
    page.until(lambda: "/s" in (page.cytoscape(LABELS) or {}).get("factors", ""), "a rate on the face")
    before = page.cytoscape(LABELS)
    page.until(lambda: page.cytoscape(LABELS) != before, "the numbers to move")


def picture(page: Any, name: str, tmp_path: Path) -> None:
    """A screenshot, kept where the README's pictures are when that is asked for."""
    folder = Path(os.environ.get("JUPYTERFLOW_PICTURES") or tmp_path)
    page.screenshot(folder / name)


def test_three_cells_run_here_then_on_workers_and_outlive_the_kernel(tidy: Any, tmp_path: Path) -> None:
    page = tidy.open_notebook(CELLS, size=(1280, 1400))
    for index in range(5):
        page.run(index)
    page.until(lambda: page.playwright.locator(".jf-face").count() == 3, "three nodes")
    places = page.cytoscape(PLACES)
    assert places["numbers"] < places["factors"] < places["show"]

    page.run(5)
    moving(page)
    page.until(lambda: "many factors" in page.output(3), "the sink's prints under its cell")
    picture(page, "in-process.png", tmp_path)
    page.run(6)
    page.until(lambda: page.playwright.locator(".jf-face").count() == 0, "the picture that stays")

    page.run(7, timeout=60)
    page.run(8)
    page.until(lambda: page.playwright.locator(".jf-face").count() == 3, "the graph, live again")
    moving(page)
    page.run(9)
    assert "45" in page.output(9), "the notebook stays free for other cells"
    page.until(lambda: "v1" in page.output(2), "the readout's version")
    page.cell(4).scroll_into_view_if_needed()
    if os.environ.get("JUPYTERFLOW_PICTURES"):  # one that is kept shows the rate that was asked for
        page.until(lambda: "1.0k/s" in page.cytoscape(LABELS)["factors"], "the full rate", 60)
    picture(page, "live-graph.png", tmp_path)
    page.theme("JupyterLab Dark")
    picture(page, "live-graph-dark.png", tmp_path)
    page.theme("JupyterLab Light")
    assert page.errors == []

    page.restart_kernel()
    other = tidy.open_notebook(AGAIN)
    for index in range(3):
        other.run(index)
    assert "def factors(n: int)" in other.output(2), "the code is back"
    page.until(lambda: other.playwright.locator(".jf-face").count() == 3, "the graph in the new kernel")
    moving(other)
    other.run(3, timeout=60)
    other.run(4)
    counts = {line.split()[0]: line.split()[1] for line in other.output(4).splitlines()[1:] if line.split()}
    assert counts["numbers"] == counts["factors"] == counts["show"], "a stop drains: what came in reached the sink"
    other.run(5, timeout=60)
    assert other.errors == []
