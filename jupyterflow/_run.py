"""A run in this process, and what every run has in common."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from jupyterflow.codecs import Mark
from jupyterflow.model import Batch, FlowError, Record
from jupyterflow.nodes.catalogue import find
from jupyterflow.plan import plan
from jupyterflow.runtime.driver import Driver, Split, TaskRun, stage_error
from jupyterflow.runtime.effects import DeadLetter, Effects
from jupyterflow.runtime.memory import FULL, Collected, Memory, MemoryChannel
from jupyterflow.runtime.run import BaseRun
from jupyterflow.runtime.task import Task
from jupyterflow.telemetry import Meter

if TYPE_CHECKING:
    from jupyterflow.model import Flow

_PRINTS = 200  # lines kept a node
_DEAD = 10_000  # dead letters kept in process


class Run(BaseRun):
    """A flow that runs in this process: no broker, no group, nothing committed."""

    def __init__(self, flow: Flow, *, tasks: int = 1, max_queue: int = FULL, bootstrap: Any = None) -> None:
        self.flow, self.name, self.version = flow, flow.name, 1
        if max_queue < 1:
            raise FlowError("JF306", f"flow '{flow.name}': max_queue is {max_queue} - it must be at least 1")
        self.max_queue = max_queue
        self.plan = plan(flow, tasks=tasks)  # before there is any connection: what is wrong with it is said first
        self._outside = _outside(flow, bootstrap)
        if self._outside:
            self.plan = plan(flow, tasks=tasks, partitions=self._outside.partitions)
        self._memory = Memory(max_queue)
        self._news = threading.Condition()
        self._error: FlowError | None = None
        self._ending: str | None = None
        self._left = 0
        self._collected = {
            name: Collected(node.options.get("limit") or 1_000_000)
            for name, node in flow.nodes.items()
            if node.role == "sink" and node.kind == "collect"
        }
        self._dead: deque[DeadLetter] = deque(maxlen=_DEAD)
        self._printed: dict[str, deque[str]] = {}
        self.on_print: Callable[[str, str], None] | None = None
        self._driver = Driver(flow.name, self._failed, self._done)
        self._meter = Meter(flow.order())
        self._runs: list[TaskRun] = []
        try:
            for stage in self.plan.stages:
                self._stage(stage)
        except BaseException:
            for run in self._runs:
                run.task.close()
            if self._outside:
                self._outside.close()
            raise
        self._left = len(self._runs)
        self.metrics()  # rates count from here
        self._driver.add(self._runs)
        self._driver.start()

    def _stage(self, stage: Any) -> None:
        node = self.flow.nodes[stage.id]
        if stage.input == "splits":
            connector = find("source", node.kind, f"node '{node.name}'").connector
            assert connector is not None
            for number, splits in enumerate(connector.splits(node, stage.tasks)):
                partition = self._memory.partition(stage.topic, number)
                for split in splits:
                    partition.append(Split(split))
                partition.append(Mark("end", self.plan.epoch, 1, stage.id, number, stage.tasks))
        below = [(out.topic, out.partitions) for out in stage.outputs]
        for number in range(stage.tasks):
            sealer = self._outside.sealer if self._outside is not None else None
            task = Task(self.plan, stage, number, self.flow, durable=False, sealer=sealer)
            channel: Any = MemoryChannel(self._memory, stage.topic, number, below, self._perform)
            if stage.input == "kafka":
                assert self._outside is not None
                channel = self._outside.channel(channel, stage, number, task, self._driver.wake)
            self._runs.append(TaskRun(task, channel, 0.0))

    # Called by the compute thread.

    def _perform(self, effects: Effects) -> None:
        for node, batches in effects.collected.items():
            for batch in batches:
                self._collected[node].append(batch)
        if effects.published:
            assert self._outside is not None
            self._outside.publish(effects.published)
        self._dead.extend(effects.dead)
        for node, text in effects.prints.items():
            lines = self._printed.setdefault(node, deque(maxlen=_PRINTS))
            lines.extend(text.splitlines())
            if self.on_print is not None:
                self.on_print(node, text)
            elif not _in_notebook():
                sys.stdout.write(text)

    def _failed(self, run: TaskRun, error: BaseException) -> None:
        self._finish("failed", stage_error(self.name, run.task.stage.id, error))

    def _done(self, run: TaskRun) -> None:
        self._left -= 1
        if self._left == 0:
            drained = any(other.task.status == "drained" for other in self._runs)
            self._finish("stopped" if drained else "finished")

    def _finish(self, state: str, error: FlowError | None = None, *, flush: bool = True) -> None:
        try:
            if self._outside and state != "failed" and flush:
                self._outside.flush()
        except FlowError as problem:
            state, error = "failed", problem
        self.metrics()
        with self._news:
            if self._ending is None:
                self._ending, self._error = state, error
            self._news.notify_all()
        self._driver.close(0.0)
        if self._outside:
            self._outside.close()

    # Called by anyone.

    @property
    def state(self) -> str:
        if self._ending is not None:
            return self._ending
        now = time.monotonic()
        return "idle" if all(now - run.idle_since > 2.0 for run in self._runs) else "running"

    @property
    def error(self) -> FlowError | None:
        return self._error

    def metrics(self) -> list[dict[str, Any]]:
        lags = {stage.id: self._queued(stage.id) for stage in self.plan.stages if stage.input == "frames"}
        return self._meter.metrics((run.task.counters() for run in self._runs), lags)

    def _queued(self, stage: str) -> int:
        return self._memory.waiting(self.plan.stage(stage).topic)

    def records(self, node: str) -> list[Record]:
        return [record for batch in self._kept(node).batches() for record in batch]

    def collect(self, node: str) -> list[Any]:
        return self._kept(node).values()

    def _kept(self, node: str) -> Collected:
        self._sink(node, "collect")
        kept = self._collected[node]
        if kept.dropped:
            where = f"flow '{self.name}', node '{node}'"
            text = f"{where}: {kept.dropped:,} older records were dropped (limit={kept.limit:,})"
            warnings.warn(text, stacklevel=3)
        return kept

    def dead_letters(self, node: str | None = None) -> list[dict[str, Any]]:
        return [dead.to_dict() for dead in list(self._dead) if node in (None, dead.node)]

    def prints(self, node: str) -> list[str]:
        return list(self._printed.get(node, ()))

    def sample(self, node: str) -> Any:
        for run in self._runs:
            if (value := run.task.samples().get(node)) is not None:
                return value
        return None

    def stop(self, timeout: float = 30.0) -> Run:
        """Sources stop, what is in flight reaches the sinks; returns when that is done.

        Raises FlowTimeout where a function did not give back in *timeout* seconds.
        """
        self._driver.stop(1)
        return self.wait(timeout)

    def terminate(self) -> Run:
        """End at once; what is in flight is dropped."""
        if self._ending is None:
            self._finish("stopped", flush=False)  # at once, and not while the compute thread still writes
        self._driver.close(2.0)
        return self

    def wait(self, timeout: float | None = None) -> Run:
        try:
            return super().wait(timeout)
        finally:
            if self._ending is not None:
                self._driver.close(2.0)  # so that nothing of it runs on behind our back

    def _changed(self, timeout: float) -> None:
        with self._news:
            if self._ending is None:
                self._news.wait(timeout)


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and getattr(shell.get_ipython(), "kernel", None) is not None


def _outside(flow: Flow, bootstrap: Any) -> Any:
    """The connection with Kafka, where a flow in process has a kafka: source or sink."""
    nodes: Iterable[Any] = [node for node in flow.nodes.values() if node.kind == "kafka"]
    if not nodes:
        return None
    from jupyterflow._outside import Outside

    return Outside(flow, bootstrap or os.environ.get("JUPYTERFLOW_BOOTSTRAP"))


__all__ = ["BaseRun", "Batch", "Run"]
