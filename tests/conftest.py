"""What every test shares: a home of its own, one local broker, and the proof that no process is left behind."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import HealthCheck, settings

from jupyterflow import broker as kafka
from jupyterflow.broker import LocalBroker

if TYPE_CHECKING:
    from psutil import Process

    from jupyterflow.cluster.client import Cluster

# Machines are noisy: how long an example takes says nothing.
settings.register_profile("noisy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("noisy")

# Every process that a test starts inherits it, however detached it is.
_MARK, _TOKEN = "JUPYTERFLOW_TEST_SESSION", uuid.uuid4().hex


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"broker", "cluster"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.kafka)


@pytest.fixture(scope="session", autouse=True)
def flow_home() -> Iterator[Path]:
    """`JUPYTERFLOW_DIR` of the session: an empty folder, with a path short enough for IPC sockets in it."""
    base = "/tmp" if os.path.isdir("/tmp") else None
    home = Path(tempfile.mkdtemp(prefix="jf", dir=base)).resolve()
    with pytest.MonkeyPatch.context() as patch:
        # Fixed here, so that a test that moves HOME does not fetch Kafka again.
        patch.setenv("JUPYTERFLOW_CACHE", str(kafka.cache()))
        patch.setenv("JUPYTERFLOW_DIR", str(home))
        patch.delenv("JUPYTERFLOW_KEY_FILE", raising=False)
        patch.setenv(_MARK, _TOKEN)
        yield home
        left = _left_behind()
        told = [_describe(process) for process in left]
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=5)
        shutil.rmtree(home, ignore_errors=True)
    if told:
        pytest.fail("processes left by the tests (now killed):\n" + "\n".join(told), pytrace=False)


@pytest.fixture(scope="session")
def broker(flow_home: Path) -> Iterator[LocalBroker]:
    """The session's local Kafka."""
    yield kafka.start(home=flow_home)
    # Not the one that was started: a test may have killed and restarted it.
    if running := kafka.find(flow_home):
        running.stop()


@pytest.fixture(scope="session")
def bootstrap(broker: LocalBroker) -> str:
    """The address of the session's Kafka, `127.0.0.1:PORT`."""
    return broker.bootstrap


@pytest.fixture(scope="session")
def cluster(broker: LocalBroker, flow_home: Path) -> "Iterator[Cluster]":
    """A cluster with two workers on the session's Kafka; each test has a flow name of its own."""
    from jupyterflow.cluster import check, slots, up

    cluster = up(workers=2)
    yield cluster
    cluster.close()
    slots.stop(home=flow_home)
    check.close()


@pytest.fixture
def name(request: pytest.FixtureRequest, cluster: "Cluster") -> Iterator[str]:
    """A flow's name, of this test alone; what it deployed under names that begin so is removed after the test."""
    unique = f"t{uuid.uuid4().hex[:8]}"
    yield unique
    for row in cluster.deployments:
        if row["name"].startswith(unique):
            cluster.remove(row["name"])


def _left_behind() -> "list[Process]":
    """The processes of this session that do not end within 5 s by themselves."""
    found = {process.pid: process for process in psutil.Process().children(recursive=True)}
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == _TOKEN:
                found.setdefault(process.pid, process)
        except (psutil.Error, OSError):
            continue
    found.pop(os.getpid(), None)
    # Python's own; it ends with this process.
    suspects = [process for process in found.values() if "resource_tracker" not in _describe(process)]
    _, alive = psutil.wait_procs(suspects, timeout=5)
    return [process for process in alive if _describe(process)]


def _describe(process: "Process") -> str:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
        return f"  {process.pid} {' '.join(process.cmdline())[:300]}"
    except psutil.Error:
        return ""
