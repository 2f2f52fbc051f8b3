"""The flow as plain data, records and batches."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jupyterflow as jf
from jupyterflow.model import Batch, Flow, FlowError, FlowTimeout, Node, Record, did_you_mean


def described() -> jf.Flow:
    flow = jf.Flow("described")
    source = flow.source("bids", "kafka://bids?codec=json&start=latest", on_error="fail")
    source.map("euros", lambda bid: bid, concurrency=4).aggregate("all", set, lambda seen, v: seen).sink(
        "out", "collect"
    )
    flow.nodes["euros"].position = (10.5, -3.0)
    return flow


def test_a_flow_goes_through_json_and_back() -> None:
    data = described().to_dict()
    again = Flow.from_dict(json.loads(json.dumps(data)))
    assert again.to_dict() == data
    assert again.nodes["euros"].position == (10.5, -3.0)
    assert again.nodes["bids"].options == {"topic": "bids", "codec": "json", "start": "latest", "on_error": "fail"}
    assert again.downstreams("euros") == ["all"]
    assert "lambda bid: bid" in (again.nodes["euros"].code or "")


def test_plain_data_is_read_by_the_fluent_flow_too() -> None:
    again = jf.Flow.from_dict(described().to_dict())
    assert isinstance(again, jf.Flow)
    with pytest.raises(FlowError, match=r"JF113 .*'euros'.* its function is missing"):
        again.run()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": "a flow"}, "JF101"),
        ({"edges": [["bids", "eurso"]]}, "JF104"),
        ({"edges": [["bids", "euros"], ["bids", "euros"]]}, "JF106"),
        ({"edges": [["euros", "all"], ["all", "euros"]]}, "JF107"),
        ({"nodes": [{"name": "a b", "role": "source", "kind": "list"}], "edges": []}, "JF102"),
    ],
)
def test_bad_plain_data_is_refused(change: dict[str, Any], code: str) -> None:
    with pytest.raises(FlowError) as caught:
        Flow.from_dict(described().to_dict() | change)
    assert caught.value.code == code


def test_the_order_puts_every_node_behind_its_upstreams() -> None:
    flow = Flow("order")
    for name in "abcd":
        flow.add(Node(name, "source" if name == "a" else "operator", "map"), ["a"] if name != "a" else [])
    flow.connect("d", "b")
    flow.connect("b", "c")
    assert flow.order() == ["a", "d", "b", "c"]


def test_removing_a_node_removes_its_edges() -> None:
    flow = described()
    flow.remove("euros")
    assert [(e.upstream, e.downstream) for e in flow.edges] == [("all", "out")]
    flow.disconnect("all", "out")
    assert flow.edges == []
    with pytest.raises(FlowError, match="JF104"):
        flow.disconnect("all", "out")


def test_an_error_is_one_line_that_begins_with_its_code() -> None:
    error = FlowTimeout("JF405", "flow 'x' is still running - wait longer")
    assert str(error) == "JF405 flow 'x' is still running - wait longer"
    assert error._render_traceback_() == [str(error)]
    assert isinstance(error, FlowError)
    assert isinstance(error, TimeoutError)


def test_a_near_name_is_suggested_and_a_far_one_is_not() -> None:
    assert did_you_mean("bidz", ["bids", "euros"]) == " - did you mean 'bids'?"
    assert did_you_mean("xyz", ["bids", "euros"]) == ""


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    n = draw(st.integers(0, 5))
    column = st.lists(st.integers(0, 9), min_size=n, max_size=n)
    headers = st.lists(st.just((("h", b"1"),)), min_size=n, max_size=n)
    return Batch(draw(column), draw(st.none() | column), draw(st.integers(0, 9) | column), draw(st.none() | headers))


@given(st.lists(batches(), min_size=1, max_size=4))
def test_joined_batches_hold_all_records_in_order(parts: list[Batch]) -> None:
    records = [record for part in parts for record in part]
    whole = Batch.concat(parts)
    assert list(whole) == records
    rows = list(range(len(whole)))[::-1]
    assert list(whole.take(rows)) == records[::-1]
    assert list(whole[1:3]) == records[1:3]


def test_records_of_a_batch_are_whole() -> None:
    assert list(Batch(["a"], [7], 5)) == [Record("a", 7, 5, ())]
    assert Batch(["a"], None, 5) == Batch(["a"], [None], [5], [()])
