"""aiokafka retries without back-off while a broker is away, and logs each attempt: keep one of many."""

from __future__ import annotations

import logging
import threading
import time

EVERY = 10.0  # seconds between two equal messages


class _RateLimited(logging.Handler):
    """Pass records on to `jupyterflow.kafka.client`, one per place in the source and `EVERY` seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._target = logging.getLogger("jupyterflow.kafka.client")
        self._last: dict[tuple[str, int], float] = {}
        self._dropped: dict[tuple[str, int], int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if not self._target.isEnabledFor(record.levelno):
            return
        place = (record.pathname, record.lineno)
        now = time.monotonic()
        if record.levelno >= logging.INFO and now - self._last.get(place, -EVERY) < EVERY:
            self._dropped[place] = self._dropped.get(place, 0) + 1
            return
        self._last[place] = now
        dropped = self._dropped.pop(place, 0)
        if dropped:
            record.msg = f"{record.getMessage()} ({dropped} more like this)"
            record.args = ()
        self._target.handle(record)


_lock = threading.Lock()


def rate_limit_client_logs() -> None:
    """Route aiokafka's log through a rate limit; done once per process. Without a handler nothing is printed."""
    root, client = logging.getLogger("jupyterflow"), logging.getLogger("aiokafka")
    with _lock:
        if not any(isinstance(handler, logging.NullHandler) for handler in root.handlers):
            root.addHandler(logging.NullHandler())
        if not any(isinstance(handler, _RateLimited) for handler in client.handlers):
            client.addHandler(_RateLimited())
            client.propagate = False
