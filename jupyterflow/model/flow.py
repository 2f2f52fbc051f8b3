"""Flow, Node and Edge: a declared graph as plain data. It knows nothing of running or drawing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from jupyterflow.model.errors import FlowError, did_you_mean

Role = Literal["source", "operator", "sink"]
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")


@dataclass(slots=True)
class Node:
    """A source, an operator or a sink.

    `kind` is the catalogue's name (`map`, `kafka`, ...); `fn` the user's function, if it has one; `options`
    its parameters, JSON values and for a `list` source the list; `code` the source text of `fn`;
    `position` where the graph shows it, in pixels.
    """

    name: str
    role: Role
    kind: str
    fn: Callable[..., Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    code: str | None = None
    position: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """What leads the records of one node to another."""

    upstream: str
    downstream: str


class Flow:
    """The declared graph: named nodes, in order of declaration, and the edges between them."""

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise FlowError("JF101", f"{name!r} is no name for a flow: use letters, digits, '_', '-' and '.'")
        self.name = name
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []

    def _where(self, node: str) -> str:
        return f"flow '{self.name}', node '{node}'"

    def check_name(self, name: object) -> None:
        """Raise FlowError where *name* cannot be a node's name."""
        if callable(name) or name is None or name == "":
            raise FlowError(
                "JF102", f"flow '{self.name}': a node has no name - its name comes first, as in map('name', fn)"
            )
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise FlowError(
                "JF102",
                f"flow '{self.name}': {name!r} is no name for a node - letters, digits, '_', '-', '.', at most 100",
            )

    def add(self, node: Node, upstreams: Iterable[str] = (), *, replace: bool = False) -> Node:
        """Add *node* below *upstreams*; with `replace`, a node of that name gives way and keeps its downstreams."""
        names = list(upstreams)
        self.check_name(node.name)
        where = self._where(node.name)
        if node.name in self.nodes and not replace:
            raise FlowError("JF103", f"{where}: the name is taken - choose another, or remove that node first")
        for name in names:
            if name == node.name:
                raise FlowError("JF107", f"{where}: a node cannot read from itself - name another upstream")
            if name not in self.nodes:
                hint = did_you_mean(name, self.nodes) or " - declare it first"
                raise FlowError("JF104", f"{where}: unknown upstream '{name}'{hint}")
            if self.nodes[name].role == "sink":
                raise FlowError("JF105", f"{where}: '{name}' is a sink and has no output - read from what feeds it")
        if len(set(names)) != len(names):
            raise FlowError("JF106", f"{where}: an upstream is named twice - name each once")
        if node.role == "source" and names:
            raise FlowError("JF105", f"{where}: a source has no upstream - drop it, or use an operator")
        if node.role != "source" and not names and not (node.name in self.nodes and replace):
            raise FlowError(
                "JF105", f"{where}: {node.role} '{node.kind}' needs an upstream - say from which node it reads (in a cell: --from NODE)"
            )
        old = self.nodes.get(node.name)
        # Edges that stay keep their places: a cell that is run again does not move behind its siblings.
        stay = names if names or node.role == "source" else self.upstreams(node.name)
        kept = [e for e in self.edges if e.downstream != node.name or e.upstream in stay]
        if old is not None:
            if node.role == "sink" and any(e.upstream == node.name for e in kept):
                raise FlowError("JF105", f"{where}: a sink has no downstream - remove what reads from it first")
            if node.position is None:
                node.position = old.position
        edges = [*kept, *(edge for name in names if (edge := Edge(name, node.name)) not in kept)]
        self._refuse_cycle(edges, node.name)
        self.nodes[node.name] = node
        self.edges = edges
        return node

    def connect(self, upstream: str, downstream: str) -> None:
        """Add an edge between two nodes that are there."""
        for name in (upstream, downstream):
            if name not in self.nodes:
                raise FlowError("JF104", f"flow '{self.name}': unknown node '{name}'{did_you_mean(name, self.nodes)}")
        where = self._where(downstream)
        edge = Edge(upstream, downstream)
        if upstream == downstream:
            raise FlowError("JF107", f"{where}: a node cannot read from itself - name another upstream")
        if edge in self.edges:
            raise FlowError("JF106", f"{where}: the edge from '{upstream}' is there already - connect each pair once")
        if self.nodes[downstream].role == "source":
            raise FlowError("JF105", f"{where}: a source has no upstream - connect it the other way round")
        if self.nodes[upstream].role == "sink":
            raise FlowError("JF105", f"{where}: '{upstream}' is a sink and has no output - read from what feeds it")
        self._refuse_cycle([*self.edges, edge], downstream)
        self.edges = [*self.edges, edge]

    def disconnect(self, upstream: str, downstream: str) -> None:
        """Remove an edge."""
        edge = Edge(upstream, downstream)
        if edge not in self.edges:
            raise FlowError("JF104", f"flow '{self.name}': there is no edge from '{upstream}' to '{downstream}'")
        self.edges = [e for e in self.edges if e != edge]

    def remove(self, name: str) -> None:
        """Remove a node and its edges."""
        if name not in self.nodes:
            raise FlowError("JF104", f"flow '{self.name}': unknown node '{name}'{did_you_mean(name, self.nodes)}")
        del self.nodes[name]
        self.edges = [e for e in self.edges if name not in (e.upstream, e.downstream)]

    def upstreams(self, name: str) -> list[str]:
        """Names of the nodes that lead to *name*, in order of their edges."""
        return [e.upstream for e in self.edges if e.downstream == name]

    def downstreams(self, name: str) -> list[str]:
        """Names of the nodes that read from *name*, in order of their edges."""
        return [e.downstream for e in self.edges if e.upstream == name]

    def order(self) -> list[str]:
        """Node names so that every node comes after its upstreams (Kahn's algorithm, stable)."""
        waiting = {name: len(self.upstreams(name)) for name in self.nodes}
        done: list[str] = []
        while ready := [name for name, n in waiting.items() if n == 0]:
            for name in ready:
                del waiting[name]
                done.append(name)
                for below in self.downstreams(name):
                    waiting[below] -= 1
        return done

    def _refuse_cycle(self, edges: list[Edge], start: str) -> None:
        below: dict[str, list[str]] = {}
        for edge in edges:
            below.setdefault(edge.upstream, []).append(edge.downstream)

        def walk(name: str, path: list[str]) -> Iterator[list[str]]:
            for after in below.get(name, []):
                if after == start:
                    yield [*path, after]
                elif after not in path:
                    yield from walk(after, [*path, after])

        for path in walk(start, [start]):
            raise FlowError("JF107", f"flow '{self.name}': {' -> '.join(path)} is a cycle - leave one of its edges out")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data: name, nodes (without their functions: their source text instead) and edges."""
        return {
            "name": self.name,
            "nodes": [
                {
                    "name": node.name,
                    "role": node.role,
                    "kind": node.kind,
                    "options": {k: v for k, v in node.options.items() if k != "items" and _is_json(v)},
                    "code": node.code,
                    "position": list(node.position) if node.position else None,
                }
                for node in self.nodes.values()
            ],
            "edges": [[e.upstream, e.downstream] for e in self.edges],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Flow:
        """The flow of `to_dict()`; functions are missing (`fn` is None) until someone sets them."""
        flow = cls(data["name"])
        for item in data["nodes"]:
            flow.check_name(item["name"])
            position = item.get("position")
            flow.nodes[item["name"]] = Node(
                item["name"],
                item["role"],
                item["kind"],
                options=dict(item.get("options") or {}),
                code=item.get("code"),
                position=(position[0], position[1]) if position else None,
            )
        for upstream, downstream in data["edges"]:
            flow.connect(upstream, downstream)
        return flow


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    return value is None or isinstance(value, str | int | float | bool)
