"""What is refused at declaration, each with one coded line; handles, replacing, types along edges."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, Protocol, TypedDict

import pytest

import jupyterflow as jf


def numbers(flow: jf.Flow | None = None) -> tuple[jf.Flow, jf.Handle]:
    flow = flow or jf.Flow("test")
    return flow, flow.source("numbers", [1, 2, 3])


def refused(declare: Callable[[], Any]) -> jf.FlowError:
    with pytest.raises(jf.FlowError) as caught:
        declare()
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(caught.value.code + " ")
    return caught.value


def two(a: int, b: int) -> int:
    return a + b


BAD: list[tuple[str, str, Callable[[jf.Flow, jf.Handle], Any]]] = [
    ("JF108", "did you mean 'map'", lambda f, h: f.operator("mapp", "a", [h], str)),
    ("JF108", "did you mean 'kafka'", lambda f, h: f.source("a", "kafak://bids")),
    ("JF108", "one of", lambda f, h: f.source("a", "https://example.org")),
    ("JF108", "did you mean 'collect'", lambda f, h: h.sink("a", "colect")),
    ("JF108", "scheme of a sink 'csv'", lambda f, h: h.sink("a", "csv:out.csv")),
    ("JF109", "codec", lambda f, h: f.source("a", "kafka://bids?codec=jsn")),
    ("JF109", "codec", lambda f, h: h.sink("a", jf.Kafka("bids", codec="jsn"))),
    ("JF110", "did you mean 'parallelism'", lambda f, h: h.map("a", str, paralelism=2)),
    ("JF110", "'kodec'", lambda f, h: f.source("a", "kafka://bids?kodec=json")),
    ("JF110", "'concurrency'", lambda f, h: h.count("a", concurrency=2)),
    ("JF111", "at least 1", lambda f, h: h.map("a", str, parallelism=0)),
    ("JF111", "at least 1", lambda f, h: h.map("a", str, concurrency=-1)),
    ("JF111", "give an int", lambda f, h: h.map("a", str, parallelism="2")),
    ("JF111", "give an int", lambda f, h: h.map("a", str, parallelism=True)),
    ("JF111", "at least 1", lambda f, h: h.count("a", every=0)),
    ("JF111", "one of each, end", lambda f, h: h.count("a", emit="never")),
    ("JF111", "retry N", lambda f, h: h.map("a", str, on_error="ignore")),
    ("JF111", "one of", lambda f, h: f.source("a", "file:x", on_error="retry 3")),
    ("JF111", "no topic", lambda f, h: f.source("a", "kafka://")),
    ("JF111", "no path", lambda f, h: f.source("a", "file:")),
    ("JF111", "takes no path", lambda f, h: h.sink("a", "collect://here")),
    ("JF111", "give an int", lambda f, h: h.sink("a", "collect:?limit=many")),
    ("JF103", "the name is taken", lambda f, h: h.map("numbers", str)),
    ("JF102", "no name", lambda f, h: h.map("", str)),
    ("JF102", "comes first", lambda f, h: h.map(str)),
    ("JF102", "comes first", lambda f, h: h.sink(print)),
    ("JF102", "comes first", lambda f, h: f.source(lambda: [1])),
    ("JF102", "is no name", lambda f, h: h.map("a node", str)),
    ("JF102", "is no name", lambda f, h: h.map(5, str)),
    ("JF104", "did you mean 'numbers'", lambda f, h: f.operator("map", "a", ["nubmers"], str)),
    ("JF104", "did you mean 'numbers'", lambda f, h: f.node("nubmers")),
    ("JF104", "did you mean 'numbers'", lambda f, h: f.connect("nubmers", "x")),
    ("JF105", "needs an upstream", lambda f, h: f.sink("a", "collect")),
    ("JF105", "sink", lambda f, h: h.sink("a", "collect").map("b", str)),
    ("JF106", "twice", lambda f, h: f.union("a", h, h)),
    ("JF106", "there already", lambda f, h: (h.map("a", str), f.connect("numbers", "a"))),
    ("JF107", "itself", lambda f, h: f.operator("map", "a", ["a"], str)),
    ("JF107", "itself", lambda f, h: (h.map("a", str), f.connect("a", "a"))),
    ("JF107", "cycle", lambda f, h: (h.map("a", str).map("b", str), f.connect("b", "a"))),
    ("JF113", "needs a function", lambda f, h: h.map("a", 5)),
    ("JF113", "needs a function", lambda f, h: h.map("a")),
    ("JF113", "needs a function", lambda f, h: h.reduce("a", "add")),
    ("JF114", "is no source", lambda f, h: f.source("a", 5)),
    ("JF114", "is no source", lambda f, h: f.source("a", b"bytes")),
    ("JF114", "is no source", lambda f, h: f.source("a")),
    ("JF114", "is no sink", lambda f, h: h.sink("a", 5)),
    ("JF112", "takes 0 argument", lambda f, h: h.map("a", lambda: 1)),
    ("JF112", "needs 'b'", lambda f, h: h.map("a", two)),
    ("JF112", "takes 1 argument", lambda f, h: h.reduce("a", lambda total: total)),
    ("JF112", "needs 'extra'", lambda f, h: h.sink("a", lambda value, *, extra: None)),
    ("JF112", "needs 'bid'", lambda f, h: f.source("a", lambda bid: [bid])),
    ("JF105", "source", lambda f, h: (f.source("a", [1]), f.connect("numbers", "a"))),
]


@pytest.mark.parametrize(("code", "text", "declare"), BAD)
def test_bad_declarations_are_refused_in_one_line(
    code: str, text: str, declare: Callable[[jf.Flow, jf.Handle], Any]
) -> None:
    flow, handle = numbers()
    error = refused(lambda: declare(flow, handle))
    assert error.code == code
    assert text in str(error)
    assert "test" in str(error)


async def later(value: int) -> int:
    return value


async def later_two(total: int, value: int) -> int:
    return total + value


def yields(value: int) -> Iterator[int]:
    yield value


@pytest.mark.parametrize(
    "declare",
    [
        lambda h: h.reduce("a", later_two),
        lambda h: h.reduce("a", lambda total, value, state: total),
        lambda h: h.map("a", yields),
        lambda h: h.sink("a", yields),
        lambda h: h.map("a", later, batch=True),
        lambda h: h.map("a", lambda values, key: values, batch=True),
    ],
)
def test_a_function_of_a_form_that_the_kind_cannot_use_is_refused(declare: Callable[[jf.Handle], Any]) -> None:
    _, handle = numbers()
    assert refused(lambda: declare(handle)).code == "JF112"


@pytest.mark.parametrize("name", ["", None, 5, "a flow", "x" * 101, "ü"])
def test_a_flow_needs_a_name(name: Any) -> None:
    assert refused(lambda: jf.Flow(name)).code == "JF101"


def test_a_refused_node_leaves_the_flow_as_it_was() -> None:
    flow, handle = numbers()
    handle.map("a", str)
    before = flow.to_dict()
    refused(lambda: handle.map("b", str, concurrency=0))
    refused(lambda: flow.connect("a", "a"))
    refused(lambda: flow.operator("map", "a", ["a"], str, replace=True))
    assert flow.to_dict() == before


def test_state_without_a_key_is_refused_before_anything_runs() -> None:
    def first(value: int, state: dict[str, Any]) -> bool:
        return not state

    flow, handle = numbers()
    handle.filter("first", first)
    error = refused(flow.run)
    assert error.code == "JF304"
    assert "key_by" in str(error)


def test_a_node_that_lost_its_upstream_is_refused_before_anything_runs() -> None:
    flow, handle = numbers()
    handle.map("a", str).count("b")
    flow.remove("a")
    error = refused(flow.run)
    assert error.code == "JF105"
    assert "'b'" in str(error)


# Types along edges.


class Named(Protocol):
    name: str


class Bid(TypedDict):
    price: int


def text_of(value: int) -> str:
    return str(value)


def int_of(value: str) -> int:
    return int(value)


def half(value: float) -> float:
    return value / 2


def items(value: str) -> list[int]:
    return [int(value)]


def generated(value: str) -> Generator[int, None, None]:
    yield int(value)


async def async_items(value: str) -> AsyncIterator[int]:
    yield int(value)


def maybe(value: str) -> int | None:
    return int(value)


def takes_bid(value: Bid) -> int:
    return value["price"]


def takes_named(value: Named) -> str:
    return value.name


def a_dict(value: str) -> dict[str, int]:
    return {}


@pytest.mark.parametrize(
    ("kind", "up", "down", "fits"),
    [
        ("map", text_of, text_of, False),
        ("map", text_of, int_of, True),
        ("map", int_of, half, True),
        ("map", half, text_of, False),
        ("flat_map", items, text_of, True),
        ("flat_map", items, int_of, False),
        ("flat_map", generated, int_of, False),
        ("flat_map", async_items, int_of, False),
        ("flat_map", async_items, text_of, True),
        ("map", items, text_of, False),
        ("map", maybe, text_of, True),
        ("map", maybe, int_of, False),
        ("map", a_dict, takes_bid, True),
        ("map", a_dict, takes_named, True),
        ("map", a_dict, lambda value: value, True),
    ],
)
def test_types_that_do_not_fit_along_an_edge_are_refused(kind: str, up: Any, down: Any, fits: bool) -> None:
    flow, handle = numbers()
    above = flow.operator(kind, "up", [handle], up)
    if fits:
        above.map("down", down)
    else:
        error = refused(lambda: above.map("down", down))
        assert error.code == "JF115"
        assert "'up'" in str(error)
        assert "down" not in flow.nodes


def test_types_are_seen_through_filters_keys_and_merges() -> None:
    _, handle = numbers()
    texts = handle.map("texts", text_of).filter("some", bool).key_by("key", len).union("all")
    assert refused(lambda: texts.map("down", text_of)).code == "JF115"
    assert refused(lambda: texts.count("n").map("down", int_of)).code == "JF115"


def test_a_new_edge_is_checked_for_types() -> None:
    flow, handle = numbers()
    handle.map("texts", text_of)
    handle.map("other", text_of)
    assert refused(lambda: flow.connect("texts", "other")).code == "JF115"
    assert [(e.upstream, e.downstream) for e in flow.edges] == [("numbers", "texts"), ("numbers", "other")]


def test_a_node_that_replaces_another_must_fit_what_reads_from_it() -> None:
    _, handle = numbers()
    handle.map("texts", text_of).map("ints", int_of)
    error = refused(lambda: handle.map("texts", lambda v: v, replace=True) and handle.map("texts", half, replace=True))
    assert error.code == "JF115"
    assert "'ints'" in str(error)


# What is accepted.


def test_a_handle_used_twice_fans_out_and_a_named_merge_joins_again() -> None:
    flow, handle = numbers()
    left = handle.map("left", lambda v: v)
    handle.map("right", lambda v: -v)
    flow.union("all", left, "right").sink("out", "collect")
    assert sorted(flow.run().wait(10).collect("out")) == [-3, -2, -1, 1, 2, 3]


def test_replacing_a_node_keeps_its_edges_and_its_position() -> None:
    flow, handle = numbers()
    handle.map("twice", lambda v: 2 * v).sink("out", "collect")
    flow.nodes["twice"].position = (10.0, 20.0)
    flow.operator("map", "twice", [], lambda v: 3 * v, replace=True)
    assert flow.nodes["twice"].position == (10.0, 20.0)
    assert flow.run().wait(10).collect("out") == [3, 6, 9]


def test_an_endless_iterator_is_drawn_from_as_it_runs() -> None:
    flow = jf.Flow("endless")
    flow.source("numbers", itertools.count()).sink("out", "collect")
    run = flow.run()
    until(lambda: len(run.collect("out")) > 10)
    run.stop(10)
    assert run.collect("out")[:5] == [0, 1, 2, 3, 4]


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come true in time"
        time.sleep(0.005)


@pytest.mark.parametrize("source", [range(3), (0, 1, 2), {0: "a", 1: "b", 2: "c"}, iter([0, 1, 2]), lambda: [0, 1, 2]])
def test_sources_of_many_forms_give_the_same_records(source: Any) -> None:
    flow = jf.Flow("forms")
    flow.source("numbers", source).sink("out", "collect")
    assert flow.run().wait(10).collect("out") == [0, 1, 2]


def test_an_initial_value_may_be_false_or_missing() -> None:
    flow, handle = numbers()
    handle.aggregate("any", False, lambda seen, v: seen or v == 2, emit="end").sink("a", "collect")
    handle.aggregate("last", None, lambda seen, v: v, emit="end").sink("b", "collect")
    run = flow.run().wait(10)
    assert (run.collect("a"), run.collect("b")) == ([True], [3])
