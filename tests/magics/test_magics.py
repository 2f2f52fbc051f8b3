"""What a person sees who works with the magics."""

import io
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from jupyterflow.model import FlowError

FACTORS = """%%flow map factors --from numbers --parallelism 2
def factors(n: int) -> list[int]:
    return [i for i in range(1, n + 1) if n % i == 0]
"""


def run(shell: Any, cell: str) -> Any:
    """Run a cell; its error is raised."""
    result = shell.run_cell(cell, store_history=True)
    result.raise_error()
    return result.result


def session(shell: Any) -> Any:
    return shell.magics_manager.registry["FlowMagics"].session


def three_cells(shell: Any) -> None:
    run(shell, "%%flow source numbers\nyield from range(1, 101)")
    run(shell, FACTORS)
    run(shell, "%%flow sink show --from factors\nif len(value) == 9:\n    print('nine', value[-1])")
    run(shell, "%flow sink seen collect --from factors")


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come true in time"
        time.sleep(0.02)


def refused(shell: Any, cell: str, capsys: Any) -> str:
    """The one line that a cell is refused with; the flow is as it was."""
    before = json.dumps(session(shell).flow.to_dict(), default=repr)
    capsys.readouterr()
    result = shell.run_cell(cell)
    assert isinstance(result.error_in_exec, FlowError)
    assert json.dumps(session(shell).flow.to_dict(), default=repr) == before
    shown = capsys.readouterr()
    lines = [line for line in (shown.out + shown.err).splitlines() if line]
    assert lines == [str(result.error_in_exec)]
    return lines[0]


def test_three_cells_run_in_process(shell: Any, capsys: Any) -> None:
    three_cells(shell)
    run(shell, "run = %flow run")
    run(shell, "run.wait(30)")
    assert len(run(shell, "run.collect('seen')")) == 100
    assert "nine 36" in capsys.readouterr().out
    assert run(shell, "factors(12)") == [1, 2, 3, 4, 6, 12]


def test_a_cell_shows_its_nodes_readout(shell: Any, capsys: Any) -> None:
    run(shell, "%%flow source numbers\nyield 1")
    assert capsys.readouterr().out.startswith("numbers · draft")


def test_the_graph_is_shown_as_text_where_there_is_no_front_end(shell: Any, capsys: Any) -> None:
    three_cells(shell)
    capsys.readouterr()
    run(shell, "%flow")
    assert capsys.readouterr().out.splitlines()[1] == " +--> factors (c 1)"


def test_running_a_cell_again_replaces_the_node_in_its_place(shell: Any) -> None:
    three_cells(shell)
    flow = session(shell).flow
    flow.nodes["factors"].position = (10.0, 20.0)
    edges = list(flow.edges)
    run(shell, "%%flow filter factors\nvalue % 2")
    assert flow.nodes["factors"].kind == "filter"
    assert flow.nodes["factors"].code == "value % 2\n"
    assert flow.nodes["factors"].position == (10.0, 20.0)
    assert flow.edges == edges


def test_from_connects_a_node_anew(shell: Any) -> None:
    three_cells(shell)
    run(shell, "%%flow source more\nyield 1")
    run(shell, FACTORS.replace("--from numbers", "--from more"))
    assert session(shell).flow.upstreams("factors") == ["more"]
    assert session(shell).flow.downstreams("factors") == ["show", "seen"]


def test_nodes_without_code_need_no_cell(shell: Any) -> None:
    three_cells(shell)
    run(shell, "%%flow key_by same --from numbers\nvalue % 3")
    run(shell, "%flow count n --from same --emit end")
    run(shell, "%%flow union all --from n factors\n")
    assert session(shell).flow.upstreams("all") == ["n", "factors"]
    assert session(shell).flow.nodes["n"].options == {"emit": "end"}


def test_folds_and_keyed_state_in_cells(shell: Any) -> None:
    run(shell, "%%flow source numbers\nreturn list(range(100))")
    run(shell, "%%flow key_by parity --from numbers\nvalue % 2")
    run(shell, "%%flow aggregate total --from parity --initial 0 --emit end\nacc + value")
    run(shell, "%%flow filter firsts --from parity\nnew = not state\nstate['seen'] = True\nnew")
    run(shell, "%flow sink totals collect --from total\n%flow sink seen collect --from firsts")
    run(shell, "run = %flow run")
    run(shell, "run.wait(30)")
    records = run(shell, "run.records('totals')")
    assert {record.key: record.value for record in records} == {0: 2450, 1: 2500}
    assert sorted(run(shell, "run.collect('seen')")) == [0, 1]


