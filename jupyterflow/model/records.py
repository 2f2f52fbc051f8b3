"""Records, one by one and in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Record:
    """What travels: a value, its key, its event time (ms since the epoch) and its headers."""

    value: Any
    key: Any = None
    timestamp: int = 0
    headers: Headers = ()


class Batch:
    """Many records as columns: the unit of work.

    `values`: list of n values. `keys`: list of n, or None where all keys are None. `timestamps`: list of
    n ms, or one int where all are the same. `headers`: list of n header tuples, or None where all are empty.
    Columns are shared between batches and never changed in place.
    """

    __slots__ = ("headers", "keys", "timestamps", "values")

    def __init__(
        self,
        values: list[Any],
        keys: list[Any] | None = None,
        timestamps: list[int] | int = 0,
        headers: list[Headers] | None = None,
    ) -> None:
        self.values = values
        self.keys = keys
        self.timestamps = timestamps
        self.headers = headers

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice) -> Batch:
        """The batch of a slice of rows."""
        return Batch(
            self.values[rows],
            self.keys[rows] if self.keys is not None else None,
            self.timestamps if isinstance(self.timestamps, int) else self.timestamps[rows],
            self.headers[rows] if self.headers is not None else None,
        )

    def __iter__(self) -> Iterator[Record]:
        n = len(self.values)
        keys = self.keys if self.keys is not None else [None] * n
        times = [self.timestamps] * n if isinstance(self.timestamps, int) else self.timestamps
        headers = self.headers if self.headers is not None else [()] * n
        for value, key, time, header in zip(self.values, keys, times, headers, strict=True):
            yield Record(value, key, time, header)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Batch) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def take(self, rows: Sequence[int]) -> Batch:
        """The batch of the given row numbers, in that order."""
        values, keys, times, headers = self.values, self.keys, self.timestamps, self.headers
        return Batch(
            [values[i] for i in rows],
            [keys[i] for i in rows] if keys is not None else None,
            times if isinstance(times, int) else [times[i] for i in rows],
            [headers[i] for i in rows] if headers is not None else None,
        )

    @classmethod
    def concat(cls, batches: Sequence[Batch]) -> Batch:
        """One batch of all records, in order."""
        if len(batches) == 1:
            return batches[0]
        values: list[Any] = []
        for batch in batches:
            values.extend(batch.values)
        keys: list[Any] | None = None
        if any(batch.keys is not None for batch in batches):
            keys = []
            for batch in batches:
                keys.extend(batch.keys if batch.keys is not None else [None] * len(batch))
        headers: list[Headers] | None = None
        if any(batch.headers is not None for batch in batches):
            headers = []
            for batch in batches:
                headers.extend(batch.headers if batch.headers is not None else [()] * len(batch))
        times: list[int] | int
        scalars = {batch.timestamps for batch in batches if isinstance(batch.timestamps, int)}
        if len(scalars) == 1 and all(isinstance(batch.timestamps, int) for batch in batches):
            times = scalars.pop()
        else:
            times = []
            for batch in batches:
                stamp = batch.timestamps
                times.extend([stamp] * len(batch) if isinstance(stamp, int) else stamp)
        return cls(values, keys, times, headers)
