"""Sinks in the notebook's own world: collect, and any function."""

from __future__ import annotations

from typing import Any

from jupyterflow.model import Batch
from jupyterflow.nodes.base import Kind, Operator, Option
from jupyterflow.nodes.stateless import CALLED, PARALLEL, _Calling


class Collect(Operator):
    """Keeps the records for `run.collect(name)`."""

    def process(self, batch: Batch) -> Batch:
        return batch


class FunctionSink(_Calling):
    """Calls a function for its effects: at least once, with a stable `context.id`."""

    gives = False

    def process(self, batch: Batch) -> None:
        self.over(batch)

    def _checked(self, results: list[Any], n: int) -> list[Any]:
        return [None] * n


KINDS = [
    Kind(
        "collect", "sink", "keeps the records, to be read with run.collect(name)",
        {**PARALLEL, "limit": Option(int, 1_000_000, "records kept: the last ones", minimum=1)}, 0, make=Collect,
    ),
    Kind("function", "sink", "calls a function for each record", CALLED, 1, make=FunctionSink),
]  # fmt: skip
