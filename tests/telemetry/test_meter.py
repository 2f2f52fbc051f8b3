"""Counters are exact; rates and percentiles are derived from successive looks."""

from __future__ import annotations

from typing import Any

import pytest

from jupyterflow.nodes.base import Counters
from jupyterflow.telemetry import Meter, percentile


def counted(records_in: int, records_out: int, seconds: tuple[float, ...] = ()) -> list[Any]:
    counters = Counters()
    counters.records_in, counters.records_out = records_in, records_out
    for took in seconds:
        counters.took(took)
    return counters.to_list()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_totals_are_the_sum_over_all_tasks() -> None:
    meter = Meter(["a", "b"])
    totals = meter.totals([{"a": counted(1, 2)}, {"a": counted(10, 20), "b": counted(3, 4)}])
    assert {name: own[:2] for name, own in totals.items()} == {"a": [11, 22], "b": [3, 4]}


def test_nodes_come_in_the_flows_order_and_all_of_them() -> None:
    assert [row["node"] for row in Meter(["b", "a"]).metrics([])] == ["b", "a"]


def test_a_rate_is_what_was_counted_a_second_over_the_last_seconds() -> None:
    clock = Clock()
    meter = Meter(["a"], clock)

    def look(records: int) -> float:
        return float(meter.metrics([{"a": counted(records, 2 * records)}])[0]["rate_in"])

    assert look(500) == 0.0  # nothing to compare with
    clock.now += 1
    assert look(600) == pytest.approx(100)
    clock.now += 0.01
    assert look(600) == pytest.approx(100, rel=0.05)
    for _ in range(20):
        clock.now += 1
        rate = look(600)
    assert rate == 0.0
    clock.now += 1
    assert look(300) == 0.0  # a task that started again counts from less: never a negative rate


def test_lag_is_given_by_node() -> None:
    rows = Meter(["a", "b"]).metrics([], {"a": 7})
    assert [row["lag"] for row in rows] == [7, None]


def test_percentiles_are_upper_bounds_of_how_long_batches_took() -> None:
    latency = counted(0, 0, (0.001,) * 90 + (0.1,) * 10)[5]
    half, most = percentile(latency, 0.5), percentile(latency, 0.95)
    assert half is not None
    assert most is not None
    assert 1 <= half <= 2.1
    assert 100 <= most <= 210
    assert percentile([0] * 64, 0.5) is None


def test_counters_go_on_from_where_they_were() -> None:
    data = counted(5, 6, (0.1,))
    again = Counters()
    again.restore(data)
    assert again.to_list() == data
    again.took(0.1)
    assert sum(data[5]) == 1  # what was given out does not change behind one's back
