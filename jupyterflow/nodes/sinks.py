"""Sinks in the notebook's own world: collect, and any function."""

from __future__ import annotations

from jupyterflow.model import Batch, Node
from jupyterflow.nodes.base import Kind, NodeContext, Operator, Option
from jupyterflow.nodes.stateless import CALLED, PARALLEL, _Calling


class Collect(Operator):
    """Keeps the records for `run.collect(name)`."""

    def process(self, batch: Batch) -> Batch:
        return batch


class FunctionSink(_Calling):
    """Calls a function for its effects: at least once, with a stable `context.id`."""

    def __init__(self, node: Node, context: NodeContext) -> None:
        super().__init__(node, context)

    def process(self, batch: Batch) -> None:
        if self.many is None:
            self.over(batch)
            return
        try:
            assert self.node.fn is not None
            self.node.fn(batch.values)
        except Exception as error:
            if len(batch) == 1:
                self.context.fail(batch, 0, error)
                return
            for row in range(len(batch)):
                self.process(batch[row : row + 1])


KINDS = [
    Kind(
        "collect", "sink", "keeps the records, to be read with run.collect(name)",
        {**PARALLEL, "limit": Option(int, 1_000_000, "records kept: the last ones", minimum=1)}, 0, make=Collect,
    ),
    Kind("function", "sink", "calls a function for each record", CALLED, 1, make=FunctionSink),
]  # fmt: skip
