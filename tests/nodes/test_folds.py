"""reduce, aggregate and count: what is emitted, when, and under which key."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jupyterflow as jf


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come true in time"
        time.sleep(0.005)


def totals(values: Any, tasks: int = 1, key: Callable[[int], Any] | None = None, **options: Any) -> jf.Run:
    flow = jf.Flow("folds")
    handle = flow.source("values", values)
    if key is not None:
        handle = handle.key_by("key", key)
    handle.reduce("total", lambda total, value: total + value, **options).sink("out", "collect")
    return flow.run(tasks=tasks).wait(20)


def test_each_input_gives_one_output_and_the_end_nothing_more() -> None:
    assert totals([1, 2, 3]).collect("out") == [1, 3, 6]


def test_at_the_end_comes_one_final_value_a_key() -> None:
    run = totals(range(10), key=lambda v: v % 2, emit="end")
    assert {record.key: record.value for record in run.records("out")} == {0: 20, 1: 25}
    assert len(run.records("out")) == 2
    assert totals(range(10), emit="end").records("out")[0].key is None


@pytest.mark.parametrize(("n", "out"), [(6, [3, 10, 21]), (7, [3, 10, 21, 28]), (1, [1]), (0, [])])
def test_every_nth_input_gives_an_output_and_the_end_what_is_left(n: int, out: list[int]) -> None:
    assert totals(range(1, n + 1), every=2).collect("out") == out


def test_every_counts_the_inputs_of_each_key() -> None:
    run = totals([1, 10, 2, 20, 3], key=lambda v: v >= 10, every=2)
    assert [(record.key, record.value) for record in run.records("out")] == [(False, 3), (True, 30), (False, 6)]


def test_after_some_seconds_what_changed_is_emitted_and_at_the_end_what_is_left() -> None:
    more = threading.Event()

    def values() -> Iterator[int]:
        yield 1
        yield 2
        more.wait(10)
        yield 3

    flow = jf.Flow("seconds")
    source = flow.source("values", values)
    source.reduce("total", lambda total, value: total + value, seconds=0.02).sink("out", "collect")
    source.reduce("idle", lambda total, value: total + value, seconds=1000).sink("late", "collect")
    run = flow.run()
    until(lambda: 3 in run.collect("out"))
    before = run.collect("out")
    more.set()
    run.wait(10)
    assert run.collect("out") == [*before, 6]
    assert run.collect("late") == [6]


def test_an_aggregate_starts_from_its_own_copy_for_each_key() -> None:
    flow = jf.Flow("aggregates")
    keyed = flow.source("values", range(6)).key_by("key", lambda v: v % 2)
    keyed.aggregate("list", [], lambda seen, v: [*seen, v], emit="end").sink("a", "collect")
    keyed.aggregate("made", list, lambda seen, v: seen.append(v) or seen, emit="end").sink("b", "collect")
    keyed.aggregate("kept", [], lambda seen, v: seen.append(v) or seen, emit="end").sink("c", "collect")
    run = flow.run().wait(10)
    for sink in "abc":
        assert {record.key: record.value for record in run.records(sink)} == {0: [0, 2, 4], 1: [1, 3, 5]}


def test_a_fold_without_a_key_is_one_task() -> None:
    flow = jf.Flow("one")
    flow.source("values", range(100), parallelism=4).count("n", emit="end").sink("out", "collect")
    assert flow.run(tasks=4).wait(10).collect("out") == [100]
    flow.operator("count", "n", [], None, parallelism=2, replace=True)
    with pytest.raises(jf.FlowError, match=r"^JF305 .*'n'.*key_by"):
        flow.run()


def test_a_fold_may_ask_for_key_and_timestamp() -> None:
    flow = jf.Flow("named")
    keyed = flow.source("values", [1, 2, 3]).key_by("key", lambda v: "k")
    keyed.reduce("r", lambda total, value, key, *, timestamp: (total, value, key, timestamp > 0)).sink("out", "collect")
    assert flow.run().wait(10).collect("out")[-1] == ((1, 2, "k", True), 3, "k", True)


KEYS = st.sampled_from([0, 1, True, False, "1", b"1", 1.0, None, (1, "a"), -0.0])


@settings(max_examples=30, deadline=None)
@given(st.lists(KEYS, max_size=40), st.sampled_from([1, 3]))
def test_keys_of_different_types_never_meet(keys: list[Any], tasks: int) -> None:
    flow = jf.Flow("keys")
    flow.source("values", keys).key_by("key", lambda v: v).count("n", emit="end").sink("out", "collect")
    out = flow.run(tasks=tasks).wait(20).records("out")

    def own(key: Any) -> tuple[str, str]:
        return type(key).__name__, repr(key + 0.0 if isinstance(key, float) else key)

    expected: dict[Any, int] = {}
    for key in keys:
        expected[own(key)] = expected.get(own(key), 0) + 1
    assert {own(record.key): record.value for record in out} == expected
