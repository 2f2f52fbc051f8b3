"""Worker slots outlive who started them, restart what dies, and leave nothing when they are stopped."""

import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyterflow.cluster import slots
from jupyterflow.model import FlowError, FlowTimeout


def until(condition: Callable[[], Any], timeout: float = 20.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)
    return found


def gone(*pids: int | None) -> bool:
    def dead(pid: int | None) -> bool:
        try:
            return pid is None or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return all(map(dead, pids))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]))
    yield tmp_path
    for slot in slots.list(tmp_path):
        os.kill(slot.pid, signal.SIGKILL)
    until(lambda: not slots.list(tmp_path))


def start(home: Path, n: int = 1, entry: str = "start", **options: Any) -> list[slots.Slot]:
    started = slots.start(
        n,
        home=home,
        bootstrap="localhost:1",
        entry=f"slot_worker:{entry}",
        settings={"file": str(home / "file")},
        **options,
    )
    return slots.wait_ready(home, [slot.name for slot in started])


def test_slots_start_side_by_side_and_stop_without_a_trace(home: Path) -> None:
    one, two = start(home, 2, labels=["gpu"])
    assert one.name != two.name
    assert one.labels == ("gpu",)
    assert one.bootstrap == "localhost:1"
    assert Path(str(one.connection_file)).is_file()
    assert slots.list(home) == [one, two]
    (third,) = start(home)
    assert slots.stop([two.name], home=home) == [two.name]
    assert [slot.name for slot in slots.list(home)] == [one.name, third.name]
    (again,) = start(home)
    assert again.name == two.name
    slots.stop(home=home)
    assert slots.list(home) == []
    assert gone(one.pid, one.kernel_pid, two.pid, two.kernel_pid, third.kernel_pid, again.kernel_pid)
    assert (home / "file").read_text() == "stopped"
    assert not Path(str(one.connection_file)).parent.exists()
    assert all(name.endswith(".log") for name in os.listdir(home / "slots"))


