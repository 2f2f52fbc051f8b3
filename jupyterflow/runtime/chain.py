"""The fused nodes of a stage at work: a batch in, through every node in turn, out to where their records go."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from jupyterflow.codecs import Sealer
from jupyterflow.model import Batch, Flow
from jupyterflow.nodes import prints
from jupyterflow.nodes.base import NodeContext, Operator
from jupyterflow.nodes.catalogue import find
from jupyterflow.plan import Stage, keyed_nodes

Route = Callable[[Batch], None]


class Step:
    """One node of the stage at work."""

    __slots__ = ("above", "called", "context", "given", "latest", "name", "operator", "parts", "routes")

    def __init__(self, name: str, context: NodeContext, operator: Operator | None, above: list[int]) -> None:
        self.name, self.context, self.operator, self.above = name, context, operator, above
        self.routes: list[Callable[[Batch], None]] = []
        self.parts: list[tuple[int, int]] = []
        self.given = 0  # output rows of the last batch that came from an input row; the rest was emitted by time
        self.called = False
        self.latest: Any = None


class Chain:
    """The nodes of *stage* in task number *index*.

    `routes(name)` says where the records of a node go besides the next nodes; `fail` is told of each record that
    could not be processed. `origin` gives the source position of a row of what is being processed.
    """

    def __init__(
        self,
        flow: Flow,
        stage: Stage,
        index: int,
        *,
        worker: str,
        sealer: Sealer | None,
        clock: Callable[[], float],
        routes: Callable[[str], list[Route]],
        fail: Callable[[NodeContext, Batch, int, BaseException], None],
    ) -> None:
        self.origin: Callable[[int], dict[str, Any]] = lambda row: {}
        self.emissions = 0  # how often a node emitted because time passed or the input ended
        self.steps: list[Step] = []
        number = {name: i for i, name in enumerate(stage.nodes)}
        keyed = keyed_nodes(flow)
        for name in stage.nodes:
            node = flow.nodes[name]
            context = NodeContext(name, task=index, tasks=stage.tasks, worker=worker, fail=fail, clock=clock)
            context.user.locate = lambda row, i=number[name]: self.locate(i, row)  # type: ignore[misc]
            context.keyed, context.sealer, context.flow = name in keyed, sealer, flow
            kind = find(node.role, node.kind, f"node '{name}'")
            operator = kind.make(node, context) if kind.make is not None else None
            step = Step(name, context, operator, [number[up] for up, down in stage.edges if down == name])
            step.called = node.fn is not None and operator is not None
            step.routes = routes(name)
            self.steps.append(step)
        self._timed = [i for i, step in enumerate(self.steps) if step.operator is not None and step.operator.timed]

    @property
    def entry(self) -> NodeContext:
        """The context of the node that the records enter by."""
        return self.steps[0].context

    @property
    def timed(self) -> bool:
        """Whether a node wants to know that time passes."""
        return bool(self._timed)

    def tick(self, now: float) -> bool:
        """Time passed: let the timed nodes emit; whether any did."""
        emitted = False
        for i in self._timed:
            operator = self.steps[i].operator
            assert operator is not None
            batch = operator.tick(now)
            if batch is not None:
                self.run(None, emitted={i: batch})
                emitted = True
        return emitted

    def run(self, batch: Batch | None, *, emitted: dict[int, Batch] | None = None, flush: bool = False) -> None:
        """A batch through all nodes; `emitted` by a node because time passed; `flush` what they hold at the end."""
        steps = self.steps
        outs: list[Batch | None] = [None] * len(steps)
        clock = time.perf_counter
        for i, step in enumerate(steps):
            if i == 0:
                given = [batch] if batch is not None else []
                step.parts = []
            else:
                given = [part for j in step.above if (part := outs[j]) is not None]
                step.parts = [(j, len(part)) for j in step.above if (part := outs[j]) is not None]
            operator, counters = step.operator, step.context.counters
            out: Batch | None = None
            if given:
                joined = given[0] if len(given) == 1 else Batch.concat(given)
                if operator is None:
                    out = joined
                else:
                    counters.records_in += len(joined)
                    if step.called:
                        prints.redirect(step.context.prints)
                    begin = clock()
                    try:
                        out = operator.process(joined)
                    finally:
                        counters.took(clock() - begin)
                        prints.redirect(None)
            step.given = len(out) if out is not None else 0
            more = emitted.get(i) if emitted else None
            if flush and operator is not None:
                more = operator.flush()
            if more is not None:
                self.emissions += 1
                out = more if out is None else Batch.concat([out, more])
            if out is None or not len(out):
                continue
            if operator is not None:
                counters.records_out += len(out)
            step.latest = out.values[-1]
            outs[i] = out
            for route in step.routes:
                route(out)

    def trace(self, i: int, row: int) -> tuple[dict[str, Any], list[Any]]:
        """Where a row of a node's input came from, and what tells it from others that came from there: by which
        branch it came, and which it was of the many that a node made of one."""
        path: list[Any] = []
        while i > 0:
            step = self.steps[i]
            for j, size in step.parts:  # noqa: B007 - j is the branch it came by
                if row < size:
                    break
                row -= size
            else:
                return {}, [row]
            if len(step.above) > 1:
                path.append(j)
            i, operator = j, self.steps[j].operator
            if operator is None:
                continue
            if row >= self.steps[j].given:
                return {"node": self.steps[j].name, "emission": self.emissions, "row": row - self.steps[j].given}, path
            if callable(operator.lineage):
                operator.lineage = operator.lineage()
            if operator.lineage is not None:
                lineage, twin = operator.lineage, 0
                while operator.spreads and twin < row and lineage[row - twin - 1] == lineage[row]:
                    twin += 1
                row = lineage[row]
                if operator.spreads:
                    path.append(twin)
        return self.origin(row), path

    def locate(self, i: int, row: int) -> str:
        """A text that is the same for a record whenever it is processed again, and no other record's."""
        place, path = self.trace(i, row)
        return ":".join(map(str, [*(value for name, value in place.items() if name != "path"), *path]))

    def forms(self) -> dict[str, str]:
        """How each node writes its state, where that depends on its options."""
        return {
            step.name: step.operator.form for step in self.steps if step.operator is not None and step.operator.form
        }

    def reform(self, forms: dict[str, str]) -> None:
        """Its state was written by nodes with other options, perhaps in another form."""
        for step in self.steps:
            old = forms.get(step.name, "")
            if step.operator is not None and old and step.operator.form not in ("", old):
                step.operator.reform(old)

    def counters(self) -> dict[str, list[Any]]:
        """The exact counters of each node, as plain data."""
        return {step.name: step.context.counters.to_list() for step in self.steps}

    def samples(self) -> dict[str, Any]:
        """The latest value of each node."""
        return {step.name: step.latest for step in self.steps if step.latest is not None}

    def close(self) -> None:
        """Release what the nodes hold."""
        for step in self.steps:
            if step.operator is not None:
                step.operator.close()
