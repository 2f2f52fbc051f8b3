"""The control plane: signed, in order, and of bounded size."""

from __future__ import annotations

import time
from typing import Any

import pytest
from deployed import until

import jupyterflow as jf
from jupyterflow.cluster import keys
from jupyterflow.cluster.client import Cluster
from jupyterflow.cluster.control import Control


def raw(control: Control, what: str, key: str, body: dict[str, Any]) -> None:
    """A signed message, as another version of this program might write it."""

    async def send() -> None:
        await control._producer.send_and_wait(control.topic(what), keys.seal(body, control.key), key=key.encode())

    control.io.call(send(), 10)


def idle(name: str) -> jf.Flow:
    def few() -> Any:
        yield from range(20)
        while True:
            time.sleep(0.05)

    flow = jf.Flow(name)
    flow.source("few", few).key_by("key", lambda n: n % 4).count("count").sink("out", f"kafka://{name}-out")
    return flow


def test_a_manifest_older_than_the_newest_seen_is_left_out(cluster: Cluster, name: str) -> None:
    flow = jf.Flow(name)
    flow.source("list", [1]).sink("out", "collect")
    live = flow.deploy(cluster).wait(30)
    old = dict(cluster._control.tables["deployments"][name])
    flow.deploy(cluster).wait(30)
    cluster._control.publish("deployments", name, old)
    raw(cluster._control, "deployments", f"{name}-marker", {"what": "deployments", "key": f"{name}-marker"})
    until(lambda: f"{name}-marker" in cluster._control.tables["deployments"])
    del cluster._control.tables["deployments"][f"{name}-marker"]
    cluster._control.publish("deployments", f"{name}-marker", None)
    assert live.version == 2


def test_a_message_that_this_version_does_not_know_stops_nothing(cluster: Cluster, name: str) -> None:
    flow = jf.Flow(name)
    flow.source("list", [1]).sink("out", "collect")
    flow.deploy(cluster).wait(30)
    raw(cluster._control, "deployments", name, {"what": "deployments", "key": name, "of": "another version"})
    again = flow.deploy(cluster).wait(30)
    assert again.version == 2


def test_an_idle_flow_is_idle_not_stalled_and_tells_little(cluster: Cluster, name: str) -> None:
    live = idle(name).deploy(cluster)
    until(lambda: {row["node"]: row["records_in"] for row in live.metrics()}["out"] == 20)
    until(lambda: live.state == "idle", 15, "not idle")
    follow = jf.Flow(f"{name}-follow")
    follow.source("in", f"kafka://{name}-out").sink("out", "collect")
    reader = follow.deploy(cluster)
    until(lambda: {row["node"]: row["records_in"] for row in reader.metrics()}["out"] == 20)
    until(lambda: reader.state == "idle", 15, "not idle")
    assert {row["node"]: row["lag"] for row in reader.metrics()}["in"] == 0
    live.stop()
    reader.stop()


def test_a_running_flow_reports_each_task_twice_a_second(cluster: Cluster, name: str) -> None:
    flow = jf.Flow(name)
    flow.source("ones", lambda: iter(lambda: "x" * 100_000, 0), rate=100).map("size", len).sink("out", lambda n: None)
    live = flow.deploy(cluster, commit_interval=0.05)
    seen: list[str] = []
    cluster._control.on_change = lambda what, key: seen.append(key) if key.startswith(f"{name}/") else None
    try:
        until(lambda: live.state == "running" and seen)
        begin, at = len(seen), time.monotonic()
        until(lambda: time.monotonic() - at > 3)
        assert len(seen) - begin <= 8 * len(live.plan.stages)
    finally:
        cluster._control.on_change = lambda what, key: None
    for key in set(seen):
        assert len(keys.seal(cluster._control.tables["telemetry"][key], cluster._control.key)) < 5_000
    live.stop()


def test_a_wait_that_is_too_short_says_what_is_missing(cluster: Cluster, name: str) -> None:
    live = idle(name).deploy(cluster)
    with pytest.raises(jf.FlowTimeout, match=r"^JF405 .*still"):
        live.wait(0.2)
    live.terminate()
