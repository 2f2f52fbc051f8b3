"""flow -> plan: what runs fused, where records cross a topic, and how those topics are called.

The plan is a pure function of the flow, the default number of tasks and the partitions of outside topics, so
every worker computes the same one for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from jupyterflow.model import Flow, FlowError, Node
from jupyterflow.nodes.calls import Signature
from jupyterflow.nodes.catalogue import find, validate

Input = Literal["splits", "frames", "kafka"]
Routing = Literal["hash", "spread", "single"]


@dataclass(frozen=True, slots=True)
class Output:
    """Records of *node* that leave its stage: to the stage *to*, on *topic*, which has *partitions*."""

    node: str
    to: str
    topic: str
    partitions: int
    routing: Routing


@dataclass(frozen=True, slots=True)
class Stage:
    """A chain of nodes that run fused in one process, between two topics.

    `id` is the name of the node that the records enter by; `nodes` come in running order, the entry first;
    `edges` are those inside the stage; `upstream` maps the stages that feed it to their numbers of tasks.
    """

    id: str
    input: Input
    topic: str
    tasks: int
    nodes: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]
    outputs: tuple[Output, ...] = ()
    upstream: tuple[tuple[str, int], ...] = ()
    changelog: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """A flow made physical."""

    flow: str
    epoch: str
    stages: tuple[Stage, ...]
    prefix: str = "jf"

    def stage(self, id: str) -> Stage:
        """The stage of that id."""
        return next(stage for stage in self.stages if stage.id == id)

    def collect_topic(self, node: str) -> str:
        """The topic that holds what a collect sink keeps."""
        return f"{self.prefix}.{self.flow}.{self.epoch}.{node}.collect"

    @property
    def dead_topic(self) -> str:
        """The topic of the flow's dead letters."""
        return f"{self.prefix}.{self.flow}.dead"

    @property
    def tasks(self) -> int:
        """How many tasks the plan has."""
        return sum(stage.tasks for stage in self.stages)

    def topics(self) -> dict[str, int]:
        """The internal topics that are read, and their partitions (changelogs have as many)."""
        return {stage.topic: stage.tasks for stage in self.stages if stage.input != "kafka"}


@dataclass(slots=True)
class _Draft:
    id: str
    input: Input
    tasks: int
    why: str
    partitioned: bool = False
    nodes: list[str] = field(default_factory=list)
    partitioned_nodes: set[str] = field(default_factory=set)


def needs_key(flow: Flow, node: Node) -> bool:
    """Whether a node's function names `state`."""
    if node.fn is None or node.role == "source":
        return False
    kind = find(node.role, node.kind, f"flow '{flow.name}', node '{node.name}'")
    return "state" in Signature(node.fn, kind.positional or 0, f"flow '{flow.name}', node '{node.name}'").names


def keyed_nodes(flow: Flow) -> set[str]:
    """The nodes whose output carries a key that a key_by gave."""
    keyed: set[str] = set()
    for name in flow.order():
        ups = flow.upstreams(name)
        if flow.nodes[name].kind == "key_by" or (ups and all(up in keyed for up in ups)):
            keyed.add(name)
    return keyed


