"""Calling user functions over columns: arguments by name, failures by row, calls in flight.

`list.extend` over a C-level `map` keeps what was computed when a call raises, and the iterator goes on behind
the culprit; so one failing record costs the others nothing and no function is called twice.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat, starmap
from typing import Any

from jupyterflow.codecs import state_keys
from jupyterflow.model import Batch, FlowError
from jupyterflow.nodes import prints
from jupyterflow.nodes.base import NodeContext, Table, listed

NAMED = ("key", "timestamp", "headers", "state", "context")


class Signature:
    """Which arguments a user function takes: `names` are the named ones, in its own order."""

    __slots__ = ("is_async", "is_generator", "keyword", "names", "values")

    def __init__(self, fn: Callable[..., Any], positional: int, where: str) -> None:
        self.is_async = inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)
        self.is_generator = inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn)
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
            break
        except Exception as error:
            row = len(out) + len(failed)
            failed.append(row)
            fail(row, error)
    if not failed:
        return out, None
    bad = set(failed)
    return out, [row for row in range(n) if row not in bad]


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
        self.fn = fn
        if self.signature.keyword:
            names = tuple(self.signature.names)
            self.call: Callable[..., Any] = lambda value, *extra: fn(value, **dict(zip(names, extra, strict=True)))
        else:
            self.call = fn
        if collect:
            call = self.call
            self._one: Callable[..., Any] = call if self._loop else lambda *args: listed(call(*args))
        else:
            self._one = self.call

    def over(self, batch: Batch) -> tuple[list[Any], list[int] | None]:
        """Results in order, and the rows they belong to where some failed (None: all rows)."""
        args = [batch.values, *columns(self.signature.names, batch, self.context)]

        def fail(row: int, error: BaseException) -> None:
            self.context.fail(batch, row, error)

        n = len(batch)
        if self._loop is None and self._pool is None and not self._retries:
            results: Iterator[Any] = map(self.call, *args)
            return resume(map(listed, results) if self._collect else results, n, fail)
        tuples = list(zip(*args, strict=True))
        if self._loop is not None:
            outcomes: Iterable[Any] = self._loop.run(self._one, tuples, self.concurrency, self._retries, self._backoff)
        elif self._pool is not None:
            outcomes = self._pool.map(self._attempt, tuples)
        else:
            outcomes = map(self._attempt, tuples)
        return resume(map(_unwrap, outcomes), n, fail)

    def _attempt(self, args: tuple[Any, ...]) -> tuple[bool, Any]:
        prints.redirect(self.context.prints)
        for attempt in range(self._retries + 1):
            try:
                return True, self._one(*args)
            except Exception as error:
                if attempt == self._retries:
                    return False, error
                threading.Event().wait(self._backoff * 2**attempt)
        raise AssertionError("unreachable")

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

    def run(
        self, fn: Callable[..., Any], calls: list[tuple[Any, ...]], limit: int, retries: int, backoff: float
    ) -> list[tuple[bool, Any]]:
        async def one(gate: asyncio.Semaphore, args: tuple[Any, ...]) -> tuple[bool, Any]:
            async with gate:
                for attempt in range(retries + 1):
                    try:
                        return True, await fn(*args)
                    except Exception as error:
                        if attempt == retries:
                            return False, error
                        await asyncio.sleep(backoff * 2**attempt)
            raise AssertionError("unreachable")

        async def all_of() -> list[tuple[bool, Any]]:
            gate = asyncio.Semaphore(limit)
            return await asyncio.gather(*starmap(one, ((gate, args) for args in calls)))

        return asyncio.run_coroutine_threadsafe(all_of(), self.loop).result()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(2)
        if not self.thread.is_alive():
            self.loop.close()
