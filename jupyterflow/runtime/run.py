"""What every run has in common, in process or deployed."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import Any, Self

from jupyterflow.model import Flow, FlowError, FlowTimeout, Record
from jupyterflow.plan import Plan, explain
from jupyterflow.runtime.memory import FULL


class BaseRun(ABC):
    """What one can do with a flow that runs, wherever it does."""

    name: str
    flow: Flow
    plan: Plan
    version: int
    max_queue: int = FULL

    @property
    @abstractmethod
    def state(self) -> str:
        """deploying, running, idle, stalled, failed, finished or stopped."""

    @property
    @abstractmethod
    def error(self) -> FlowError | None:
        """Why the flow failed."""

    @abstractmethod
    def metrics(self) -> list[dict[str, Any]]:
        """One dict a node: exact counters, rates a second, lag in records, p50 and p95 in ms a batch."""

    @abstractmethod
    def records(self, node: str) -> list[Record]:
        """What a collect sink has kept, whole records."""

    @abstractmethod
    def dead_letters(self, node: str | None = None) -> list[dict[str, Any]]:
        """The records that could not be processed, each with node, value, error, traceback, position, version."""

    @abstractmethod
    def prints(self, node: str) -> list[str]:
        """The last lines that a node printed."""

    @abstractmethod
    def sample(self, node: str) -> Any:
        """The latest value of a node, or None."""

    @abstractmethod
    def stop(self, timeout: float = 30.0) -> Self:
        """Sources stop, what is in flight reaches the sinks; windows and folds keep what they hold."""

    @abstractmethod
    def terminate(self) -> Self:
        """End at once."""

    @abstractmethod
    def _changed(self, timeout: float) -> None:
        """Wait at most this long for news."""

    def collect(self, node: str) -> list[Any]:
        """The values that a collect sink has kept."""
        return [record.value for record in self.records(node)]

    def edges(self) -> list[dict[str, Any]]:
        """One dict an edge: upstream, downstream, rate (records a second), queued (records), max_queue."""
        metrics = {row["node"]: row for row in self.metrics()}
        crossing = {(out.node, out.to) for stage in self.plan.stages for out in stage.outputs}
        flow = self.flow
        out = []
        for edge in flow.edges:
            up = metrics.get(edge.upstream)
            queued = self._queued(edge.downstream) if (edge.upstream, edge.downstream) in crossing else 0
            out.append(
                {
                    "upstream": edge.upstream,
                    "downstream": edge.downstream,
                    "rate": up["rate_out"] if up else 0.0,
                    "queued": queued,
                    "max_queue": self.max_queue,
                }
            )
        return out

    def _queued(self, stage: str) -> int:
        return 0

    def progress(self) -> dict[str, Any] | None:
        """What is being waited for, if anything."""
        return None

    def workers(self) -> list[dict[str, Any]]:
        """The workers that run it; none in process."""
        return []

    def explain(self) -> str:
        """The logical, the physical and the coded plan."""
        return explain(self.flow, self.plan)

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until the flow has finished or was stopped.

        Raises FlowError if it failed, FlowTimeout after *timeout* seconds. In a notebook cell it can also be
        awaited: `await run`.
        """
        limit = None if timeout is None else time.monotonic() + timeout
        while self.state not in ("finished", "stopped", "failed"):
            left = 0.5 if limit is None else limit - time.monotonic()
            if left <= 0:
                raise FlowTimeout(
                    "JF405", f"flow '{self.name}' is still {self.state} after {timeout:g} s - wait longer, or stop it"
                )
            self._changed(min(left, 0.5))
        if self.state == "failed" and self.error is not None:
            raise self.error
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self._finished().__await__()

    async def _finished(self) -> Self:
        # Not in a thread: one could not be called off, and would keep the interpreter from ending.
        while self.state not in ("finished", "stopped", "failed"):
            await asyncio.sleep(0.05)
        return self.wait()

    def _sink(self, node: str, kind: str) -> None:
        found = self.flow.nodes.get(node)
        if found is None or found.kind != kind:
            known = [name for name, other in self.flow.nodes.items() if other.kind == kind] or ["none"]
            raise FlowError("JF406", f"flow '{self.name}': '{node}' is no {kind} sink - it has {', '.join(known)}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.state}>"
