"""`jupyter flow` with a Kafka and workers of its own."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyterflow.app import main
from jupyterflow.cluster import check

pytestmark = pytest.mark.kafka

FLOW = """
import itertools
import jupyterflow as jf

flow = jf.Flow("numbers")

def endless():
    yield from itertools.count()

flow.source("numbers", endless, rate=200).map("doubled", lambda n: n * 2).sink("seen", "collect")
"""
MAIN = "import sys; from jupyterflow.app import main; sys.exit(main())"


@pytest.fixture
def own_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cluster's home for one test; what is up there is taken down."""
    with tempfile.TemporaryDirectory(prefix="jfs", dir="/tmp" if os.path.isdir("/tmp") else None) as folder:
        monkeypatch.setenv("JUPYTERFLOW_DIR", folder)
        yield Path(folder)
        assert main(["down", "--purge"]) == 0
        check.close()


def shown(capsys: Any, *argv: str) -> Any:
    """What a command prints with `--json`."""
    capsys.readouterr()
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.timeout(180)
def test_a_flows_life_from_the_shell(own_home: Path, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "numbers_flow.py"
    file.write_text(FLOW)
    up = shown(capsys, "up", "--workers=1")
    assert len(up["workers"]) == 1
    assert up["disk_bytes"] > 0
    assert main(["deploy", str(file)]) == 0
    assert "flow 'numbers' version 1" in capsys.readouterr().out
    limit = time.monotonic() + 60
    while not shown(capsys, "status", "numbers")["metrics"][-1]["records_in"]:
        assert time.monotonic() < limit, "nothing came"
    assert [row["name"] for row in shown(capsys, "ls")] == ["numbers"]
    assert [row["pid"] for row in shown(capsys, "workers")] == [up["workers"][0]["pid"]]
    capsys.readouterr()
    assert main(["tap", "numbers", "doubled", "--count=2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["tap", "numbers", "dubled"]) == 1
    assert "did you mean 'doubled'?" in capsys.readouterr().err
    assert main(["attach", "numbers", "--timeout=1"]) == 124
    assert "doubled" in capsys.readouterr().out
    assert main(["stop", "numbers"]) == 0
    assert shown(capsys, "status", "numbers")["state"] == "stopped"
    assert main(["terminate", "numbers"]) == 0
    assert main(["rm", "numbers"]) == 0
    assert shown(capsys, "ls") == []
    assert main(["attach", "numbers"]) == 1
    assert main(["down"]) == 0
    assert main(["ls"]) == 1


def test_the_demo_counts_the_same_words_as_a_loop(tmp_path: Path) -> None:
    from jupyterflow.app._demo import count_independently, word_count

    (tmp_path / "sub").mkdir()
    (tmp_path / "a.py").write_bytes("one two\x0ctwo\r\n\r\nthrée \xff".encode("latin-1"))
    (tmp_path / "sub" / "b.py").write_text("two")
    (tmp_path / "c.txt").write_text("no")
    run = word_count(tmp_path, 2).run().wait(30)
    counts = {record.key: record.value for record in run.records("counts")}
    assert counts == count_independently(tmp_path) == Counter(["one", "two", "two", "two", "thr\ufffde", "\ufffd"])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(signal_number: int) -> None:
    before = set(Path(tempfile.gettempdir()).glob("jfdemo*"))
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    told = ""
    limit = time.monotonic() + 60
    while "workers" not in told:
        assert time.monotonic() < limit
        if select.select([process.stderr], [], [], 1)[0]:
            told += process.stderr.readline()
    (home,) = set(Path(tempfile.gettempdir()).glob("jfdemo*")) - before
    process.send_signal(signal_number)
    _, err = process.communicate(timeout=60)
    if signal_number == signal.SIGINT:
        assert err.splitlines()[-1] == "interrupted"
        assert process.returncode == 130
    else:
        assert process.returncode == 143
    assert not home.exists()
    assert not [p for p in psutil.process_iter() if str(home) in " ".join(_command(p))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_demo_ends_with_the_equal_counts() -> None:
    done = subprocess.run([sys.executable, "-c", MAIN, "demo"], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("OK ")
    assert last.endswith(" distinct, equal to the independent count")
