"""What a worker makes of the manifests it sees, without Kafka."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from jupyterflow.cluster import worker as module
from jupyterflow.cluster.worker import Worker
from jupyterflow.model import FlowError

MANIFEST: dict[str, Any] = {
    "key": "a", "epoch": "1", "shape": [], "guarantee": "", "session_timeout": 10, "state": "running", "stop": 0,
    "revision": 1, "version": 1, "stages": {"s": 1}, "flow": {"name": "a"},
}  # fmt: skip


class Runner:
    error: FlowError | None = None
    tasks: tuple[str, ...] = ()

    def __init__(self, loaded: Any, *_: Any) -> None:
        self.manifest = loaded

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr(module, "FlowRunner", Runner)
    monkeypatch.setattr(module, "_settle_collector", lambda: None)
    published: list[Any] = []
    control = SimpleNamespace(
        tables={"deployments": {}, "telemetry": {}, "code": {}},
        publish=lambda what, key, body: published.append((key, body["revision"], body["state"])),
        published=published,
    )
    made = Worker("w", control)  # type: ignore[arg-type]
    monkeypatch.setattr(made, "_load", lambda manifest: manifest)
    return made


def test_a_manifest_that_cannot_be_read_does_not_keep_others_from_running(worker: Worker) -> None:
    worker.control.tables["deployments"].update(broken={"state": "running"}, a=MANIFEST)
    worker._reconcile()
    assert list(worker._runners) == ["a"]


def test_an_error_of_an_older_revision_does_not_fail_what_was_deployed_since(worker: Worker) -> None:
    deployments = worker.control.tables["deployments"]
    deployments["a"] = MANIFEST
    worker._reconcile()
    worker._runners["a"].error = FlowError("JF404", "it failed")
    worker._reconcile()
    assert worker.control.published == [("a", 1, "failed")]  # type: ignore[attr-defined]
    deployments["a"] = {**MANIFEST, "revision": 2, "version": 2}
    worker._reconcile()
    assert worker.control.published == [("a", 1, "failed")]  # type: ignore[attr-defined]
    assert worker._runners["a"].manifest["revision"] == 2
    assert worker._runners["a"].error is None
