"""Where the benchmarks run: one broker, one worker, each on a core of its own where there are two."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _bench_data as data
import _bench_flows as flows
import psutil

from jupyterflow import broker
from jupyterflow.cluster.client import Cluster
from jupyterflow.transport.kafka import Admin, KafkaConfig, TopicSpec

GUARANTEE = {"stateless": "at-least-once", "words": "exactly-once"}
_LOOK = 0.05  # s between two looks at the output


@dataclass(frozen=True)
class Result:
    """One measured run: seconds to the last visible record, CPU seconds, and records/s between 10 and 90 %."""

    records: int
    seconds: float
    cpu: float
    steady: float
    right: bool

    @property
    def rate(self) -> float:
        """Records a second over the whole run."""
        return self.records / self.seconds

    @property
    def micros(self) -> float:
        """CPU µs a record."""
        return self.cpu / self.records * 1e6


def pin(pid: int, core: int) -> None:
    """Keep a process and all its threads on one core, where there are two."""
    cores = sorted(os.sched_getaffinity(0) | {0, 1}) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2 or (os.cpu_count() or 1) < 2:
        return
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has just ended
            os.sched_setaffinity(int(thread.name), {core})


def cpu_of(pid: int) -> float:
    """CPU seconds of a process and its children up to now."""
    process = psutil.Process(pid)
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        with suppress(psutil.Error):
            times = one.cpu_times()
            total += times.user + times.system
    return total


class Watch:
    """Looks at how far an output topic has come, until it is told to stop."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap, self._topic = bootstrap, topic
        self._stop = threading.Event()
        self.looks: list[tuple[float, int]] = []
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        with Admin(KafkaConfig(self._bootstrap)) as admin:
            while True:
                last = self._stop.wait(_LOOK)
                ends = admin.end_offsets(self._topic)
                self.looks.append((time.perf_counter(), sum(ends.values())))
                # A commit is acknowledged before its records are visible.
                if last and ends == admin.end_offsets(self._topic, committed=False):
                    return

    def done(self) -> None:
        """Look once more and end."""
        self._stop.set()
        self._thread.join()

    def seconds(self, begin: float) -> float:
        """From *begin* to when the last record was visible."""
        final = self.looks[-1][1]
        return next(when for when, end in self.looks if end >= final) - begin

    def steady(self, records: int) -> float:
        """Input records a second while the output went from 10 to 90 %."""
        final = self.looks[-1][1]
        within = [(when, end) for when, end in self.looks if 0.1 * final <= end <= 0.9 * final]
        if len(within) < 2 or within[-1][1] == within[0][1]:
            return float("nan")
        share = (within[-1][1] - within[0][1]) / final
        return records * share / (within[-1][0] - within[0][0])


class World:
    """A cluster and the input topics; measured figures want it to have one worker."""

    def __init__(self, cluster: Cluster, say: Callable[[str], None], *, pinned: bool = True) -> None:
        self.cluster, self.say = cluster, say
        self._pinned = pinned
        self._prefix = f"bench{uuid.uuid4().hex[:6]}"
        self.bootstrap = cluster.bootstrap
        self._filled: set[str] = set()
        self._number = 0
        self._expected: dict[tuple[str, int], data.Expected] = {}
        if (local := broker.find()) is not None:
            self._pin(local.pid, 0)
        self._pin(os.getpid(), 0)

    def _pin(self, pid: int, core: int) -> None:
        if self._pinned:
            pin(pid, core)

    def source(self, workload: str, records: int) -> str:
        """The input topic of a workload, filled once."""
        topic = f"{self._prefix}.{workload}.{records}"
        if topic not in self._filled:
            self.say(f"writing {records:,} records of {workload}")
            rows = {"stateless": data.bids, "words": data.words}[workload](records)
            data.fill(self.bootstrap, topic, rows)
            self._filled.add(topic)
        return topic

    def _target(self, workload: str, who: str) -> str:
        self._number += 1
        topic = f"{self._prefix}.{workload}.{who}.{self._number}"
        names = [topic] if who == "flow" else [topic, f"{topic}.shuffle", f"{topic}.changelog"]
        with Admin(KafkaConfig(self.bootstrap)) as admin:
            admin.create_topics([TopicSpec(name, data.PARTITIONS, {}) for name in names])
        return topic

    def _right(self, workload: str, records: int, target: str) -> bool:
        key = (workload, records)
        if key not in self._expected:
            oracle = {"stateless": data.expected_bids, "words": data.expected_words}[workload]
            self._expected[key] = oracle(records)
        found = data.found(self.bootstrap, target)
        if found != self._expected[key]:
            self.say(f"WRONG: {workload} gave {found}, not {self._expected[key]}")
        return found == self._expected[key]

    def by_flow(self, workload: str, records: int, guarantee: str | None = None) -> Result:
        """JupyterFlow deployed on the workers."""
        source, target = self.source(workload, records), self._target(workload, "flow")
        flow = getattr(flows, workload)(f"{self._prefix}x{self._number}", source, target)
        pids = [worker["pid"] for worker in self.cluster.workers]
        for pid in pids:
            self._pin(pid, 1)
        watch = Watch(self.bootstrap, target)
        before, begin = sum(map(cpu_of, pids)), time.perf_counter()
        try:
            live = self.cluster.deploy(flow, guarantee=guarantee or GUARANTEE[workload], commit_interval=0.1)
            live.wait(30 + records / 5_000)
            cpu = sum(map(cpu_of, pids)) - before
        finally:
            watch.done()
        dead = live.dead_letters()
        if dead:
            self.say(f"WRONG: {len(dead)} dead letters, the first: {dead[0]['error']}")
        right = self._right(workload, records, target) and not dead
        result = Result(records, watch.seconds(begin), cpu, watch.steady(records), right)
        self.cluster.remove(flow.name)
        return result

    def by_hand(self, workload: str, records: int) -> Result:
        """The hand-written loop."""
        source, target = self.source(workload, records), self._target(workload, "hand")
        loop = str(Path(__file__).with_name("_bench_loop.py"))
        command = [sys.executable, loop, workload, self.bootstrap, source, target]
        watch = Watch(self.bootstrap, target)
        try:
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                if process.stdout.readline().strip() != "ready":
                    raise RuntimeError("the hand-written loop did not start")
                self._pin(process.pid, 1)
                begin = time.perf_counter()
                process.stdin.write("go\n")
                process.stdin.flush()
                cpu = float(process.stdout.readline())
        finally:
            watch.done()
        right = self._right(workload, records, target)
        return Result(records, watch.seconds(begin), cpu, watch.steady(records), right)


@contextmanager
def world(say: Callable[[str], None] = print) -> Iterator[World]:
    """A local Kafka and one worker in `JUPYTERFLOW_DIR`; all of it is ended."""
    import jupyterflow as jf

    affinity: Any = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    cluster = jf.up(workers=1, progress=say)
    try:
        yield World(cluster, say)
    finally:
        cluster.down()
        if affinity:
            os.sched_setaffinity(0, affinity)
