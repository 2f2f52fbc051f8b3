"""One deployment on one worker: an engine that gets tasks from Kafka, and a driver that runs them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from jupyterflow.cluster.control import Control
from jupyterflow.cluster.manifest import Loaded
from jupyterflow.codecs import Sealer
from jupyterflow.model import FlowError
from jupyterflow.plan import Plan, Stage
from jupyterflow.runtime.driver import Driver, TaskRun, stage_error
from jupyterflow.runtime.effects import Effects
from jupyterflow.runtime.memory import FULL
from jupyterflow.runtime.task import Task
from jupyterflow.runtime.wire import KafkaChannel, restored
from jupyterflow.transport.kafka import Engine, InputTopic

_log = logging.getLogger("jupyterflow.worker")
_AGAIN = 5.0  # seconds after which what was told and did not arrive is told again


class Report:
    """What is told of one task: committed counters, and where it stands."""

    __slots__ = ("meta", "sent", "version")

    def __init__(self, meta: dict[str, Any], version: int) -> None:
        self.meta, self.version = meta, version
        self.sent = 0.0  # when it was told last


class FlowRunner:
    """Runs the tasks of a deployment that this worker is given."""

    def __init__(
        self, loaded: Loaded, control: Control, worker: str, on_end: Callable[[], None] = lambda: None
    ) -> None:
        self._on_end = on_end
        self.manifest, self.flow, self.plan = loaded.manifest, loaded.flow, loaded.plan
        self.name = self.plan.flow
        self.error: FlowError | None = None
        self._control, self._worker = control, worker
        self._sealer = Sealer(control.key, self.plan.epoch)
        self._outside = Sealer(control.key, "")  # of pickled values on users' topics: they outlive epochs
        self._reports: dict[tuple[str, int], Report] = {}
        self._runs: dict[tuple[str, int], TaskRun] = {}
        self._by_topic: dict[str, Stage] = {stage.topic: stage for stage in self.plan.stages}
        self._driver = Driver(self.name, self._failed, lambda run: None)
        self._lock = threading.Lock()
        prefix = f"{self.plan.prefix}.{self.name}.{self.plan.epoch}"
        self.group = prefix
        self._partition_counts: dict[str, int] = dict(self.manifest["sinks"])
        self._engine = Engine(
            control.io,
            control.config,
            group=prefix,
            instance_id=worker,
            inputs=[self._input(stage) for stage in self.plan.stages],
            guarantee=self.manifest["guarantee"],
            on_open=self._open,
            on_close=lambda port, reason: self._forget(port),
            on_error=self._told,
            on_ready=self._driver.wake,
            session_timeout=self.manifest["session_timeout"],
        )

    def _input(self, stage: Stage) -> InputTopic:
        bounds = self.manifest["bounds"].get(stage.topic, {})
        start: Any = "earliest"
        if "start" in bounds:
            start = {int(p): offset for p, offset in bounds["start"].items()}
        until = {int(p): offset for p, offset in bounds["until"].items()} if "until" in bounds else None
        return InputTopic(
            stage.topic,
            transactional_prefix=f"{self.group}.{stage.id}",
            changelog=stage.changelog,
            start=start,
            until=until,
            purge=stage.input == "frames",
        )

    def start(self) -> None:
        """Join the group. Raises FlowError where that is not possible."""
        self._driver.start()
        try:
            self._engine.start()
        except BaseException:
            self._driver.close()
            raise

    # On the I/O thread

    def _open(self, port: Any, state: dict[bytes, bytes]) -> None:
        self._driver.call(lambda: self._begin(port, state))

    def _forget(self, port: Any) -> None:
        stage = self._by_topic[port.topic]
        with self._lock:
            run = self._runs.get((stage.id, port.partition))
            if run is not None and run.channel.port is port:  # type: ignore[attr-defined]
                del self._runs[stage.id, port.partition]
                self._reports.pop((stage.id, port.partition), None)
            else:
                run = None
        if run is not None:
            self._driver.remove(run)

    def _told(self, error: BaseException) -> None:
        _log.warning("flow '%s': %s", self.name, error)
        if isinstance(error, FlowError) and error.code in ("JF525", "JF530", "JF536"):
            self.error = error  # it would be the same again and again

    # In the compute thread

    def _begin(self, port: Any, state: dict[bytes, bytes]) -> None:
        if port.failed is not None:
            return
        stage = self._by_topic[port.topic]
        try:
            until = (self.manifest["bounds"].get(stage.topic, {}).get("until") or {}).get(str(port.partition))
            stop = self.manifest["stop"] if self.manifest["state"] == "stopped" else 0
            task = self._task(stage, port.partition, until)
            task.since = stop - 1 if stop else self.manifest["revision"]
            task.restore(*restored(state, self._sealer, stage.changelog, port.partition))
            task.position = port.position
            if stop and task.drained >= stop and task.status == "running":
                task.status = "drained"
        except Exception as error:
            self.error = stage_error(self.name, stage.id, error)
            return
        place = (stage.id, port.partition)
        channel = KafkaChannel(
            port, self.plan, task, self._sealer, self._partitions, lambda effects: self._committed(place, effects)
        )
        run = TaskRun(task, channel, self.manifest["commit_interval"])
        if stop:
            run.stop = stop
        with self._lock:
            self._runs[place] = run
            self._reports[place] = Report(task.meta(), task.version)
        self._driver.add([run])
        if port.failed is not None:  # closed meanwhile
            self._forget(port)

    def _task(self, stage: Stage, index: int, until: int | None) -> Task:
        """A task of the version that is to run now."""
        return Task(
            self.plan,
            stage,
            index,
            self.flow,
            worker=self._worker,
            version=self.manifest["version"],
            until=until,
            sealer=self._outside,
        )

    def _partitions(self, topic: str) -> int:
        count = self._partition_counts.get(topic)
        if count is None:
            count = self._partition_counts[topic] = self._engine.partitions(topic)
        return count

    def _failed(self, run: TaskRun, error: BaseException) -> None:
        if run.channel.failed is not None:
            return  # its transaction or its place in the group is gone: the engine opens it again
        self.error = stage_error(self.name, run.task.stage.id, error)
        _log.error("%s", self.error, exc_info=self.error.__cause__)

    # On the I/O thread

    def _committed(self, place: tuple[str, int], effects: Effects) -> None:
        with self._lock:
            run = self._runs.get(place)
            if run is not None:  # else it is another worker's to tell
                self._reports[place] = Report(effects.meta, run.task.version)
        if effects.meta["status"] != "running":
            self._on_end()
        for node, text in effects.prints.items():
            body = {"flow": self.name, "epoch": self.plan.epoch, "node": node, "text": text[-4_000:]}
            self._control.publish("output", self.name, {**body, "worker": self._worker}, timeout=None)

    # On the worker's thread

    def apply(self, loaded: Loaded) -> None:
        """Take a newer manifest of the same epoch and shape: stop, or swap the code between two batches."""
        old, self.manifest = self.manifest, loaded.manifest
        if loaded.manifest["state"] == "stopped":
            # In the compute thread, so that a task that begins now gets it too.
            self._driver.call(lambda: self._driver.stop(loaded.manifest["stop"]))
        if loaded.manifest["version"] != old["version"]:
            self.flow = loaded.flow
            self._driver.call(self._swap)

    def _swap(self) -> None:
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            old = run.task
            try:
                task = self._task(old.stage, old.index, old.until)
            except Exception as error:
                _log.error("flow '%s': version %s does not start: %s", self.name, self.manifest["version"], error)
                continue
            task.adopt(old)
            old.close()
            run.task = task
            task.pending += 1
        self._driver.wake()

    def report(self, *, ends: bool = False) -> list[tuple[str, dict[str, Any]]]:
        """What changed since the last time, by telemetry key; with *ends* only of tasks that have ended or drained."""
        out: list[tuple[str, dict[str, Any]]] = []
        with self._lock:
            reports = list(self._reports.items())
            runs = dict(self._runs)
        if ends:
            reports = [(place, report) for place, report in reports if report.meta["status"] != "running"]
        if not reports:
            return out
        known = {(task["topic"], task["partition"]): task["end"] for task in self._engine.stats()["tasks"]}
        for (stage, index), report in reports:
            run = runs.get((stage, index))
            lag = None if run is None else _lag(run, known.get((run.task.stage.topic, index)))
            key = f"{self.name}/{self.plan.epoch}/{stage}/{index}"
            told, now = self._control.tables["telemetry"].get(key), time.time()
            # A worker that lost the task may have had the last word; and what was told may be lost with the broker.
            if told is None or told["worker"] == self._worker:
                arrived = told is not None and told["time"] >= report.sent
                if report.sent and not lag and (arrived or 0 <= now - report.sent < _AGAIN):
                    continue
            report.sent = now
            body = {
                "flow": self.name,
                "epoch": self.plan.epoch,
                "stage": stage,
                "task": index,
                "status": report.meta["status"],
                "stop": report.meta["drained"],
                "sent": report.meta["sent"],
                "received": report.meta["received"],
                "counters": report.meta["counters"],
                "version": report.version,
                "worker": self._worker,
                "lag": lag,
                "time": now,
                "samples": {
                    name: _short(value) for name, value in (run.task.samples() if run is not None else {}).items()
                },
            }
            out.append((key, body))
        return out

    def throttle(self, telemetry: dict[str, dict[str, Any]]) -> None:
        """Back-pressure: a task waits while a topic that it feeds holds more than its readers can be expected to."""
        waiting = queued(self.plan, telemetry)
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            writable = all(waiting.get(out.topic, 0) < FULL for out in run.task.stage.outputs)
            if isinstance(run.channel, KafkaChannel) and run.channel.port.writable != writable:
                run.channel.port.writable = writable
                self._driver.wake()

    @property
    def tasks(self) -> list[str]:
        """The tasks that run here, as `STAGE/NUMBER`."""
        with self._lock:
            return [f"{stage}/{index}" for stage, index in sorted(self._runs)]

    def close(self, *, leave: bool = True) -> None:
        """End what runs here: what is in flight is committed or aborted."""
        try:
            self._engine.stop(leave=leave)
        except Exception as error:
            _log.warning("flow '%s': stopping: %r", self.name, error)
        self._driver.close()


def _lag(run: TaskRun, end: int | None) -> int | None:
    """Records of an outside topic that a task has not seen; the markers of transactions, which it passed, are none."""
    task = run.task
    if task.stage.input != "kafka" or end is None or task.position is None:
        return None
    return max(0, min(end, end if task.until is None else task.until) - task.position)


def _short(value: Any) -> str:
    try:
        if isinstance(value, str | bytes | list | tuple) and len(value) > 500:
            value = value[:500]  # what is shown fits in it
        text = repr(value)
    except Exception as error:
        text = f"<{type(error).__name__} in repr>"
    return text if len(text) <= 200 else text[:199] + "…"


def queued(plan: Plan, telemetry: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Records that wait in each internal topic: what was sent there less what was received, over all tasks."""
    waiting: dict[str, int] = {}
    for stage in plan.stages:
        for index in range(stage.tasks):
            body = telemetry.get(f"{plan.flow}/{plan.epoch}/{stage.id}/{index}")
            if body is None:
                continue
            for topic, count in body["sent"].items():
                waiting[topic] = waiting.get(topic, 0) + count
            if stage.input == "frames":
                waiting[stage.topic] = waiting.get(stage.topic, 0) - body["received"]
    return {topic: max(0, count) for topic, count in waiting.items()}
