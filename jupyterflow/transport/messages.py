"""What crosses the seam between a task and a transport: messages in, a transaction out.

A transport gives each open task one `Port`. The compute thread polls whole fetches from it and hands
one transaction at a time back; everything else (assignment, fencing, restoring) is the transport's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple, Protocol, overload

Headers = Sequence[tuple[str, bytes]]


class Message(NamedTuple):
    """One message to write: bytes as they go to the topic; `value` None is a tombstone.

    `timestamp` is in ms since the epoch, -1 leaves it to the transport. Where there are many, a plain tuple of
    the four does.
    """

    key: bytes | None
    value: bytes | None
    timestamp: int = -1
    headers: Headers = ()


Written = tuple[bytes | None, bytes | None, int, Headers]
"""A Message, or a plain tuple of its fields."""


class Fetched(Protocol):
    """One message as it was read."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def offset(self) -> int: ...


class Row(NamedTuple):
    """One message of `Rows`."""

    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Headers
    offset: int


class Rows(Sequence[Fetched]):
    """Fetched messages as columns, in order of their offsets; as a sequence, one `Row` each.

    `values`, `keys`: bytes or None. `timestamps`: ms. `headers`: None where no message has any. `offsets`: a
    range, or a list where some are missing.
    """

    __slots__ = ("headers", "keys", "offsets", "timestamps", "values")

    def __init__(
        self,
        values: list[bytes | None],
        keys: list[bytes | None],
        timestamps: list[int],
        headers: list[Headers] | None,
        offsets: Sequence[int],
    ) -> None:
        self.values, self.keys, self.timestamps = values, keys, timestamps
        self.headers, self.offsets = headers, offsets

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, row: int) -> Row: ...
    @overload
    def __getitem__(self, row: slice) -> Rows: ...
    def __getitem__(self, row: int | slice) -> Row | Rows:
        headers = self.headers
        if isinstance(row, slice):
            return Rows(
                self.values[row],
                self.keys[row],
                self.timestamps[row],
                None if headers is None else headers[row],
                self.offsets[row],
            )
        return Row(
            self.keys[row],
            self.values[row],
            self.timestamps[row],
            () if headers is None else headers[row],
            self.offsets[row],
        )

    def __iter__(self) -> Iterator[Row]:
        headers = repeat((), len(self)) if self.headers is None else self.headers
        return map(Row, self.keys, self.values, self.timestamps, headers, self.offsets)

    @classmethod
    def concat(cls, parts: Sequence[Rows]) -> Rows:
        """All messages, in order."""
        if len(parts) == 1:
            return parts[0]
        out = cls([], [], [], None, [])
        offsets: list[int] = []
        for rows in parts:
            if rows.headers is not None and out.headers is None:
                out.headers = [()] * len(out)
            if out.headers is not None:
                out.headers += rows.headers if rows.headers is not None else [()] * len(rows)
            out.values += rows.values
            out.keys += rows.keys
            out.timestamps += rows.timestamps
            offsets += rows.offsets
        whole = bool(offsets) and offsets[-1] - offsets[0] == len(offsets) - 1
        out.offsets = range(offsets[0], offsets[-1] + 1) if whole else offsets
        return out


@dataclass(slots=True)
class Fetch:
    """Messages of one partition that were read together, in order.

    `start` is the offset that was asked for, `position` the next one to read. `records` may be empty:
    a position also moves over what holds no records (markers, aborted transactions, compacted ranges).
    """

    records: Sequence[Fetched]
    position: int
    start: int


@dataclass(slots=True)
class Transaction:
    """All effects of a task since its last commit: they hold together or not at all.

    `writes`: messages in order per (topic, partition). `position`: the next offset of the task's input to
    read, None leaves the committed one as it is. `on_done` is called without arguments on the transport's
    thread once it is committed, never otherwise; it must return at once.
    """

    writes: Mapping[tuple[str, int], Sequence[Written]]
    position: int | None = None
    on_done: Callable[[], None] | None = None


class Port(Protocol):
    """A task's door to its input partition and to everything it writes.

    Used by one compute thread. A port lives as long as its task: once `failed` is set it gives and takes
    nothing more, and the task's state must be discarded; the reopened task gets a new port.
    """

    topic: str
    partition: int
    busy: bool  # a commit is in flight
    failed: BaseException | None  # why the task is dead
    writable: bool  # False: back-pressure, do not process more input now
    end_offset: int | None  # the partition's last known end, for the lag
    position: int  # the committed position: the next offset to process after a restart

    @property
    def ended(self) -> bool:
        """Whether a bounded input was polled up to its end."""
        ...

    def poll(self) -> Fetch | None:
        """The next whole fetch, None if nothing is there now."""
        ...

    def commit(self, transaction: Transaction) -> None:
        """Hand a transaction over and return at once; one at a time (see `busy`)."""
        ...
