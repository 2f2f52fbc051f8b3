"""A task's channel on Kafka: fetched bytes -> input, effects -> the bytes of one transaction.

All of it runs in the compute thread, so that the I/O thread never decodes, encodes or pickles.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

from jupyterflow.codecs import (
    BATCH,
    MARK,
    Mark,
    RowError,
    Sealer,
    decode_batch,
    decode_split,
    frames,
    outside_partition,
    payload_kind,
    state_key_bytes,
    state_key_of,
)
from jupyterflow.model import Batch, FlowError
from jupyterflow.nodes.kafka import messages
from jupyterflow.plan import Plan
from jupyterflow.runtime.driver import Split, feed
from jupyterflow.runtime.effects import GONE, DeadLetter, Effects
from jupyterflow.runtime.task import Task
from jupyterflow.transport.messages import Fetch, Message, Port, Transaction, Written

META = b"\0task"
_SLICE = 1_000  # messages of an outside topic that make a batch: what its nodes make of it stays in the cache
_REMEMBERED = 200_000  # keys whose partition is kept


class _Where(dict[bytes | None, int]):
    """Key -> partition of *n*, as Kafka's default partitioner has it; remembered."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __missing__(self, key: bytes | None) -> int:
        assert key is not None
        if len(self) > _REMEMBERED:
            keyless = self[None]
            self.clear()
            self[None] = keyless
        self[key] = partition = outside_partition(key, self._n)
        return partition


