"""What a node kind is, and what its working form gets from the task that runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from jupyterflow.codecs import Sealer
from jupyterflow.model import Batch, Flow, FlowError, Node, Role


@dataclass(frozen=True, slots=True)
class Option:
    """A parameter of a kind: its type, default, help and limits. `choices` are allowed texts."""

    type: type | tuple[type, ...]
    default: Any = None
    help: str = ""
    minimum: float | None = None
    choices: tuple[str, ...] = ()
    check: Callable[[Any], str | None] | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of node: what it is called, what it may be given, and how it is made to work.

    `positional`: how many leading arguments its function gets (0: the kind takes no function, None: its
    function is a source's). `fold`: it keeps one value per key. `make(node, context)` gives the working form:
    an Operator for operators and sinks; sources have a `connector` instead.
    """

    name: str
    role: Role
    help: str
    options: dict[str, Option] = field(default_factory=dict)
    positional: int | None = 0
    fold: bool = False
    make: Callable[[Node, NodeContext], Operator] | None = None
    connector: Connector | None = None


class Counters:
    """Exact counts of one node in one task, and how long its batches took.

    `latency[i]` counts batches that took less than 2**(i/2) µs.
    """

    __slots__ = ("bytes_in", "bytes_out", "errors", "latency", "records_in", "records_out")
    FIELDS = ("records_in", "records_out", "errors", "bytes_in", "bytes_out")

    def __init__(self) -> None:
        self.records_in = self.records_out = self.errors = self.bytes_in = self.bytes_out = 0
        self.latency = [0] * 64

    def took(self, seconds: float) -> None:
        """Count a batch of this duration."""
        micros = int(seconds * 1e6)
        self.latency[min(63, 2 * micros.bit_length())] += 1

    def to_list(self) -> list[Any]:
        """Plain data, for the changelog and telemetry."""
        return [self.records_in, self.records_out, self.errors, self.bytes_in, self.bytes_out, self.latency[:]]

    def restore(self, data: Sequence[Any]) -> None:
        """Go on from `to_list()`."""
        self.records_in, self.records_out, self.errors, self.bytes_in, self.bytes_out = data[:5]
        self.latency = list(data[5])


class Table:
    """The keyed state of one node in one task: values by state key, and which changed since the last commit."""

    __slots__ = ("dirty", "values")

    def __init__(self) -> None:
        self.values: dict[Any, Any] = {}
        self.dirty: set[Any] = set()


class Context:
    """What user code may ask for by naming `context`.

    `id` is the same for a record whenever it is processed again: use it to make effects idempotent.
    """

    __slots__ = ("locate", "node", "row", "task", "tasks", "worker")

    def __init__(self, node: str, task: int, tasks: int, worker: str = "") -> None:
        self.node, self.task, self.tasks, self.worker = node, task, tasks, worker
        self.row = 0
        self.locate: Callable[[int], str] = str

    @property
    def id(self) -> str:
        """Stable per record: node, task and the position in its source."""
        return f"{self.node}/{self.task}/{self.locate(self.row)}"

    def rows(self, n: int) -> Iterator[Context]:
        """A context for each of n records: many calls may be in flight, and each keeps its own."""
        for row in range(n):
            own = Context(self.node, self.task, self.tasks, self.worker)
            own.row, own.locate = row, self.locate
            yield own


class NodeContext:
    """What the task gives to one node: its counters, state, place, and where failures go."""

    def __init__(
        self,
        node: str,
        *,
        task: int = 0,
        tasks: int = 1,
        worker: str = "",
        fail: Callable[[NodeContext, Batch, int, BaseException], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.node, self.task, self.tasks = node, task, tasks
        self.counters = Counters()
        self.table = Table()
        self.user = Context(node, task, tasks, worker)
        self.flow: Flow | None = None  # what the node is part of
        self.sealer: Sealer | None = None  # of pickled values on outside topics; None where no key is at hand
        self.keyed = True  # a key_by came before: without one a fold is one value for all records
        self.prints: list[str] = []
        self.clock = clock
        self._fail = fail

    def fail(self, batch: Batch, row: int, error: BaseException) -> None:
        """Report that a row of a batch could not be processed; it becomes a dead letter, or raises."""
        self.counters.errors += 1
        if self._fail is None:
            raise error
        self._fail(self, batch, row, error)


class Operator:
    """A node at work in one task: batch in, batch out.

    `lineage` says which input row each output row of the last batch came from: None for the same row,
    else a list of row numbers or a function that gives it; it is read only when a record fails or asks for
    its id. `spreads`: one input row may give many output rows. `form`: how its state is written, where that
    depends on its options.
    """

    form = ""

    lineage: list[int] | Callable[[], list[int]] | None = None
    spreads = False
    timed = False

    def __init__(self, node: Node, context: NodeContext) -> None:
        self.node = node
        self.context = context

    def process(self, batch: Batch) -> Batch | None:
        """One batch through the node."""
        raise NotImplementedError

    def reform(self, old: str) -> None:
        """Bring state that was written in the form *old* into this one's."""

    def flush(self) -> Batch | None:
        """What is still to be emitted when the input has ended."""
        return None

    def tick(self, now: float) -> Batch | None:
        """What is to be emitted because time passed; called where `timed` is true."""
        return None

    def close(self) -> None:
        """Release what the node holds."""


class SplitReader(Protocol):
    """Reads one split, from a position on. `count` is the number of records read since its beginning.

    A reader that leaves some out has `rows` too: which of the records of the last read each row of its batch
    was, None where none was left out.
    """

    done: bool
    position: Any

    @property
    def count(self) -> int: ...

    def read(self, limit: int) -> Batch | None:
        """At most about `limit` records that are there now; None where none are."""

    def close(self) -> None:
        """Release what it holds."""


class Connector(Protocol):
    """What a source kind that is read by splits can do."""

    bounded: bool

    def splits(self, node: Node, tasks: int) -> list[list[dict[str, Any]]]:
        """The splits of each task, as plain data. Raises FlowError where there is nothing to read."""

    def open(self, node: Node, split: dict[str, Any], position: Any, context: NodeContext) -> SplitReader:
        """A reader of one split that goes on from *position* (None: from its beginning)."""


def option_error(kind: str, name: str, value: Any, option: Option) -> str | None:
    """Why *value* does not fit *option*, in one line, or None."""
    if value is None and option.default is None:
        return None
    types = option.type if isinstance(option.type, tuple) else (option.type,)
    wanted = " or ".join("number" if t is float else t.__name__ for t in types)
    if float in types and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, types) or (isinstance(value, bool) and not {bool, object} & set(types)):
        return f"{kind}: option '{name}' is {value!r} - give {'an' if wanted[0] in 'aeiou' else 'a'} {wanted}"
    if option.minimum is not None and isinstance(value, int | float) and value < option.minimum:
        return f"{kind}: option '{name}' is {value!r} - it must be at least {option.minimum:g}"
    if option.choices and isinstance(value, str) and value not in option.choices:
        return f"{kind}: option '{name}' is {value!r} - one of {', '.join(option.choices)}"
    return option.check(value) if option.check else None


def now_ms() -> int:
    """The wall clock in ms since the epoch."""
    return time.time_ns() // 1_000_000


def error_line(error: BaseException) -> str:
    """`ValueError: why`, in one line."""
    if isinstance(error, FlowError):
        return str(error)
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def listed(value: Any) -> list[Any]:
    """What a flat_map's function returned, as a list; None is nothing."""
    return [] if value is None else list(value)