def test_async_cells_run(shell: Any) -> None:
    run(shell, "%%flow source numbers\nyield from range(10)")
    run(shell, "%%flow map later --from numbers --concurrency 4\nimport asyncio\nawait asyncio.sleep(0)\nvalue * 2")
    run(shell, "%flow sink seen collect --from later")
    run(shell, "run = %flow run")
    run(shell, "run.wait(30)")
    assert run(shell, "run.collect('seen')") == list(range(0, 20, 2))


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        ("%%flow map x --from numbers\ny = = 2", "JF711 %%flow map x, line 2: invalid syntax - in 'y = = 2' at '= 2'"),
        ("%%flow map factors\nreturn (", "JF711"),
        ("%%flow map x --from nubmers\n1", "did you mean 'numbers'?"),
        ("%%flow map x --from x\n1", "JF107"),
        ("%%flow map x\n1", "JF105"),
        ("%%flow map x --from numbers --paralelism 2\n1", "did you mean 'parallelism'?"),
        ("%%flow map x --from numbers --parallelism 0\n1", "JF111"),
        ("%%flow map x --from numbers --name y\n1", "JF110"),
        ("%%flow map x --from numbers\ndef x(a, b, c): ...", "JF112"),
        ("%%flow mapp x --from numbers\n1", "did you mean 'map'?"),
        ("%%flow map x --from numbers\n", "JF712"),
        ("%%flow count x --from numbers\nvalue", "JF713"),
        ("%%flow source x file:y\nvalue", "JF713"),
        ("%%flow aggregate x --from numbers\nacc", "--initial"),
        ("%%flow source x --from numbers\n1", "JF105"),
        ("%%flow run\n1", "on a line of its own"),
        ("%flow source x", "or a URL"),
        ("%flow source x kafak://y", "did you mean 'kafka'?"),
        ("%flow stauts", "did you mean 'status'?"),
        ("%flow up --wrokers 3", "did you mean '--workers'?"),
        ("%flow up --workers many", "JF713"),
        ("%flow use flwo", "did you mean 'flow'?"),
        ("%flow rm factrs", "did you mean 'factors'?"),
        ("%flow stop", "%flow run starts it here"),
        ("%flow deploy", "%flow up starts one here"),
        ("%flow workers", "JF717"),
        ("%flow import nowhere.json", "JF718"),
        ("%flow tap nubmers", "JF104"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(shell: Any, capsys: Any, cell: str, line: str) -> None:
    three_cells(shell)
    assert line in refused(shell, cell, capsys)


def test_flows_are_made_used_listed_and_removed(shell: Any) -> None:
    run(shell, "%flow new prices")
    run(shell, "%%flow source bids\nyield 1")
    run(shell, "%flow new other")
    assert [row["flow"] for row in run(shell, "%flow ls")] == ["prices", "other"]
    run(shell, "%flow use prices")
    assert list(session(shell).flow.nodes) == ["bids"]
    run(shell, "%flow rm other")
    run(shell, "%flow rm bids")
    assert session(shell).flow.nodes == {}
    run(shell, "%flow rm prices")
    assert session(shell).flows == {}


def test_a_notebook_that_is_run_again_goes_on_with_its_flow(shell: Any, capsys: Any) -> None:
    for _ in range(2):
        run(shell, "%flow new prices")
        run(shell, "%%flow source bids\nyield 1")
        run(shell, "%flow sink seen collect --from bids")
    assert "flow 'prices' is there already, with 2 nodes" in capsys.readouterr().out
    assert list(session(shell).flow.nodes) == ["bids", "seen"]


def test_down_says_when_nothing_is_up(shell: Any, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERFLOW_DIR", str(tmp_path))
    run(shell, "%flow down   # here")
    assert capsys.readouterr().out == "no workers or Kafka were up here\n"


def test_tables_say_times_and_sizes_as_people_read_them() -> None:
    from jupyterflow.magics._rows import DeadLetters, workers

    stamp = datetime(2026, 1, 2, 3, 4, 5)
    letters = DeadLetters([{"node": "bad", "traceback": "Traceback", "timestamp": int(stamp.timestamp() * 1000)}])
    assert repr(letters).splitlines()[0].split() == ["node", "timestamp"]
    assert "2026-01-02 03:04:05" in repr(letters)
    assert letters[0]["traceback"] == "Traceback"
    assert workers([{"memory": 123_456_789, "key": "x", "name": "w"}]) == [{"name": "w", "memory": "123 MB"}]


def test_the_last_step_stays_where_that_is_wanted() -> None:
    from jupyterflow.magics._rows import Steps

    for keep, end in ((True, "\rstarting Kafka\n"), (False, "\r" + " " * 14 + "\r")):
        out = io.StringIO()
        with Steps(out, live=True, keep=keep) as steps:
            steps("starting Kafka")
        assert out.getvalue().endswith(end)


def test_metrics_status_and_tables(shell: Any) -> None:
    three_cells(shell)
    assert run(shell, "%flow status")[0]["state"] == "draft"
    run(shell, "run = %flow run")
    run(shell, "run.wait(30)")
    metrics = run(shell, "%flow metrics")
    assert {row["node"]: row["records_in"] for row in metrics}["factors"] == 100
    assert repr(metrics).splitlines()[0].startswith("node     records_in  records_out")
    assert (
        run(shell, "%flow status")[0] | {"nodes": 4, "state": "finished", "where": "this process"}
        == run(shell, "%flow status")[0]
    )


def test_dead_letters_are_listed(shell: Any) -> None:
    three_cells(shell)
    run(shell, "%%flow map bad --from numbers\n1 / (value - 5)")
    run(shell, "run = %flow run")
    run(shell, "run.wait(30)")
    (letter,) = run(shell, "%flow dead-letters bad")
    assert (letter["node"], letter["value"], letter["error"]) == ("bad", 5, "ZeroDivisionError: division by zero")
    assert "line 2" in letter["traceback"]
    assert "1 / (value - 5)" in letter["traceback"]


def test_running_again_ends_the_first_run(shell: Any) -> None:
    run(shell, "%%flow source numbers --rate 100\nwhile True:\n    yield 1")
    run(shell, "%flow sink seen collect --from numbers")
    first = run(shell, "first = %flow run\nfirst")
    second = run(shell, "second = %flow run\nsecond")
    assert first.state == "stopped"
    wait_for(lambda: bool(second.collect("seen")))
    run(shell, "%flow stop")
    assert second.state == "stopped"


def test_a_flow_goes_out_to_json_and_comes_back_with_its_code(shell: Any, tmp_path: Path) -> None:
    three_cells(shell)
    run(shell, f"%flow export {tmp_path}/flow.json")
    before = session(shell).flow.to_dict()
    run(shell, "%flow rm flow")
    run(shell, f"%flow import {tmp_path}/flow.json")
    assert session(shell).flow.to_dict() == before
    run(shell, "run = %flow run")
    run(shell, "run.wait(30)")
    assert len(run(shell, "run.collect('seen')")) == 100


def test_help_lists_every_command_and_each_has_its_own(shell: Any, capsys: Any) -> None:
    from jupyterflow.magics._commands import COMMANDS

    run(shell, "%flow --help")
    shown = capsys.readouterr().out
    words = "new use ls rm up connect attach down workers scale run deploy stop terminate status metrics tree explain"
    named = {*words.split(), "tap", "dead-letters", "export", "import"}
    assert set(COMMANDS) == named
    for name in named:
        assert f"  {name} " in shown
        run(shell, f"%flow {name} -h")
        assert f"usage: %flow {name}" in capsys.readouterr().out


def test_jupyterflow_is_the_same_magic(shell: Any) -> None:
    run(shell, "%%jupyterflow source numbers\nyield 1")
    run(shell, "%jupyterflow sink seen collect --from numbers")
    assert list(session(shell).flow.nodes) == ["numbers", "seen"]


def test_a_traceback_counts_blank_lines_above_the_magic(shell: Any) -> None:
    run(shell, "\n\n%%flow source x\nraise ValueError('here')")
    fn = session(shell).flow.nodes["x"].fn
    with pytest.raises(ValueError, match="here") as caught:
        fn()
    assert caught.traceback[-1].lineno + 1 == 4


def test_comments_above_the_magic_are_no_matter_and_count_in_a_traceback(shell: Any) -> None:
    run(shell, "# first\n\n  # second\n%%flow source x\nraise ValueError('here')")
    fn = session(shell).flow.nodes["x"].fn
    with pytest.raises(ValueError, match="here") as caught:
        fn()
    assert caught.traceback[-1].lineno + 1 == 5
    run(shell, "# a sink\n%%flow sink seen collect --from x")
    assert session(shell).flow.upstreams("seen") == ["x"]
    assert run(shell, "# plain\n1 + 1") == 2


def test_unloading_ends_runs_and_takes_the_magics_away(shell: Any) -> None:
    run(shell, "%%flow source numbers --rate 100\nwhile True:\n    yield 1")
    run(shell, "%flow sink seen collect --from numbers")
    running = run(shell, "running = %flow run\nrunning")
    run(shell, "%unload_ext jupyterflow.magics")
    assert running.state == "stopped"
    assert shell.find_line_magic("flow") is None
    assert shell.find_cell_magic("jupyterflow") is None
    run(shell, "%load_ext jupyterflow.magics")
    assert shell.find_line_magic("flow") is not None


def test_another_extensions_flow_magic_is_left_alone(shell: Any) -> None:
    run(shell, "%unload_ext jupyterflow.magics")
    shell.register_magic_function(lambda line: "theirs", "line", "flow")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run(shell, "%load_ext jupyterflow.magics")
        assert [str(w.message) for w in caught if "another extension" in str(w.message)]
        assert run(shell, "%flow") == "theirs"
        run(shell, "%%jupyterflow source numbers\nyield 1")
    finally:
        del shell.magics_manager.magics["line"]["flow"]


def test_loading_imports_nothing_heavy() -> None:
    code = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "shell.run_line_magic('load_ext', 'jupyterflow')\n"
        "import sys\n"
        "print([m for m in ('aiokafka', 'ipycytoscape', 'pandas', 'ipywidgets', 'dill') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
