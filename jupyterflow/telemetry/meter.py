"""Counters are exact and come from the tasks; rates and percentiles are derived here, by whoever looks."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

_WINDOW = 3.0  # seconds over which rates are taken
_GAP = 0.2  # looks closer together than this share a sample: a rate over less is noise


def percentile(latency: Sequence[int], share: float) -> float | None:
    """The duration in ms below which *share* of the counted batches stayed; None without any.

    `latency[i]` counts batches of less than 2**(i/2) µs (see `nodes.base.Counters`).
    """
    total = sum(latency)
    if not total:
        return None
    seen = 0
    for i, n in enumerate(latency):
        seen += n
        if seen >= share * total:
            return float(2 ** (i / 2)) / 1000.0
    return None


class Meter:
    """Sums the counters of a flow's tasks and derives rates from successive looks."""

    def __init__(self, order: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._order = list(order)
        self._clock = clock
        self._looks: deque[tuple[float, dict[str, list[Any]]]] = deque()
        self._lock = threading.Lock()

    def totals(self, tasks: Iterable[Mapping[str, Sequence[Any]]]) -> dict[str, list[Any]]:
        """Counters by node: [records in, records out, errors, bytes in, bytes out, latency counts]."""
        sums: dict[str, list[Any]] = {name: [0, 0, 0, 0, 0, [0] * 64] for name in self._order}
        for counters in tasks:
            for name, data in counters.items():
                own = sums.setdefault(name, [0, 0, 0, 0, 0, [0] * 64])
                for i in range(5):
                    own[i] += data[i]
                own[5] = [a + b for a, b in zip(own[5], data[5], strict=True)]
        return sums

    def metrics(
        self, tasks: Iterable[Mapping[str, Sequence[Any]]], lags: Mapping[str, int | None] | None = None
    ) -> list[dict[str, Any]]:
        """One dict a node: records, errors, bytes, rates (a second), lag (records), p50 and p95 (ms a batch)."""
        sums = self.totals(tasks)
        now = self._clock()
        with self._lock:
            if len(self._looks) == 1 and self._looks[0][1] == sums:
                self._looks.clear()  # nothing has moved yet: a rate begins where the records do
            if not self._looks or now - self._looks[-1][0] >= _GAP:
                self._looks.append((now, sums))
            while len(self._looks) > 2 and now - self._looks[1][0] > _WINDOW:
                self._looks.popleft()
            then, before = self._looks[0]
        span = now - then
        out = []
        for name, own in sums.items():
            old = before.get(name, own)
            fresh = [a - b for a, b in zip(own[5], old[5], strict=True)]
            if sum(fresh) == 0:
                fresh = own[5]
            out.append(
                {
                    "node": name,
                    "records_in": own[0],
                    "records_out": own[1],
                    "errors": own[2],
                    "bytes_in": own[3],
                    "bytes_out": own[4],
                    "rate_in": max(0.0, (own[0] - old[0]) / span) if span >= _GAP else 0.0,
                    "rate_out": max(0.0, (own[1] - old[1]) / span) if span >= _GAP else 0.0,
                    "lag": (lags or {}).get(name),
                    "p50_ms": percentile(fresh, 0.5),
                    "p95_ms": percentile(fresh, 0.95),
                }
            )
        return out
