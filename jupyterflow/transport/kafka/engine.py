"""One flow on one worker: a consumer in the flow's group, and the tasks that the group gives it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jupyterflow.model import FlowError
from jupyterflow.transport.kafka._assignor import StickyAssignor
from jupyterflow.transport.kafka._blocks import whole_batches
from jupyterflow.transport.kafka._consumer import listener, new_consumer
from jupyterflow.transport.kafka._inputs import Callbacks, CloseReason, Guarantee, InputTopic
from jupyterflow.transport.kafka._port import KafkaPort
from jupyterflow.transport.kafka._reader import Reader
from jupyterflow.transport.kafka._settings import KafkaConfig, flow_error
from jupyterflow.transport.kafka._tasks import TaskSet
from jupyterflow.transport.kafka.io import IOThread

_log = logging.getLogger("jupyterflow.kafka")

_PURGE_EVERY = 60.0
_LAG_EVERY = 2.0
_REPORT_EVERY = 10.0  # seconds between two equal errors


def _nothing(*_: object) -> None:
    pass


class Engine:
    """Runs the tasks of one flow that this worker is given.

    `group`: the flow's consumer group. `instance_id`: the worker's slot (a static member for as long as its
    inputs are the same; None: dynamic).
    `inputs`: the input topics of the stages that this worker may run; they and their changelogs exist.
    `session_timeout`: seconds after which a silent worker loses its tasks (the broker's floor is 6).
    `compression` of what is written: None, `zstd` (best for frames), `snappy`, `lz4` or `gzip`.

    `on_open(port, state)`: a task is open; `state` is its changelog's latest values. `on_close(port, reason)`:
    it is `revoked`, `failed` or `stopped`, `port.failed` says why; drop it and its state. A task that stays in a
    rebalance is neither closed nor opened. `on_error(error)`: what a person should see. `on_ready()`: something
    arrived or was committed. All are called on the I/O thread and must return at once.

    `labels` travel to the group's leader. Methods block and are called from any thread but the I/O thread.
    """

    def __init__(
        self,
        io: IOThread,
        config: KafkaConfig,
        *,
        group: str,
        instance_id: str | None,
        inputs: Sequence[InputTopic],
        guarantee: Guarantee = "exactly-once",
        on_open: Callable[[KafkaPort, dict[bytes, bytes]], None],
        on_close: Callable[[KafkaPort, CloseReason], None] = _nothing,
        on_error: Callable[[BaseException], None] = _nothing,
        on_ready: Callable[[], None] = _nothing,
        session_timeout: float = 10.0,
        heartbeat: float = 0.25,
        compression: str | None = None,
        labels: Mapping[str, Any] | None = None,
    ) -> None:
        if guarantee not in ("exactly-once", "at-least-once"):
            raise FlowError("JF534", f"guarantee '{guarantee}' is neither 'exactly-once' nor 'at-least-once'")
        self.group = group
        self.instance_id = instance_id
        self.guarantee = guarantee
        self._io = io
        self._config = config
        self._inputs = {given.topic: given for given in inputs}
        self._callbacks = Callbacks(on_open, on_close, on_error, on_ready)
        self._session_timeout = session_timeout
        self._heartbeat = heartbeat
        self._compression = compression
        together = {given.topic: given.copartition for given in inputs if given.copartition}
        self._assignor = StickyAssignor(labels, together)
        self._consumer: Any = None
        self._tasks: TaskSet | None = None
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = False
        self._group_generation = -1
        self._partitions: dict[str, int] = {}
        self._purged: dict[Any, int] = {}
        self._reported: dict[str, float] = {}

    # From other threads

    def start(self, timeout: float = 20.0) -> None:
        """Connect, check the topics and join the group; tasks come through `on_open`.

        Raises one FlowError line (JF521 unreachable, JF523 a topic is missing, ...), at the latest after
        *timeout* seconds.
        """
        try:
            self._io.call(self._start(timeout), timeout + 5)
        except Exception as error:
            raise flow_error(error, f"starting flow group '{self.group}'", self._config) from None

    def stop(self, timeout: float = 10.0, *, leave: bool = True) -> None:
        """End or abort what is in flight, stop the producers, then the consumer.

        `leave`: the tasks move at once; False for a slot that is about to be restarted with the same inputs,
        which then goes on without a rebalance (with others it would wait for its own session to end).
        """
        self._io.call(self._stop(timeout, leave), timeout * 3 + 10)

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has (looked up once). Raises FlowError JF523 if there is no such topic."""
        count = self._partitions.get(topic)
        if count is None:
            count = self._io.call(self._look_up([topic]))[topic]
        return count

    def delete_committed(self) -> None:
        """Delete the records below the committed positions of this worker's `purge` inputs."""
        self._io.call(self._purge())

    def stats(self) -> dict[str, Any]:
        """What this worker holds: generation, leader, tasks with position, end and lag, commit latencies (s)."""
        tasks = self._tasks
        ports = [task.port for task in list(tasks.open.values())] if tasks else []
        restoring = {source: tasks.restoring.get(source) for source in tasks.opening} if tasks else {}
        latencies = sorted(tasks.latencies) if tasks else []

        def quantile(q: float) -> float | None:
            return latencies[min(len(latencies) - 1, int(q * len(latencies)))] if latencies else None

        now = time.monotonic()
        return {
            "group": self.group,
            "instance": self.instance_id,
            "generation": self._group_generation,
            "leader": self._assignor.leads,
            "tasks": [
                {
                    "topic": port.topic,
                    "partition": port.partition,
                    "position": port.position,
                    "end": port.end_offset,
                    "lag": None if port.end_offset is None else max(0, port.end_offset - port.position),
                    "waiting": port.waiting[0],
                    "connected": now - port.heard_at < 2.0 or port.waiting[0] > 0,
                }
                for port in sorted(ports, key=lambda port: (port.topic, port.partition))
            ],
            "opening": [
                {"topic": source.topic, "partition": source.partition, "restored": progress}
                for source, progress in restoring.items()
            ],
            "fatal": [str(error) for error in list(tasks.fatal.values())] if tasks else [],
            "commits": tasks.commits if tasks else 0,
            "commit_p50": quantile(0.5),
            "commit_p95": quantile(0.95),
        }

    # On the I/O loop

    async def _start(self, timeout: float) -> None:
        self._tasks = TaskSet(
            self._config,
            self.group,
            self._inputs,
            self.guarantee,
            self._callbacks,
            self._heartbeat,
            self._compression,
            lambda: self._consumer,
            self._io.soon,
            self._report,
        )
        try:
            async with asyncio.timeout(timeout):
                await self._connect()
                await self._check_topics()
        except BaseException:
            await self._disconnect(leave=True)
            raise
        self._subscribe()
        name = f"flow group '{self.group}' as '{self.instance_id}'"
        reader = Reader(name, self._tasks, lambda: self._consumer, self._rebuild, self._report)
        self._loops = [asyncio.create_task(reader.run()), asyncio.create_task(self._housekeeping())]

    async def _connect(self) -> None:
        consumer = new_consumer(
            self._config,
            self.group,
            _static_name(self.instance_id, self._inputs),
            self._assignor,
            session_timeout=self._session_timeout,
            heartbeat=self._heartbeat,
        )
        self._consumer = consumer
        await consumer.start()
        whole_batches(consumer)

    def _subscribe(self) -> None:
        self._consumer.subscribe(list(self._inputs), listener=listener(self._on_revoked, self._on_assigned))

    async def _disconnect(self, leave: bool) -> None:
        consumer = self._consumer
        if consumer is None:
            return
        if leave and consumer._coordinator is not None:
            # A static member sends no LeaveGroup, and its tasks would wait for the session to end.
            consumer._coordinator._group_instance_id = None
        with contextlib.suppress(Exception):
            async with asyncio.timeout(5):
                await consumer.stop()
        self._consumer = None

    async def _look_up(self, topics: Sequence[str]) -> dict[str, int]:
        from aiokafka.protocol.metadata import MetadataRequest

        client = self._consumer._client
        request = MetadataRequest(list(topics), allow_auto_topic_creation=False)
        answer = (await client.send(client.get_random_node(), request)).to_object()
        for topic in answer["topics"]:
            if topic["error_code"] == 0 and topic["partitions"]:
                self._partitions[topic["topic"]] = len(topic["partitions"])
        missing = [topic for topic in topics if topic not in self._partitions]
        if missing:
            raise FlowError(
                "JF523", f"topic '{missing[0]}' does not exist on Kafka at {self._config.bootstrap} - create it first"
            )
        return self._partitions

    async def _check_topics(self) -> None:
        changelogs = [given.changelog for given in self._inputs.values() if given.changelog]
        await self._look_up([*self._inputs, *changelogs])
        for given in self._inputs.values():
            if given.changelog and self._partitions[given.changelog] < self._partitions[given.topic]:
                raise FlowError(
                    "JF535", f"changelog '{given.changelog}' has fewer partitions than its input '{given.topic}'"
                )

    # The client logs and swallows what a listener raises: report it here.

    async def _on_revoked(self) -> None:
        assert self._tasks is not None
        try:
            await self._tasks.revoked()
        except Exception as error:
            self._report(error, f"giving tasks of flow group '{self.group}' back")

    async def _on_assigned(self, sources: set[Any]) -> None:
        try:
            self._assigned(sources)
        except Exception as error:
            self._report(error, f"taking tasks of flow group '{self.group}'")

    def _assigned(self, sources: set[Any]) -> None:
        assert self._tasks is not None
        if self._stopping:
            return  # nobody polls any more
        generation = int(self._consumer._coordinator.generation)
        unbroken = generation == self._group_generation + 1
        self._group_generation = self._assignor.generation = generation
        self._tasks.assigned(sources, unbroken)

    async def _rebuild(self) -> None:
        assert self._tasks is not None
        await self._tasks.revoked()
        await self._disconnect(leave=False)
        while not self._stopping:
            try:
                async with asyncio.timeout(20):
                    await self._connect()
                self._subscribe()
                return
            except Exception as error:
                await self._disconnect(leave=False)
                self._report(error, f"reconnecting flow group '{self.group}'")
                await asyncio.sleep(2)

    async def _housekeeping(self) -> None:
        last_purge = time.monotonic()
        while not self._stopping:
            await asyncio.sleep(_LAG_EVERY)
            try:
                await self._refresh_ends()
                if time.monotonic() - last_purge >= _PURGE_EVERY:
                    last_purge = time.monotonic()
                    await self._purge()
            except Exception as error:
                _log.warning("housekeeping of group %s: %r", self.group, error)

    async def _refresh_ends(self) -> None:
        """The ends of paused partitions, which no fetch tells."""
        assert self._tasks is not None
        paused = {source: task.port for source, task in self._tasks.open.items() if task.port._paused}
        if paused and self._consumer is not None:
            async with asyncio.timeout(10):
                ends = await self._consumer.end_offsets(list(paused))
            for source, end in ends.items():
                paused[source].end_offset = max(end, paused[source].end_offset or 0)
                paused[source].heard_at = time.monotonic()

    async def _purge(self) -> None:
        from jupyterflow.transport.kafka.admin import delete_records

        assert self._tasks is not None
        below = {
            source: task.port.position
            for source, task in self._tasks.open.items()
            if self._inputs[source.topic].purge and task.port.position > self._purged.get(source, 0)
        }
        if below and self._consumer is not None:
            await delete_records(self._consumer._client, below)
            self._purged.update(below)

    def _report(self, error: BaseException, doing: str) -> None:
        """Tell the owner, once per `_REPORT_EVERY`; never raises. Being fenced is no news: the task has moved."""
        from aiokafka import errors

        _log.info("%s: %r", doing, error)
        if isinstance(error, errors.ProducerFenced | errors.CommitFailedError | errors.InvalidProducerEpoch):
            return
        line = flow_error(error, doing, self._config)
        now = time.monotonic()
        if now - self._reported.get(str(line), -_REPORT_EVERY) < _REPORT_EVERY:
            return
        self._reported[str(line)] = now
        with contextlib.suppress(Exception):
            self._callbacks.on_error(line)

    async def _stop(self, timeout: float, leave: bool) -> None:
        if self._tasks is None or self._stopping:
            return
        self._stopping = True
        await self._tasks.close(timeout)
        for loop in self._loops:
            loop.cancel()
        if self._loops:
            await asyncio.wait(self._loops, timeout=2)
        await self._disconnect(leave)


def _static_name(instance_id: str | None, topics: Iterable[str]) -> str | None:
    """The group instance id of a slot that reads these topics.

    A static member that comes back is given its former assignment, whatever it subscribes to now: other
    topics would wait for the next rebalance, and a topic it no longer reads ends its coordination. So a slot
    is the same member only for as long as it reads the same.
    """
    if instance_id is None:
        return None
    return f"{instance_id}-{zlib.crc32(chr(10).join(sorted(topics)).encode()):08x}"
