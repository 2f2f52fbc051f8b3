"""map, filter, flat_map, key_by and union: nodes that look at one record (or one batch) at a time."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from itertools import chain, compress
from typing import Any

from jupyterflow.codecs import encode_key
from jupyterflow.model import Batch, FlowError, Node
from jupyterflow.nodes.base import Kind, NodeContext, Operator, Option
from jupyterflow.nodes.calls import Caller, key_column, resume, retried


def check_on_error(value: Any) -> str | None:
    """Why *value* is no error policy, or None."""
    words = str(value).split()
    if words in (["dead-letter"], ["fail"]) or (len(words) == 2 and words[0] == "retry" and words[1].isdigit()):
        return None
    return f"option 'on_error' is {value!r} - 'dead-letter', 'fail' or 'retry N'"


PARALLEL = {
    "parallelism": Option(int, None, "tasks that run this node", minimum=1),
    "on_error": Option(
        str, "dead-letter", "what a failing record does: dead-letter, fail or 'retry N'", check=check_on_error
    ),
}
CONCURRENT = {**PARALLEL, "concurrency": Option(int, 1, "calls in flight, order kept", minimum=1)}
CALLED = {
    **CONCURRENT,
    "batch": Option(bool, False, "the function gets many values at once"),
}


def retries(node: Node) -> int:
    """How often a failing call is tried again."""
    words = str(node.options.get("on_error") or "").split()
    return int(words[1]) if words and words[0] == "retry" else 0


def caller(node: Node, context: NodeContext, *, collect: bool = False) -> Caller:
    """The node's function, ready to be called over batches."""
    assert node.fn is not None
    return Caller(
        node.fn, context, where=f"node '{node.name}'", concurrency=node.options.get("concurrency") or 1,
        retries=retries(node), collect=collect,
    )  # fmt: skip


class _Calling(Operator):
    collect = False
    gives = True  # whether what the function gives back counts

    def __init__(self, node: Node, context: NodeContext) -> None:
        super().__init__(node, context)
        self.many = retried(_batches(node, self.gives), retries(node)) if node.options.get("batch") else None
        self.caller = None if self.many is not None else caller(node, context, collect=self.collect)

    def over(self, batch: Batch) -> tuple[list[Any], list[int] | None]:
        """One result a row, and the rows where some failed; a batch function falls back to single rows."""
        if self.many is None:
            assert self.caller is not None
            return self.caller.over(batch)
        try:
            return self._checked(self.many(batch.values), len(batch)), None
        except Exception as error:
            if len(batch) == 1:
                self.context.fail(batch, 0, error)
                return [], []
        out: list[Any] = []
        rows: list[int] = []
        for row, value in enumerate(batch.values):
            try:
                out += self._checked(self.many([value]), 1)
                rows.append(row)
            except Exception as error:
                self.context.fail(batch, row, error)
        return out, rows

    def _checked(self, results: list[Any], n: int) -> list[Any]:
        if len(results) != n:
            raise FlowError(
                "JF401",
                f"node '{self.node.name}': its batch function gave {len(results)} results for {n} values - one for each",
            )
        return results

    def close(self) -> None:
        if self.caller is not None:
            self.caller.close()


class Map(_Calling):
    """Emits what the function returns."""

    def process(self, batch: Batch) -> Batch:
        values, rows = self.over(batch)
        self.lineage = rows
        if rows is not None:
            batch = batch.take(rows)
        return Batch(values, batch.keys, batch.timestamps, batch.headers)


class Filter(_Calling):
    """Keeps the records for which the function's result is true."""

    def process(self, batch: Batch) -> Batch | None:
        mask, rows = self.over(batch)
        try:
            mask = list(map(bool, mask))
        except Exception:  # an array, say, is neither true nor false
            n, before = len(mask), rows
            mask, good = resume(
                map(bool, mask), n, lambda i, e: self.context.fail(batch, i if before is None else before[i], e)
            )
            rows = good if before is None or good is None else [before[i] for i in good]
        if rows is not None:
            kept = list(compress(rows, mask))
            self.lineage = kept
            return batch.take(kept)
        self.lineage = lambda: list(compress(range(len(mask)), mask))
        return Batch(
            list(compress(batch.values, mask)),
            None if batch.keys is None else list(compress(batch.keys, mask)),
            batch.timestamps if isinstance(batch.timestamps, int) else list(compress(batch.timestamps, mask)),
            None if batch.headers is None else list(compress(batch.headers, mask)),
        )


