"""A task's channel on Kafka, with a port that is filled by hand."""

from __future__ import annotations

import threading
from typing import Any

import jupyterflow as jf
from jupyterflow.codecs import Mark, Sealer, encode_batch
from jupyterflow.model import Batch
from jupyterflow.plan import plan
from jupyterflow.runtime.driver import TaskRun
from jupyterflow.runtime.task import Task
from jupyterflow.runtime.wire import KafkaChannel
from jupyterflow.transport import Fetch, Rows, Transaction

KEY = b"k" * 32


class Port:
    topic, partition, position = "in", 0, 0
    busy, writable, ended = False, True, False
    failed: BaseException | None = None
    end_offset: int | None = None

    def __init__(self, fetches: list[Fetch]) -> None:
        self.fetches = fetches
        self.committed: list[Transaction] = []

    def poll(self) -> Fetch | None:
        return self.fetches.pop(0) if self.fetches else None

    def commit(self, transaction: Transaction) -> None:
        self.committed.append(transaction)


def made(flow: jf.Flow, stage: str, payloads: list[bytes]) -> tuple[Task, KafkaChannel, Port]:
    plan_ = plan(flow)
    task = Task(plan_, plan_.stage(stage), 0, flow)
    sealer = Sealer(KEY, plan_.epoch)
    data: list[Any] = [sealer.seal(task.stage.topic, 0, payload) for payload in payloads]
    n = len(data)
    port = Port([Fetch(Rows(data, [None] * n, [0] * n, None, range(n)), n, 0)] if data else [])
    return task, KafkaChannel(port, plan_, task, sealer, lambda topic: 1, lambda effects: None), port


def test_a_large_message_is_processed_in_parts_and_committed_whole() -> None:
    flow = jf.Flow("parts")
    flow.source("values", [1]).map("moved", lambda v, context: context.id, parallelism=2).sink("out", "collect")
    mark = Mark("end", "0", 1, "values", 0, 1)
    payloads = [encode_batch(Batch(list(range(5)))), encode_batch(Batch([5])), mark.encode()]
    task, channel, port = made(flow, "moved", payloads)
    run = TaskRun(task, channel, 0.0)
    task.limit = 2
    seen = []
    while task.status == "running":
        assert channel.poll(task)
        seen.append((task.received, channel.midway))
    assert seen == [(2, True), (4, True), (5, False), (6, False), (6, False)]
    run.step(lambda: None)
    (transaction,) = port.committed
    assert transaction.position == 3

    task, channel, port = made(flow, "moved", payloads)
    run = TaskRun(task, channel, 0.0)
    channel._part(task, Batch(list(range(9))), 0)
    assert channel.midway
    channel.port.writable = False
    run.step(lambda: None)
    assert not port.committed  # its position would say that all of it is done
    assert run.wait(1e9) > 0


def test_what_cannot_cross_is_not_waited_for_below() -> None:
    flow = jf.Flow("crossing")
    flow.source("values", [1]).map("locks", lambda v: threading.Lock() if v % 2 else v).map(
        "moved", lambda v: v, parallelism=2
    )
    task, channel, _ = made(flow, "values", [])
    for _ in range(2):
        task.split({"items": list(range(10))}, task._seen + 1)
        while task.pull(100):
            pass
        effects = task.take()
        channel.perform(effects)
        assert [letter.value.__class__.__name__ for letter in effects.dead] == ["lock"] * 5
    assert effects.meta["sent"] == {"jf.crossing.0.moved.in": 10}
