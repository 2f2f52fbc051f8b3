"""How each kind of node calls its function: named arguments, async, threads, batches, and what fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

import jupyterflow as jf


def through(values: Any, kind: str, fn: Any, tasks: int = 1, **options: Any) -> jf.Run:
    """The finished run of a source, one node and, below an operator, a collect sink."""
    flow = jf.Flow("functions")
    source = flow.source("values", values)
    if kind == "sink":
        source.sink("node", fn, **options)
    elif kind == "count":
        source.count("node", **options).sink("out", "collect")
    else:
        flow.operator(kind, "node", [source], fn, **options).sink("out", "collect")
    return flow.run(tasks=tasks).wait(20)


def fails_at_three(value: int) -> int:
    if value == 3:
        raise ValueError("three\nis bad")
    return value


async def fails_later(value: int) -> int:
    await asyncio.sleep(0)
    return fails_at_three(value)


def fails_in_batch(values: list[int]) -> list[int]:
    return [fails_at_three(value) for value in values]


@pytest.mark.parametrize("options", [{}, {"concurrency": 4}, {"on_error": "retry 1"}])
@pytest.mark.parametrize("fn", [fails_at_three, fails_later])
@pytest.mark.parametrize("kind", ["map", "filter", "flat_map", "key_by", "sink"])
def test_a_failing_record_becomes_a_dead_letter_and_the_others_go_on(
    kind: str, fn: Callable[..., Any], options: dict[str, Any]
) -> None:
    seen: list[int] = []
    given = fn
    if kind == "sink" and fn is fails_at_three:
        given = lambda value: seen.append(fails_at_three(value))  # noqa: E731
    if kind == "flat_map":
        if fn is fails_at_three:
            given = lambda value: [fails_at_three(value)] * 2  # noqa: E731
        else:

            async def twice(value: int) -> list[int]:
                return [await fails_later(value)] * 2

            given = twice
    run = through(range(1, 8), kind, given, **options)
    (dead,) = run.dead_letters()
    assert (dead["node"], dead["value"], dead["error"]) == ("node", 3, "ValueError: three is bad")
    assert dead["position"] == {"split": 0, "record": 2}
    assert dead["version"] == 1
    assert "in fails_at_three" in dead["traceback"]
    assert next(row for row in run.metrics() if row["node"] == "node")["errors"] == 1
    rest = [1, 2, 4, 5, 6, 7]
    if kind == "flat_map":
        assert run.collect("out") == [value for value in rest for _ in range(2)]
    elif kind != "sink":
        assert run.collect("out") == rest
    elif seen:
        assert sorted(seen) == rest


@pytest.mark.parametrize("kind", ["map", "filter", "flat_map", "sink"])
def test_in_a_failing_batch_only_the_culprit_becomes_a_dead_letter(kind: str) -> None:
    run = through(range(1, 8), kind, fails_in_batch, batch=True)
    (dead,) = run.dead_letters()
    assert (dead["value"], dead["position"]) == (3, {"split": 0, "record": 2})
    if kind != "sink":
        assert run.collect("out") == [1, 2, 4, 5, 6, 7]


def test_a_failing_fold_keeps_its_value_and_goes_on() -> None:
    def add(total: int, value: int) -> int:
        return total + fails_at_three(value)

    run = through(range(1, 6), "reduce", add)
    assert run.collect("out") == [1, 3, 7, 12]
    assert [dead["value"] for dead in run.dead_letters("node")] == [3]
    run = through(range(1, 6), "aggregate", add, initial=10, emit="end")
    assert run.collect("out") == [10 + 12]


def test_a_record_behind_others_that_failed_still_knows_where_it_came_from() -> None:
    flow = jf.Flow("positions")
    values = flow.source("values", range(10)).filter("odd", lambda v: v % 2).map("first", fails_at_three)
    spread = values.flat_map("spread", lambda v: range(v))
    spread.map("last", lambda v: 1 // (v - 6)).sink("out", "collect")
    run = flow.run().wait(10)
    assert [(d["value"], d["position"]["record"]) for d in run.dead_letters("last")] == [(6, 7), (6, 9)]


@pytest.mark.parametrize("kind", ["map", "flat_map", "reduce"])
def test_a_failing_record_ends_the_flow_where_that_is_asked_for(kind: str) -> None:
    fns: dict[str, Any] = {
        "map": fails_at_three,
        "flat_map": lambda v: [fails_at_three(v)],
        "reduce": lambda total, v: total + fails_at_three(v),
    }
    with pytest.raises(
        jf.FlowError, match=r"^JF404 flow 'functions', node 'node': ValueError: three is bad - "
    ) as caught:
        through(range(1, 8), kind, fns[kind], on_error="fail")
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("options", [{}, {"batch": True}, {"concurrency": 2}])
def test_a_retried_record_that_works_in_the_end_is_no_dead_letter(options: dict[str, Any]) -> None:
    tries: list[Any] = []

    def third_time(value: Any) -> Any:
        tries.append(value)
        if len(tries) < 3:
            raise ValueError("not yet")
        return value

    run = through([5], "map", third_time, on_error="retry 2", **options)
    assert run.collect("out") == [5]
    assert len(tries) == 3
    assert run.dead_letters() == []


def test_an_async_record_and_a_fold_are_retried_too() -> None:
    tries: list[int] = []

    async def second_time(value: int) -> int:
        tries.append(value)
        if len(tries) == 1:
            raise ValueError("not yet")
        return value

    assert through([5], "map", second_time, on_error="retry 1").collect("out") == [5]

    def second_fold(total: int, value: int) -> int:
        tries.append(value)
        if len(tries) == 3:
            raise ValueError("not yet")
        return total + value

    assert through([5, 6], "reduce", second_fold, on_error="retry 1").collect("out") == [5, 11]


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration, GeneratorExit])
def test_an_error_that_python_gives_a_meaning_of_its_own_loses_no_other_record(
    error: type[BaseException], concurrency: int
) -> None:
    def stops(value: int) -> int:
        if value == 3:
            raise error
        return value

    if error is GeneratorExit:  # no Exception: it ends the flow
        with pytest.raises(jf.FlowError, match="GeneratorExit"):
            through(range(6), "map", stops, concurrency=concurrency)
        return
    run = through(range(6), "map", stops, concurrency=concurrency)
    assert run.collect("out") == [0, 1, 2, 4, 5]
    assert len(run.dead_letters()) == 1


def test_what_is_no_key_and_what_is_no_list_are_dead_letters() -> None:
    run = through([1, [2], 3], "key_by", lambda v: v)
    assert run.collect("out") == [1, 3]
    assert "JF210" in run.dead_letters()[0]["error"]
    run = through([1, [2], 3], "flat_map", lambda v: v)
    assert run.collect("out") == [2]
    assert [dead["value"] for dead in run.dead_letters()] == [1, 3]
    run = through([1, 2], "flat_map", lambda v: None)
    assert (run.collect("out"), run.dead_letters()) == ([], [])


def test_a_truth_that_cannot_be_told_is_a_dead_letter() -> None:
    run = through([1, 2, 3], "filter", lambda v: np.array([1, 2]) if v == 2 else v)
    assert run.collect("out") == [1, 3]
    assert run.dead_letters()[0]["value"] == 2
    run = through([1, 2, 3], "filter", lambda v: {1: 1 // (v - 1) if v == 1 else v, 2: np.array([1, 2])}.get(v, v))
    assert run.collect("out") == [3]
    assert [dead["position"]["record"] for dead in run.dead_letters()] == [0, 1]


def test_map_emits_none_and_filter_takes_truth() -> None:
    assert through([1, 2], "map", lambda v: None).collect("out") == [None, None]
    assert through([0, 1, "", "a", None, []], "filter", lambda v: v).collect("out") == [1, "a"]


# Named arguments.


def test_arguments_are_filled_in_by_name_in_any_order() -> None:
    def everything(value: int, context: Any, headers: Any, *, timestamp: int, key: Any = "none", other: int = 5) -> Any:
        return value, key, headers, timestamp > 1_600_000_000_000, context.node, other

    flow = jf.Flow("named")
    keyed = flow.source("values", [1, 2]).key_by("key", lambda v: -v)
    keyed.map("all", everything).sink("out", "collect")
    assert flow.run().wait(10).collect("out") == [(1, -1, (), True, "all", 5), (2, -2, (), True, "all", 5)]


def test_the_value_may_have_the_name_of_a_named_argument() -> None:
    assert through([1, 2], "map", lambda key: key + 1).collect("out") == [2, 3]
    assert through([1, 2], "reduce", lambda state, value: state + value).collect("out") == [1, 3]


@pytest.mark.parametrize(("fn", "values", "out"), [(str, [1], ["1"]), (len, ["ab"], [2]), (int, ["7"], [7])])
def test_builtins_are_functions_too(fn: Any, values: list[Any], out: list[Any]) -> None:
    assert through(values, "map", fn).collect("out") == out


@pytest.mark.parametrize("tasks", [1, 3])
def test_state_is_the_keys_own_dict_and_what_is_in_it_is_kept(tasks: int) -> None:
    def number(value: int, state: dict[str, int], key: int) -> tuple[int, int]:
        state["n"] = state.get("n", 0) + 1
        return key, state["n"]

    flow = jf.Flow("state")
    keyed = flow.source("values", [i % 3 for i in range(12)]).key_by("key", lambda v: v)
    keyed.map("number", number).sink("out", "collect")
    out = flow.run(tasks=tasks).wait(10).collect("out")
    assert sorted(out) == sorted((key, n) for key in range(3) for n in range(1, 5))


@pytest.mark.parametrize("options", [{}, {"concurrency": 4}, {"on_error": "retry 1"}])
def test_a_context_id_is_one_records_own_and_the_same_again(options: dict[str, Any]) -> None:
    def flow() -> jf.Flow:
        flow = jf.Flow("ids")
        source = flow.source("values", range(30), parallelism=2).filter("some", lambda v: v % 3)
        spread = source.flat_map("spread", lambda v: ["a", "a", v], **options)
        both = spread.map("left", lambda v: v, **options).union("both", source, spread)
        both.map("id", lambda v, context: context.id, **options).sink("here", "collect")
        both.count("all", emit="end").map("last", lambda v, context: context.id, **options).sink("out", "collect")
        moved = both.map("moved", lambda v: v, parallelism=3)
        moved.map("there_id", lambda v, context: context.id, **options).sink("there", "collect")
        return flow

    runs = [flow().run().wait(10) for _ in range(2)]
    for sink, n in (("here", 20 + 60 + 60), ("there", 20 + 60 + 60), ("out", 1)):
        first, second = (sorted(run.collect(sink)) for run in runs)
        assert len(set(first)) == len(first) == n
        if sink == "here":
            assert first == second


# Calls in flight.


@pytest.mark.parametrize("form", ["async", "threads"])
def test_calls_in_flight_run_at_once_and_keep_the_order(form: str) -> None:
    together = threading.Barrier(3, timeout=10)

    def meet(value: int) -> int:
        together.wait()  # nobody passes unless three are in here
        return value

    async def meet_async(value: int) -> int:
        waiting.append(asyncio.get_running_loop().create_future())
        mine = waiting[-1]
        if len(waiting) == 3:
            for future in waiting:
                future.set_result(None)
            waiting.clear()
        await asyncio.wait_for(mine, 10)
        return value

    waiting: list[asyncio.Future[None]] = []
    run = through(range(12), "map", meet_async if form == "async" else meet, concurrency=3)
    assert run.collect("out") == list(range(12))
    assert run.dead_letters() == []


def test_no_more_calls_are_in_flight_than_asked_for() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def call(value: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        with lock:
            now -= 1
        return value

    assert through(range(500), "map", call, concurrency=3).collect("out") == list(range(500))
    assert most <= 3


def test_async_generators_spread_in_flat_map() -> None:
    async def twice(value: int) -> Any:
        yield value
        yield -value

    run = through([1, 2], "flat_map", twice, concurrency=2)
    assert run.collect("out") == [1, -1, 2, -2]


def test_an_object_with_an_async_call_is_awaited() -> None:
    class Adder:
        async def __call__(self, value: int) -> int:
            return value + 1

    assert through([1], "map", Adder()).collect("out") == [2]


def test_a_generator_that_fails_half_way_spreads_nothing_of_that_record() -> None:
    def spread(value: int) -> Iterator[int]:
        yield value
        yield fails_at_three(value)

    run = through([2, 3, 4], "flat_map", spread)
    assert run.collect("out") == [2, 2, 4, 4]
    assert [dead["value"] for dead in run.dead_letters()] == [3]


# Batches.


def test_a_batch_function_gets_many_values_at_once() -> None:
    sizes: list[int] = []

    def double(values: list[int]) -> list[int]:
        sizes.append(len(values))
        return [2 * value for value in values]

    assert through(range(5000), "map", double, batch=True).collect("out") == [2 * v for v in range(5000)]
    assert max(sizes) >= 1000


def test_a_batch_function_may_take_and_give_data_frames() -> None:
    rows = [{"carrier": "AA", "delay": 3}, {"carrier": "UA", "delay": -1}]

    def late(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(late=frame["delay"] > 0)

    def is_late(frame: pd.DataFrame) -> pd.Series:
        return frame["delay"] > 0

    seen: list[type] = []

    def look(frame: pd.DataFrame) -> None:
        seen.append(type(frame))

    assert through(rows, "map", late, batch=True).collect("out") == [
        {"carrier": "AA", "delay": 3, "late": True},
        {"carrier": "UA", "delay": -1, "late": False},
    ]
    assert through(rows, "filter", is_late, batch=True).collect("out") == rows[:1]
    through(rows, "sink", look, batch=True)
    assert seen == [pd.DataFrame]


def test_a_batch_function_of_a_sink_gets_each_value_once() -> None:
    seen: list[int] = []
    run = through(range(10), "sink", seen.extend, batch=True)
    assert seen == list(range(10))
    assert run.dead_letters() == []


def test_a_batch_function_that_gives_too_few_results_loses_nothing_silently() -> None:
    run = through([1, 2], "map", lambda values: [], batch=True)
    assert [dead["value"] for dead in run.dead_letters()] == [1, 2]
    assert "JF401" in run.dead_letters()[0]["error"]
    run = through([1, 2], "map", lambda values: 5, batch=True)
    assert "JF401 a batch function gave int" in run.dead_letters()[0]["error"]


@pytest.mark.parametrize("tasks", [1, 3])
def test_a_batch_flat_map_keeps_the_keys(tasks: int) -> None:
    flow = jf.Flow("batches")
    keyed = flow.source("values", range(30)).key_by("key", lambda v: v % 3)
    spread = keyed.flat_map("twice", lambda values: [v for v in values for _ in range(2)], batch=True)
    spread.count("n", emit="end").sink("out", "collect")
    run = flow.run(tasks=tasks).wait(10)
    assert {record.key: record.value for record in run.records("out")} == {0: 20, 1: 20, 2: 20}


def test_an_async_function_that_exits_fails_the_flow_and_nobody_waits_for_ever() -> None:
    async def leave(value: int) -> int:
        raise SystemExit(3)

    flow = jf.Flow("exits")
    flow.source("values", [1]).map("leave", leave).sink("out", "collect")
    with pytest.raises(jf.FlowError, match=r"^JF407 .*SystemExit: 3$"):
        flow.run().wait(30)


def test_state_is_not_shared_by_calls_in_flight() -> None:
    flow = jf.Flow("functions")
    keyed = flow.source("values", [1]).key_by("key", lambda value: value)
    with pytest.raises(jf.FlowError, match=r"JF112 .*two calls in flight could share a key's state - leave concurrency"):
        keyed.map("node", lambda value, state: value, concurrency=2)
