"""What cannot be deployed is said in one line before anything changes; what is not ours on Kafka is never opened."""

from __future__ import annotations

import os
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from deployed import notebook, until

import jupyterflow as jf
from jupyterflow.broker import paths, tools
from jupyterflow.cluster import keys
from jupyterflow.cluster.client import Cluster
from jupyterflow.codecs import BATCH, Sealer
from jupyterflow.transport.kafka import KafkaConfig, TopicSpec


def refused(flow: jf.Flow, cluster: Cluster, **options: Any) -> str:
    """The one line with which a deployment is refused; and that it changed nothing."""
    topics = set(cluster._control.admin.topics())
    with pytest.raises(jf.FlowError) as caught:
        flow.deploy(cluster, **options)
    assert set(cluster._control.admin.topics()) == topics
    assert flow.name not in {row["name"] for row in cluster.deployments}
    assert "\n" not in str(caught.value)
    return str(caught.value)


def mapped(name: str, fn: Any) -> jf.Flow:
    flow = jf.Flow(name)
    flow.source("list", [1, 2, 3]).map("node", fn).sink("out", "collect")
    return flow


def send(cluster: Cluster, topic: str, value: bytes, key: bytes | None = None, partition: int = 0) -> None:
    """What a client writes that has no key of this cluster."""

    async def produce() -> None:
        from aiokafka import AIOKafkaProducer

        producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap)
        await producer.start()
        await producer.send_and_wait(topic, value, key=key, partition=partition)
        await producer.stop()

    cluster._control.io.call(produce(), 20)


def test_a_function_that_cannot_be_pickled_is_named(cluster: Cluster, name: str) -> None:
    running = (n for n in range(3))
    line = refused(mapped(name, lambda value: value + next(running)), cluster)
    assert "node 'node': 'running'" in line
    assert "is a generator and cannot be pickled" in line


def test_a_capture_that_is_too_large_is_named(cluster: Cluster, name: str) -> None:
    table = bytes(11_000_000)
    line = refused(mapped(name, lambda value: table[value]), cluster)
    assert "'table' is a bytes of 11.0 MB" in line


def test_a_name_that_is_nowhere_is_named(cluster: Cluster, name: str) -> None:
    cell = notebook("RATE = 2\ndef node(value):\n    return value * RATES\n")
    assert "'RATES' is not defined - did you mean 'RATE'?" in refused(mapped(name, cell["node"]), cluster)


def test_a_module_that_the_workers_lack_is_named(cluster: Cluster, name: str) -> None:
    cell = notebook("def node(value):\n    import nowhere_at_all\n    return nowhere_at_all.f(value)\n")
    assert "module 'nowhere_at_all' is not there" in refused(mapped(name, cell["node"]), cluster)


def test_items_that_cannot_be_pickled_are_said(cluster: Cluster, name: str) -> None:
    flow = jf.Flow(name)
    flow.source("list", [1, threading.Lock()]).sink("out", "collect")
    assert "node 'list'" in refused(flow, cluster)


def test_a_topic_that_does_not_exist_is_named(cluster: Cluster, name: str) -> None:
    flow = jf.Flow(name)
    flow.source("bids", f"kafka://{name}-nowhere").sink("out", "collect")
    line = refused(flow, cluster)
    assert line.startswith("JF523 ")
    assert f"topic '{name}-nowhere' does not exist" in line


def test_another_kafka_than_the_clusters_is_refused(cluster: Cluster, name: str) -> None:
    flow = jf.Flow(name)
    flow.source("bids", "kafka://bids?bootstrap=elsewhere:9092").sink("out", "collect")
    assert "elsewhere:9092" in refused(flow, cluster)


