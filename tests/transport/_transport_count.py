"""A worker of a pure-Python flow for the tests: counts per key, state in a changelog, one stage.

Run as a process: one JSON line of settings on stdin, then it works until stdin closes. It prints a line per
event: `open TOPIC PARTITION POSITION KEYS`, `close TOPIC PARTITION REASON`, `error TEXT`, `stopped`.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

from jupyterflow.transport import Message, Port, Transaction
from jupyterflow.transport.kafka import Engine, InputTopic, IOThread, KafkaConfig


class Counter:
    """Writes `COUNT VALUE` per record to the same partition of the output, the count per key to the changelog."""

    def __init__(self, output: str, changelog: str, batch: int = 50) -> None:
        self.output, self.changelog, self.batch = output, changelog, batch
        self.lock = threading.Lock()
        self.tasks: dict[Port, dict[bytes, int]] = {}
        self.pending: dict[Port, list[Any]] = {}
        self.ready = threading.Event()
        self.spoil: set[int] = set()  # partitions whose next commit holds a message that is too large
        self.events: list[str] = []

    def note(self, *words: object) -> None:
        self.events.append(" ".join(map(str, words)))

    def on_open(self, port: Port, state: dict[bytes, bytes]) -> None:
        with self.lock:
            self.tasks[port] = {key: int(value) for key, value in state.items()}
        self.note("open", port.topic, port.partition, port.position, len(state))

    def on_close(self, port: Port, reason: str) -> None:
        with self.lock:
            self.tasks.pop(port, None)
        self.note("close", port.topic, port.partition, reason)
        self.ready.set()

    def on_error(self, error: BaseException) -> None:
        self.note("error", error)

    def step(self) -> None:
        self.ready.wait(0.1)
        self.ready.clear()
        with self.lock:
            tasks = list(self.tasks.items())
        for port, counts in tasks:
            if not port.busy and port.failed is None:
                self.work(port, counts)

    def work(self, port: Port, counts: dict[bytes, int]) -> None:
        fetch = port.poll()
        if fetch is None or not fetch.records:
            return
        out, changed = [], {}
        for record in fetch.records:
            key = record.key or b""
            counts[key] = changed[key] = counts.get(key, 0) + 1
            out.append(Message(key, b"%d %s" % (counts[key], record.value), record.timestamp))
        if port.partition in self.spoil:
            self.spoil.discard(port.partition)
            out.append(Message(b"spoiled", b"x" * (2 << 20)))
        changelog = [Message(key, b"%d" % count) for key, count in changed.items()]
        writes = {(self.output, port.partition): out, (self.changelog, port.partition): changelog}
        port.commit(Transaction(writes, fetch.position, self.ready.set))
        self.ready.set()


def main() -> None:
    settings = json.loads(sys.stdin.readline())
    sys.setswitchinterval(0.0005)
    counter = Counter(settings["output"], settings["changelog"])
    counter.note = lambda *words: print(*words, flush=True)  # type: ignore[method-assign]
    io = IOThread()
    engine = Engine(
        io,
        KafkaConfig(settings["bootstrap"]),
        group=settings["group"],
        instance_id=settings["instance"],
        inputs=[InputTopic(settings["input"], settings["changelog"], purge=settings.get("purge", False))],
        guarantee=settings["guarantee"],
        on_open=counter.on_open,
        on_close=counter.on_close,
        on_error=counter.on_error,
        on_ready=counter.ready.set,
        session_timeout=settings["session_timeout"],
    )
    engine.start()
    done = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
    while not done.is_set():
        counter.step()
    engine.stop(leave=settings.get("leave", True))
    io.close()
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
