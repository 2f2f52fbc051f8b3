"""What the Kafka tests share: topics of their own, writing, reading what was committed, worker processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jupyterflow.transport import Message
from jupyterflow.transport.kafka import Admin, IOThread, KafkaConfig, TopicSpec
from jupyterflow.transport.kafka._producers import close, new_producer, write

ROOT = Path(__file__).resolve().parents[2]


def until(condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
    """The first true result of a condition, asked every 20 ms; fails after *timeout* seconds."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        pause.wait(0.02)
    return result


class Kafka:
    """One test's corner of the broker: names that are its own, an I/O thread, an admin."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.config = KafkaConfig(bootstrap)
        self.io = IOThread("test-io")
        self.admin = Admin(self.config, self.io)
        self.name = f"t{uuid.uuid4().hex[:8]}"
        self.group = f"{self.name}.group"
        self.made: list[str] = []
        self.workers: list[Worker] = []

    def topic(self, name: str, partitions: int = 4, **config: str) -> str:
        topic = f"{self.name}.{name}"
        self.admin.create_topics([TopicSpec(topic, partitions, {k.replace("_", "."): v for k, v in config.items()})])
        self.made.append(topic)
        return topic

    def write(self, topic: str, records: dict[int, Sequence[tuple[bytes | None, bytes | None]]]) -> None:
        async def run() -> None:
            producer = new_producer(self.config, None)
            await producer.start()
            try:
                await write(producer, {(topic, p): [Message(k, v) for k, v in rows] for p, rows in records.items()})
            finally:
                await close(producer)

        self.io.call(run())

    def read(self, topic: str) -> dict[int, list[tuple[bytes | None, bytes | None]]]:
        """All committed records per partition, up to the present end."""
        from aiokafka import AIOKafkaConsumer, TopicPartition

        async def run() -> dict[int, list[tuple[bytes | None, bytes | None]]]:
            consumer = AIOKafkaConsumer(
                isolation_level="read_committed", enable_auto_commit=False, **self.config.client()
            )
            await consumer.start()
            try:
                sources = [TopicPartition(topic, p) for p in range(len(ends))]
                consumer.assign(sources)
                await consumer.seek_to_beginning(*sources)
                found: dict[int, list[tuple[bytes | None, bytes | None]]] = {p: [] for p in ends}
                while any([await consumer.position(s) < ends[s.partition] for s in sources]):
                    for source, records in (await consumer.getmany(timeout_ms=100)).items():
                        found[source.partition].extend((record.key, record.value) for record in records)
                return found
            finally:
                await consumer.stop()

        ends = self.admin.end_offsets(topic)
        return self.io.call(run())

    def processed(self, topic: str, group: str | None = None) -> bool:
        """Whether the group's committed positions have reached the topic's ends."""
        committed = self.admin.committed(group or self.group)
        return all(committed.get((topic, p), -1) >= end for p, end in self.admin.end_offsets(topic).items())

    def worker(self, instance: str, **settings: Any) -> Worker:
        worker = Worker(instance, {"bootstrap": self.bootstrap, "group": self.group, **settings})
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        try:
            self.admin.delete_topics(self.made)
        finally:
            self.admin.close()
            self.io.close()


class Worker:
    """A process running `_transport_count.py`; its lines are collected as they come."""

    def __init__(self, instance: str, settings: dict[str, Any]) -> None:
        defaults = {"instance": instance, "guarantee": "exactly-once", "session_timeout": 6.0}
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("_transport_count.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({**defaults, **settings}) + "\n")
        self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.strip())

    def held(self) -> set[int]:
        """The partitions whose tasks are open here."""
        open_ones: set[int] = set()
        for line in list(self.lines):
            event, _, rest = line.partition(" ")
            if event == "open":
                open_ones.add(int(rest.split()[1]))
            elif event == "close":
                open_ones.discard(int(rest.split()[1]))
        return open_ones

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, timeout: float = 20.0) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(timeout) == 0, self.lines
        self._reader.join(5)
        assert self.lines[-1] == "stopped"

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                with contextlib.suppress(OSError):
                    pipe.close()
