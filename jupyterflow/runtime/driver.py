"""The driver: one compute thread that runs many tasks in turn, in process and in a worker alike."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from jupyterflow.codecs import Mark
from jupyterflow.model import Batch, FlowError
from jupyterflow.nodes import prints
from jupyterflow.nodes.base import error_line
from jupyterflow.runtime.effects import Effects
from jupyterflow.runtime.task import Task

_log = logging.getLogger("jupyterflow.driver")
SLICE = 0.05  # seconds of user code after which a task gives the thread back
_LARGE = 50_000  # records after which a task commits without waiting for the interval


class Split:
    """A split on its way to a task."""

    __slots__ = ("data",)

    def __init__(self, data: dict[str, object]) -> None:
        self.data = data


class Channel(Protocol):
    """A task's connection with the world: its input, and where its effects go."""

    @property
    def failed(self) -> BaseException | None:
        """Why the task is dead."""

    @property
    def busy(self) -> bool:
        """Whether effects are being performed."""

    @property
    def midway(self) -> bool:
        """Whether what was processed cannot be committed without the rest of its message."""

    @property
    def writable(self) -> bool:
        """False: back-pressure, process no more input now."""

    def poll(self, task: Task) -> bool:
        """Feed the task the next input that is there; whether there was any."""

    def perform(self, effects: Effects) -> None:
        """Start to perform effects atomically; `busy` until that is done."""

    def close(self) -> None:
        """Release what it holds."""


class TaskRun:
    """A task with its channel and the time of its last commit."""

    def __init__(self, task: Task, channel: Channel, interval: float) -> None:
        self.task, self.channel, self.interval = task, channel, interval
        self.last = 0.0
        self.stop: int | None = None
        self.idle_since = time.monotonic()
        self.settled = False

    @property
    def done(self) -> bool:
        """Ended or drained, and all of it committed."""
        return self.task.status != "running" and not self.task.pending and not self.channel.busy

    def step(self, wake: Callable[[], None]) -> bool:
        """Work for at most about SLICE; whether there was any."""
        task, channel = self.task, self.channel
        if channel.failed is not None:
            raise channel.failed
        if self.stop is not None and task.status == "running" and not task.stage.upstream:
            task.drain(self.stop)
        worked = False
        begin = now = time.monotonic()
        entry = task.chain.entry.counters
        while now - begin < SLICE and self._takes:
            before, seen = now, entry.records_in
            if not channel.poll(task):
                if not task.pull(task.limit):
                    break
                task.on_ready(wake)
            worked = True
            now = time.monotonic()
            if entry.records_in > seen:
                task.took(entry.records_in - seen, now - before, SLICE / 2)
        if task.status == "running":
            task.on_ready(wake)
            task.tick(now)
        if task.pending and not channel.busy and not channel.midway and self._due(now):
            self.last = now
            channel.perform(task.take())
            worked = True
        if worked:
            self.idle_since = now
        return worked

    @property
    def _takes(self) -> bool:
        """Whether it may be given more input now."""
        task, channel = self.task, self.channel
        return channel.writable and (task.pending < _LARGE or channel.midway) and task.status == "running"

    def _due(self, now: float) -> bool:
        return now - self.last >= self.interval or self.task.pending >= _LARGE or self.task.status != "running"

    def wait(self, now: float) -> float:
        """Seconds after which there may be something to do without being woken."""
        times = [0.05 if self.task.chain.timed else 0.5]
        if self.task.pending and not self.channel.busy and not self.channel.midway:
            times.append(max(0.0, self.last + self.interval - now))
        if self._takes and (due := self.task.due(now)) is not None:
            times.append(due)
        return min(times)


class Driver:
    """Runs tasks in turn in one thread. `on_failed(run, error)` is told of a task that cannot go on."""

    def __init__(
        self, name: str, on_failed: Callable[[TaskRun, BaseException], None], on_done: Callable[[TaskRun], None]
    ) -> None:
        self._runs: list[TaskRun] = []
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._closing = self._printing = False
        self._jobs: deque[Callable[[], None]] = deque()
        self._on_failed, self._on_done = on_failed, on_done
        self.wake = self._event.set
        self._thread = threading.Thread(target=self._loop, name=f"jupyterflow-compute-{name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        prints.install()
        self._printing = True
        self._thread.start()

    def add(self, runs: Iterable[TaskRun]) -> None:
        """Run these too."""
        with self._lock:
            self._runs = [*self._runs, *runs]
        self.wake()

    def call(self, job: Callable[[], None]) -> None:
        """Run a job in the compute thread, between two steps."""
        self._jobs.append(job)
        self.wake()

    def remove(self, run: TaskRun) -> None:
        """Run this one no more; it is closed by the compute thread."""
        with self._lock:
            self._runs = [other for other in self._runs if other is not run]
        self.wake()

    def stop(self, number: int) -> None:
        """Sources stop, what is in flight reaches the sinks; the stop is told from others by its number."""
        for run in self._runs:
            run.stop = number
        self.wake()

    @property
    def runs(self) -> list[TaskRun]:
        """The tasks that are run now."""
        return self._runs

    def close(self, timeout: float = 5.0) -> bool:
        """End the thread and close all tasks. False where user code did not give the thread back in time."""
        self._closing = True
        self.wake()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        with self._lock:
            printing, self._printing = self._printing, False
        if printing:
            prints.uninstall()
        return not self._thread.is_alive()

    def _loop(self) -> None:
        known: list[TaskRun] = []
        while not self._closing:
            self._event.clear()
            while self._jobs:
                job = self._jobs.popleft()
                try:
                    job()
                except Exception:  # it must not take all tasks with it
                    _log.exception("in the compute thread")
            runs = self._runs
            if runs is not known:
                for gone in known:
                    if gone not in runs:
                        self._close(gone)
                known = runs
            worked = False
            for run in runs:
                if self._closing:
                    break
                if run not in self._runs:
                    continue
                try:
                    worked = run.step(self.wake) or worked
                except BaseException as error:
                    self.remove(run)
                    self._on_failed(run, error)
                    worked = True
                    continue
                if run.done and not run.settled:
                    run.settled = True
                    self._on_done(run)
            if not worked and not self._closing:
                now = time.monotonic()
                self._event.wait(min((run.wait(now) for run in runs), default=0.5))
        for run in {**dict.fromkeys(known), **dict.fromkeys(self._runs)}:
            self._close(run)

    def _close(self, run: TaskRun) -> None:
        for close in (run.task.close, run.channel.close):
            try:
                close()
            except Exception:
                _log.exception("closing stage '%s'", run.task.stage.id)


def stage_error(flow: str, stage: str, error: BaseException) -> FlowError:
    """What ended a stage, as an error of ours: it may be one already."""
    if isinstance(error, FlowError):
        return error
    told = FlowError("JF407", f"flow '{flow}', stage '{stage}': {error_line(error)}")
    told.__cause__ = error
    return told


def feed(task: Task, item: Batch | Mark | Split, offset: int | None, first: int = 0) -> None:
    """Give a task one item of its input; *first* is the row of the message at which a batch begins."""
    if isinstance(item, Batch):
        task.process(item, offset, first)
    elif isinstance(item, Split):
        task.split(item.data, offset or 0)
    else:
        task.mark(item, offset)
