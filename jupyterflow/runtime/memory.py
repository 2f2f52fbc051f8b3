"""Topics in this process's memory: bounded queues of batches between tasks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from jupyterflow.codecs import Mark
from jupyterflow.model import Batch
from jupyterflow.runtime.driver import Split, feed
from jupyterflow.runtime.effects import Effects
from jupyterflow.runtime.task import Task

FULL = 100_000  # records that may wait in a partition before what feeds it pauses


class Partition:
    """One partition: items in order, and how many records wait."""

    __slots__ = ("end", "items", "limit", "records")

    def __init__(self, limit: int = FULL) -> None:
        self.items: deque[tuple[int, Batch | Mark | Split]] = deque()
        self.records = 0
        self.end = 0
        self.limit = limit

    def append(self, item: Batch | Mark | Split) -> None:
        """Add an item at the end."""
        self.items.append((self.end, item))
        self.end += 1
        if isinstance(item, Batch):
            self.records += len(item)


class Memory:
    """All partitions of one run."""

    def __init__(self, limit: int = FULL) -> None:
        self._limit = limit
        self._partitions: dict[tuple[str, int], Partition] = {}

    def partition(self, topic: str, number: int) -> Partition:
        """A partition, made when it is first named."""
        found = self._partitions.get((topic, number))
        if found is None:
            found = self._partitions[topic, number] = Partition(self._limit)
        return found

    def waiting(self, topic: str) -> int:
        """Records that wait in a topic."""
        return sum(part.records for (name, _), part in list(self._partitions.items()) if name == topic)


class MemoryChannel:
    """A task's connection with memory: effects are performed at once."""

    busy = midway = False
    failed: BaseException | None = None

    def __init__(
        self,
        memory: Memory,
        topic: str,
        number: int,
        downstream: list[tuple[str, int]],
        outside: Callable[[Effects], None],
    ) -> None:
        self._memory = memory
        self._input = memory.partition(topic, number)
        self._below = [memory.partition(name, p) for name, n in downstream for p in range(n)]
        self._outside = outside
        self._row = 0  # how much of the first batch has been processed

    @property
    def writable(self) -> bool:
        """Whether everything that this task feeds has room."""
        return all(part.records < part.limit for part in self._below)

    def poll(self, task: Task) -> bool:
        if not self._input.items:
            return False
        offset, item = self._input.items[0]
        first, self._row = self._row, 0
        if isinstance(item, Batch):
            whole, item = len(item), item[first : first + task.limit]
            self._input.records -= len(item)
            if first + len(item) < whole:
                self._row = first + len(item)
        if not self._row:
            self._input.items.popleft()
        feed(task, item, offset, first)
        return True

    def perform(self, effects: Effects) -> None:
        for (topic, number), items in effects.outputs.items():
            partition = self._memory.partition(topic, number)
            for item in items:
                partition.append(item)
        self._outside(effects)

    def close(self) -> None:
        pass


class Collected:
    """What a collect sink keeps: the last `limit` records, and how many were dropped."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._batches: deque[Batch] = deque()
        self._size = 0
        self.dropped = 0

    def append(self, batch: Batch) -> None:
        """Keep a batch; whole old ones give way."""
        self._batches.append(batch)
        self._size += len(batch)
        while self._size > self.limit:
            oldest = self._batches[0]
            over = self._size - self.limit
            if len(oldest) <= over:
                self._batches.popleft()
                gone = len(oldest)
            else:
                self._batches[0] = oldest[over:]
                gone = over
            self._size -= gone
            self.dropped += gone

    def batches(self) -> list[Batch]:
        """The batches kept, in order."""
        return list(self._batches)

    def values(self) -> list[Any]:
        """The values kept, in order."""
        return [value for batch in self.batches() for value in batch.values]
