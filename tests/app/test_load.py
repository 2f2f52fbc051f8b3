"""Flows from files."""

import json
from pathlib import Path
from typing import Any

import pytest

from jupyterflow.app._load import load_flow
from jupyterflow.model import FlowError


def notebook(path: Path, *cells: str) -> str:
    """A notebook of code cells."""
    entries: list[dict[str, Any]] = [{"cell_type": "markdown", "metadata": {}, "source": "# %%flow is explained"}]
    entries += [
        {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": c.splitlines(True)}
        for c in cells
    ]
    path.write_text(json.dumps({"cells": entries, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return str(path)


def script(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_script_gives_its_flow(tmp_path: Path) -> None:
    file = script(
        tmp_path / "flows.py",
        "import jupyterflow as jf\n"
        "flow = jf.Flow('prices')\n"
        "last = flow.source('bids', [1, 2]).sink('seen', 'collect')\n"
        "if __name__ == '__main__':\n    raise SystemExit('not from here')\n",
    )
    flow = load_flow(file)
    assert (flow.name, list(flow.nodes)) == ("prices", ["bids", "seen"])
    assert flow.run().wait(10).collect("seen") == [1, 2]


def test_a_script_with_several_flows_asks_which(tmp_path: Path) -> None:
    file = script(tmp_path / "two.py", "import jupyterflow as jf\na = jf.Flow('a')\nb = jf.Flow('b')\n")
    with pytest.raises(FlowError, match=r"JF724 .*--flow - it has a, b"):
        load_flow(file)
    assert load_flow(file, "b").name == "b"
    with pytest.raises(FlowError, match="JF724"):
        load_flow(file, "c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import jupyterflow", "JF724"),
        ("x = 1\nx = = 2", r"JF723 bad.py, line 2: invalid syntax"),
        ("x = 1\ny = x / 0", r"JF723 bad.py, line 2: ZeroDivisionError: division by zero"),
        ("import jupyterflow as jf\nf = jf.Flow('a')\nf.node('b')", r"JF104 bad.py: flow 'a': unknown node 'b'"),
    ],
)
def test_what_is_wrong_with_a_script_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = script(tmp_path / "bad.py", text)
    with pytest.raises(FlowError, match=message) as caught:
        load_flow(file)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_gets_a_hint(tmp_path: Path) -> None:
    script(tmp_path / "flows.py", "")
    with pytest.raises(FlowError, match=r"JF722 .*did you mean 'flows.py'"):
        load_flow(str(tmp_path / "flow.py"))
    with pytest.raises(FlowError, match="JF722"):
        load_flow(str(tmp_path / "flow.txt"))


def test_a_notebooks_cells_are_taken_with_the_cells_that_they_need(tmp_path: Path) -> None:
    file = notebook(
        tmp_path / "factors.ipynb",
        "%load_ext jupyterflow\nimport random",
        "LIMIT = 100\nresults = []",
        "def numbers_to(n):\n    yield from range(1, n + 1)",
        "%%flow source numbers\nyield from numbers_to(LIMIT)",
        "%%time\n1 / 0",
        "%%flow flat_map factors --from numbers\ndef factors(n: int) -> list[int]:\n"
        "    return [i for i in range(1, n + 1) if n % i == 0]",
        "factors(12)\nn = len(run.collect('seen'))",
        "%flow count n --from factors --emit end\n%flow sink seen collect --from n",
        "run = %flow run\nrun.wait(20)\nresults.append(run.collect('seen'))",
        "%flow up --workers 2\n!ls\nopen('should not happen', 'w')",
        "assert False",
    )
    flow = load_flow(file)
    assert flow.name == "flow"
    assert list(flow.nodes) == ["numbers", "factors", "n", "seen"]
    assert flow.run().wait(20).collect("seen") == [
        sum(len([i for i in range(1, n + 1) if n % i == 0]) for n in range(1, 101))
    ]


def test_a_notebook_may_name_its_flows(tmp_path: Path) -> None:
    file = notebook(
        tmp_path / "two.ipynb",
        "%flow new a\n",
        "%%flow source x\nyield 1",
        "%flow sink out collect --from x",
        "%flow new b",
        "%%flow source x\nyield 2",
        "%flow use a",
        "%%flow map y --from x\nvalue",
    )
    assert list(load_flow(file, "a").nodes) == ["x", "out", "y"]
    assert list(load_flow(file, "b").nodes) == ["x"]


def test_an_error_in_a_notebook_names_the_cell(tmp_path: Path) -> None:
    file = notebook(tmp_path / "bad.ipynb", "x = 1", "%%flow source numbers\ny = = 2")
    with pytest.raises(FlowError) as caught:
        load_flow(file)
    assert str(caught.value) == (
        "JF711 bad.ipynb, cell 2: %%flow source numbers, line 2: invalid syntax - in 'y = = 2' at '= 2'"
    )


def test_a_needed_cell_that_fails_is_named(tmp_path: Path) -> None:
    file = notebook(tmp_path / "bad.ipynb", "limit = 1 / 0", "%%flow source numbers\nyield limit")
    with pytest.raises(FlowError, match=r"JF723 bad.ipynb, cell 1, line 1: ZeroDivisionError"):
        load_flow(file)


def test_a_notebook_without_cells_for_us_says_so(tmp_path: Path) -> None:
    with pytest.raises(FlowError, match="JF724"):
        load_flow(notebook(tmp_path / "none.ipynb", "x = 1"))
    with pytest.raises(FlowError, match="JF722"):
        load_flow(script(tmp_path / "no.ipynb", "{}"))


def test_a_cell_that_only_prints_is_not_taken_for_a_node_that_prints(tmp_path: Path) -> None:
    file = notebook(
        tmp_path / "prints.ipynb",
        "print('nothing', run.state)",
        "%%flow source numbers\nprint('one')\nyield 1",
        "len(run.collect('seen'))",
    )
    assert list(load_flow(file).nodes) == ["numbers"]


def test_a_builtin_that_a_cell_makes_anew_is_taken_from_it(tmp_path: Path) -> None:
    file = notebook(
        tmp_path / "own.ipynb",
        "sum = [1, 2]",
        "sum.append(3)",
        "%%flow source numbers\nyield from sum",
        "%flow sink seen collect --from numbers",
    )
    assert load_flow(file).run().wait(20).collect("seen") == [1, 2, 3]


def test_names_in_braces_are_filled_in(tmp_path: Path) -> None:
    file = notebook(
        tmp_path / "braces.ipynb",
        "RATE = 500",
        "WHERE = 'numbers'",
        "TIMES = 1 / 0",
        "%%flow source numbers --rate {RATE * 2}\nyield 1",
        "%flow sink seen collect --from $WHERE",
    )
    flow = load_flow(file)
    assert flow.nodes["numbers"].options["rate"] == 1000.0
    assert flow.upstreams("seen") == ["numbers"]


def test_comments_above_a_magic_and_behind_a_command_are_left_out(tmp_path: Path) -> None:
    file = notebook(
        tmp_path / "comments.ipynb",
        "%flow new prices   # don't stop",
        "# the bids\n\n%%flow source bids\nraise ValueError('here')",
    )
    flow = load_flow(file)
    assert flow.name == "prices"
    with pytest.raises(ValueError, match="here") as caught:
        flow.nodes["bids"].fn()
    assert caught.traceback[-1].lineno + 1 == 4
