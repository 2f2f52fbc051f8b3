"""The life of a deployment: stopping, going on, changing, failing, and what is seen of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from typing import Any

import psutil
import pytest
from deployed import notebook, until

import jupyterflow as jf
from jupyterflow.broker import tools
from jupyterflow.cluster.client import Cluster
from jupyterflow.cluster.live import LiveRun


def numbers(position: int, instance: int, instances: int) -> Any:
    """0, 1, 2, ... each in one instance, from where the source was."""
    n = position
    while True:
        yield n * instances + instance
        n += 1


def counting(name: str, rate: int = 400) -> jf.Flow:
    flow = jf.Flow(name)
    source = flow.source("numbers", numbers, rate=rate, parallelism=2)
    source.sink("seen", "collect")
    source.key_by("third", lambda n: n % 3).count("count").sink("counts", "collect")
    return flow


def total(live: LiveRun, node: str) -> int:
    return next(int(row["records_in"]) for row in live.metrics() if row["node"] == node)


def exact(live: LiveRun) -> int:
    """That each number came once and each count is right; how many there were."""
    seen = live.collect("seen")
    by_instance = {i: sorted(n for n in seen if n % 2 == i) for i in (0, 1)}
    for instance, got in by_instance.items():
        assert got == list(range(instance, 2 * len(got) + instance, 2))
    counts: dict[Any, list[int]] = {}
    for record in live.records("counts"):
        counts.setdefault(record.key, []).append(record.value)
    for key, values in counts.items():
        assert sorted(values) == list(range(1, len(values) + 1)), key
    assert {key: len(values) for key, values in counts.items()} == Counter(n % 3 for n in seen)
    return len(seen)


def test_a_stopped_flow_has_drained_and_goes_on_where_it_was(cluster: Cluster, name: str) -> None:
    flow = counting(name)
    live = flow.deploy(cluster)
    until(lambda: total(live, "count") > 200)
    live.stop()
    assert live.state == "stopped"
    first = exact(live)
    assert first == total(live, "counts") == total(live, "seen")
    epoch = live.plan.epoch
    again = flow.deploy(cluster)
    assert (again.version, again.plan.epoch) == (2, epoch)
    until(lambda: total(again, "counts") > first + 200)
    again.stop()
    assert exact(again) > first + 200


def test_a_terminated_flow_goes_on_from_its_last_commit(cluster: Cluster, name: str) -> None:
    flow = counting(name)
    live = flow.deploy(cluster)
    until(lambda: total(live, "count") > 200)
    live.terminate()
    assert live.state == "stopped"
    group = f"jf.{name}.{live.plan.epoch}"
    until(lambda: not cluster._control.admin.group(group).members)
    first = total(live, "seen")
    again = flow.deploy(cluster)
    until(lambda: total(again, "counts") > first + 200)
    again.stop()
    exact(again)


def test_a_finished_flow_is_deployed_again_from_its_beginning(cluster: Cluster, name: str) -> None:
    flow = jf.Flow(name)
    flow.source("list", range(50)).sink("out", "collect")
    first = flow.deploy(cluster).wait(30)
    second = flow.deploy(cluster).wait(30)
    assert sorted(second.collect("out")) == list(range(50))
    assert first.collect("out") == second.collect("out"), "an older view follows"
    assert second.version == 2
    group = f"jf.{name}.{second.plan.epoch}"
    until(lambda: not cluster._control.admin.group(group).members, what="no engine is left after the end")


def test_a_removed_flow_leaves_no_topic_group_or_counter(cluster: Cluster, name: str) -> None:
    other = jf.Flow(f"{name}.other")
    other.source("list", [1, 2]).sink("out", "collect")
    kept = other.deploy(cluster).wait(30)
    live = counting(name).deploy(cluster)
    until(lambda: total(live, "count") > 10)
    cluster.remove(name)
    admin = cluster._control.admin
    mine = [t for t in admin.topics() if t.startswith(f"jf.{name}.") and not t.startswith(f"jf.{name}.other.")]
    assert mine == []
    assert [g for g in admin.groups() if g.startswith(f"jf.{name}.") and ".other." not in g] == []
    assert name not in [row["name"] for row in cluster.deployments]
    until(lambda: not [key for key in cluster._control.tables["telemetry"] if key.startswith(f"{name}/")])
    assert live.state == "stopped"
    assert sorted(kept.collect("out")) == [1, 2]


def test_changed_code_is_swapped_while_it_runs_and_nothing_is_lost(cluster: Cluster, name: str) -> None:
    def flow(version: str) -> jf.Flow:
        flow = jf.Flow(name)
        source = flow.source("numbers", numbers, rate=400, parallelism=2)
        source.map("mark", lambda n: (n, version)).sink("out", "collect")
        return flow

    live = flow("old").deploy(cluster)
    until(lambda: total(live, "out") > 100)
    live = flow("new").deploy(cluster)
    assert live.version == 2
    before = total(live, "out")
    until(lambda: total(live, "out") > before + 200)
    live.stop()
    got = live.collect("out")
    for instance in (0, 1):
        mine = sorted(n for n, _ in got if n % 2 == instance)
        assert mine == list(range(instance, 2 * len(mine) + instance, 2))
    assert {version for _, version in got} == {"old", "new"}


def test_a_change_of_shape_keeps_what_it_does_not_touch(cluster: Cluster, name: str) -> None:
    live = counting(name).deploy(cluster)
    until(lambda: total(live, "counts") > 100)
    changed = counting(name)
    changed.node("numbers").key_by("tenth", lambda n: n % 10).count("tens", emit="each").sink("more", "collect")
    live = changed.deploy(cluster)
    before = total(live, "seen")
    assert before > 100
    until(lambda: total(live, "more") > 100)
    live.stop()
    assert exact(live) > before


def test_a_stage_that_still_holds_records_is_not_dropped_from_a_flow_that_was_terminated(
    cluster: Cluster, name: str
) -> None:
    def slow(value: int) -> int:
        import time

        time.sleep(0.05)
        return value

    flow = jf.Flow(name)
    flow.source("list", range(5_000)).map("slow", slow, parallelism=2).sink("out", "collect")
    live = flow.deploy(cluster)
    until(lambda: any(edge["queued"] for edge in live.edges()))
    live.terminate()
    other = jf.Flow(name)
    other.source("list", range(5_000)).sink("out", "collect")
    with pytest.raises(jf.FlowError, match=r"^JF643 .*stage 'slow' still holds [\d,]+ records"):
        other.deploy(cluster)


def test_code_that_does_not_pass_the_check_leaves_what_runs_alone(cluster: Cluster, name: str) -> None:
    live = counting(name).deploy(cluster)
    until(lambda: total(live, "seen") > 50)
    broken = counting(name)
    cell = notebook("def bad(value):\n    return valeu\n")
    broken.node("numbers").key_by("k", lambda n: n).map("bad", cell["bad"]).sink("o", "collect")
    with pytest.raises(jf.FlowError, match="valeu"):
        broken.deploy(cluster)
    before = total(live, "seen")
    until(lambda: total(live, "seen") > before + 50)
    assert (live.version, live.state) == (1, "running")


SCRIPT = """
import os, signal, sys, itertools
import jupyterflow as jf
flow = jf.Flow(sys.argv[1])
flow.source("ones", lambda: itertools.repeat(1), rate=200).map("twice", lambda n: n * 2).sink("out", "collect")
flow.deploy(jf.connect(sys.argv[2]))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_flow_survives_its_notebook_and_is_attached_from_another(cluster: Cluster, name: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, name, cluster.bootstrap], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    with jf.connect() as other:
        live = other.attach(name)
        until(lambda: total(live, "out") > 100)
        assert set(live.collect("out")) == {2}
        assert live.state == "running"
        assert live.sample("out") == "2"
        assert [row["upstream"] for row in live.edges()] == ["ones", "twice"]
        until(lambda: live.edges()[0]["rate"] > 0)
        assert {worker["name"] for worker in live.workers()} <= {worker["name"] for worker in other.workers}
        with pytest.raises(jf.FlowError, match=r"^JF641 "):
            live.flow.nodes["twice"].fn(1)
        live.stop()


