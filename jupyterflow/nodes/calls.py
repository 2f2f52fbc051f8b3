"""Calling user functions over columns: arguments by name, failures by row, calls in flight.

`list.extend` over a C-level `map` keeps what was computed when a call raises, and the iterator goes on behind
the culprit; so one failing record costs the others nothing and no function is called twice.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
import typing
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any

from jupyterflow.codecs import state_keys
from jupyterflow.model import Batch, FlowError, Node
from jupyterflow.nodes import prints
from jupyterflow.nodes.base import Kind, NodeContext, Table, listed

NAMED = ("key", "timestamp", "headers", "state", "context")


class Signature:
    """Which arguments a user function takes: `names` are the named ones, in its own order."""

    __slots__ = ("is_async", "is_generator", "keyword", "names", "values")

    def __init__(self, fn: Callable[..., Any], positional: int, where: str) -> None:
        forms = (fn, getattr(fn, "__call__", fn))  # noqa: B004 - an object with an async __call__ counts too
        self.is_async = any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in forms)
        self.is_generator = any(inspect.isgeneratorfunction(f) or inspect.isasyncgenfunction(f) for f in forms)
        self.names: list[str] = []
        self.keyword = False
        self.values = positional
        try:
            parameters = list(inspect.signature(fn).parameters.values())
        except (TypeError, ValueError):
            return
        taken = 0
        for p in parameters:
            if p.kind is p.VAR_POSITIONAL:
                taken = max(taken, positional)
            elif p.kind is p.VAR_KEYWORD:
                continue
            elif p.kind is not p.KEYWORD_ONLY and taken < positional and (p.name not in NAMED or taken == 0):
                taken += 1
            elif p.name in NAMED:
                self.names.append(p.name)
                self.keyword = self.keyword or p.kind is p.KEYWORD_ONLY
            elif p.default is p.empty:
                raise FlowError(
                    "JF112",
                    f"{where}: its function needs '{p.name}', which nothing fills in - it gets "
                    f"{'the value' if positional == 1 else f'{positional} values'} and, by name, {', '.join(NAMED)}",
                )
            elif p.kind is p.POSITIONAL_OR_KEYWORD:
                self.keyword = True  # a default stands between: name the rest
        if taken < positional:
            wanted = "one argument, the value" if positional == 1 else f"{positional} arguments"
            raise FlowError("JF112", f"{where}: its function takes {taken} argument(s) - it must take {wanted}")


def check_function(node: Node, kind: Kind, where: str) -> Signature | None:
    """The signature of a node's function. Raises FlowError where it is not what the kind calls."""
    if node.fn is None or not kind.positional:
        return None
    signature = Signature(node.fn, kind.positional, where)
    problem = None
    if kind.fold and (signature.is_async or signature.is_generator):
        problem = "a fold takes one value after the other - give it a plain function"
    elif kind.fold and "state" in signature.names:
        problem = "a fold's state is the value it gives back - leave 'state' out"
    elif "state" in signature.names and (node.options.get("concurrency") or 1) > 1:
        problem = "two calls in flight could share a key's state - leave concurrency out, or use parallelism"
    elif kind.name in ("map", "filter", "key_by", "function") and signature.is_generator:
        problem = "its function yields - return the one result, or use flat_map"
    elif node.options.get("batch") and signature.is_async:
        problem = "with batch=True its function is called for many values at once - give it a plain function"
    elif node.options.get("batch") and (required := _required(node.fn, signature.names)):
        problem = f"with batch=True its function gets the values alone - leave '{required[0]}' out"
    if problem:
        raise FlowError("JF112", f"{where}: {problem}")
    return signature


def _required(fn: Callable[..., Any], names: list[str]) -> list[str]:
    parameters = inspect.signature(fn).parameters if names else {}
    return [name for name in names if parameters[name].default is inspect.Parameter.empty]


def value_hints(fn: Callable[..., Any] | None) -> tuple[Any, Any]:
    """The types that a function says its first argument and its result have; None where it does not."""
    if fn is None:
        return None, None
    try:
        hints = typing.get_type_hints(fn)
        first = next(iter(inspect.signature(fn).parameters), "")
    except Exception:
        return None, None
    return hints.get(first), hints.get("return")


def key_column(batch: Batch) -> Sequence[Any]:
    """The keys of a batch as state keys (see `codecs.state_key`)."""
    return state_keys(batch.keys if batch.keys is not None else [None] * len(batch))


