"""Fetched messages as whole record batches: the I/O thread hands them on closed, the compute thread opens them.

aiokafka makes an object a record on the I/O loop, 1.3 µs each, and a hundred thousand of them that wait keep
the garbage collector busy for longer than that. A closed batch is one object; opened, it is five columns.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

from jupyterflow.transport.messages import Rows


class Block:
    """A record batch as it was read, still closed. It holds at most the offsets from `start` to below `end`."""

    __slots__ = ("batch", "end", "size", "start")

    def __init__(self, batch: Any, start: int, end: int, size: int) -> None:
        self.batch, self.start, self.end = batch, start, end
        self.size = size  # bytes as they were fetched

    def __len__(self) -> int:
        """How many messages it holds at most; compaction may have taken some out."""
        return self.end - self.start


class _Whole:
    """A record batch that, where its records are asked for, gives itself as the only one.

    So the client's own reader checks the sum, passes over what was aborted and keeps its position; it only never
    opens a batch.
    """

    __slots__ = ("batch",)

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batch, name)

    def __iter__(self) -> Iterator[_Whole]:
        return iter((self,))

    def __next__(self) -> Any:
        return next(self.batch)  # the marker of a control batch

    @property
    def offset(self) -> int:
        """That of its last message: with it the reader's position moves behind the batch."""
        return int(self.batch.next_offset) - 1


class _WholeBatches:
    """What was fetched of a partition, its batches whole."""

    __slots__ = ("_records",)

    def __init__(self, records: Any) -> None:
        self._records = records

    def has_next(self) -> bool:
        return bool(self._records.has_next())

    def next_batch(self) -> _Whole:
        return _Whole(self._records.next_batch())


class _Blocks(OrderedDict[Any, Any]):
    """The fetcher's buffer: each fetch that comes in is set to give Blocks in place of records."""

    def __setitem__(self, source: Any, fetch: Any) -> None:
        reader = getattr(fetch, "_partition_records", None)
        if reader is not None:
            _give_blocks(reader)
        super().__setitem__(source, fetch)


def whole_batches(consumer: Any) -> None:
    """Have the consumer's `getmany` give `Block`s."""
    consumer._fetcher._records = _Blocks(consumer._fetcher._records)


def _give_blocks(reader: Any) -> None:
    """Its reader has not begun yet: it looks at its batches, and makes its records, when it is first asked."""
    sizes = [reader._records.size_in_bytes()]  # counted with the first block
    reader._records = _WholeBatches(reader._records)
    reader._consumer_record = lambda source, whole: Block(
        whole.batch, reader.next_fetch_offset, whole.batch.next_offset, sizes.pop() if sizes else 0
    )


def opened(blocks: Sequence[Block], start: int, end: int) -> Rows:
    """The messages of the offsets from *start* to below *end*."""
    parts = []
    for block in blocks:
        rows = _rows(list(block.batch))
        offsets = rows.offsets
        low, high = max(start, block.start), min(end, block.end)
        if offsets and (offsets[0] < low or offsets[-1] >= high):
            wanted = [row for row, offset in enumerate(offsets) if low <= offset < high]
            rows = rows[wanted[0] : wanted[-1] + 1] if wanted else rows[:0]
        parts.append(rows)
    return Rows.concat(parts)


def _rows(records: list[Any]) -> Rows:
    count = len(records)
    first = records[0].offset if records else 0
    offsets: Sequence[int] = range(first, first + count)
    if records and records[-1].offset != first + count - 1:  # compacted
        offsets = [record.offset for record in records]
    headers = [record.headers for record in records]
    return Rows(
        [record.value for record in records],
        [record.key for record in records],
        [record.timestamp for record in records],
        headers if any(headers) else None,
        offsets,
    )