def test_a_node_that_may_not_fail_fails_the_flow_with_one_line(cluster: Cluster, name: str) -> None:
    flow = jf.Flow(name)
    flow.source("list", [1, 2, 0]).map("inverse", lambda n: 1 / n, on_error="fail").sink("out", "collect")
    live = flow.deploy(cluster)
    with pytest.raises(jf.FlowError, match=r"^JF404 .*'inverse'.*ZeroDivisionError") as caught:
        live.wait(30)
    assert "\n" not in str(caught.value)
    assert live.state == "failed"


def test_a_generator_that_raises_fails_the_flow_with_one_line(cluster: Cluster, name: str) -> None:
    def broken() -> Any:
        yield 1
        raise ValueError("the feed is gone")

    flow = jf.Flow(name)
    flow.source("feed", broken).sink("out", "collect")
    live = flow.deploy(cluster)
    with pytest.raises(jf.FlowError, match=r"'feed'.*ValueError: the feed is gone"):
        live.wait(30)
    repaired = jf.Flow(name)
    repaired.source("feed", lambda: iter([1, 2])).sink("out", "collect")
    live = repaired.deploy(cluster).wait(30)
    assert live.collect("out") == [1, 2]


def test_a_failing_record_is_a_dead_letter_and_the_flow_goes_on(cluster: Cluster, name: str) -> None:
    flow = jf.Flow(name)
    flow.source("list", [4, 2, 0, 1]).map("inverse", lambda n: 1 / n).sink("out", "collect")
    live = flow.deploy(cluster).wait(30)
    assert sorted(live.collect("out")) == [0.25, 0.5, 1.0]
    (letter,) = live.dead_letters()
    assert (letter["node"], letter["value"], letter["version"]) == ("inverse", 0, 1)
    assert "ZeroDivisionError" in letter["error"]
    assert "1 / n" in letter["traceback"]
    assert "record" in letter["position"]
    assert {row["node"]: row["errors"] for row in live.metrics()}["inverse"] == 1


