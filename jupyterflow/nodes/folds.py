"""reduce, aggregate and count: one running value per key.

A fold's state is the value itself with `emit="each"`; else `(value, seen, emitted)`, so that the end emits
what has not been emitted yet and nothing twice.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from jupyterflow.codecs import key_of, state_key
from jupyterflow.model import Batch, Node
from jupyterflow.nodes.base import Kind, NodeContext, Operator, Option, now_ms
from jupyterflow.nodes.calls import Signature, columns, key_column, retried
from jupyterflow.nodes.stateless import PARALLEL, retries

_EMPTY = object()
_OPTIONS = {
    **PARALLEL,
    "emit": Option(str, "each", "each: one output per input; end: the final value only", choices=("each", "end")),
    "every": Option(int, None, "emit after each N inputs of a key", minimum=1),
    "seconds": Option(float, None, "emit what changed each T seconds", minimum=0.001),
}


class Fold(Operator):
    """A running value per key; without a key one value for all."""

    def __init__(self, node: Node, context: NodeContext) -> None:
        super().__init__(node, context)
        options = node.options
        self.every, self.seconds = options.get("every"), options.get("seconds")
        self.each = self.every is None and self.seconds is None and options.get("emit", "each") == "each"
        self.form = "each" if self.each else "held"
        self.timed = self.seconds is not None
        self._next = context.clock() + (self.seconds or 0)
        self.step, self.start = self._functions(node)

    def _functions(self, node: Node) -> tuple[Callable[..., Any], Callable[[], Any]]:
        assert node.fn is not None
        signature = Signature(node.fn, 2, f"node '{node.name}'")
        self.names, fn = signature.names, retried(node.fn, retries(node))
        if node.kind == "aggregate":
            initial = node.options.get("initial")
            start = initial if callable(initial) else lambda: copy.deepcopy(initial)
        else:
            start = lambda: _EMPTY  # noqa: E731
        if signature.keyword:
            names, plain = tuple(self.names), node.fn
            named = lambda acc, value, *extra: plain(acc, value, **dict(zip(names, extra, strict=True)))  # noqa: E731
            return retried(named, retries(node)), start
        return fn, start

    def _keys(self, batch: Batch) -> tuple[Sequence[Any], list[Any] | None]:
        """The state keys of a batch, and the keys that its results carry."""
        if self.context.keyed:
            return key_column(batch), batch.keys
        return [state_key(None)] * len(batch), None

    def process(self, batch: Batch) -> Batch | None:
        rows: list[int] | None = None
        out: list[Any] = []
        append = out.append
        table, dirty = self.context.table.values, self.context.table.dirty
        get, step, start, every, each = table.get, self.step, self.start, self.every, self.each
        extra = columns(self.names, batch, self.context) if self.names else None
        arguments = zip(*extra, strict=True) if extra else None
        keys, given = self._keys(batch)
        failed: set[int] = set()
        emitted: list[int] = []
        for row, (key, value) in enumerate(zip(keys, batch.values, strict=True)):
            old = get(key, _EMPTY)
            more = next(arguments) if arguments is not None else ()
            try:
                acc = old if each or old is _EMPTY else old[0]
                if acc is _EMPTY:
                    acc = start()
                new = value if acc is _EMPTY else step(acc, value, *more)
            except Exception as error:
                failed.add(row)
                self.context.fail(batch, row, error)
                continue
            if each:
                table[key] = new
                append(new)
                continue
            seen = 1 if old is _EMPTY else old[1] + 1
            due = every is not None and seen % every == 0
            table[key] = (new, seen, due)
            if due:
                append(new)
                emitted.append(row)
        dirty.update(keys)
        if failed:
            dirty.difference_update([key for key in set(keys) if key not in table])
        if each and not failed:
            self.lineage = None
            return Batch(out, given, batch.timestamps, batch.headers)
        rows = [row for row in range(len(batch)) if row not in failed] if each else emitted
        self.lineage = rows
        if not rows:
            return None
        kept = batch.take(rows)
        return Batch(out, None if given is None else kept.keys, kept.timestamps, kept.headers)

    def reform(self, old: str) -> None:
        table = self.context.table
        for key, value in table.values.items():
            # What was emitted each time has been emitted; how many there were is not known any more.
            table.values[key] = value[0] if self.each else (value, 0, True)
        table.dirty.update(table.values)

    def _pending(self) -> Batch | None:
        table, dirty = self.context.table.values, self.context.table.dirty
        due = [key for key, (_, _, emitted) in table.items() if not emitted]
        if not due:
            return None
        values = []
        for key in due:
            value, seen, _ = table[key]
            table[key] = (value, seen, True)
            values.append(value)
        dirty.update(due)
        return Batch(values, [key_of(key) for key in due], now_ms())

    def flush(self) -> Batch | None:
        return None if self.each else self._pending()

    def tick(self, now: float) -> Batch | None:
        if self.seconds is None or now < self._next:
            return None
        self._next = now + self.seconds
        return self._pending()


class Count(Fold):
    """How many records a key has had."""

    def _functions(self, node: Node) -> tuple[Callable[..., Any], Callable[[], Any]]:
        self.names = []
        return (lambda acc, value: acc + 1), (lambda: 0)

    def process(self, batch: Batch) -> Batch | None:
        if not self.each:
            return super().process(batch)
        table = self.context.table.values
        get = table.get
        keys, given = self._keys(batch)
        out: list[int] = []
        append = out.append
        for key in keys:
            table[key] = n = get(key, 0) + 1
            append(n)
        self.context.table.dirty.update(keys)
        return Batch(out, given, batch.timestamps, batch.headers)


KINDS = [
    Kind("reduce", "operator", "folds the values of a key, the first being the start", _OPTIONS, 2, fold=True, make=Fold),
    Kind(
        "aggregate", "operator", "folds the values of a key into an initial value",
        {**_OPTIONS, "initial": Option(object, None, "the start: a value, or a function that makes it")}, 2, fold=True, make=Fold,
    ),
    Kind("count", "operator", "how many records a key has had", _OPTIONS, 0, fold=True, make=Count),
]  # fmt: skip
