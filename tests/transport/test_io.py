"""The I/O thread, and how quiet the client is on it."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading

import pytest

from jupyterflow.model import FlowError, FlowTimeout
from jupyterflow.transport.kafka import IOThread


def test_importing_the_kafka_transport_imports_no_kafka_client() -> None:
    code = "import sys, jupyterflow.transport.kafka; sys.exit('aiokafka' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0


def test_a_call_returns_the_result_or_gives_up_in_time() -> None:
    io = IOThread()
    try:
        assert io.call(asyncio.sleep(0, "done")) == "done"
        with pytest.raises(FlowTimeout, match="JF522"):
            io.call(asyncio.Event().wait(), timeout=0.05)
    finally:
        io.close()


def test_waiting_for_the_thread_on_the_thread_itself_is_refused() -> None:
    io = IOThread()

    async def inside() -> str:
        with pytest.raises(RuntimeError, match="wait for ever"):
            io.call(asyncio.sleep(0))
        return "refused"

    try:
        assert io.call(inside()) == "refused"
    finally:
        io.close()


def test_a_closed_thread_ends_what_ran_and_says_so_afterwards() -> None:
    before = threading.active_count()
    io = IOThread()
    forever = io.submit(asyncio.Event().wait())
    io.close()
    assert forever.cancelled()
    assert threading.active_count() == before
    with pytest.raises(FlowError, match="JF527"):
        io.call(asyncio.sleep(0))


def test_a_client_that_logs_the_same_again_and_again_is_heard_once() -> None:
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    IOThread().close()
    ear, target = Ear(), logging.getLogger("jupyterflow.kafka.client")
    target.addHandler(ear)
    try:
        for attempt in range(100):
            logging.getLogger("aiokafka.client").warning("cannot connect, attempt %d", attempt)
    finally:
        target.removeHandler(ear)
    assert heard == ["cannot connect, attempt 0"]
