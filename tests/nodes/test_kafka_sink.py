"""The kafka: sink, without a broker."""

from __future__ import annotations

from typing import Any

from jupyterflow.model import Batch, Node
from jupyterflow.nodes.base import NodeContext
from jupyterflow.nodes.kafka import KafkaSink


def test_a_key_without_a_form_outside_costs_its_own_record_alone() -> None:
    bad: list[tuple[int, str]] = []
    context = NodeContext("out", fail=lambda context, batch, row, error: bad.append((row, str(error)[:5])))
    sink = KafkaSink(Node("out", "sink", "kafka", None, {"topic": "t", "codec": "json"}), context)
    keys: list[Any] = ["a", ("x", b"y"), "c", "d", "\udc80"]
    out = sink.process(Batch([1, 2, object(), 4, 5], keys, [10, 20, 30, 40, 50]))
    assert (out.values, out.keys, out.timestamps) == ([b"1", b"4"], [b"a", b"d"], [10, 40])
    assert bad == [(2, "JF202"), (1, "JF212"), (4, "JF212")]
    assert sink.lineage == [0, 3]
