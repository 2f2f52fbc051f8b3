"""The life of the tasks of one engine: open, commit, fail, move. Everything here runs on the I/O loop.

The order of the steps is what makes it exactly-once; it survived kills, zombies and broker restarts, and
each step answers a trap of the client or the protocol. Change it only with the fault tests at hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from jupyterflow.model import FlowError
from jupyterflow.transport.kafka._inputs import Callbacks, CloseReason, Guarantee, InputTopic
from jupyterflow.transport.kafka._port import KafkaPort
from jupyterflow.transport.kafka._producers import PlainWriter, SharedProducer, TransactionalWriter, Writer
from jupyterflow.transport.kafka._restore import restore
from jupyterflow.transport.kafka._settings import KafkaConfig
from jupyterflow.transport.messages import Transaction

Source = Any  # aiokafka.TopicPartition of a task's input

_REVOKE_WAIT = 5.0  # seconds for what is in flight when the group rebalances
_OPENING_AT_ONCE = 8
_BACK_OFF = (0.2, 5.0)  # first and longest wait before a task is opened again, seconds


class FatalTaskError(FlowError):
    """The task cannot be opened by anyone: it stays failed."""


class Task:
    """One completely opened task."""

    __slots__ = ("dead", "inflight", "port", "queued", "source", "writer")

    def __init__(self, source: Source, writer: Writer, port: KafkaPort) -> None:
        self.source = source
        self.writer = writer
        self.port = port
        self.dead = False
        self.inflight: asyncio.Task[None] | None = None
        self.queued: Transaction | None = None  # handed over while the group was rebalancing


class TaskSet:
    """All tasks of one engine.

    `consumer` gives the current consumer, `soon` runs a function on the loop from any thread.
    """

    def __init__(
        self,
        config: KafkaConfig,
        group: str,
        inputs: Mapping[str, InputTopic],
        guarantee: Guarantee,
        callbacks: Callbacks,
        heartbeat: float,
        compression: str | None,
        consumer: Callable[[], Any],
        soon: Callable[..., None],
        report: Callable[[BaseException, str], None],
    ) -> None:
        self._config = config
        self._group = group
        self._inputs = inputs
        self._exactly_once = guarantee == "exactly-once"
        self._callbacks = callbacks
        self._heartbeat = heartbeat
        self._compression = compression
        self._consumer = consumer
        self._soon = soon
        self._report = report
        self._shared = SharedProducer(config, compression)
        self._slots = asyncio.Semaphore(_OPENING_AT_ONCE)
        self._assigned: set[Source] = set()
        self._opening: dict[Source, asyncio.Task[None]] = {}
        self._discarding: dict[Source, asyncio.Task[None]] = {}
        self._failures: dict[Source, int] = {}
        self._stopping = False
        self.generation = 0  # ours: it moves with every revocation and assignment
        self.open: dict[Source, Task] = {}
        self.fatal: dict[Source, FlowError] = {}
        self.restoring: dict[Source, tuple[int, int]] = {}
        self.latencies: deque[float] = deque(maxlen=512)
        self.commits = 0

    @property
    def opening(self) -> list[Source]:
        return list(self._opening)

    # Rebalances

    async def revoked(self, wait: float = _REVOKE_WAIT) -> None:
        """Close the gates and let what is in flight end; user code is never waited for."""
        self.generation += 1
        for task in self.open.values():
            task.port._gate = False
        for opening in self._opening.values():
            opening.cancel()
        inflight = {task.inflight for task in self.open.values() if task.inflight is not None}
        if inflight:
            _, late = await asyncio.wait(inflight, timeout=wait)
            for commit in late:
                commit.cancel()
            if late:
                await asyncio.wait(late, timeout=1)

    def assigned(self, sources: set[Source], unbroken: bool) -> None:
        """Keep what was completely opened here and is not dead; open the rest outside the callback.

        `unbroken`: no generation passed without us. Without fencing (at least once) only that proves that
        nobody else ran the task meanwhile; with it a stale task's first commit fails, and it is reopened.
        """
        consumer = self._consumer()
        consumer.pause(*sources)  # before any await: getmany delivers while this callback runs
        self.generation += 1
        self._assigned = set(sources)
        for source, task in list(self.open.items()):
            if source not in sources or not (self._exactly_once or unbroken):
                self._close(task, "revoked", _moved(source))
        for source in sources:
            kept = self.open.get(source)
            if kept is None:
                # A valid position, or the client asks for a committed one without end and raises.
                consumer.seek(source, 0)
                self._schedule(source)
                continue
            port = kept.port
            consumer.seek(source, port._next)
            port._gate, port._paused = True, True
            self.resume(port)
            if kept.queued is not None:
                transaction, kept.queued = kept.queued, None
                self._begin(kept, transaction)

    # Opening

    def _schedule(self, source: Source, delay: float = 0.0) -> None:
        if self._stopping or source not in self._assigned or source in self.fatal:
            return
        previous = self._opening.get(source)
        opening = asyncio.create_task(self._open(source, self.generation, delay, previous))
        self._opening[source] = opening
        opening.add_done_callback(partial(self._opened, source))

    def _opened(self, source: Source, opening: asyncio.Task[None]) -> None:
        if self._opening.get(source) is opening:
            del self._opening[source]
            self.restoring.pop(source, None)
        if not opening.cancelled() and opening.exception() is not None:
            self._report(opening.exception() or RuntimeError(), f"opening the task of {_name(source)}")

    async def _open(self, source: Source, generation: int, delay: float, previous: asyncio.Task[None] | None) -> None:
        while generation == self.generation and not self._stopping:
            await asyncio.sleep(delay)
            for former in (previous, self._discarding.get(source)):
                if former is not None and not former.done():
                    await asyncio.wait([former])
            writer: Writer | None = None
            try:
                async with self._slots:
                    writer = self._writer(source)
                    position, state = await self._prepare(source, writer)
                if generation != self.generation:
                    raise asyncio.CancelledError
                self._admit(source, writer, position, state)
                return
            except asyncio.CancelledError:
                self._discard(source, writer)
                raise
            except FatalTaskError as error:
                self._discard(source, writer)
                self.fatal[source] = error
                self._report(error, "")
                return
            except Exception as error:
                self._discard(source, writer)
                self._report(error, f"opening the task of {_name(source)}")
                delay = self._back_off(source)

    def _writer(self, source: Source) -> Writer:
        if not self._exactly_once:
            return PlainWriter(self._shared, source, self._consumer, self._inputs[source.topic].changelog)
        prefix = self._inputs[source.topic].transactional_prefix or f"{self._group}.{source.topic}"
        name = f"{prefix}-{source.partition}"
        return TransactionalWriter(self._config, name, self._group, source, self._compression)

    async def _prepare(self, source: Source, writer: Writer) -> tuple[int, dict[bytes, bytes]]:
        """Fence the former owner, then read what it committed: position and state."""
        await writer.start()
        consumer = self._consumer()
        committed = await consumer.committed(source)  # before start() it may still change
        given = self._inputs[source.topic]
        state: dict[bytes, bytes] = {}
        end = 0
        if given.changelog is not None:
            self.restoring[source] = (0, 0)
            state, end = await restore(self._config, given.changelog, source.partition, partial(self._restored, source))
        if committed is not None:
            return committed, state
        if end > 0:
            raise FatalTaskError(
                "JF530",
                f"the position of {_name(source)} is lost: group '{self._group}' has none, but its changelog "
                "has records - restore the group's offsets, or remove the flow's state with `rm`",
            )
        position = await self._first_position(source, given)
        # Durable before anything is processed: 'latest' must not move on when the task moves.
        await writer.commit({}, position)
        return position, state

    def _restored(self, source: Source, offset: int, end: int) -> None:
        self.restoring[source] = (offset, end)

    async def _first_position(self, source: Source, given: InputTopic) -> int:
        start = given.start
        if isinstance(start, Mapping):
            start = start.get(source.partition, "earliest")
        if isinstance(start, int):
            return start
        consumer = self._consumer()
        ask = consumer.end_offsets if start == "latest" else consumer.beginning_offsets
        return int((await ask([source]))[source])

    def _admit(self, source: Source, writer: Writer, position: int, state: dict[bytes, bytes]) -> None:
        """The task is complete: from here on without an await, so that no rebalance comes between."""
        given = self._inputs[source.topic]
        until = (given.until or {}).get(source.partition)
        port = KafkaPort(
            source.topic,
            source.partition,
            position,
            until,
            lambda port, transaction: self._soon(self._take, task, transaction),
            lambda port: self._soon(self.resume, port),
        )
        task = Task(source, writer, port)
        self._callbacks.on_open(port, state)
        self.open[source] = task
        self._consumer().seek(source, position)
        port._gate = True
        self.resume(port)
        self.wake()

    def resume(self, port: KafkaPort) -> None:
        """Let a port's partition be fetched again, if there is room."""
        if not port._gate or not port._paused or port._above(1):
            return
        if port._until is not None and port._next >= port._until:
            self.wake()
            return
        from aiokafka import TopicPartition

        port._paused = False
        with contextlib.suppress(Exception):
            self._consumer().resume(TopicPartition(port.topic, port.partition))

    # Committing

    def _take(self, task: Task, transaction: Transaction) -> None:
        if task.dead:
            return
        if not task.port._gate:
            task.queued = transaction
            return
        self._begin(task, transaction)

    def _begin(self, task: Task, transaction: Transaction) -> None:
        task.inflight = asyncio.create_task(self._perform(task, transaction))

    async def _perform(self, task: Task, transaction: Transaction) -> None:
        port = task.port
        began = time.perf_counter()
        writes = {to: messages for to, messages in transaction.writes.items() if messages}
        try:
            if writes or transaction.position is not None:
                await task.writer.commit(writes, transaction.position)
                self.latencies.append(time.perf_counter() - began)
                self.commits += 1
        except BaseException as error:
            task.inflight = None
            if isinstance(error, asyncio.CancelledError):
                self._fail(task, FlowError("JF531", f"the commit of {_name(task.source)} was cut off"))
                raise
            self._fail(task, error)
            return
        task.inflight = None
        if task.dead:
            return
        if transaction.position is not None:
            port.position = transaction.position
        self._failures.pop(task.source, None)
        port.busy = False
        if transaction.on_done is not None:
            try:
                transaction.on_done()
            except Exception as error:
                self._report(error, "in on_done")
        self.wake()

    # Ends

    def _fail(self, task: Task, error: BaseException) -> None:
        """Any exception in a transaction: the task is dead, with its producer and its state."""
        if task.dead:
            return
        self._close(task, "failed", error)
        self._report(error, f"the commit of {_name(task.source)} failed, its task is opened again")
        self._schedule(task.source, self._back_off(task.source))

    def fail_for_good(self, source: Source, error: FlowError) -> None:
        """Nobody can run this task: say so once, and keep it closed."""
        if source in self.fatal:
            return
        self.fatal[source] = error
        task = self.open.get(source)
        if task is not None:
            self._close(task, "failed", error)
        self._report(error, "")

    def _close(self, task: Task, reason: CloseReason, error: BaseException) -> None:
        task.dead = True
        task.queued = None
        if self.open.get(task.source) is task:
            del self.open[task.source]
        task.port._shut(error)
        with contextlib.suppress(Exception):
            self._consumer().pause(task.source)  # not assigned any more: nothing to pause
        if task.inflight is not None:
            task.inflight.cancel()
        self._discard(task.source, task.writer)
        try:
            self._callbacks.on_close(task.port, reason)
        except Exception as problem:
            self._report(problem, "in on_close")
        self.wake()

    def _discard(self, source: Source, writer: Writer | None) -> None:
        """End a producer in the background; the next opening of the task waits for it."""
        if writer is None:
            return
        previous = self._discarding.get(source)

        async def discard() -> None:
            if previous is not None and not previous.done():
                await asyncio.wait([previous])
            with contextlib.suppress(Exception):
                await writer.abandon()

        task = asyncio.create_task(discard())
        self._discarding[source] = task
        task.add_done_callback(lambda done: self._discarded(source, done))

    def _discarded(self, source: Source, task: asyncio.Task[None]) -> None:
        if self._discarding.get(source) is task:
            del self._discarding[source]

    def _back_off(self, source: Source) -> float:
        """Longer each time, and long enough for a zombie to hear of the assignment that fenced it."""
        count = self._failures[source] = self._failures.get(source, 0) + 1
        first, longest = _BACK_OFF
        return max(1.5 * self._heartbeat, min(first * 2.0 ** min(count - 1, 10), longest))

    def wake(self) -> None:
        """Tell the compute thread that there may be something to do."""
        try:
            self._callbacks.on_ready()
        except Exception as error:
            self._report(error, "in on_ready")

    async def close(self, timeout: float) -> None:
        """End or abort what is in flight, close all tasks, stop the producers."""
        self._stopping = True
        await self.revoked(timeout)
        for task in list(self.open.values()):
            self._close(task, "stopped", FlowError("JF532", f"the task of {_name(task.source)} was stopped"))
        for _ in range(2):  # an opening that is cancelled leaves a producer to discard
            pending = [*self._opening.values(), *self._discarding.values()]
            if pending:
                await asyncio.wait(pending, timeout=timeout)
        await self._shared.close()


def _name(source: Source) -> str:
    return f"{source.topic}/{source.partition}"


def _moved(source: Source) -> FlowError:
    return FlowError("JF533", f"the task of {_name(source)} has moved to another worker")
