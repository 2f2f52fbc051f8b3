"""From the consumer into the ports: the poll loop of one engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from jupyterflow.model import FlowError
from jupyterflow.transport.kafka._blocks import Block
from jupyterflow.transport.kafka._port import KafkaPort
from jupyterflow.transport.kafka._tasks import TaskSet

_log = logging.getLogger("jupyterflow.kafka")

_SWEEP = 0.02  # seconds between two looks at ends and positions
_REBUILD_AFTER = 10.0  # seconds of failing polls


class Reader:
    """Polls, fills the ports and holds back what they cannot take.

    `consumer` gives the current consumer; `rebuild` replaces it when polling keeps failing.
    """

    def __init__(
        self,
        name: str,
        tasks: TaskSet,
        consumer: Callable[[], Any],
        rebuild: Callable[[], Awaitable[None]],
        report: Callable[[BaseException, str], None],
    ) -> None:
        self._name = name
        self._tasks = tasks
        self._get_consumer = consumer
        self._rebuild = rebuild
        self._report = report
        self._swept = 0.0

    @property
    def _consumer(self) -> Any:
        return self._get_consumer()

    async def run(self) -> None:
        """Poll always, even when all is paused: it is also what keeps the membership."""
        from aiokafka import errors

        failing_since: float | None = None
        patience = _REBUILD_AFTER
        while True:
            try:
                fetched = await self._consumer.getmany(timeout_ms=100)
                failing_since = None
                self._deliver(fetched)
            except errors.OffsetOutOfRangeError as error:
                self._out_of_range(error.args[0])
            except errors.NoOffsetForPartitionError:
                await asyncio.sleep(0.02)  # of a partition that is only now assigned: its task seeks
            except Exception as error:
                now = time.monotonic()
                doing = f"reading for {self._name}"
                if failing_since is None:
                    failing_since = now
                    _log.warning("%s: %r", doing, error)
                elif not getattr(error, "retriable", True):
                    self._report(error, doing)
                self._rewind()
                await asyncio.sleep(0.3)
                if now - failing_since > patience:
                    self._report(error, f"{doing} (is this slot running twice?)")
                    failing_since, patience = None, min(patience * 2, 120.0)
                    await self._rebuild()

    def _rewind(self) -> None:
        """After a failed poll: what it had drained from other partitions is lost in the client, read it again."""
        for source, task in self._tasks.open.items():
            if task.port._gate:
                with contextlib.suppress(Exception):
                    self._consumer.seek(source, task.port._next)

    def _out_of_range(self, offsets: Mapping[Any, int]) -> None:
        for source, offset in offsets.items():
            task = self._tasks.open.get(source)
            if task is not None and task.port._gate:
                line = (
                    f"position {offset} of {source.topic}/{source.partition} is no longer in the topic (deleted by "
                    "its retention?) - it is not started afresh by itself: remove the flow, or set its position"
                )
                self._tasks.fail_for_good(source, FlowError("JF536", line))

    def _deliver(self, fetched: Mapping[Any, Sequence[Block]]) -> None:
        subscription = self._consumer._subscription.subscription
        assignment = subscription.assignment if subscription is not None else None
        if assignment is None:
            return
        woke = False
        for source, blocks in fetched.items():
            task = self._tasks.open.get(source)
            if task is not None and task.port._gate:
                self._give(source, task.port, blocks, assignment.state_value(source).position)
                woke = True
        now = time.monotonic()
        if not fetched or now - self._swept > _SWEEP:
            self._swept = now
            for source, task in self._tasks.open.items():
                state, port = assignment.state_value(source), task.port
                if state is None or not port._gate:
                    continue
                if state.highwater is not None:
                    port.end_offset = max(state.highwater, port.end_offset or 0)
                    port.heard_at = now - max(0.0, time.time() - state.timestamp / 1000)
                if state.has_valid_position and state.position > port._next:
                    self._give(source, port, (), state.position)
                    woke = True
        if woke:
            self._tasks.wake()

    def _give(self, source: Any, port: KafkaPort, blocks: Sequence[Block], position: int) -> None:
        until = port._until
        if until is not None and position > until:
            position = until
        port._give(blocks, position)
        if port._above(1) or (until is not None and position >= until):
            port._paused = True
            self._consumer.pause(source)
            if until is None or position < until:
                # The compute thread may have drained it meanwhile and seen no pause to end.
                self._tasks.resume(port)
