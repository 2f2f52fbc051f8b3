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


class _Blocks(OrderedDict[Any, Any]):
    """The fetcher's buffer, with each fetch set to give its record batches in place of its records."""

    def __setitem__(self, source: Any, fetch: Any) -> None:
        inner = getattr(fetch, "_partition_records", None)
        if inner is not None:
            inner._records_iterator = _closed(inner)
        super().__setitem__(source, fetch)


def whole_batches(consumer: Any) -> None:
    """Have the consumer's `getmany` give `Block`s."""
    consumer._fetcher._records = _Blocks(consumer._fetcher._records)


def _closed(inner: Any) -> Iterator[Block]:
    """`PartitionRecords._unpack_records` of aiokafka 0.14 without its last loop."""
    from aiokafka.consumer.fetcher import READ_COMMITTED
    from aiokafka.errors import CorruptRecordException

    records = inner._records
    size = records.size_in_bytes()
    while records.has_next():
        batch = records.next_batch()
        if inner._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {inner._tp}")
        if inner._isolation_level == READ_COMMITTED and batch.producer_id is not None:
            inner._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and inner._contains_abort_marker(batch):
                inner._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in inner._aborted_producers:
                inner.next_fetch_offset = batch.next_offset
                continue
        start, inner.next_fetch_offset = inner.next_fetch_offset, batch.next_offset
        if not batch.is_control_batch:
            yield Block(batch, start, batch.next_offset, size)
            size = 0  # the fetch was counted with its first batch


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
