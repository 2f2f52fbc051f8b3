"""Kafka's jars, its console tools, and where things live."""

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from jupyterflow.broker import LocalBroker, cache, home, key_file
from jupyterflow.broker._install import install
from jupyterflow.broker._probe import cluster_at
from jupyterflow.broker.tools import CONSUMER, PRODUCER, TOPICS, console
from jupyterflow.model import FlowError, FlowTimeout


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")


def test_without_a_network_the_missing_jars_are_one_line(
    offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTERFLOW_CACHE", str(tmp_path))
    # What a killed install left.
    (tmp_path / "kafka-4.3.1").mkdir()
    (tmp_path / "kafka-4.3.1" / "half.jar").write_bytes(b"PK")
    with pytest.raises(FlowError, match=r"JF502 .*network") as caught:
        install()
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["install.lock"]


@pytest.mark.kafka
def test_installed_jars_need_no_network(broker: LocalBroker, offline: None) -> None:
    told: list[str] = []
    assert list(install(told.append).glob("kafka_*.jar"))
    assert told == []


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JUPYTERFLOW_CACHE", str(tmp_path / "file"))
    with pytest.raises(FlowError, match=r"JF502 .*JUPYTERFLOW_CACHE"):
        install()


def test_records_go_round_through_kafkas_own_tools(broker: LocalBroker) -> None:
    server = ("--bootstrap-server", broker.bootstrap)
    made = console(TOPICS, *server, "--create", "--topic", "round", "--partitions", "1")
    assert made.returncode == 0, made.stderr
    console(PRODUCER, *server, "--topic", "round", input="grüße\n二\n")
    got = console(CONSUMER, *server, "--topic", "round", "--from-beginning", "--max-messages", "2")
    assert got.stdout.splitlines() == ["grüße", "二"]
    assert got.returncode == 0


def test_a_tool_that_does_not_end_is_ended(broker: LocalBroker) -> None:
    with pytest.raises(FlowTimeout, match=r"JF507"):
        console(CONSUMER, "--bootstrap-server", broker.bootstrap, "--topic", "nothing", timeout=0.5)


def test_the_probe_knows_kafka_from_others(broker: LocalBroker) -> None:
    import socket

    assert cluster_at(broker.bootstrap)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert cluster_at(address, timeout=0.1) is None  # says nothing

        def greet() -> None:
            connection, _ = server.accept()  # the one that was left waiting
            connection.close()
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.recv(1000)

        greeter = threading.Thread(target=greet)
        greeter.start()
        assert cluster_at(address, timeout=2) is None
        greeter.join(10)
    assert cluster_at(address, timeout=1) is None  # nobody listens any more
    assert cluster_at("nonsense") is None


def test_places_follow_the_environment_at_call_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERFLOW_DIR", str(tmp_path / "d"))
    monkeypatch.setenv("JUPYTERFLOW_CACHE", str(tmp_path / "c"))
    assert (home(), cache(), key_file()) == (tmp_path / "d", tmp_path / "c", tmp_path / "d" / "key")
    monkeypatch.setenv("JUPYTERFLOW_KEY_FILE", str(tmp_path / "k"))
    assert key_file() == tmp_path / "k"


def test_places_are_jupyters_and_the_platforms_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JUPYTERFLOW_DIR", "JUPYTERFLOW_CACHE", "JUPYTERFLOW_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    assert home() == tmp_path / "jupyterflow"
    assert key_file() == home() / "key"
    assert cache().name == "jupyterflow"


def test_two_installs_at_once_leave_one_whole_set(broker: LocalBroker) -> None:
    code = "from jupyterflow.broker._install import install; print(install())"
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert len({run.communicate(timeout=60)[0] for run in runs}) == 1


@pytest.mark.slow
@pytest.mark.kafka
def test_a_preparation_that_was_killed_is_cleared_away_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "kafka-4.3.1"
    ours.mkdir()
    for path in [*install().glob("*.jar"), install() / "complete"]:
        shutil.copy2(path, ours)
    monkeypatch.setenv("JUPYTERFLOW_CACHE", str(tmp_path))
    code = "from jupyterflow.broker import tools; tools.console(tools.TOPICS, '--version')"

    def training() -> list[psutil.Process]:
        mark = f"-Djupyterflow.training={ours}"
        return [process for process in psutil.process_iter(["cmdline"]) if mark in (process.info["cmdline"] or ())]

    starter = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not training():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    orphan = training()
    starter.kill()
    starter.wait()
    assert console(TOPICS, "--version").stdout.startswith("4.3.1")
    assert not any(process.is_running() for process in orphan)
    assert training() == []
    assert len(list(ours.glob("*.aot"))) == 1
    assert not list(tmp_path.glob("train-*"))
