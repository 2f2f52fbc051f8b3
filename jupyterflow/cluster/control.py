"""The control plane: what should run, who is there and how it goes, in a few small signed topics.

`deployments` (compacted): manifests, the truth about what should run. `workers` (compacted): presence.
`telemetry` (compacted by task): exact counters. `output` (an hour): what user code printed. `code` (compacted):
payloads by content. Every message is a signed envelope (see `cluster.keys`), checked before it is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from jupyterflow.cluster import keys
from jupyterflow.model import FlowError, FlowTimeout
from jupyterflow.transport.kafka import Admin, IOThread, KafkaConfig, TopicSpec

_log = logging.getLogger("jupyterflow.control")
_COMPACT = {"cleanup.policy": "compact", "segment.ms": "600000", "min.cleanable.dirty.ratio": "0.1"}
TOPICS: dict[str, dict[str, str]] = {
    "deployments": _COMPACT,
    "workers": _COMPACT,
    "telemetry": _COMPACT,
    "code": _COMPACT,
    "output": {"retention.ms": "3600000", "segment.ms": "600000"},
}


class Control:
    """A process's view of the control plane, kept up to date by a thread of its own.

    `tables[what]` maps keys to bodies (`what`: deployments, workers, telemetry, code). `on_output(body)` gets
    what is printed from now on; `changed` is notified whenever anything arrived.
    """

    def __init__(self, config: KafkaConfig, key: bytes, prefix: str = "jf", *, code: bool = False) -> None:
        self.config, self.key, self.prefix = config, key, prefix
        self.io = IOThread("jupyterflow-io")
        self.admin = Admin(config, self.io)
        self.tables: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in TOPICS}
        self.changed = threading.Condition()
        self.on_output: Callable[[dict[str, Any]], None] = lambda body: None
        self.on_change: Callable[[str, str], None] = lambda what, key: None
        self.refused = 0
        self.news = 0
        self._reads = [name for name in TOPICS if name != "code" or code]
        self._task: asyncio.Task[None] | None = None
        self._producer: Any = None
        self._caught_up = threading.Event()
        self._closed = False

    def topic(self, what: str) -> str:
        """The name of a control topic."""
        return f"{self.prefix}.{what}"

    def start(self, timeout: float = 20.0) -> Control:
        """Make the topics where they are missing and read them to their ends. Raises FlowError where Kafka is not there."""
        try:
            self.admin.create_topics([TopicSpec(self.topic(name), 1, settings) for name, settings in TOPICS.items()])
            self.io.call(self._start(), timeout)
        except BaseException:
            self.close()
            raise
        if not self._caught_up.wait(timeout):
            self.close()
            raise FlowTimeout("JF522", f"Kafka at {self.config.bootstrap} did not answer within {timeout:g} s")
        return self

    async def _start(self) -> None:
        from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

        options = self.config.client()
        self._producer = AIOKafkaProducer(**options, enable_idempotence=True, linger_ms=2)
        await self._producer.start()
        consumer = AIOKafkaConsumer(**options, group_id=None, auto_offset_reset="earliest", fetch_max_wait_ms=100)
        await consumer.start()
        parts = {name: TopicPartition(self.topic(name), 0) for name in self._reads}
        consumer.assign(list(parts.values()))
        ends = await consumer.end_offsets(list(parts.values()))
        for name, part in parts.items():
            consumer.seek(part, ends[part] if name == "output" else 0)
        await consumer.seek_to_beginning(*(part for name, part in parts.items() if name != "output"))
        names = {part.topic: name for name, part in parts.items()}
        self._task = asyncio.create_task(self._read(consumer, names, ends))

    async def _read(self, consumer: Any, names: dict[str, str], ends: dict[Any, int]) -> None:
        waiting = {part for part, end in ends.items() if end and names[part.topic] != "output"}
        if not waiting:
            self._caught_up.set()
        try:
            while True:
                try:
                    fetched = await consumer.getmany(timeout_ms=200)
                    for part in list(waiting):
                        if await consumer.position(part) >= ends[part]:
                            waiting.discard(part)
                except Exception as error:
                    _log.debug("reading the control topics: %r", error)
                    await asyncio.sleep(0.5)
                    continue
                for part, records in fetched.items():
                    for record in records:
                        try:
                            self._take(names[part.topic], record)
                        except Exception:  # signed, but not as this version knows it
                            _log.exception("reading %s at %s", part.topic, record.offset)
                if not waiting:
                    self._caught_up.set()
                if fetched:
                    with self.changed:
                        self.news += 1
                        self.changed.notify_all()
        finally:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(consumer.stop(), 5)

    def _take(self, what: str, record: Any) -> None:
        table = self.tables[what]
        key = (record.key or b"").decode("utf-8", "replace")
        if record.value is None:
            table.pop(key, None)
        else:
            try:
                body = keys.unseal(record.value, self.key)
                if body.get("key", key) != key or body.get("what") != what:
                    raise FlowError("JF606", "a signed message of another place")
            except FlowError as error:
                self.refused += 1
                if self.refused < 5:
                    _log.warning("%s: %s", self.topic(what), error)
                return
            if what == "output":
                self.on_output(body)
                return
            old = table.get(key)
            if what == "deployments" and old is not None and old["revision"] > body["revision"]:
                return  # older than the newest seen
            table[key] = body
        self.on_change(what, key)

    def publish(self, what: str, key: str, body: dict[str, Any] | None, *, timeout: float | None = 15.0) -> None:
        """Write a message (None: a tombstone); with a timeout, return once Kafka has it."""
        data = None if body is None else keys.seal({**body, "what": what, "key": key}, self.key)

        async def send() -> None:
            future = await self._producer.send(self.topic(what), data, key=key.encode(), partition=0)
            if timeout is not None:
                await future

        if timeout is None:
            with contextlib.suppress(FlowError):
                self.io.submit(_quietly(send()))
        else:
            self.io.call(send(), timeout)

    def wait(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait for a condition on the tables; whether it came true in time."""
        limit = time.monotonic() + timeout
        with self.changed:
            while not condition():
                left = limit - time.monotonic()
                if left <= 0:
                    return False
                self.changed.wait(min(left, 0.25))
        return True

    def close(self) -> None:
        """End the thread and the connections."""
        if self._closed:
            return
        self._closed = True

        async def stop() -> None:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task], timeout=5)
            if self._producer is not None:
                await asyncio.wait_for(self._producer.stop(), 5)

        with contextlib.suppress(Exception):
            self.io.call(stop(), 12)
        with contextlib.suppress(Exception):
            self.admin.close()
        self.io.close()


async def _quietly(coroutine: Any) -> None:
    with contextlib.suppress(Exception):
        await coroutine


def workers_of(control: Control) -> list[dict[str, Any]]:
    """The workers that gave a sign of life in the last half minute."""
    now = time.time()
    out = []
    for _, fields in sorted(control.tables["workers"].items()):
        age = now - fields["time"]
        if age < 30:
            out.append({**{k: v for k, v in fields.items() if k not in ("what", "key")}, "seen": round(age, 1)})
    return out


def workers_alive(control: Control) -> bool:
    """Whether any worker gave a sign of life lately."""
    now = time.time()
    return any(now - body["time"] < 10 for body in list(control.tables["workers"].values()))
