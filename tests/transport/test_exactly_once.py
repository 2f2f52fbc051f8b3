"""Counts per key under kills and zombies: each input record counted once, whatever dies."""

from __future__ import annotations

import random
import signal
from collections import Counter as Tally
from typing import Any

import pytest
from _transport_kafka import Kafka, until

from jupyterflow.transport.kafka import Engine, InputTopic

pytestmark = pytest.mark.kafka
PARTITIONS = 4


class Stream:
    """Input, output and changelog of a counting flow, and the oracle of its output."""

    def __init__(self, kafka: Kafka) -> None:
        self.kafka = kafka
        self.input = kafka.topic("in", PARTITIONS)
        self.output = kafka.topic("out", PARTITIONS)
        self.changelog = kafka.topic("changelog", PARTITIONS, cleanup_policy="compact")
        self.sent: dict[int, list[tuple[bytes, bytes]]] = {p: [] for p in range(PARTITIONS)}

    def worker(self, instance: str, **settings: Any) -> Any:
        topics = {"input": self.input, "output": self.output, "changelog": self.changelog}
        return self.kafka.worker(instance, **topics, **settings)

    def feed(self, each: int) -> None:
        rows = {}
        for partition, sent in self.sent.items():
            rows[partition] = [(b"key-%d" % (i % 7), b"%d" % i) for i in range(len(sent), len(sent) + each)]
            sent.extend(rows[partition])
        self.kafka.write(self.input, rows)

    def expected(self) -> dict[int, list[tuple[bytes, bytes]]]:
        result = {}
        for partition, sent in self.sent.items():
            counts: Tally[bytes] = Tally()
            result[partition] = []
            for key, value in sent:
                counts[key] += 1
                result[partition].append((key, b"%d %s" % (counts[key], value)))
        return result

    def wait(self) -> None:
        until(lambda: self.kafka.processed(self.input), "all input is committed", 60)


@pytest.fixture
def stream(kafka: Kafka) -> Stream:
    return Stream(kafka)


def held(*workers: Any) -> bool:
    return set.union(*(worker.held() for worker in workers)) == set(range(PARTITIONS))


def test_a_worker_killed_and_restarted_in_its_slot_loses_and_doubles_nothing(stream: Stream) -> None:
    one, two = stream.worker("slot-1"), stream.worker("slot-2")
    until(lambda: held(one, two) and one.held() and two.held(), "both workers have tasks")
    for round_ in range(3):
        stream.feed(2000)
        victim = (one, two)[round_ % 2]
        kept = victim.held()
        victim.signal(signal.SIGKILL)
        victim.process.wait(10)
        again = stream.worker(("slot-1", "slot-2")[round_ % 2])
        if victim is one:
            one = again
        else:
            two = again
        until(lambda again=again, kept=kept: again.held() == kept, "the slot has its tasks again")
        stream.feed(500)
    stream.wait()
    one.stop()
    two.stop()
    assert stream.kafka.read(stream.output) == stream.expected()


def test_a_worker_that_slept_through_its_eviction_does_no_harm_when_it_wakes(stream: Stream) -> None:
    one, two = stream.worker("slot-1"), stream.worker("slot-2")
    until(lambda: held(one, two) and one.held() and two.held(), "both workers have tasks")
    stream.feed(3000)
    one.signal(signal.SIGSTOP)
    stream.feed(1000)
    until(lambda: len(two.held()) == PARTITIONS, "the other worker has taken all tasks", 30)
    stream.feed(1000)
    stream.wait()
    one.signal(signal.SIGCONT)
    stream.feed(1000)
    until(lambda: 0 < len(two.held()) < PARTITIONS and held(one, two), "tasks went back", 30)
    stream.feed(1000)
    stream.wait()
    one.stop()
    two.stop()
    assert stream.kafka.read(stream.output) == stream.expected()


def test_tasks_move_to_a_worker_that_joins_and_back_when_it_leaves(stream: Stream) -> None:
    one = stream.worker("slot-1")
    until(lambda: held(one), "one worker has all tasks")
    stream.feed(1000)
    two = stream.worker("slot-2")
    until(lambda: len(two.held()) == PARTITIONS // 2 and held(one, two), "the tasks are shared")
    stream.feed(1000)
    two.stop()
    until(lambda: held(one), "one worker has all tasks again", 5)  # it left: no session had to end
    stream.feed(1000)
    stream.wait()
    one.stop()
    opened = [line for line in one.lines if line.startswith("open")]
    assert len(opened) == PARTITIONS + PARTITIONS // 2  # the tasks that it kept were not opened again
    assert stream.kafka.read(stream.output) == stream.expected()


def test_a_slot_that_comes_back_with_other_inputs_has_their_tasks(kafka: Kafka) -> None:
    a, b = kafka.topic("a", 2), kafka.topic("b", 2)
    for topics in ([a, b], [b]):
        opened: list[str] = []
        engine = Engine(
            kafka.io,
            kafka.config,
            group=kafka.group,
            instance_id="slot-1",
            inputs=[InputTopic(topic) for topic in topics],
            on_open=lambda port, state, opened=opened: opened.append(port.topic),
            session_timeout=6.0,
        )
        engine.start()
        try:
            until(lambda opened=opened, topics=topics: sorted(opened) == sorted(topics * 2), "its tasks are open")
        finally:
            engine.stop(leave=topics == [b])


def test_at_least_once_loses_nothing_when_a_worker_is_killed(stream: Stream) -> None:
    one = stream.worker("slot-1", guarantee="at-least-once")
    two = stream.worker("slot-2", guarantee="at-least-once")
    until(lambda: held(one, two) and one.held() and two.held(), "both workers have tasks")
    stream.feed(4000)
    one.signal(signal.SIGKILL)
    one.process.wait(10)
    one = stream.worker("slot-1", guarantee="at-least-once")
    until(lambda: held(one, two), "the slot has its tasks again")
    stream.feed(1000)
    stream.wait()
    one.stop()
    two.stop()
    for partition, rows in stream.kafka.read(stream.output).items():
        seen = {(key, (value or b"").split()[1]) for key, value in rows}
        assert seen == set(stream.sent[partition])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_any_sequence_of_kills_stops_and_naps_counts_each_record_once(stream: Stream, seed: int) -> None:
    chance = random.Random(seed)
    workers = {name: stream.worker(name) for name in ("slot-1", "slot-2", "slot-3")}

    def settled() -> bool:
        return held(*workers.values()) and all(worker.held() for worker in workers.values())

    until(settled, "all workers have tasks")
    for fault in chance.choices(("kill", "leave", "nap"), (4, 2, 1), k=12):
        name = chance.choice(sorted(workers))
        stream.feed(chance.randint(100, 2000))
        if fault == "nap":
            workers[name].signal(signal.SIGSTOP)
            others = [worker for other, worker in workers.items() if other != name]
            stream.feed(500)
            until(lambda others=others: held(*others), "the others have taken its tasks")
            workers[name].signal(signal.SIGCONT)
        elif fault == "leave":
            workers[name].stop()
            workers[name] = stream.worker(name)
        else:
            workers[name].kill()
            workers[name] = stream.worker(name)
        if chance.random() < 0.5:  # else the next fault meets the group as it is
            until(settled, f"all workers have tasks after: {fault} {name}")
    stream.wait()
    assert stream.kafka.read(stream.output) == stream.expected()