def test_prints_arrive_from_where_they_were_made(cluster: Cluster, name: str) -> None:
    flow = jf.Flow(name)

    def slowly() -> Any:
        yield from range(5)

    flow.source("source", slowly).sink("show", lambda value: print("got", value))
    live = flow.deploy(cluster)
    live.wait(30)
    until(lambda: sorted(live.prints("show")) == [f"got {i}" for i in range(5)])


def test_at_rest_the_counters_equal_what_the_broker_holds(cluster: Cluster, name: str) -> None:
    flow = jf.Flow(name)
    source = flow.source("numbers", range(5_000), parallelism=2)
    source.key_by("key", lambda n: n % 7).filter("odd", lambda n: n % 2, parallelism=3).sink("out", f"kafka://{name}")
    live = flow.deploy(cluster, guarantee="exactly-once").wait(30)
    rows = {row["node"]: row for row in live.metrics()}
    done = tools.console(
        tools.CONSUMER, "--bootstrap-server", cluster.bootstrap, "--topic", name, "--from-beginning",
        "--isolation-level", "read_committed", "--max-messages", "2500", "--timeout-ms", "20000",
    )  # fmt: skip
    got = [line for line in done.stdout.splitlines() if line.isdigit()]
    assert sorted(map(int, got)) == list(range(1, 5_000, 2))
    assert rows["out"]["records_in"] == len(got)
    assert rows["out"]["bytes_out"] == sum(map(len, got))
    assert (rows["numbers"]["records_out"], rows["odd"]["records_in"], rows["odd"]["records_out"]) == (5000, 5000, 2500)
    assert cluster._control.admin.partitions(name) == 4


def test_at_least_once_gives_everything(cluster: Cluster, name: str) -> None:
    flow = jf.Flow(name)
    source = flow.source("numbers", range(1_000)).key_by("k", lambda n: n % 5)
    source.count("count", emit="end").sink("out", "collect")
    live = flow.deploy(cluster, guarantee="at-least-once").wait(30)
    assert {record.key: record.value for record in live.records("out")} == dict.fromkeys(range(5), 200)


def test_latest_is_resolved_once_for_start_and_end(cluster: Cluster, name: str) -> None:
    fill = jf.Flow(f"{name}-fill")
    fill.source("first", [1, 2, 3]).sink("out", f"kafka://{name}")
    fill.deploy(cluster).wait(30)
    late = jf.Flow(f"{name}-late")
    late.source("in", f"kafka://{name}?start=latest").sink("out", "collect")
    live = late.deploy(cluster)
    early = jf.Flow(f"{name}-early")
    early.source("in", f"kafka://{name}?until=latest").sink("out", "collect")
    bounded = early.deploy(cluster)
    fill.deploy(cluster).wait(30)
    assert sorted(bounded.wait(30).collect("out")) == [1, 2, 3]
    until(lambda: total(live, "out") == 3)
    assert sorted(live.collect("out")) == [1, 2, 3]
    live.stop()


def test_scaling_moves_tasks_and_the_result_stays_exact(cluster: Cluster, name: str) -> None:
    live = counting(name).deploy(cluster)
    until(lambda: total(live, "seen") > 100)
    try:
        cluster.scale(3)
        until(lambda: len(live.workers()) == 3, 30, "the new worker got no task")
        before = total(live, "counts")
        until(lambda: total(live, "counts") > before + 100)
    finally:
        cluster.scale(2)
    until(lambda: len(cluster.workers) == 2)
    before = total(live, "counts")
    until(lambda: total(live, "counts") > before + 100, 30)
    live.stop()
    exact(live)


def test_a_killed_supervisor_takes_its_kernel_along_and_the_tasks_move(cluster: Cluster, name: str) -> None:
    live = counting(name).deploy(cluster, session_timeout=6)
    until(lambda: total(live, "seen") > 100 and len(live.workers()) == 2)
    victim = live.workers()[0]
    kernel = psutil.Process(victim["pid"])
    supervisor = kernel.parent()
    assert supervisor is not None
    os.kill(supervisor.pid, signal.SIGKILL)
    kernel.wait(10)
    before = total(live, "counts")
    until(lambda: total(live, "counts") > before + 100, 30)
    live.stop()
    exact(live)
    cluster.scale(2)
    until(lambda: len({worker["name"] for worker in cluster.workers}) >= 2, 30)