def test_an_interrupted_start_leaves_no_slot(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, looks = slots.list, []

    def interrupted(folder: Path) -> list[slots.Slot]:
        looks.append(folder)
        if len(looks) == 3:  # after a look for each name: both are launched
            raise KeyboardInterrupt
        return real(folder)

    monkeypatch.setattr(slots, "list", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start(home, 2)
    assert slots.list(home) == []
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(home) in (p.info["cmdline"] or [])]
    assert all(name.endswith(".log") for name in os.listdir(home / "slots"))


def test_a_kernel_killed_with_9_is_started_again_in_its_slot_at_once(home: Path) -> None:
    (slot,) = start(home)
    assert slot.kernel_pid is not None
    begun = time.monotonic()
    os.kill(slot.kernel_pid, signal.SIGKILL)
    until(lambda: slots.list(home)[0].kernel_pid not in (slot.kernel_pid, None))
    noticed = time.monotonic() - begun
    after = until(lambda: next((s for s in slots.list(home) if s.ready), None))
    assert (after.name, after.pid, after.restarts, after.exit) == (slot.name, slot.pid, 1, -9)
    assert after.connection_file == slot.connection_file
    assert noticed < 2.0


def test_slots_outlive_the_process_that_started_them_even_killed_with_9(home: Path) -> None:
    program = (
        "import sys, signal, pathlib; from jupyterflow.cluster import slots;"
        "slots.start(1, home=pathlib.Path(sys.argv[1]), bootstrap='b', entry='slot_worker:start',"
        "settings={'file': sys.argv[1] + '/file'}); print('started', flush=True); signal.pause()"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", program, str(home)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert starter.stdout is not None
    assert starter.stdout.readline() == b"started\n"
    slot = slots.list(home)[0]
    assert slot.pid not in [child.pid for child in psutil.Process(starter.pid).children(recursive=True)]
    os.killpg(starter.pid, signal.SIGKILL)
    starter.wait(10)
    assert starter.stdout.read() == b""  # no pipe was inherited
    starter.stdout.close()
    (ready,) = slots.wait_ready(home, [slot.name])
    assert not gone(ready.pid)
    slots.stop(home=home)
    assert gone(ready.pid, ready.kernel_pid)


def test_slots_outlive_a_notebook_whose_kernel_is_shut_down(home: Path) -> None:
    import tempfile

    from jupyter_client.manager import KernelManager

    with tempfile.TemporaryDirectory(prefix="jf") as folder:
        manager = KernelManager(transport="ipc", connection_file=f"{folder}/kernel.json")
        manager.start_kernel()
        client = manager.client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=30)
            reply = client.execute_interactive(
                f"import pathlib; from jupyterflow.cluster import slots; slots.start(1, home=pathlib.Path({str(home)!r}),"
                f"bootstrap='b', entry='slot_worker:start', settings={{'file': {str(home / 'file')!r}}})",
                timeout=30,
            )
            assert reply["content"]["status"] == "ok"
        finally:
            client.stop_channels()
            manager.shutdown_kernel()
    (slot,) = slots.wait_ready(home, [slot.name for slot in slots.list(home)])
    assert (slot.restarts, slot.state) == (0, "running")
    assert psutil.Process(slot.kernel_pid).environ()["JPY_PARENT_PID"] == str(slot.pid)
    slots.stop(home=home)


def test_no_kernel_is_left_when_its_supervisor_is_killed_with_9(home: Path) -> None:
    (slot,) = start(home)
    os.kill(slot.pid, signal.SIGKILL)
    until(lambda: gone(slot.pid, slot.kernel_pid))
    assert slots.list(home) == []
    assert not Path(str(slot.connection_file)).parent.exists()
    assert [path.name for path in (home / "slots").iterdir()] == [f"{slot.name}.log"]


def test_a_worker_that_never_finishes_is_ended_after_its_grace(home: Path) -> None:
    (slot,) = start(home, entry="start_stubborn", grace=0.2)
    slots.stop(home=home)
    assert gone(slot.pid, slot.kernel_pid)
    (slot,) = start(home, entry="start_stubborn", grace=60.0)
    slots.stop(home=home, timeout=0.3)
    until(lambda: gone(slot.pid, slot.kernel_pid))
    assert slots.list(home) == []


def test_a_worker_that_cannot_start_is_tried_again_ever_more_slowly_and_says_why(home: Path) -> None:
    (slot,) = slots.start(1, home=home, bootstrap="b", entry="slot_worker:fail")
    with pytest.raises(FlowTimeout, match=r"JF623 worker .* is not ready after 0.1 s") as caught:
        slots.wait_ready(home, [slot.name], timeout=0.1)
    assert "\n" not in str(caught.value)
    waiting = until(lambda: next((s for s in slots.list(home) if s.restarts >= 2 and s.state == "waiting"), None))
    assert waiting.exit == 3
    assert not waiting.ready
    log = slot.log.read_text()
    assert "ValueError: no Kafka at nowhere:1" in log
    assert re.findall(r"again in (\S+) s", log)[:2] == ["0", "0.25"]


def test_a_slot_keeps_its_settings_to_its_owner_and_out_of_argv(home: Path) -> None:
    (slot,) = start(home, entry="environment", env={"JF_TEST": "seen"})
    assert (home / "file").read_text() == "seen"
    assert stat.S_IMODE((home / "slots" / f"{slot.name}.config.json").stat().st_mode) == 0o600
    for pid in (slot.pid, slot.kernel_pid):
        assert str(home / "file") not in " ".join(psutil.Process(pid).cmdline())


def test_a_console_reaches_the_worker_in_its_kernel(home: Path) -> None:
    from jupyter_client import BlockingKernelClient

    (slot,) = start(home)
    client = BlockingKernelClient(connection_file=slot.connection_file)
    client.load_connection_file()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=20)
        reply = client.execute_interactive("", user_expressions={"n": "worker.config['name']"}, timeout=20)
        assert reply["content"]["user_expressions"]["n"]["data"]["text/plain"] == repr(slot.name)
    finally:
        client.stop_channels()
    assert "TCP" not in slot.log.read_text()


def test_names_and_numbers_that_make_no_sense_are_refused(home: Path) -> None:
    with pytest.raises(FlowError, match="JF622 0 slots"):
        slots.start(0, home=home, bootstrap="b")
    with pytest.raises(FlowError, match="JF622 there is no slot 'x' on this machine"):
        slots.stop(["x"], home=home)


def test_a_slot_ends_when_its_home_is_erased(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    from jupyterflow.cluster import slot as supervisor

    monkeypatch.setattr(supervisor, "_TICK", 0.05)
    name = slots.configure(home=home, bootstrap="b", entry="slot_worker:start", settings={"file": str(home / "file")})

    async def erased() -> int:
        running = asyncio.create_task(supervisor.Supervisor(home, name).run())
        file = home / "slots" / f"{name}.ready"
        while not file.exists():
            await asyncio.sleep(0.01)
        (home / "slots" / f"{name}.config.json").unlink()
        return await running

    assert asyncio.run(asyncio.wait_for(erased(), 30)) == 0
    assert slots.list(home) == []
