"""A flow and a run with moving numbers, for notebooks of the browser tests. No broker, no threads."""

from __future__ import annotations

import time

from jupyterflow.model import Edge, Flow, Node


class FakeRun:
    """Looks like a run: totals grow with time; `state` is a plain attribute."""

    def __init__(self, flow: Flow) -> None:
        self.name, self.state, self.version = flow.name, "running", 3
        self._flow, self._start = flow, time.monotonic()

    def metrics(self) -> list[dict[str, object]]:
        t = time.monotonic() - self._start
        rows: list[dict[str, object]] = []
        for i, node in enumerate(self._flow.nodes):
            rate = 1000 * (i + 1) + int(t * 37)
            rows.append(
                {
                    "node": node,
                    "records_in": int(rate * t),
                    "records_out": int(2 * rate * t),
                    "errors": int(t) if node == "parse" else 0,
                    "bytes_in": 0,
                    "bytes_out": 0,
                    "rate_in": rate,
                    "rate_out": rate * 2,
                    "lag": 0,
                    "p50_ms": 1.0,
                    "p95_ms": 0.4 + i * 1.7,
                }
            )
        return rows

    def edges(self) -> list[dict[str, object]]:
        t = time.monotonic() - self._start
        return [
            {
                "upstream": edge.upstream,
                "downstream": edge.downstream,
                "rate": 1000 * (i + 1) + int(t * 31),
                "queued": (0, 0, 640, 930, 120)[i % 5],
                "queued_bytes": 0,
                "max_queue": 1000,
            }
            for i, edge in enumerate(self._flow.edges)
        ]

    def sample(self, node: str) -> object:
        return {"node": node, "text": "<b onmouseover=alert(1)>bold</b>", "n": int(time.monotonic() - self._start)}

    def prints(self, node: str) -> list[str]:
        n = int((time.monotonic() - self._start) * 2)
        return [f"{i}: <i>{node}</i> has counted {i * 7919 % 1000} words" for i in range(n)]


def make_flow() -> Flow:
    """A flow of seven nodes with a fan-out, a fan-in and an edge that skips a layer."""
    flow = Flow("prices")
    for name, role, kind in (
        ("bids", "source", "kafka"),
        ("rates", "source", "generator"),
        ("parse", "operator", "map"),
        ("euros", "operator", "map"),
        ("total", "operator", "reduce"),
        ("seen", "sink", "collect"),
        ("alerts", "sink", "function"),
    ):
        flow.nodes[name] = Node(name, role, kind)  # type: ignore[arg-type]
    flow.edges = [
        Edge(*pair)
        for pair in (
            ("bids", "parse"),
            ("parse", "euros"),
            ("rates", "euros"),
            ("euros", "total"),
            ("total", "seen"),
            ("euros", "alerts"),
        )
    ]
    return flow
