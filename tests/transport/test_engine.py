"""One engine: restoring, dying tasks, positions, bounds and back-pressure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from _transport_count import Counter
from _transport_kafka import Kafka, until

from jupyterflow.model import FlowError
from jupyterflow.transport import Fetch, Message, Transaction
from jupyterflow.transport.kafka import Engine, InputTopic, _port

pytestmark = pytest.mark.kafka


class Bench:
    """A counting flow with one partition, driven by the test."""

    def __init__(self, kafka: Kafka) -> None:
        self.kafka = kafka
        self.input = kafka.topic("in", 1)
        self.output = kafka.topic("out", 1)
        self.changelog = kafka.topic("changelog", 1, cleanup_policy="compact")
        self.engines: list[Engine] = []

    def start(self, instance: str = "one", guarantee: Any = "exactly-once", **given: Any) -> tuple[Engine, Counter]:
        counter = Counter(self.output, self.changelog)
        engine = Engine(
            self.kafka.io,
            self.kafka.config,
            group=self.kafka.group,
            instance_id=instance,
            inputs=[InputTopic(self.input, self.changelog, **given)],
            guarantee=guarantee,
            on_open=counter.on_open,
            on_close=counter.on_close,
            on_error=counter.on_error,
            on_ready=counter.ready.set,
        )
        engine.start()
        self.engines.append(engine)
        return engine, counter

    def feed(self, *keys: str) -> None:
        self.kafka.write(self.input, {0: [(key.encode(), b"v") for key in keys]})

    def counted(self) -> list[str]:
        return [f"{(k or b'').decode()} {(v or b'').split()[0].decode()}" for k, v in self.kafka.read(self.output)[0]]

    def run(self, counter: Counter, condition: Any, what: str) -> None:
        def stepped() -> Any:
            counter.step()
            return condition()

        until(stepped, what)


@pytest.fixture
def bench(kafka: Kafka) -> Iterator[Bench]:
    made = Bench(kafka)
    yield made
    for engine in made.engines:
        engine.stop()


def opened(counter: Counter, times: int = 1) -> Any:
    return lambda: sum(event.startswith("open") for event in counter.events) >= times


def test_a_restarted_task_has_its_state_and_goes_on_at_its_position(bench: Bench) -> None:
    engine, counter = bench.start()
    bench.feed("a", "b", "a")
    bench.run(counter, lambda: bench.kafka.processed(bench.input), "the input is committed")
    engine.stop()
    assert counter.events[-1].endswith("stopped")
    bench.feed("a")
    engine, counter = bench.start()
    bench.run(counter, lambda: bench.kafka.processed(bench.input), "the input is committed")
    assert counter.events == [f"open {bench.input} 0 3 2"]
    assert bench.counted() == ["a 1", "b 1", "a 2", "a 3"]


def test_a_key_with_a_tombstone_is_not_restored(bench: Bench) -> None:
    bench.kafka.write(bench.changelog, {0: [(b"a", b"1"), (b"b", b"2"), (b"a", None)]})
    bench.feed("x")
    engine, counter = bench.start()
    until(lambda: counter.events, "an event")
    # A changelog without a position is a lost position: never a fresh start.
    assert counter.events[0].startswith(f"error JF530 the position of {bench.input}/0 is lost")
    assert engine.stats()["fatal"] == [counter.events[0].removeprefix("error ")]
    engine.stop()
    bench.kafka.admin.delete_topics([bench.changelog])
    bench.changelog = bench.kafka.topic("changelog", 1, cleanup_policy="compact")
    engine, counter = bench.start()
    until(opened(counter), "the task is open")
    engine.stop()
    bench.kafka.write(bench.changelog, {0: [(b"a", b"1"), (b"b", b"2"), (b"a", None)]})
    engine, counter = bench.start()
    until(opened(counter), "the task is open")
    assert list(counter.tasks.values()) == [{b"b": 2}]


def test_a_failing_send_kills_the_task_and_it_opens_again_with_the_committed_state(bench: Bench) -> None:
    _, counter = bench.start()
    until(opened(counter), "the task is open")
    counter.spoil.add(0)
    bench.feed("a", "a", "b")
    bench.run(counter, lambda: bench.kafka.processed(bench.input), "the input is committed")
    kinds = [event.split()[0] for event in counter.events]
    assert kinds == ["open", "close", "error", "open"]
    assert counter.events[1].endswith("failed")
    assert "JF525" in counter.events[2]
    assert counter.events[3] == f"open {bench.input} 0 0 0"
    assert bench.counted() == ["a 1", "a 2", "b 1"]


def test_a_dead_port_gives_and_takes_nothing(bench: Bench) -> None:
    engine, counter = bench.start()
    until(opened(counter), "the task is open")
    (port,) = counter.tasks
    bench.feed("a")
    until(lambda: port.waiting[0], "a record waits")
    engine.stop()
    assert port.poll() is None
    port.commit(Transaction({}, 1))
    assert not port.busy
    assert isinstance(port.failed, FlowError)
    assert bench.kafka.admin.committed(bench.kafka.group) == {(bench.input, 0): 0}


def test_a_transaction_without_a_position_leaves_the_position_and_an_empty_one_is_none(bench: Bench) -> None:
    engine, counter = bench.start()
    until(opened(counter), "the task is open")
    (port,) = counter.tasks
    done: list[str] = []
    for name, transaction in {
        "writes": Transaction({(bench.output, 0): [Message(b"k", b"1 v")]}, None, lambda: done.append("writes")),
        "nothing": Transaction({}, None, lambda: done.append("nothing")),
        "position": Transaction({}, 0, lambda: done.append("position")),
    }.items():
        port.commit(transaction)
        assert port.busy or name in done
        until(lambda name=name: name in done, name)
        assert not port.busy
    assert bench.kafka.admin.committed(bench.kafka.group) == {(bench.input, 0): 0}
    assert engine.stats()["commits"] == 2
    assert bench.counted() == ["k 1"]


def test_a_large_transaction_is_written_in_order_in_several_batches(bench: Bench) -> None:
    _, counter = bench.start()
    until(opened(counter), "the task is open")
    (port,) = counter.tasks
    messages = [Message(b"%d" % i, b"1 " + b"x" * 1000) for i in range(3000)]
    messages.append(Message(b"big", b"1 " + b"x" * 900_000, 5, (("h", b"v"),)))
    port.commit(Transaction({(bench.output, 0): messages}))
    until(lambda: not port.busy, "the commit")
    assert port.failed is None
    assert [key for key, _ in bench.kafka.read(bench.output)[0]] == [message.key for message in messages]


@pytest.mark.parametrize(("start", "expected"), [("earliest", 0), ("latest", 3), (2, 2), ({0: 1}, 1), ({5: 1}, 0)])
def test_a_new_task_begins_where_it_is_told(bench: Bench, start: Any, expected: int) -> None:
    bench.feed("a", "b", "c")
    engine, counter = bench.start(start=start)
    until(opened(counter), "the task is open")
    assert counter.events == [f"open {bench.input} 0 {expected} 0"]
    engine.stop()
    bench.feed("d")
    _, counter = bench.start(start=start)  # the choice is kept: a restart takes it from Kafka
    until(opened(counter), "the task is open")
    assert counter.events == [f"open {bench.input} 0 {expected} 0"]


def test_a_position_that_retention_deleted_fails_for_good_with_one_line(bench: Bench) -> None:
    engine, counter = bench.start()
    until(opened(counter), "the task is open")
    engine.stop()
    bench.feed("a", "b", "c")
    bench.kafka.admin.delete_records(bench.input, {0: 2})
    engine, counter = bench.start()
    until(lambda: len(counter.events) == 3, "the task has failed")
    assert [event.split()[0] for event in counter.events] == ["open", "close", "error"]
    assert "JF536 position 0" in counter.events[2]
    assert len(engine.stats()["fatal"]) == 1
    assert engine.stats()["tasks"] == []


def test_a_bounded_read_ends_at_its_offset(bench: Bench) -> None:
    bench.feed("a", "b", "c", "d")
    _, counter = bench.start(until={0: 3})
    until(opened(counter), "the task is open")
    (port,) = counter.tasks
    assert not port.ended
    bench.run(counter, lambda: port.ended and not port.busy, "the end")
    assert bench.counted() == ["a 1", "b 1", "c 1"]
    assert port.position == 3


def test_a_bounded_read_ends_although_a_marker_is_last(bench: Bench) -> None:
    _, counter = bench.start()
    until(opened(counter), "the task is open")
    (port,) = counter.tasks
    # A transaction into the input itself: its marker takes the last offset.
    port.commit(Transaction({(bench.input, 0): [Message(b"a", b"v")]}))
    until(lambda: not port.busy, "the commit")
    until(lambda: port.waiting[0], "the record arrives")
    ends = bench.kafka.admin.end_offsets(bench.input)
    assert ends == {0: 2}
    fetches: list[Fetch] = []

    def at_end() -> bool:
        fetch = port.poll()
        if fetch is not None:
            fetches.append(fetch)
        return bool(fetches) and fetches[-1].position == 2

    until(at_end, "the end")
    assert sum(len(fetch.records) for fetch in fetches) == 1


def test_an_input_that_is_not_polled_is_held_back_and_comes_when_it_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_port, "MAX_BYTES", 1 << 20)
    rows = [(b"k", b"x" * 100_000)] * 80
    bench.kafka.write(bench.input, {0: rows})
    engine, counter = bench.start()
    until(opened(counter), "the task is open")
    (port,) = counter.tasks
    until(lambda: port._paused, "the partition is paused")
    assert port.waiting[1] < 4 << 20
    until(lambda: engine.stats()["tasks"][0]["end"] == 80, "the end is known all the same")
    got: list[int] = []

    def drained() -> bool:
        fetch = port.poll()
        if fetch is not None:
            assert fetch.start == (got[-1] + 1 if got else 0)
            got.extend(record.offset for record in fetch.records)
        return len(got) == 80

    until(drained, "all records")
    assert got == list(range(80))


def test_at_least_once_restores_too(bench: Bench) -> None:
    engine, counter = bench.start(guarantee="at-least-once")
    counter.spoil.add(0)
    bench.feed("a", "a")
    bench.run(counter, lambda: bench.kafka.processed(bench.input), "the input is committed")
    engine.stop()
    _, counter = bench.start(guarantee="at-least-once")
    until(opened(counter), "the task is open")
    assert counter.events[0].startswith(f"open {bench.input} 0 2 1")


def test_what_is_committed_is_deleted_where_frames_are_read(bench: Bench) -> None:
    engine, counter = bench.start(purge=True)
    bench.feed("a", "b")
    bench.run(counter, lambda: bench.kafka.processed(bench.input), "the input is committed")
    engine.delete_committed()
    assert bench.kafka.admin.beginning_offsets(bench.input) == {0: 2}


def test_an_engine_tells_what_it_holds(bench: Bench) -> None:
    engine, counter = bench.start()
    bench.feed("a", "b")
    bench.run(counter, lambda: bench.kafka.processed(bench.input), "the input is committed")
    until(lambda: not next(iter(counter.tasks)).busy, "the commit is over")
    stats = engine.stats()
    assert stats["leader"] is True
    assert stats["tasks"][0]["lag"] == 0
    assert stats["tasks"][0]["connected"] is True
    assert 0 < stats["commit_p50"] <= stats["commit_p95"]
    assert engine.partitions(bench.output) == 1
    with pytest.raises(FlowError, match="JF523"):
        engine.partitions("nowhere")


def test_a_missing_input_is_said_before_anything_runs(bench: Bench) -> None:
    bench.input = "nowhere"
    with pytest.raises(FlowError, match="JF523 topic 'nowhere' does not exist"):
        bench.start()