def plan(
    flow: Flow,
    *,
    epoch: str = "0",
    tasks: int = 1,
    partitions: Mapping[str, int] | None = None,
    prefix: str = "jf",
) -> Plan:
    """The plan of a flow.

    *tasks*: how many tasks a stage has where the flow does not say. *partitions*: how many partitions the
    outside topics have. Raises FlowError for what cannot be planned.
    """
    validate(flow)
    if not flow.nodes:
        raise FlowError("JF301", f"flow '{flow.name}' has no nodes - declare a source first")
    if tasks < 1:
        raise FlowError("JF306", f"flow '{flow.name}': tasks is {tasks} - it must be at least 1")
    order = flow.order()
    keyed = keyed_nodes(flow)
    drafts: dict[str, _Draft] = {}
    homes: dict[str, list[str]] = {}
    crossing: list[tuple[str, str, Routing]] = []

    for name in order:
        node = flow.nodes[name]
        where = f"flow '{flow.name}', node '{name}'"
        ups = flow.upstreams(name)
        if node.role != "source" and not ups:
            raise FlowError("JF105", f"{where}: it has no upstream any more - connect it to one, or remove it")
        wanted = node.options.get("parallelism")
        if node.role == "source":
            if node.kind == "kafka":
                found = (partitions or {}).get(node.options["topic"], 1)
                draft = _Draft(name, "kafka", found, f"reads topic '{node.options['topic']}'")
            else:
                kind = find("source", node.kind, where)
                natural = tasks if node.kind in ("file", "csv", "json") else 1
                bounded = kind.connector is not None and kind.connector.bounded
                draft = _Draft(name, "splits", wanted or natural, "a bounded source" if bounded else "a source")
            drafts[name] = draft
            homes[name] = [name]
            draft.nodes.append(name)
            continue
        kind = find(node.role, node.kind, where)
        stateful = needs_key(flow, node)
        by_key = all(up in keyed for up in ups)
        if stateful and not by_key:
            raise FlowError(
                "JF304", f"{where}: it names 'state' but nothing before it gives a key - put a key_by before it"
            )
        above = list(dict.fromkeys(home for up in ups for home in homes[up]))
        only = drafts[above[0]] if len(above) == 1 else None
        routing: Routing | None = None
        why, number = "", wanted or tasks
        if (kind.fold or stateful) and by_key:
            together = only is not None and all(up in only.partitioned_nodes for up in ups)
            alone = only is not None and only.tasks == 1 and number == 1
            if not (together or alone) or (wanted is not None and only is not None and wanted != only.tasks):
                routing, why = "hash", f"'{name}' needs all records of a key in one task"
        elif kind.fold:
            number = 1
            if wanted not in (None, 1):
                raise FlowError(
                    "JF305", f"{where}: a fold without a key is one task - put a key_by before it, or drop parallelism"
                )
            if only is None or only.tasks != 1:
                routing, why = "single", f"'{name}' folds all records in one task"
        elif wanted is not None and (only is None or only.tasks != wanted):
            routing, why = ("hash" if by_key else "spread"), f"'{name}' runs as {wanted} tasks"
        if routing is None:
            homes[name] = above
            for home in above:
                draft = drafts[home]
                draft.nodes.append(name)
                inside = [up for up in ups if home in homes[up]]
                if node.kind != "key_by" and all(up in draft.partitioned_nodes for up in inside):
                    draft.partitioned_nodes.add(name)
        else:
            draft = _Draft(name, "frames", number, why)
            draft.nodes.append(name)
            if routing == "hash" and node.kind != "key_by":
                draft.partitioned_nodes.add(name)
            drafts[name] = draft
            homes[name] = [name]
            crossing += [(up, name, routing) for up in ups]
    return Plan(flow.name, epoch, _stages(flow, epoch, prefix, drafts, homes, crossing), prefix)


def _stages(
    flow: Flow,
    epoch: str,
    prefix: str,
    drafts: dict[str, _Draft],
    homes: dict[str, list[str]],
    crossing: list[tuple[str, str, Routing]],
) -> tuple[Stage, ...]:
    cut = {(up, down) for up, down, _ in crossing}

    def topic(id: str, what: str) -> str:
        return f"{prefix}.{flow.name}.{epoch}.{id}.{what}"

    stages = []
    for draft in drafts.values():
        names = set(draft.nodes)
        edges = tuple(
            (e.upstream, e.downstream)
            for e in flow.edges
            if e.upstream in names and e.downstream in names and (e.upstream, e.downstream) not in cut
        )
        outputs = tuple(
            Output(up, to, topic(to, "in"), drafts[to].tasks, routing)
            for up, to, routing in crossing
            if draft.id in homes[up]
        )
        feeding = dict.fromkeys(home for up, to, _ in crossing if to == draft.id for home in homes[up])
        node = flow.nodes[draft.id]
        if draft.input == "kafka":
            read = str(node.options["topic"])
        else:
            read = topic(draft.id, "splits" if draft.input == "splits" else "in")
        stages.append(
            Stage(
                draft.id, draft.input, read, draft.tasks, tuple(draft.nodes), edges, outputs,
                tuple((home, drafts[home].tasks) for home in feeding), topic(draft.id, "changelog"), draft.why,
            )
        )  # fmt: skip
    return tuple(stages)