def test_a_kafka_that_is_not_there_is_said_in_bounded_time(flow_home: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(jf.FlowError, match=r"^JF52\d .*127\.0\.0\.1:1\b") as caught:
        jf.connect("127.0.0.1:1")
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize("field", ["python", "dill"])
def test_workers_of_other_versions_are_said_before_anything_changes(cluster: Cluster, name: str, field: str) -> None:
    control = cluster._control
    body = {**next(iter(control.tables["workers"].values())), "name": "other", field: "2.7.1", "time": time.time()}
    control.publish("workers", "other", body)
    until(lambda: "other" in control.tables["workers"])
    try:
        line = refused(mapped(name, lambda value: value), cluster)
        assert "worker 'other'" in line
        assert "2.7.1" in line
    finally:
        control.publish("workers", "other", None)
        until(lambda: "other" not in control.tables["workers"])


def test_a_manifest_of_another_dill_fails_with_one_line(cluster: Cluster, name: str) -> None:
    control = cluster._control
    live = mapped(name, lambda value: value).deploy(cluster).wait(30)
    manifest = control.tables["deployments"][name]
    other = {**manifest, "package": {**manifest["package"], "dill": "0.0.1"}, "version": 2, "epoch": "7"}
    control.publish("deployments", name, {**other, "revision": manifest["revision"] + 1})
    until(lambda: live.state == "failed")
    with pytest.raises(jf.FlowError, match=r"^JF616 .*deployed with dill 0\.0\.1") as caught:
        live.wait(10)
    assert "\n" not in str(caught.value)


def test_splits_that_are_too_large_for_a_message_are_divided(cluster: Cluster, name: str) -> None:
    flow = jf.Flow(name)
    flow.source("list", [str(n) * 1000 for n in range(2000)]).map("size", len).sink("out", "collect")
    live = flow.deploy(cluster).wait(30)
    assert sorted(live.collect("out")) == sorted(len(str(n)) * 1000 for n in range(2000))


def test_a_message_that_is_not_json_is_a_dead_letter_with_its_place(cluster: Cluster, name: str) -> None:
    cluster._control.admin.create_topics([TopicSpec(name, 1)])
    for value in (b'{"n": 1}', b"no json", b'{"n": 2}'):
        send(cluster, name, value)
    flow = jf.Flow(name)
    flow.source("bids", f"kafka://{name}?until=latest").map("n", lambda bid: bid["n"]).sink("out", "collect")
    live = flow.deploy(cluster).wait(30)
    assert live.collect("out") == [1, 2]
    (letter,) = live.dead_letters()
    assert letter["position"] == {"topic": name, "partition": 0, "offset": 1}
    assert letter["value"] == b"no json"
    assert letter["node"] == "bids"


def test_a_sink_makes_its_topic(cluster: Cluster, name: str) -> None:
    flow = jf.Flow(name)
    flow.source("list", [1]).sink("out", f"kafka://{name}-made")
    flow.deploy(cluster, tasks=3).wait(30)
    assert cluster._control.admin.partitions(f"{name}-made") == 3


def test_a_manifest_with_a_wrong_signature_is_never_acted_on(cluster: Cluster, name: str) -> None:
    live = mapped(name, lambda value: value).deploy(cluster).wait(30)
    control = cluster._control
    manifest = dict(control.tables["deployments"][name])
    forged = {**manifest, "revision": manifest["revision"] + 10_000, "state": "running", "epoch": "666"}
    refused_before = control.refused
    send(cluster, control.topic("deployments"), keys.seal(forged, os.urandom(32)), name.encode())
    send(cluster, control.topic("deployments"), pickle.dumps(Bomb("never")), b"rubbish")
    until(lambda: control.refused >= refused_before + 2)
    assert live.plan.epoch == manifest["epoch"]
    assert live.state == "finished"
    # What is signed is signed for its place.
    send(cluster, control.topic("deployments"), keys.seal(manifest, control.key), b"another-name")
    until(lambda: control.refused >= refused_before + 3)
    again = mapped(name, lambda value: value * 2).deploy(cluster).wait(30)
    assert sorted(again.collect("out")) == [2, 4, 6]
    assert not [topic for topic in control.admin.topics() if f"{name}.666" in topic]


class Bomb:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def test_a_frame_with_a_wrong_signature_is_a_dead_letter_and_never_unpickled(
    cluster: Cluster, name: str, tmp_path: Path
) -> None:
    trap = tmp_path / "exploded"
    gate = tmp_path / "gate"

    def gated() -> Any:
        yield from range(10)
        while not gate.exists():
            time.sleep(0.02)
        yield from range(10, 20)

    flow = jf.Flow(name)
    flow.source("source", gated).key_by("key", lambda n: n % 2).count("count").sink("out", "collect")
    live = flow.deploy(cluster)
    until(lambda: next(row["records_in"] for row in live.metrics() if row["node"] == "count") == 10)
    topic = live.plan.stage("count").topic
    payload = BATCH + pickle.dumps(Bomb(str(trap)))
    send(cluster, topic, Sealer(os.urandom(32), live.plan.epoch).seal(topic, 0, payload))
    # Signed with the right key, for another epoch: a replay.
    send(cluster, topic, Sealer(cluster._control.key, "1").seal(topic, 0, payload))
    letters = until(lambda: len(found := live.dead_letters()) == 2 and found)
    gate.touch()
    live.wait(30)
    assert not trap.exists()
    assert sorted(live.collect("out")) == sorted([*range(1, 11), *range(1, 11)])
    for letter in letters:
        assert letter["position"]["topic"] == topic
        assert "JF222" in letter["error"]


def test_forged_results_are_not_opened_by_their_reader(cluster: Cluster, name: str, tmp_path: Path) -> None:
    live = mapped(name, lambda value: value).deploy(cluster).wait(30)
    trap = tmp_path / "exploded"
    forger = Sealer(os.urandom(32), live.plan.epoch)
    for topic in (live.plan.dead_topic, live.plan.collect_topic("out")):
        send(cluster, topic, forger.seal(topic, 0, BATCH + pickle.dumps(Bomb(str(trap)))))
        send(cluster, topic, pickle.dumps(Bomb(str(trap))))
    assert live.dead_letters() == []
    assert sorted(live.collect("out")) == [1, 2, 3]
    assert not trap.exists()


def test_a_key_that_is_missing_or_open_to_others_is_said(cluster: Cluster, monkeypatch: Any, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(Path(paths.key_file()).read_bytes())
    file.chmod(0o644)
    monkeypatch.setenv("JUPYTERFLOW_KEY_FILE", str(file))
    with pytest.raises(jf.FlowError, match=r"^JF602 .*open to others"):
        jf.connect(cluster.bootstrap)


def test_a_cluster_of_another_key_is_said(cluster: Cluster, monkeypatch: Any, tmp_path: Path) -> None:
    keys.load(create=True, path=tmp_path / "key")
    monkeypatch.setenv("JUPYTERFLOW_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(jf.FlowError, match=r"^JF606 .*another key"):
        jf.connect(cluster.bootstrap)


def test_passwords_are_neither_shown_nor_sent(cluster: Cluster, name: str) -> None:
    config = KafkaConfig("localhost:9092", {"sasl.password": "hunter2", "security.protocol": "SASL_SSL"})
    assert "hunter2" not in repr(config)
    live = mapped(name, lambda value: value).deploy(cluster).wait(30)
    manifest = cluster._control.tables["deployments"][live.name]
    assert not {"kafka", "settings", "options"} & set(manifest)


def test_the_console_sees_only_signed_json_on_the_control_topics(cluster: Cluster, name: str) -> None:
    mapped(name, lambda value: value).deploy(cluster).wait(30)
    done = tools.console(
        tools.CONSUMER, "--bootstrap-server", cluster.bootstrap, "--topic", "jf.telemetry", "--from-beginning",
        "--max-messages", "1", "--timeout-ms", "20000",
    )  # fmt: skip
    assert '{"alg": "hmac-sha256"' in done.stdout
