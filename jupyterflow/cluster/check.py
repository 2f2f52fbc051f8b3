"""Loads a package in a clean process before anything is deployed; the process is started once and kept warm."""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import select
import struct
import subprocess
import sys
import threading
import time
from typing import Any

from jupyterflow.cluster.payload import Package

_lock = threading.Lock()
_server: subprocess.Popen[bytes] | None = None


def check(package: Package, timeout: float = 20.0) -> list[str]:
    """What would go wrong in a worker on this machine, one line per problem; empty if it loads.

    *timeout* in seconds bounds the whole. About 10 ms when warm, as long again as the imports take when not.
    """
    question = pickle.dumps((package, timeout), protocol=5)
    deadline = time.monotonic() + timeout + 2.0
    with _lock:
        for attempt in (1, 2):
            server = _start()
            try:
                answer = _ask(server, question, deadline)
            except OSError:
                answer = None
            if answer is not None:
                return answer
            _stop()  # it had ended, or it hangs: another one may do
            if attempt == 2 or time.monotonic() > deadline:
                break
    return ["the functions could not be loaded in a clean process within the time - deploy again"]


def warm() -> None:
    """Start the process, so that the first check finds it ready. Returns at once."""
    with _lock:
        _start()


def close() -> None:
    """End the process; the next check starts another."""
    with _lock:
        _stop()


def _start() -> subprocess.Popen[bytes]:
    global _server
    if _server is None or _server.poll() is not None:
        _stop()
        _server = subprocess.Popen(
            [sys.executable, "-P", "-m", "jupyterflow.cluster._check_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )
        for pipe in (_server.stdin, _server.stdout):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
    return _server


def _stop() -> None:
    global _server
    server, _server = _server, None
    if server is not None:
        for pipe in (server.stdin, server.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]  # both are pipes
        server.kill()
        server.wait()


def _ask(server: subprocess.Popen[bytes], question: bytes, deadline: float) -> list[str] | None:
    """The answer, or None where it does not come in time or the process ends."""
    assert server.stdin is not None
    assert server.stdout is not None
    view = memoryview(struct.pack(">I", len(question)) + question)
    while view:
        if not select.select([], [server.stdin], [], max(0.0, deadline - time.monotonic()))[1]:
            return None
        view = view[os.write(server.stdin.fileno(), view[: 1 << 16]) :]
    head = _read(server.stdout, 4, deadline)
    body = _read(server.stdout, struct.unpack(">I", head)[0], deadline) if head else b""
    return list(pickle.loads(body)) if body else None


def _read(pipe: Any, size: int, deadline: float) -> bytes:
    data = b""
    while len(data) < size:
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return b""
        part = os.read(pipe.fileno(), size - len(data))
        if not part:
            return b""
        data += part
    return data


atexit.register(close)
