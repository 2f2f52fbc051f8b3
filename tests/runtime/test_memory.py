"""The in-memory transport and what a collect sink keeps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

import jupyterflow as jf
from jupyterflow.codecs import Mark
from jupyterflow.model import Batch
from jupyterflow.plan import plan
from jupyterflow.runtime.effects import Effects
from jupyterflow.runtime.memory import Collected, Memory, MemoryChannel
from jupyterflow.runtime.task import Task


@given(st.integers(1, 20), st.lists(st.lists(st.integers(), max_size=12), max_size=12))
def test_a_collect_sink_keeps_exactly_the_last_records(limit: int, batches: list[list[int]]) -> None:
    kept = Collected(limit)
    for values in batches:
        kept.append(Batch(values))
    everything = [value for values in batches for value in values]
    assert kept.values() == everything[-limit:]
    assert kept.dropped == max(0, len(everything) - limit)


def channel(memory: Memory, topic: str, below: list[tuple[str, int]]) -> tuple[MemoryChannel, list[Effects]]:
    done: list[Effects] = []
    return MemoryChannel(memory, topic, 0, below, done.append), done


def test_a_full_queue_below_stops_what_feeds_it_until_it_is_read() -> None:
    memory = Memory(10)
    upper, _ = channel(memory, "a", [("b", 2)])
    assert upper.writable
    upper.perform(Effects(outputs={("b", 1): [Batch([0] * 9)]}))
    assert upper.writable
    upper.perform(Effects(outputs={("b", 1): [Batch([0]), Mark("end", "0", 1, "a", 0, 1)]}))
    assert not upper.writable
    assert memory.waiting("b") == 10


def test_a_large_batch_is_given_in_parts_and_each_row_knows_its_place() -> None:
    flow = jf.Flow("parts")
    flow.source("values", [1]).map("moved", lambda v, context: context.id, parallelism=2).sink("out", "collect")
    made = plan(flow)
    task = Task(made, made.stage("moved"), 0, flow)
    memory = Memory()
    given, done = channel(memory, made.stage("moved").topic, [])
    partition = memory.partition(made.stage("moved").topic, 0)
    partition.append(Batch(list(range(5))))
    partition.append(Batch([5]))
    partition.append(Mark("end", "0", 1, "values", 0, 1))
    task.limit = 2
    sizes = []
    while given.poll(task):
        sizes.append(partition.records)
    assert sizes == [4, 2, 1, 0, 0]
    assert task.status == "ended"
    given.perform(task.take())
    ids = [id for batch in done[0].collected["out"] for id in batch.values]
    topic = made.stage("moved").topic
    assert ids == [f"moved/0/{topic}:0:0:{row}" for row in range(5)] + [f"moved/0/{topic}:0:1:0"]


def test_a_task_is_given_as_many_records_as_fit_its_time() -> None:
    flow = jf.Flow("pace")
    flow.source("values", [1]).map("moved", lambda v: v).sink("out", "collect")
    made = plan(flow)
    task = Task(made, made.stages[0], 0, flow)
    assert task.limit == 1
    for _ in range(10):
        task.took(task.limit, task.limit * 1e-6, 0.025)
    assert task.limit == 2000
    task.took(2000, 20.0, 0.025)  # 10 ms each
    assert task.limit == 2
    task.took(2, 2.0, 0.025)
    assert task.limit == 1

    flow.operator("map", "moved", [], lambda v: v, concurrency=100, replace=True)
    task = Task(made, made.stages[0], 0, flow)
    task.took(400, 20.0, 0.025)
    assert task.limit == 400  # never so few that calls could not be in flight at once
    task.close()
    flow.operator("map", "moved", [], lambda v: v, batch=True, replace=True)
    assert Task(made, made.stages[0], 0, flow).limit == 2000