class _States:
    """Gives each record its key's own dict, and keeps what is in it."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def column(self, batch: Batch) -> Iterator[dict[str, Any]]:
        values, dirty = self.table.values, self.table.dirty
        for key in key_column(batch):
            state = values.get(key)
            if state is None:
                state = values[key] = {}
            dirty.add(key)
            yield state


def columns(names: Iterable[str], batch: Batch, context: NodeContext) -> list[Iterable[Any]]:
    """The column behind each named argument."""
    n = len(batch)
    out: list[Iterable[Any]] = []
    for name in names:
        if name == "key":
            out.append(batch.keys if batch.keys is not None else repeat(None, n))
        elif name == "timestamp":
            stamps = batch.timestamps
            out.append(repeat(stamps, n) if isinstance(stamps, int) else stamps)
        elif name == "headers":
            out.append(batch.headers if batch.headers is not None else repeat((), n))
        elif name == "state":
            out.append(_States(context.table).column(batch))
        else:
            out.append(context.user.rows(n))
    return out


def resume(
    iterator: Iterator[Any], n: int, fail: Callable[[int, BaseException], None]
) -> tuple[list[Any], list[int] | None]:
    """Drain an iterator of n results where any may raise: the results, and their rows if some failed."""
    out: list[Any] = []
    failed: list[int] = []
    extend = out.extend
    while True:
        try:
            extend(iterator)
            if len(out) + len(failed) >= n:
                break
            # A StopIteration out of user code looks like the end.
            raise RuntimeError("the function raised StopIteration")
        except Exception as error:
            row = len(out) + len(failed)
            failed.append(row)
            fail(row, error)
    if not failed:
        return out, None
    bad = set(failed)
    return out, [row for row in range(n) if row not in bad]


def retried(fn: Callable[..., Any], retries: int, backoff: float = 0.1) -> Callable[..., Any]:
    """*fn*, tried again up to *retries* times where it raises, after *backoff* seconds and then twice as long."""

    def call(*args: Any) -> Any:
        for attempt in range(retries):
            try:
                return fn(*args)
            except Exception:
                time.sleep(backoff * 2**attempt)
        return fn(*args)

    return call if retries else fn


class Caller:
    """Calls a user function for each record of a batch, with up to `concurrency` calls in flight, in order."""

    def __init__(
        self,
        fn: Callable[..., Any],
        context: NodeContext,
        *,
        where: str,
        concurrency: int = 1,
        positional: int = 1,
        retries: int = 0,
        backoff: float = 0.1,
        collect: bool = False,
    ) -> None:
        self.signature = Signature(fn, positional, where)
        self.context = context
        self.concurrency = concurrency
        self._retries, self._backoff = retries, backoff
        self._collect = collect
        if collect and self.signature.is_async and self.signature.is_generator:
            fn = _collected(fn)
        self._loop = _Loop() if self.signature.is_async else None
        self._pool = ThreadPoolExecutor(concurrency, "jupyterflow-call") if concurrency > 1 and not self._loop else None
        if self.signature.keyword:
            names = tuple(self.signature.names)
            self.call: Callable[..., Any] = lambda value, *extra: fn(value, **dict(zip(names, extra, strict=True)))
        else:
            self.call = fn
        call = self.call
        self._one: Callable[..., Any] = call
        if self._loop is None:
            if collect:
                self._one = lambda *args: listed(call(*args))
            self._one = retried(self._one, retries, backoff)

    def over(self, batch: Batch) -> tuple[list[Any], list[int] | None]:
        """Results in order, and the rows they belong to where some failed (None: all rows)."""
        args = [batch.values, *columns(self.signature.names, batch, self.context)]

        def fail(row: int, error: BaseException) -> None:
            self.context.fail(batch, row, error)

        n = len(batch)
        if self._loop is None and self._pool is None:
            if self._retries:
                return resume(map(self._one, *args), n, fail)
            results: Iterator[Any] = map(self.call, *args)
            return resume(map(listed, results) if self._collect else results, n, fail)
        tuples = list(zip(*args, strict=True))
        if self._loop is not None:
            outcomes = self._loop.run(self._in_flight(tuples))
        else:
            assert self._pool is not None
            outcomes = self._threads(self._pool, tuples)
        return resume(map(_unwrap, outcomes), n, fail)

    def _attempt(self, args: tuple[Any, ...]) -> tuple[bool, Any]:
        try:
            return True, self._one(*args)
        except Exception as error:
            return False, error

    def _threads(self, pool: ThreadPoolExecutor, calls: list[tuple[Any, ...]]) -> list[tuple[bool, Any]]:
        # Each thread takes the next call until none is left: one hand-over a thread instead of one a record.
        rows = iter(range(len(calls)))
        outcomes: list[Any] = [None] * len(calls)

        def work() -> None:
            prints.redirect(self.context.prints)
            for row in rows:
                outcomes[row] = self._attempt(calls[row])

        for done in [pool.submit(work) for _ in range(min(self.concurrency, len(calls)))]:
            done.result()
        return outcomes

    async def _in_flight(self, calls: list[tuple[Any, ...]]) -> list[tuple[bool, Any]]:
        prints.redirect(self.context.prints)
        rows = iter(range(len(calls)))
        outcomes: list[Any] = [None] * len(calls)

        async def work() -> None:
            for row in rows:
                outcomes[row] = await self._attempt_async(calls[row])

        await asyncio.gather(*(work() for _ in range(min(self.concurrency, len(calls)))))
        return outcomes

    async def _attempt_async(self, args: tuple[Any, ...]) -> tuple[bool, Any]:
        for attempt in range(self._retries):
            try:
                return True, await self._one(*args)
            except (SystemExit, KeyboardInterrupt) as error:
                return False, error
            except Exception:
                await asyncio.sleep(self._backoff * 2**attempt)
        try:
            return True, await self._one(*args)
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            return False, error  # the last two would end the loop, and who waits for it would wait for ever

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        if self._loop is not None:
            self._loop.close()


def _collected(fn: Callable[..., Any]) -> Callable[..., Any]:
    async def collected(*args: Any, **kwargs: Any) -> list[Any]:
        return [item async for item in fn(*args, **kwargs)]

    return collected


def _unwrap(outcome: tuple[bool, Any]) -> Any:
    ok, value = outcome
    if ok:
        return value
    raise value


class _Loop:
    """One asyncio loop in a thread, for async user functions."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="jupyterflow-async", daemon=True)
        self.thread.start()

    def run(self, work: Coroutine[Any, Any, list[tuple[bool, Any]]]) -> list[tuple[bool, Any]]:
        """Run *work* in the loop's thread, to its end."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(2)
        if not self.thread.is_alive():
            self.loop.close()
