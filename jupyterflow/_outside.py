"""Kafka sources and sinks of a flow that runs in this process: no group, nothing committed, at least once out."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from jupyterflow.codecs import Sealer, outside_partition
from jupyterflow.model import Batch, Flow, FlowError
from jupyterflow.nodes.base import error_line
from jupyterflow.nodes.kafka import messages
from jupyterflow.plan import Stage
from jupyterflow.runtime.effects import Effects
from jupyterflow.runtime.memory import MemoryChannel
from jupyterflow.runtime.task import Task
from jupyterflow.transport.kafka import Admin, IOThread, KafkaConfig

_WAITING = 50_000  # messages read ahead per partition
_IN_FLIGHT = 20_000  # messages sent and not yet acknowledged, after which writing waits
_ANSWER = 60.0  # seconds that Kafka may take to acknowledge


class Outside:
    """One connection with Kafka for a run: readers for its sources, a producer for its sinks.

    Raises FlowError where no Kafka is named or up, it does not answer, or a topic does not exist.
    """

    def __init__(self, flow: Flow, bootstrap: str | None) -> None:
        nodes = [node for node in flow.nodes.values() if node.kind == "kafka"]
        self._flow = flow
        addresses = {node.options.get("bootstrap") or bootstrap or _local(flow) for node in nodes}
        if len(addresses) > 1:
            raise FlowError(
                "JF408", f"flow '{flow.name}' names several Kafkas ({', '.join(sorted(addresses))}) - use one"
            )
        self._config = KafkaConfig(addresses.pop())
        self._io = IOThread("jupyterflow-outside")
        self._tasks: list[Any] = []
        self._futures: deque[Any] = deque()
        self._producer: Any = None
        self._error: FlowError | None = None
        self._closed = threading.Event()
        self.partitions: dict[str, int] = {}
        try:
            self._look_up(nodes)
        except BaseException:
            self.close()
            raise

    @property
    def sealer(self) -> Sealer | None:
        """What pickled values on users' topics are sealed with; None where the flow has none."""
        if all(node.options.get("codec") != "pickle" for node in self._flow.nodes.values()):
            return None
        from jupyterflow.cluster import keys

        return Sealer(keys.load(create=True), "")

    def _look_up(self, nodes: list[Any]) -> None:
        with Admin(self._config, self._io) as admin:
            for node in nodes:
                topic = node.options["topic"]
                count = admin.partitions(topic)
                if count is None:
                    raise FlowError(
                        "JF523",
                        f"flow '{self._flow.name}', node '{node.name}': topic '{topic}' does not exist on Kafka at "
                        f"{self._config.bootstrap} - create it first, or check its name",
                    )
                self.partitions[topic] = count
            self._ends = {
                node.options["topic"]: admin.end_offsets(node.options["topic"])
                for node in nodes
                if node.role == "source" and "latest" in (node.options.get("until"), node.options.get("start"))
            }

    def channel(
        self, inner: MemoryChannel, stage: Stage, number: int, task: Task, wake: Callable[[], None]
    ) -> OutsideChannel:
        """The channel of a task that reads a partition of a topic."""
        options = self._flow.nodes[stage.id].options
        ends = self._ends.get(stage.topic, {})
        start = ends.get(number) if options.get("start") == "latest" else None
        if options.get("until") == "latest":
            task.until = ends.get(number, 0)
        channel = OutsideChannel(inner, task.until)
        self._tasks.append(self._io.submit(self._read(channel, stage.topic, number, start, wake)))
        return channel

    async def _read(
        self, channel: OutsideChannel, topic: str, number: int, start: int | None, wake: Callable[[], None]
    ) -> None:
        from aiokafka import AIOKafkaConsumer, TopicPartition

        part = TopicPartition(topic, number)
        consumer = AIOKafkaConsumer(
            **self._config.client(),
            group_id=None,
            isolation_level="read_committed",
            max_partition_fetch_bytes=4 << 20,
            fetch_max_wait_ms=100,
        )
        try:
            await consumer.start()
            consumer.assign([part])
            if start is None:
                await consumer.seek_to_beginning(part)
            else:
                consumer.seek(part, start)
            while not self._closed.is_set():
                if channel.waiting > _WAITING:
                    await asyncio.sleep(0.01)
                    continue
                fetched = await consumer.getmany(timeout_ms=100)
                position = await consumer.position(part)
                records = fetched.get(part, [])
                if records or position > channel.position:
                    channel.give(records, position)
                    wake()
                if channel.until is not None and position >= channel.until:
                    return
        except Exception as error:
            channel.failed = FlowError("JF521", f"reading topic '{topic}': {error_line(error)}")
            wake()
        finally:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(consumer.stop(), 5)

    def publish(self, published: dict[tuple[str, str], list[Batch]]) -> None:
        """Send what sinks wrote; waits where much is not acknowledged yet. Raises FlowError where sending failed."""
        if self._error is not None:
            raise self._error
        rows: list[tuple[str, int | None, Any]] = []
        for (_, topic), batches in published.items():
            n = self.partitions[topic]
            for batch in batches:
                for row in messages(batch):
                    rows.append((topic, None if row[0] is None else outside_partition(row[0], n), row))
        self._futures.append(self._io.submit(self._send(rows)))
        while len(self._futures) > 50 or (self._futures and self._futures[0].done()):
            self._settle()

    def _settle(self) -> None:
        try:
            self._futures.popleft().result(_ANSWER)
        except Exception as error:
            self._error = FlowError("JF521", f"flow '{self._flow.name}': writing to Kafka: {error_line(error)}")
            raise self._error from error

    async def _send(self, rows: list[tuple[str, int | None, Any]]) -> None:
        from aiokafka import AIOKafkaProducer

        if self._producer is None:
            self._producer = AIOKafkaProducer(
                **self._config.client(), enable_idempotence=True, max_batch_size=512 * 1024, linger_ms=5
            )
            self._starting = asyncio.ensure_future(self._producer.start())
        await asyncio.shield(self._starting)
        producer = self._producer
        futures = []
        for topic, partition, (key, value, timestamp, headers) in rows:
            futures.append(
                await producer.send(
                    topic, value, key=key, partition=partition, timestamp_ms=timestamp or None, headers=list(headers)
                )
            )
        for future in futures:
            await future

    def flush(self) -> None:
        """Wait until all that was written is acknowledged. Raises FlowError where it is not."""
        while self._futures:
            self._settle()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End readers and producer."""
        if self._closed.is_set():
            return
        self._closed.set()

        async def stop() -> None:
            if self._producer is not None:
                await asyncio.wait_for(self._producer.stop(), 5)

        for task in self._tasks:
            with contextlib.suppress(Exception):
                task.result(6)
        with contextlib.suppress(Exception):
            self._io.call(stop(), 6)
        self._io.close()


class OutsideChannel:
    """A task's channel whose input is a topic's partition; its effects go the way of memory."""

    busy = midway = False

    def __init__(self, inner: MemoryChannel, until: int | None) -> None:
        self._inner = inner
        self.until = until
        self.failed: BaseException | None = None
        self.position = 0
        # Each is written by one thread alone.
        self._given = self._taken = 0
        self._row = 0  # how much of the first fetch has been processed
        self._fetches: deque[tuple[Any, int]] = deque()

    @property
    def waiting(self) -> int:
        """Messages fetched and not yet processed."""
        return self._given - self._taken

    @property
    def writable(self) -> bool:
        """Whether everything that this task feeds has room."""
        return self._inner.writable

    def give(self, records: Any, position: int) -> None:
        """Take what was fetched; called on the I/O thread."""
        self.position = position
        self._given += len(records)
        self._fetches.append((records, position))

    def poll(self, task: Task) -> bool:
        if not self._fetches:
            if task.until == 0:
                task.reached(0)
                return task.status != "running"
            return False
        records, position = self._fetches[0]
        part = records[self._row : self._row + task.limit]
        self._row += len(part)
        self._taken += len(part)
        task.messages(part)
        if self._row >= len(records):
            self._fetches.popleft()
            self._row = 0
            task.reached(position)
        return True

    def perform(self, effects: Effects) -> None:
        self._inner.perform(effects)

    def close(self) -> None:
        self._inner.close()


def _local(flow: Flow) -> str:
    from jupyterflow import broker

    local = broker.find()
    if local is None:
        raise FlowError(
            "JF408", f"flow '{flow.name}' uses Kafka and none is up - call jf.up() or set JUPYTERFLOW_BOOTSTRAP"
        )
    return local.bootstrap
