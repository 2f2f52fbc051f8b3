"""A worker and its Kafka: cut off for a while, it comes back and nothing is lost."""

from __future__ import annotations

import signal
import time
from typing import Any

import psutil
from deployed import until

import jupyterflow as jf
from jupyterflow.broker import LocalBroker
from jupyterflow.cluster.client import Cluster


def test_workers_that_cannot_reach_kafka_for_a_while_come_back(
    cluster: Cluster, broker: LocalBroker, name: str
) -> None:
    def numbers(position: int) -> Any:
        while True:
            yield position
            position += 1

    flow = jf.Flow(name)
    source = flow.source("numbers", numbers, rate=300)
    source.key_by("key", lambda n: n % 5).count("count").sink("out", "collect")
    live = flow.deploy(cluster, session_timeout=6)

    def counted() -> int:
        return next(int(row["records_in"]) for row in live.metrics() if row["node"] == "out")

    until(lambda: counted() > 100)
    kafka = psutil.Process(broker.pid)
    kafka.send_signal(signal.SIGSTOP)
    try:
        silent = time.monotonic() + 12
        until(lambda: time.monotonic() > silent, 20)
    finally:
        kafka.send_signal(signal.SIGCONT)
    before = counted()
    until(lambda: counted() > before + 300, 40, "it did not come back")
    assert len(cluster.workers) == 2
    live.stop()
    counts: dict[int, list[int]] = {}
    for record in live.records("out"):
        counts.setdefault(record.key, []).append(record.value)
    for values in counts.values():
        assert sorted(values) == list(range(1, len(values) + 1))
    assert max(map(len, counts.values())) - min(map(len, counts.values())) <= 1
