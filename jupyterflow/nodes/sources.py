"""Sources without a connector of their own: a list, a function, a generator."""

from __future__ import annotations

import inspect
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from jupyterflow.model import Batch, FlowError, Node
from jupyterflow.nodes import prints
from jupyterflow.nodes.base import Kind, NodeContext, Option, error_line, now_ms

HAND_OVER = 0.02  # seconds after which a generator's values are handed over, however few they are
_CHUNK = 5_000  # items of a list that make one split: small enough to be a message

SOURCE_OPTIONS = {
    "parallelism": Option(int, None, "tasks that read this source", minimum=1),
    "concurrency": Option(int, 1, "splits that a task reads at once", minimum=1),
    "on_error": Option(str, "dead-letter", "what a failing record does", choices=("dead-letter", "fail")),
}


class ListSplits:
    """A list: divided among the tasks in consecutive parts."""

    bounded = True

    def splits(self, node: Node, tasks: int) -> list[list[dict[str, Any]]]:
        items = node.options.get("items")
        if items is None:
            raise FlowError(
                "JF302", f"node '{node.name}': its list did not travel with the flow - declare the source again"
            )
        n = len(items)
        out: list[list[dict[str, Any]]] = []
        for task in range(tasks):
            low, high = task * n // tasks, (task + 1) * n // tasks
            out.append([{"items": list(items[i : min(i + _CHUNK, high)])} for i in range(low, high, _CHUNK)])
        return out

    def open(self, node: Node, split: dict[str, Any], position: Any, context: NodeContext) -> ListReader:
        return ListReader(split["items"], position or 0)


class ListReader:
    """Reads a list; its position is the number of items read."""

    def __init__(self, items: list[Any], position: int = 0) -> None:
        self.items = items
        self.position: Any = position
        self.done = position >= len(items)

    @property
    def count(self) -> int:
        return int(self.position)

    def read(self, limit: int) -> Batch | None:
        values = self.items[self.position : self.position + limit]
        self.position += len(values)
        self.done = self.position >= len(self.items)
        return Batch(values, None, now_ms()) if values else None

    def close(self) -> None:
        pass


class GeneratorSplits:
    """A function: called once in each task, its values are the records."""

    bounded = False

    def splits(self, node: Node, tasks: int) -> list[list[dict[str, Any]]]:
        return [[{"instance": i, "instances": tasks}] for i in range(tasks)]

    def open(self, node: Node, split: dict[str, Any], position: Any, context: NodeContext) -> GeneratorReader:
        assert node.fn is not None
        names = source_names(node.fn, f"node '{node.name}'")
        count = position or 0
        given = {"position": count, "instance": split["instance"], "instances": split["instances"]}
        fn, wanted = node.fn, {name: given[name] for name in names if name in given}
        if "context" in names:
            wanted["context"] = context.user
        skip = 0 if "position" in names or node.options.get("resume") == "restart" else count
        rate = node.options.get("rate")
        return GeneratorReader(lambda: fn(**wanted), count, skip, rate / split["instances"] if rate else None, context)


def source_names(fn: Callable[..., Any], where: str) -> list[str]:
    """The named arguments that a source's function takes. Raises FlowError for any other."""
    known = ("position", "instance", "instances", "context")
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return []
    names = []
    for p in parameters:
        if p.name in known:
            names.append(p.name)
        elif p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL):
            raise FlowError(
                "JF112",
                f"{where}: its function needs '{p.name}', which nothing fills in - a source may name {', '.join(known)}",
            )
    return names


class GeneratorReader:
    """Runs a user's generator in a thread of its own behind a bounded queue.

    Its position is the number of values handed over; `skip` values are drawn and dropped first, which is
    how a generator that cannot be told where to go on comes back to its place.
    """

    def __init__(
        self,
        call: Callable[[], Any],
        position: int,
        skip: int,
        rate: float | None,
        context: NodeContext,
        hand_over: float = HAND_OVER,
    ) -> None:
        self.position: Any = position
        self.done = False
        self.restoring = skip
        self.on_ready: Callable[[], None] | None = None
        self._call, self._skip, self._rate, self._hand_over = call, skip, rate, hand_over
        self._context, self._name = context, context.node
        self._queue: queue.Queue[tuple[list[Any], int] | BaseException | None] = queue.Queue(4)
        self._rest: tuple[list[Any], int] | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def count(self) -> int:
        return int(self.position)

    def read(self, limit: int) -> Batch | None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"jupyterflow-source-{self._name}", daemon=True)
            self._thread.start()
        try:
            item = self._rest or self._queue.get_nowait()
        except queue.Empty:
            return None
        self._rest = None
        if item is None:
            self.done = True
            return None
        if isinstance(item, BaseException):
            self.done = True
            raise FlowError(
                "JF402", f"source '{self._name}' failed: {error_line(item)} - fix its cell and run it again"
            ) from item
        values, stamp = item
        if len(values) > limit:
            self._rest = values[limit:], stamp
            values = values[:limit]
        self.position += len(values)
        return Batch(values, None, stamp)

    def close(self) -> None:
        self._closed.set()

    def _put(self, item: tuple[list[Any], int] | BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.2)
            except queue.Full:
                continue
            if self.on_ready is not None:
                self.on_ready()
            return True
        return False

    def _values(self) -> Iterator[Any]:
        result = self._call()
        if inspect.isasyncgen(result):
            import asyncio

            loop = asyncio.new_event_loop()
            try:
                while True:
                    try:
                        yield loop.run_until_complete(anext(result))
                    except StopAsyncIteration:
                        return
            finally:
                loop.close()
        try:
            values = iter(result)
        except TypeError:
            raise TypeError(
                f"it gave {type(result).__name__}, nothing to go through: yield, or return a list"
            ) from None
        yield from values

    def _run(self) -> None:
        pending: list[Any] = []
        oldest = 0.0
        prints.redirect(self._context.prints)
        try:
            values = self._values()
            for _ in range(self._skip):
                if next(values, self) is self or self._closed.is_set():
                    break
                self.restoring -= 1
            begin, drawn, rate, hand_over = time.monotonic(), 0, self._rate, self._hand_over
            for value in values:
                now = time.monotonic()
                if not pending:
                    oldest = now
                pending.append(value)
                drawn += 1
                if rate is not None and (ahead := begin + drawn / rate - now) > 0.001:
                    # Hand over before a wait that is longer than the hand-over time would allow.
                    if now - oldest + ahead > hand_over:
                        if not self._put((pending, now_ms())):
                            return
                        pending = []
                    if self._closed.wait(ahead):
                        return
                    if not pending:
                        continue
                    now = time.monotonic()
                if len(pending) >= 2_000 or now - oldest >= hand_over:
                    if not self._put((pending, now_ms())):
                        return
                    pending = []
            if not pending or self._put((pending, now_ms())):
                self._put(None)
        except BaseException as error:
            if not pending or self._put((pending, now_ms())):
                self._put(error)


_RATED = {
    **SOURCE_OPTIONS,
    "rate": Option(float, None, "records a second, over all tasks", minimum=0.000001),
    "resume": Option(str, "skip", "how it comes back to its place: skip or restart", choices=("skip", "restart")),
}
KINDS = [
    Kind(
        "list",
        "source",
        "the items of a list",
        {**SOURCE_OPTIONS, "items": Option(list, None, "the items")},
        0,
        connector=ListSplits(),
    ),
    Kind(
        "function", "source", "the values that a function yields or returns", _RATED, None, connector=GeneratorSplits()
    ),
]
