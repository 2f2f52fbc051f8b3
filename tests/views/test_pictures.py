"""The text, SVG, Mermaid and table pictures of a flow."""

from __future__ import annotations

import io
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from jupyterflow.model import Edge, Flow, Node
from jupyterflow.views import GraphModel, mermaid, svg, table, tree
from jupyterflow.views._numbers import clip, count, human, milliseconds, rate

SIMPLE = """\
string_source (c 2)
 +--> string_processor (c 1)
 |     +--> string_to_int (c 1)
 |     |     +--> int_out (c 1)
 |     +--> string_out (c 1)
 +--> string_to_int (c 1)
       +--> int_out (c 1)

int_source (c 1)
 +--> int_to_string (c 1)
       +--> string_out (c 1)"""

HOSTILE = '<script>alert("1")</script> & \x00\x0b \U0001f600 \ud800 ]]> ' + "x" * 100_000


def simple() -> Flow:
    flow = Flow("simple")
    flow.add(Node("string_source", "source", "list", options={"concurrency": 2}))
    flow.add(Node("string_processor", "operator", "map"), ["string_source"])
    flow.add(Node("string_to_int", "operator", "map"), ["string_source", "string_processor"])
    flow.add(Node("int_source", "source", "list"))
    flow.add(Node("int_to_string", "operator", "map"), ["int_source"])
    flow.add(Node("string_out", "sink", "collect"), ["string_processor", "int_to_string"])
    flow.add(Node("int_out", "sink", "collect"), ["string_to_int"])
    return flow


def hostile() -> Flow:
    flow = Flow("hostile")
    flow.nodes = {HOSTILE: Node(HOSTILE, "source", HOSTILE), "end": Node("end", "sink", "collect")}
    flow.edges = [Edge(HOSTILE, "end")]
    return flow


def busy(flow: Flow) -> GraphModel:
    model = GraphModel(flow)
    rows = [
        {
            "node": name,
            "records_in": 5000,
            "records_out": 6200,
            "errors": 3,
            "rate_in": 1234.5,
            "rate_out": 5321,
            "p95_ms": 3.2,
        }
        for name in flow.nodes
    ]
    wires = [
        {"upstream": e.upstream, "downstream": e.downstream, "rate": 1234.5, "queued": 900, "max_queue": 1000}
        for e in flow.edges
    ]
    model.update(rows, wires, "running", 2)
    return model


def test_the_tree_of_the_simple_flow_is_exactly_this_text() -> None:
    assert tree(simple()) == SIMPLE


def test_the_tree_of_an_empty_flow_is_empty() -> None:
    assert tree(Flow("empty")) == ""


def test_the_tree_of_many_diamonds_on_top_of_each_other_is_bounded() -> None:
    flow = Flow("diamonds")
    names = [[f"{side}{i}" for side in "ab"] for i in range(40)]
    flow.nodes = {name: Node(name, "operator", "map") for pair in names for name in pair}
    flow.edges = [Edge(up, down) for above, below in pairwise(names) for up in above for down in below]
    assert tree(flow).endswith("\n ...")


def test_a_chain_of_thousands_of_nodes_has_a_tree() -> None:
    flow = Flow("chain")
    flow.nodes = {f"n{i}": Node(f"n{i}", "operator", "map") for i in range(2000)}
    flow.edges = [Edge(f"n{i}", f"n{i + 1}") for i in range(1999)]
    assert len(tree(flow).splitlines()) == 2000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.04, "0"), (0.5, "0.5"), (7, "7"), (7.46, "7.5"), (99.4, "99"), (999, "999"), (999.6, "1.0k"),
        (1234, "1.2k"), (12_345, "12.3k"), (123_456, "123k"), (999_960, "1.0M"), (3_400_000, "3.4M"), (2e9, "2.0G"),
        (5e12, "5.0T"), (-1500, "\N{MINUS SIGN}1.5k"), (float("nan"), "-"), (float("inf"), "-"), (None, "-"),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert human(value) == text


def test_rates_totals_durations_and_long_lines_read_well() -> None:
    assert (rate(1234), rate(None)) == ("1.2k/s", "-")
    assert (count(7069), count(999_999), count(3_400_000)) == ("7,069", "999,999", "3.4M")
    assert (milliseconds(0.123), milliseconds(3.21), milliseconds(1500), milliseconds(None)) == (
        "0.12 ms",
        "3.2 ms",
        "1.5 s",
        "",
    )
    assert clip("a\nb\tc", 10) == "a b c"
    assert len(clip("x" * 1_000_000, 200)) == 200


@pytest.mark.parametrize("flow", [simple(), hostile(), Flow("empty")], ids=lambda flow: flow.name)
def test_the_svg_is_well_formed_and_holds_no_markup_of_the_users(flow: Flow) -> None:
    picture = svg(busy(flow))
    root = ET.fromstring(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not [el for el in root.iter() if el.tag.endswith("script")]
    assert "<script" not in picture
    assert len(picture) < 30_000
    picture.encode()


def test_the_svg_shows_names_states_rates_and_queues_and_follows_the_theme() -> None:
    picture = svg(busy(simple()))
    for text in (
        "string_source",
        "running",
        "1.2k → 5.3k/s",
        "3.2 ms",
        "3 errors",
        "900 queued",
        "1.2k/s",
        "simple · v2",
    ):
        assert text in picture
    assert "prefers-color-scheme:dark" in picture


def test_mermaid_escapes_names_and_labels_edges() -> None:
    text = mermaid(busy(hostile()))
    assert text.startswith("flowchart LR\n")
    assert "<script" not in text
    assert "900 queued" in text
    text.encode()


def test_the_table_has_a_row_for_each_node() -> None:
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=120).print(table(busy(simple())))
    lines = out.getvalue().splitlines()
    assert "simple · v2 · running" in lines[0]
    row = next(line for line in lines if "string_to_int" in line)
    for text in ("running", "5,000", "6,200", "1.2k", "5.3k", "3.2 ms", "3"):
        assert text in row


def test_markup_in_a_name_is_text_in_the_table() -> None:
    from rich.console import Console

    flow = Flow("markup")
    flow.nodes = {"[red]x[/nope]": Node("[red]x[/nope]", "source", "list")}
    out = io.StringIO()
    Console(file=out, width=120).print(table(GraphModel(flow)))
    assert "[red]x[/nope]" in out.getvalue()


def test_importing_the_views_loads_no_widget_library() -> None:
    code = (
        "import sys, jupyterflow.views; "
        "print([m for m in ('pandas', 'numpy', 'ipycytoscape', 'ipywidgets', 'anywidget', 'IPython', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
