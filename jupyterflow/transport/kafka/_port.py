"""The port of one open task: a bounded queue of fetches in, one transaction at a time out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from jupyterflow.transport.kafka._blocks import Block, opened
from jupyterflow.transport.messages import Fetch, Transaction

MAX_RECORDS = 200_000  # waiting in one port: beyond, its partition is paused
MAX_BYTES = 8 << 20
OPENED = 1_000  # messages that are opened together: more would be out of the processor's cache before they are used


class _Closed:
    """A fetch that waits: the offsets from `start` to below `position`."""

    __slots__ = ("blocks", "count", "position", "size", "start")

    def __init__(self, blocks: Sequence[Block], start: int, position: int) -> None:
        self.blocks, self.start, self.position = blocks, start, position
        self.count = sum(map(len, blocks))
        self.size = sum(block.size + 100 for block in blocks)


class KafkaPort:
    """See `jupyterflow.transport.Port`. Filled by the I/O thread, drained by the compute thread.

    The counters of what waits are written by one thread each, so none needs a lock.
    """

    __slots__ = (
        "_fetches",
        "_gate",
        "_given",
        "_given_bytes",
        "_hand_over",
        "_next",
        "_paused",
        "_resume",
        "_taken",
        "_taken_bytes",
        "_until",
        "busy",
        "end_offset",
        "failed",
        "heard_at",
        "partition",
        "position",
        "topic",
        "writable",
    )

    def __init__(
        self,
        topic: str,
        partition: int,
        position: int,
        until: int | None,
        hand_over: Callable[[KafkaPort, Transaction], None],
        resume: Callable[[KafkaPort], None],
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.position = position
        self.busy = False
        self.failed: BaseException | None = None
        self.writable = True
        self.end_offset: int | None = None
        self.heard_at = 0.0  # monotonic seconds of the broker's last answer for this partition
        self._until = until
        self._hand_over = hand_over
        self._resume = resume
        self._gate = False
        self._paused = True
        self._next = position  # the next offset to fetch
        self._fetches: deque[_Closed] = deque()
        self._given = self._given_bytes = 0
        self._taken = self._taken_bytes = 0

    def __repr__(self) -> str:
        state = "failed" if self.failed is not None else "open" if self._gate else "closed"
        return f"<KafkaPort {self.topic}/{self.partition} at {self.position}, {state}>"

    # The compute thread's side

    def poll(self) -> Fetch | None:
        """The next whole fetch, None if nothing is there now (or the task is being moved)."""
        if not self._gate or not self._fetches:
            return None
        try:
            fetch = self._fetches.popleft()
        except IndexError:  # the task died between the two lines
            return None
        self._taken += fetch.count
        self._taken_bytes += fetch.size
        if self._paused and not self._above(2):
            self._resume(self)
        return Fetch(opened(fetch.blocks, fetch.start, fetch.position), fetch.position, fetch.start)

    def commit(self, transaction: Transaction) -> None:
        """Hand a transaction over; returns at once, `busy` until it is committed or the task is dead."""
        if self.failed is not None:
            return
        if self.busy:
            raise RuntimeError(f"{self!r}: a commit is in flight")
        self.busy = True
        self._hand_over(self, transaction)

    @property
    def ended(self) -> bool:
        """Whether everything below `until` was polled."""
        return self._until is not None and self._next >= self._until and not self._fetches

    @property
    def waiting(self) -> tuple[int, int]:
        """(records, bytes) fetched and not yet polled."""
        return self._given - self._taken, self._given_bytes - self._taken_bytes

    # The I/O thread's side

    def _above(self, divisor: int) -> bool:
        return (
            self._given - self._taken > MAX_RECORDS // divisor
            or self._given_bytes - self._taken_bytes > MAX_BYTES // divisor
        )

    def _give(self, blocks: Sequence[Block], position: int) -> None:
        some: list[Block] = []
        start, count = self._next, 0
        for block in blocks:
            if block.start >= position:  # beyond the end of a bounded read
                break
            some.append(block)
            count += len(block)
            if count >= OPENED and block.end < position:
                self._keep(_Closed(some, start, block.end))
                start, some, count = block.end, [], 0
        self._keep(_Closed(some, start, position))
        self._next = position  # last, or `ended` would be true for a moment

    def _keep(self, fetch: _Closed) -> None:
        self._given += fetch.count
        self._given_bytes += fetch.size
        self._fetches.append(fetch)

    def _shut(self, error: BaseException) -> None:
        """End the port for good."""
        self._gate = False
        self.failed = error
        self.busy = False
        self._fetches.clear()