class KafkaChannel:
    """Feeds a task from its port and turns its effects into transactions.

    `partitions(topic)` says how many an outside topic has. `on_commit(effects)` is called on the transport's
    thread when effects are committed.
    """

    def __init__(
        self,
        port: Port,
        plan: Plan,
        task: Task,
        sealer: Sealer,
        partitions: Callable[[str], int],
        on_commit: Callable[[Effects], None],
    ) -> None:
        self.port = port
        self._plan, self._stage, self._index = plan, task.stage, task.index
        self._sealer, self._partitions, self._on_commit = sealer, partitions, on_commit
        self._fetch: Fetch | None = None
        self._next = 0
        self._batch: Batch | None = None  # of the message at `_next`, as long as rows of it are left
        self._row = 0
        self._dropped: dict[str, int] = {}  # records that were counted as sent and could not be
        self._turn = task.index
        self._where: dict[int, _Where] = {}

    @property
    def busy(self) -> bool:
        """A commit is in flight."""
        return self.port.busy

    @property
    def midway(self) -> bool:
        """A part of a message is processed: its position and effects come with the rest of it."""
        return self._batch is not None

    @property
    def failed(self) -> BaseException | None:
        """Why the task is dead."""
        return self.port.failed

    @property
    def writable(self) -> bool:
        """False: back-pressure."""
        return self.port.writable

    def poll(self, task: Task) -> bool:
        if self._fetch is None:
            self._fetch, self._next = self.port.poll(), 0
            if self._fetch is None:
                if self._stage.input == "kafka" and task.until is not None and self.port.ended:
                    task.reached(task.until)
                    return task.status != "running"
                return False
        fetch = self._fetch
        records = fetch.records
        if self._next < len(records):
            if self._stage.input == "kafka":
                end = self._next + min(_SLICE, task.limit)
                task.messages(records[self._next : end])
                self._next = end
            else:
                self._internal(task, records[self._next])
                if self._batch is None:
                    self._next += 1
        if self._next >= len(records):
            self._fetch = None
            if self._stage.input == "kafka":
                task.reached(fetch.position)
            elif self._stage.input == "frames":
                task.position = fetch.position
        return True

    def _internal(self, task: Task, record: Any) -> None:
        topic = self._stage.topic
        if self._batch is not None:
            self._part(task, self._batch, record.offset)
            return
        try:
            payload = self._sealer.open(topic, self._index, record.value)
            kind = payload_kind(payload)
            if kind == MARK:
                item: Batch | Mark | Split = Mark.decode(payload)
            elif kind == BATCH:
                item = decode_batch(payload)
            else:
                item = Split(decode_split(payload))
        except FlowError as error:
            if error.code == "JF224":
                raise  # ours, and cannot be loaded here: to pass over it would lose its records
            # Not ours: kept aside and told, never unpickled, and the flow goes on.
            task.refuse(error, record.offset)
            return
        if isinstance(item, Batch) and len(item) > task.limit:
            self._part(task, item, record.offset)
        else:
            feed(task, item, record.offset)

    def _part(self, task: Task, batch: Batch, offset: int) -> None:
        first, last = self._row, self._row + task.limit
        self._batch, self._row = (batch, last) if last < len(batch) else (None, 0)
        task.process(batch[first:last], offset, first)

    def perform(self, effects: Effects) -> None:
        writes: dict[tuple[str, int], list[Written]] = {}
        for at, items in effects.outputs.items():
            self._frames(writes.setdefault(at, []), at, items, effects)
        for topic, count in self._dropped.items():
            if topic in effects.meta["sent"]:
                effects.meta["sent"][topic] -= count
        for node, batches in effects.collected.items():
            at = (self._plan.collect_topic(node), 0)
            self._frames(writes.setdefault(at, []), at, batches, effects)
        for (_, topic), batches in effects.published.items():
            self._publish(writes, topic, batches)
        changelog = (self._stage.changelog, self._index)
        log = writes.setdefault(changelog, [])
        for (name, key), value in effects.changes.items():
            entry = name.encode() + b"\0" + state_key_bytes(key)
            log.append(Message(entry, None if value is GONE else self._pickled(changelog, value)))
        for letter in effects.dead:
            at = (self._plan.dead_topic, 0)
            writes.setdefault(at, []).append(Message(None, self._letter(at, letter)))
        log.append(Message(META, self._pickled(changelog, effects.meta)))
        self.port.commit(Transaction(writes, effects.position, lambda: self._on_commit(effects)))

    def _pickled(self, at: tuple[str, int], value: Any) -> bytes:
        return self._sealer.seal(*at, pickle.dumps(value, 5))

    def _letter(self, at: tuple[str, int], letter: DeadLetter) -> bytes:
        data = letter.to_dict()
        try:
            payload = pickle.dumps(data, 5)
        except Exception:
            payload = b""
        if not payload or len(payload) > 800_000:
            payload = pickle.dumps({**data, "value": repr(letter.value)[:10_000], "key": repr(letter.key)[:1_000]}, 5)
        return self._sealer.seal(*at, payload)

    def _frames(self, out: list[Written], at: tuple[str, int], items: Sequence[Batch | Mark], effects: Effects) -> None:
        waiting: list[Batch] = []

        def send() -> None:
            if not waiting:
                return
            batch = Batch.concat(waiting)
            waiting.clear()
            try:
                payloads = frames(batch)
            except RowError:
                payloads = frames(self._crossing(at[0], batch, effects))
            out.extend(Message(None, self._sealer.seal(*at, payload)) for payload in payloads)

        for item in items:
            if isinstance(item, Batch):
                waiting.append(item)
            else:
                send()
                out.append(Message(None, self._sealer.seal(*at, item.encode())))
        send()

    def _crossing(self, topic: str, batch: Batch, effects: Effects) -> Batch:
        """Of a batch, what can cross to another process; the rest are dead letters."""
        good = []
        for row, record in enumerate(batch):
            try:
                frames(batch[row : row + 1])
                good.append(row)
            except RowError as error:
                stage = self._stage.id
                effects.dead.append(
                    DeadLetter(stage, record.value, str(error), "", {}, 0, record.key, record.timestamp)
                )
        self._dropped[topic] = self._dropped.get(topic, 0) + len(batch) - len(good)
        return batch.take(good)

    def _publish(self, writes: dict[tuple[str, int], list[Written]], topic: str, batches: Sequence[Batch]) -> None:
        n = self._partitions(topic)
        where = self._where.get(n)
        if where is None:
            where = self._where[n] = _Where(n)
        add = [writes.setdefault((topic, partition), []).append for partition in range(n)]
        for batch in batches:
            self._turn += 1
            keyless = self._turn % n
            if batch.keys is None:
                writes[topic, keyless].extend(messages(batch))
                continue
            where[None] = keyless
            for partition, row in zip(map(where.__getitem__, batch.keys), messages(batch), strict=True):
                add[partition](row)

    def close(self) -> None:
        pass


def restored(
    changelog: dict[bytes, bytes], sealer: Sealer, topic: str, partition: int
) -> tuple[dict[str, Any] | None, dict[tuple[str, Any], Any]]:
    """A task's own state and its nodes' state from the changelog's latest values.

    Raises FlowError JF222 for an entry that does not carry our seal: state is never guessed.
    """
    meta: dict[str, Any] | None = None
    changes: dict[tuple[str, Any], Any] = {}
    for entry, data in changelog.items():
        value = pickle.loads(sealer.open(topic, partition, data))
        if entry == META:
            meta = value
        else:
            name, _, key = entry.partition(b"\0")
            changes[name.decode(), state_key_of(key)] = value
    return meta, changes
