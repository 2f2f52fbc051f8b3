"""GraphModel: what every picture of a flow shows, as plain Python. Widgets, SVG and tables are views of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jupyterflow.model import Flow, Node
from jupyterflow.views import _numbers as n
from jupyterflow.views._layout import layout
from jupyterflow.views._palette import level

#: run states in which the numbers stand still: totals are shown instead of rates
RESTING = frozenset({"draft", "finished", "failed", "stopped"})
_STALLED_AFTER = 3.0  # seconds with input waiting and no progress
_NAME_LIMIT = 20


@dataclass(slots=True)
class Face:
    """A node as shown. Rates in records/s, `p95_ms` per batch, x and y the centre in pixels."""

    name: str
    kind: str
    role: str
    state: str = "draft"
    version: int | None = None
    rate_in: float = 0.0
    rate_out: float = 0.0
    records_in: int = 0
    records_out: int = 0
    lag: int = 0
    errors: int = 0
    p95_ms: float | None = None
    x: float = 0.0
    y: float = 0.0
    resting: bool = False  # the run has ended, whatever has become of the node since

    @property
    def what(self) -> str:
        """The kind as people say it: a function that is a source is a `source`."""
        return self.role if self.kind == "function" else self.kind

    @property
    def title(self) -> str:
        """The name, shortened to fit."""
        return n.clip(self.name, _NAME_LIMIT)

    @property
    def numbers(self) -> str:
        """`1.2k → 4.8k/s`; at rest the totals, `1,000 → 7,069`; before a run nothing."""
        if self.state in ("draft", "changed") and not (self.records_in or self.records_out):
            return ""
        if self.resting or self.state in RESTING:
            left, right, unit = n.count(self.records_in), n.count(self.records_out), ""
        else:
            left, right, unit = n.human(self.rate_in), n.human(self.rate_out), "/s"
        if self.role == "source":
            return f"→ {right}{unit}"
        if self.role == "sink":
            return f"{left}{unit} →"
        return f"{left} → {right}{unit}"

    @property
    def trouble(self) -> str:
        """`3 errors`, or nothing."""
        return "" if not self.errors else "1 error" if self.errors == 1 else f"{n.human(self.errors)} errors"

    @property
    def latency(self) -> str:
        """The 95th percentile of a batch: `3.1 ms`, or nothing."""
        return n.milliseconds(self.p95_ms)

    @property
    def label(self) -> str:
        """Two lines of text: the name, then the state, numbers, latency and errors that there are."""
        parts = (self.state, self.numbers, self.latency, self.trouble)
        return f"{self.title}\n{' · '.join(p for p in parts if p)}"


@dataclass(slots=True)
class Wire:
    """An edge as shown. `rate` in records/s; `fill` is the queued share of `max_queue`, 0 to 1."""

    upstream: str
    downstream: str
    rate: float = 0.0
    queued: int = 0
    fill: float = 0.0

    @property
    def level(self) -> int:
        """0 ample, 1 filling (from 60 %), 2 nearly full (from 85 %)."""
        return level(self.fill)

    @property
    def label(self) -> str:
        """`1.2k/s`, and on a second line `340 queued` when something waits; nothing when all is quiet."""
        parts = [n.rate(self.rate)] if self.rate >= 0.05 else []
        if self.queued > 0:
            parts.append(f"{n.human(self.queued)} queued")
        return "\n".join(parts)


class GraphModel:
    """A flow and, if there is one, its run: faces of nodes, wires, positions, state.

    `run` is anything with `metrics()`, `edges()` and `state` (and perhaps `version`), or None.
    """

    def __init__(self, flow: Flow, run: Any = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.flow = flow
        self.run: Any = None
        self.asked: Any = None  # the run that `state` and the numbers are of
        self.state = "draft"
        self.version: int | None = None
        self.faces: dict[str, Face] = {}
        self.wires: dict[tuple[str, str], Wire] = {}
        self._clock = clock
        self._progress: dict[str, tuple[int, float]] = {}
        self._ran: dict[str, _Declared] | None = None  # what the run runs; None: not known
        self._ran_version: int | None = None
        self._differs: dict[str, str] = {}  # nodes that stand otherwise than they run: draft or changed
        if run is not None:
            self.set_run(run)
        self.set_flow(flow)

    def set_run(self, run: Any) -> None:
        """Show *run* (or None): it runs the flow as it is now, and what is declared from here on it does not."""
        if run is not self.run:
            self.run = run
            self._progress = {}
            self._remember()

    def _remember(self) -> None:
        """What runs is what is declared now."""
        self._ran = None if self.run is None else {name: _declared(self.flow, name) for name in self.flow.nodes}
        self._ran_version = None
        self._compare()

    def _compare(self) -> None:
        differs: dict[str, str] = {}
        for name in self.flow.nodes:
            if self._ran is None:
                break
            if name not in self._ran:
                differs[name] = "draft"
            elif not _same(self._ran[name], _declared(self.flow, name)):
                differs[name] = "changed"
        self._differs = differs

    @property
    def name(self) -> str:
        """The flow's name."""
        return self.flow.name

    def set_flow(self, flow: Flow) -> None:
        """Show *flow*, which may be the same one after a change; numbers of what is still there stay."""
        self.flow = flow
        self._compare()
        faces, wires = self.faces, self.wires
        pairs = [(edge.upstream, edge.downstream) for edge in flow.edges]
        places = layout(list(flow.nodes), pairs)
        shown: dict[str, Face] = {}
        for node in flow.nodes.values():
            state = "draft" if self._ran is not None else self.state
            face = faces.get(node.name) or Face(node.name, node.kind, node.role, state, self.version)
            face.kind, face.role = node.kind, node.role
            self._stands(face)
            face.x, face.y = _place(node) or places[node.name]
            shown[node.name] = face
        # Whole dicts are exchanged, never filled in place: the hub's thread may be walking the old ones.
        self.faces, self.wires = shown, {pair: wires.get(pair) or Wire(*pair) for pair in pairs}
        self._progress = {name: seen for name, seen in self._progress.items() if name in self.faces}

    def move(self, name: str, x: float, y: float) -> None:
        """Someone dragged a node to (x, y), its centre in pixels: the flow keeps it."""
        if name in self.faces:
            place = self.flow.nodes[name].position = (round(float(x), 1), round(float(y), 1))
            self.faces[name].x, self.faces[name].y = place

    def poll(self) -> None:
        """Ask the run once and take in what it says; without a run all is `draft`."""
        run = self.run
        if run is None:
            self.update([], [], "draft")
        else:
            # The state first: where it is final, the numbers behind it are too.
            state, version = str(run.state), getattr(run, "version", None)
            if version != self._ran_version is not None:
                self._remember()  # deployed again, by a call in Python
            self._ran_version = version
            self.update(run.metrics(), run.edges(), state, version)
        self.asked = run

    def update(
        self,
        metrics: Iterable[Mapping[str, Any]],
        edges: Iterable[Mapping[str, Any]],
        state: str,
        version: int | None = None,
    ) -> None:
        """Take in a run's `metrics()`, `edges()` and `state`. Nodes and edges that are not ours are left out."""
        self.state, self.version = state, version
        waiting: dict[str, int] = {}
        for row in edges:
            wire = self.wires.get((row["upstream"], row["downstream"]))
            if wire is None:
                continue
            wire.rate = 0.0 if state in RESTING else float(row.get("rate") or 0)
            wire.queued = int(row.get("queued") or 0)
            room = row.get("max_queue") or 0
            wire.fill = min(wire.queued / room, 1.0) if room else 0.0
            waiting[wire.downstream] = waiting.get(wire.downstream, 0) + wire.queued
        seen: set[str] = set()
        for row in metrics:
            face = self.faces.get(row["node"])
            if face is None:
                continue
            seen.add(face.name)
            face.rate_in, face.rate_out = float(row.get("rate_in") or 0), float(row.get("rate_out") or 0)
            face.records_in, face.records_out = int(row.get("records_in") or 0), int(row.get("records_out") or 0)
            face.lag, face.errors = int(row.get("lag") or 0), int(row.get("errors") or 0)
            face.p95_ms = row.get("p95_ms")
            face.state = str(row.get("state") or self._state_of(face, waiting.get(face.name, 0)))
            face.version = row.get("version") or version
        for name, face in self.faces.items():
            if name not in seen:
                face.rate_in = face.rate_out = 0.0
                face.state, face.version = ("idle" if state == "running" else state), version
            face.resting = state in RESTING
            if name not in seen or self._differs.get(name) != "draft":  # else the run knows better
                self._stands(face)

    def _stands(self, face: Face) -> None:
        """A node that no run knows is a draft, without numbers; one with other code than runs is changed."""
        face.state = self._differs.get(face.name, face.state)
        if face.state == "draft":
            face.version, face.p95_ms = None, None
            face.rate_in = face.rate_out = 0.0
            face.records_in = face.records_out = face.lag = face.errors = 0

    def _state_of(self, face: Face, queued: int) -> str:
        """The node's own state from the run's: *idle* has no input, *stalled* has input and no progress."""
        if self.state != "running":
            return self.state
        now, done = self._clock(), face.records_in + face.records_out + face.errors
        before = self._progress.get(face.name)
        if before is None or before[0] != done:
            self._progress[face.name] = (done, now)
            return "running" if before is not None or done else "idle"
        if (queued or face.lag) and face.role != "source":
            return "stalled" if now - before[1] >= _STALLED_AFTER else "running"
        return "running" if face.rate_in or face.rate_out else "idle"

    @property
    def total_in(self) -> float:
        """Records/s that the sources emit."""
        return sum(face.rate_out for face in self.faces.values() if face.role == "source")

    @property
    def total_out(self) -> float:
        """Records/s that reach the sinks."""
        return sum(face.rate_in for face in self.faces.values() if face.role == "sink")

    @property
    def errors(self) -> int:
        """Failed records, all nodes together."""
        return sum(face.errors for face in self.faces.values())

    @property
    def headline(self) -> str:
        """`prices · v2 · running · 1.2k/s in · 340/s out · 3 errors`."""
        parts = [n.clip(self.name, 60), f"v{self.version}" if self.version else "", self.state]
        if self.state not in RESTING:
            parts += [f"{n.rate(self.total_in)} in", f"{n.rate(self.total_out)} out"]
        if self.errors:
            parts.append("1 error" if self.errors == 1 else f"{n.human(self.errors)} errors")
        return " · ".join(part for part in parts if part)

    def frame(self) -> dict[str, Any]:
        """What the browser draws at a tick, as short as it can be and ready to show: texts and levels."""
        return {
            "state": self.state,
            "head": self.headline,
            "nodes": {
                face.name: {
                    "state": face.state,
                    "numbers": face.numbers,
                    "p95": face.latency,
                    "errors": face.trouble,
                    "version": f"v{face.version}" if face.version else "",
                }
                for face in self.faces.values()
            },
            "edges": [[wire.upstream, wire.downstream, wire.label, wire.level] for wire in self.wires.values()],
        }

    def snapshot(self) -> dict[str, Any]:
        """Everything as plain data: flow, state, version, nodes (a dict a face) and edges (a dict a wire)."""
        return {
            "flow": self.name,
            "state": self.state,
            "version": self.version,
            "nodes": [asdict(face) for face in self.faces.values()],
            "edges": [asdict(wire) for wire in self.wires.values()],
        }


_Declared = tuple[Node, str | None, Any, dict[str, Any], list[str]]


def _declared(flow: Flow, name: str) -> _Declared:
    """What makes a node what it is: the node itself, its code, function and options, and what it reads from."""
    node = flow.nodes[name]
    return node, node.code, node.fn, dict(node.options), flow.upstreams(name)


def _same(before: _Declared, now: _Declared) -> bool:
    """Whether both do the same; a cell that was run again without a change does."""
    (node, code, fn, options, upstreams), (other, *rest) = before, now
    if (node.kind, node.role) != (other.kind, other.role) or upstreams != rest[3]:
        return False
    if code != rest[0] or (code is None and fn is not rest[1]):
        return False
    try:
        return bool(options == rest[2])
    except Exception:  # an array in there has no single answer
        return node is other


def _place(node: Node) -> tuple[float, float] | None:
    return (float(node.position[0]), float(node.position[1])) if node.position else None