class FlatMap(_Calling):
    """Emits each item of what the function returns or yields; None is nothing."""

    collect = True
    spreads = True

    def process(self, batch: Batch) -> Batch | None:
        if self.many is not None:
            return self._whole(batch)
        lists, rows = self.over(batch)
        n = range(len(lists)) if rows is None else rows

        def lineage() -> list[int]:
            return list(chain.from_iterable([row] * len(items) for row, items in zip(n, lists, strict=True)))

        self.lineage = lineage
        values = list(chain.from_iterable(lists))
        if batch.keys is None and batch.headers is None and isinstance(batch.timestamps, int):
            return Batch(values, None, batch.timestamps)
        spread = batch.take(lineage())
        return Batch(values, spread.keys, spread.timestamps, spread.headers)

    def _whole(self, batch: Batch) -> Batch | None:
        # A batch function gives any number of values: what its records share goes on with them. So it is called
        # for the records of one key at a time, and all its values count as coming from the last of these.
        groups: dict[Any, list[int]] = {}
        for row, key in enumerate(key_column(batch)):
            groups.setdefault(key, []).append(row)
        calls = list(groups.values())
        parts: list[Batch] = []
        lineage: list[int] = []
        while calls:
            rows = calls.pop(0)
            given = batch.take(rows)
            try:
                assert self.many is not None
                out = self.many(given.values)
            except Exception as error:
                if len(rows) == 1:
                    self.context.fail(batch, rows[0], error)
                calls = [*([row] for row in rows if len(rows) > 1), *calls]
                continue
            last = given.take([len(rows) - 1] * len(out))
            parts.append(Batch(out, last.keys, last.timestamps))
            lineage += [rows[-1]] * len(out)
        self.lineage = lineage
        return Batch.concat(parts) if parts else None


class KeyBy(_Calling):
    """Gives each record the key that the function returns."""

    def process(self, batch: Batch) -> Batch:
        keys, rows = self.over(batch)
        self.lineage = rows
        if rows is not None:
            batch = batch.take(rows)
        if not set(map(type, keys)) <= {str}:
            good: list[int] = []
            for row, key in enumerate(keys):
                try:
                    encode_key(key)
                    good.append(row)
                except FlowError as error:
                    self.context.fail(batch, row, error)
            if len(good) < len(keys):
                self.lineage = good if rows is None else [rows[row] for row in good]
                batch, keys = batch.take(good), [keys[row] for row in good]
        return Batch(batch.values, keys, batch.timestamps, batch.headers)


class Union(Operator):
    """Merges its upstreams."""

    def process(self, batch: Batch) -> Batch:
        return batch


def _batches(node: Node, gives: bool) -> Callable[[list[Any]], list[Any]]:
    """The function of a `batch=True` node as list in, list out; frames by its first parameter's annotation."""
    fn = node.fn
    assert fn is not None
    try:
        hints = typing.get_type_hints(fn)
    except Exception:
        hints = {}
    names = fn.__code__.co_varnames[: fn.__code__.co_argcount] if hasattr(fn, "__code__") else ()
    kind = getattr(hints.get(names[0]) if names else None, "__name__", "list")
    module = getattr(hints.get(names[0]) if names else None, "__module__", "")

    def call(values: list[Any]) -> list[Any]:
        given: Any = values
        if kind == "DataFrame" and module.startswith("pandas"):
            import pandas as pd

            given = pd.DataFrame(values)
        elif kind == "Table" and module.startswith("pyarrow"):
            import pyarrow as pa  # type: ignore[import-not-found, unused-ignore]

            given = pa.Table.from_pylist(values)
        result = fn(given)
        return _as_list(result) if gives else []

    return call


def _as_list(result: Any) -> list[Any]:
    if isinstance(result, list):
        return result
    if hasattr(result, "to_pylist"):
        return list(result.to_pylist())
    if type(result).__name__ == "DataFrame" and hasattr(result, "to_dict"):
        return list(result.to_dict("records"))
    if hasattr(result, "tolist"):
        return list(result.tolist())
    if not isinstance(result, Iterable):
        raise FlowError("JF401", f"a batch function gave {type(result).__name__} - return a list, one item a value")
    return list(result)


KINDS = [
    Kind("map", "operator", "one value out for each value in", CALLED, 1, make=Map),
    Kind("filter", "operator", "keeps the records for which the function is true", CALLED, 1, make=Filter),
    Kind("flat_map", "operator", "any number of values out for each value in", CALLED, 1, make=FlatMap),
    Kind("key_by", "operator", "gives each record a key", CONCURRENT, 1, make=KeyBy),
    Kind("union", "operator", "merges its upstreams", {"parallelism": PARALLEL["parallelism"]}, 0, make=Union),
]
