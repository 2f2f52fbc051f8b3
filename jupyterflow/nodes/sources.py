"""Sources without a connector of their own: a list, a function, a generator."""

from __future__ import annotations

import inspect
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from jupyterflow.model import Batch, FlowError, Node
from jupyterflow.nodes import prints
from jupyterflow.nodes.base import Kind, NodeContext, Option, error_line, now_ms

HAND_OVER = 0.02  # seconds after which a generator's values are handed over, however few they are
BATCH = 2_000  # values of a generator that are handed over without waiting
FULL = 8_000  # values that a generator may be ahead
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
    """Runs a user's generator in a thread of its own, at most `FULL` values ahead.

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
        self._context = context
        # One thread appends, one pops: a deque needs no lock.
        self._drawn: deque[Any] = deque()
        self._oldest = 0.0
        self._ended = False
        self._error: BaseException | None = None
        self._room, self._closed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def count(self) -> int:
        return int(self.position)

    def read(self, limit: int) -> Batch | None:
        if self._thread is None:
            name = f"jupyterflow-source-{self._context.node}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        ended, n = self._ended, len(self._drawn)
        if not ended and (n == 0 or (n < min(limit, BATCH) and self.due(time.monotonic()))):
            return None
        if n == 0:
            self.done = True
            if self._error is not None:
                raise FlowError(
                    "JF402",
                    f"source '{self._context.node}' failed: {error_line(self._error)} - fix its cell and run it again",
                ) from self._error
            return None
        pop = self._drawn.popleft
        values = [pop() for _ in range(min(n, limit))]
        self._room.set()
        self.position += len(values)
        return Batch(values, None, now_ms())

    def due(self, now: float) -> float | None:
        """Seconds after which there is something to read; None where nobody knows."""
        if self._ended:
            return 0.0
        return max(0.0, self._oldest + self._hand_over - now) if self._drawn else None

    def close(self) -> None:
        self._closed.set()
        self._room.set()

    def _ready(self) -> None:
        if self.on_ready is not None:
            self.on_ready()

    def _values(self) -> Iterator[Any]:
        result = self._call()
        if isinstance(result, AsyncIterator):
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
        prints.redirect(self._context.prints)
        try:
            self._draw()
        except BaseException as error:
            self._error = error
        self._ended = True
        self._ready()

    def _draw(self) -> None:
        values, drawn, closed, rate = self._values(), self._drawn, self._closed, self._rate
        for _ in range(self._skip):
            if next(values, self) is self or closed.is_set():
                break
            self.restoring -= 1
        begin = time.monotonic()
        for n, value in enumerate(values, 1):
            if not drawn:
                self._oldest = time.monotonic()
            drawn.append(value)
            if len(drawn) == 1 or len(drawn) == BATCH:
                self._ready()
            if rate is not None and (ahead := begin + n / rate - time.monotonic()) > 0.001:
                closed.wait(ahead)
            while len(drawn) >= FULL and not closed.is_set():
                self._room.clear()
                if len(drawn) >= FULL:
                    self._room.wait(0.2)
            if closed.is_set():
                return


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
