"""`jupyter flow` without a cluster: what it prints, and its exit codes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jupyterflow.app import main

NUMBERS = """
import jupyterflow as jf

flow = jf.Flow("numbers")
flow.source("numbers", list(range(5))).map("doubled", lambda n: n * 2).sink("show", print)
"""
ENDLESS = """
import itertools
import jupyterflow as jf

flow = jf.Flow("endless")
flow.source("numbers", itertools.count, rate=100).sink("show", print)
"""


@pytest.fixture
def numbers(tmp_path: Path) -> str:
    (tmp_path / "numbers_flow.py").write_text(NUMBERS)
    return str(tmp_path / "numbers_flow.py")


@pytest.fixture
def endless(tmp_path: Path) -> str:
    (tmp_path / "endless_flow.py").write_text(ENDLESS)
    return str(tmp_path / "endless_flow.py")


def test_run_prints_what_its_sinks_print(numbers: str, capsys: Any) -> None:
    assert main(["run", numbers]) == 0
    shown = capsys.readouterr()
    assert shown.out == "0\n2\n4\n6\n8\n"
    assert shown.err == "flow 'numbers' finished\n"


def test_run_for_machines_prints_one_json_object(numbers: str, capsys: Any) -> None:
    assert main(["run", numbers, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["flow"], data["state"]) == ("numbers", "finished")
    assert {row["node"]: row["records_in"] for row in data["metrics"]} == {"numbers": 5, "doubled": 5, "show": 5}


def test_run_that_takes_too_long_is_124(endless: str, capsys: Any) -> None:
    assert main(["run", endless, "--timeout=0.3"]) == 124
    assert capsys.readouterr().err.startswith("JF405 flow 'endless' is still running after 0.3 s")


def test_a_flow_that_fails_is_1(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "failing.py"
    file.write_text(NUMBERS.replace("lambda n: n * 2", "lambda n: 1 / n, on_error='fail'"))
    assert main(["run", str(file)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("JF4")
    assert "division by zero" in line


def test_tree_and_explain_show_a_flow(numbers: str, capsys: Any) -> None:
    assert main(["tree", numbers]) == 0
    assert capsys.readouterr().out == "numbers (c 1)\n +--> doubled (c 1)\n       +--> show (c 1)\n"
    assert main(["explain", numbers]) == 0
    assert "Physical" in capsys.readouterr().out
    assert main(["tree", "--json", numbers]) == 0
    assert json.loads(capsys.readouterr().out)["edges"] == [["numbers", "doubled"], ["doubled", "show"]]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["rnu"], "JF721 there is no command 'rnu' - did you mean 'run'?"),
        (["run"], "JF721 usage: jupyter flow run FILE"),
        (["tap", "prices"], "JF721 usage: jupyter flow tap NAME NODE"),
        (["ls", "--bootstarp=x"], "JF721 there is no option 'bootstarp' - --help lists them"),
        (["run", "flow.py", "--foo"], "JF721 there is no option 'foo' - --help lists them"),
        (["run", "flow.py", "--timeout"], "JF721 --timeout needs a value - --help shows which"),
        (["scale", "many"], "JF721 usage: jupyter flow scale N - N is a number, not 'many'"),
    ],
)
def test_wrong_usage_is_2_and_one_line(argv: list[str], line: str, capsys: Any) -> None:
    assert main(argv) == 2
    assert capsys.readouterr().err == line + "\n"


def test_an_option_of_the_wrong_type_is_2(numbers: str) -> None:
    assert main(["run", numbers, "--timeout=soon"]) == 2


def test_without_a_command_the_help_is_shown(capsys: Any) -> None:
    assert main([]) == 2
    shown = capsys.readouterr().out
    words = "demo run deploy up down worker ls attach status stop terminate rm tap workers scale explain tree key"
    for word in words.split():
        assert f"\n{word}\n" in shown
        assert main([word, "--help"]) == 0
    assert main(["run", "--help-all"]) == 0
    assert main(["--version"]) == 0


def test_a_kafka_that_is_not_there_is_1_and_one_line(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTERFLOW_KEY_FILE", str(tmp_path / "key"))
    assert main(["key"]) == 0
    assert main(["ls", "--bootstrap=127.0.0.1:1"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("JF5")
    assert "127.0.0.1:1" in line


def test_down_says_when_nothing_is_up(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERFLOW_DIR", str(tmp_path))
    assert main(["down"]) == 0
    assert capsys.readouterr().out == "no workers or Kafka were up here\n"
    assert main(["ls"]) == 1
    assert "`jupyter flow up`" in capsys.readouterr().err


def test_key_makes_a_key_and_says_where_never_what(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTERFLOW_KEY_FILE", str(tmp_path / "mine"))
    assert main(["key"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/mine\n"
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o600
    made = (tmp_path / "mine").read_text()
    assert main(["key"]) == 0
    assert (tmp_path / "mine").read_text() == made


def test_options_come_from_a_config_file(numbers: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "jupyter_flow_config.py").write_text("c.Command.json = True\n")
    assert main(["tree", numbers, f"--config={tmp_path}/jupyter_flow_config.py"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "numbers"


def test_ctrl_c_is_one_line_and_130(endless: str) -> None:
    command = [sys.executable, "-c", "import sys; from jupyterflow.app import main; sys.exit(main())", "run", endless]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=20)
    assert shown == "interrupted\n"
    assert process.returncode == 130
