"""What crosses the seam between a task and a transport: messages in, a transaction out.

A transport gives each open task one `Port`. The compute thread polls whole fetches from it and hands
one transaction at a time back; everything else (assignment, fencing, restoring) is the transport's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

Headers = Sequence[tuple[str, bytes]]


@dataclass(slots=True)
class Message:
    """One message to write: bytes as they go to the topic; `value` None is a tombstone.

    `timestamp` is in ms since the epoch, -1 leaves it to the transport.
    """

    key: bytes | None
    value: bytes | None
    timestamp: int = -1
    headers: Headers = ()


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

    writes: dict[tuple[str, int], list[Message]]
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
