"""Which worker gets which tasks: sticky, balanced, co-partitioned topics together.

The group's leader runs `assign`; members tell in their user data what they had and which labels they carry.
An assignor that raises makes all members rejoin for ever, hence the fallback.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_log = logging.getLogger("jupyterflow.kafka")

_MOST_LOOKS = 200_000  # about 0.1 s

Unit = tuple[str, int]  # (co-partition group or topic, partition): what moves as one


@dataclass
class Member:
    """One worker as the leader sees it."""

    topics: frozenset[str]
    labels: Mapping[str, Any] = field(default_factory=dict)
    generation: int = -1
    had: Mapping[str, Sequence[int]] = field(default_factory=dict)
    together: Mapping[str, str] = field(default_factory=dict)  # topic -> co-partition group


class StickyAssignor:
    """An assignor for aiokafka, one instance per consumer (it carries what this member had)."""

    name = "jupyterflow-1"

    def __init__(self, labels: Mapping[str, Any] | None = None, together: Mapping[str, str] | None = None) -> None:
        self.labels = dict(labels or {})
        self.together = dict(together or {})
        self.had: dict[str, list[int]] = {}
        self.generation = -1
        self.leads = False

    def metadata(self, topics: Iterable[str]) -> Any:
        """What this member tells the leader when it joins."""
        from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata

        self.leads = False
        data = {
            "labels": self.labels,
            "generation": self.generation,
            "had": self.had,
            "together": self.together,
        }
        return ConsumerProtocolMemberMetadata(0, sorted(topics), json.dumps(data).encode())

    def on_assignment(self, assignment: Any) -> None:
        """Remember what this member has now."""
        self.had = {topic: sorted(partitions) for topic, partitions in assignment.assignment}

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:
        """Partitions per member id; never raises."""
        from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

        self.leads = True
        known = {name: _member(metadata) for name, metadata in members.items()}
        partitions = {}
        for topic in sorted({topic for member in known.values() for topic in member.topics}):
            partitions[topic] = len(cluster.partitions_for_topic(topic) or ())
        try:
            assigned = balance(known, partitions)
        except Exception:
            _log.exception("the assignor failed, tasks are dealt out in turn")
            assigned = deal(known, partitions)
        return {
            name: ConsumerProtocolMemberAssignment(0, sorted(topics.items()), b"") for name, topics in assigned.items()
        }


def _member(metadata: Any) -> Member:
    topics = frozenset(metadata.subscription)
    try:
        data = json.loads(metadata.user_data or b"{}")
        return Member(topics, data["labels"], int(data["generation"]), data["had"], data["together"])
    except (ValueError, KeyError, TypeError):
        return Member(topics)


def deal(members: Mapping[str, Member], partitions: Mapping[str, int]) -> dict[str, dict[str, list[int]]]:
    """Round robin over the members that read the topic."""
    result: dict[str, dict[str, list[int]]] = {name: {} for name in members}
    turn = 0
    for topic, count in sorted(partitions.items()):
        names = [name for name in sorted(members) if topic in members[name].topics]
        for partition in range(count if names else 0):
            result[names[turn % len(names)]].setdefault(topic, []).append(partition)
            turn += 1
    return result


def balance(members: Mapping[str, Member], partitions: Mapping[str, int]) -> dict[str, dict[str, list[int]]]:
    """Partitions per member and topic.

    Members that read the same have equally many tasks, over all topics and (or group of co-partitioned
    topics) within each, give or take one; of what is left to choose, everyone keeps what it had.
    """
    together = {topic: group for member in members.values() for topic, group in member.together.items()}
    classes: dict[str, list[str]] = {}
    for topic in sorted(partitions):
        group = together.get(topic)
        classes.setdefault(f"+{group}" if group else f"={topic}", []).append(topic)
    owner = _previous(members, classes)
    load = dict.fromkeys(members, 0)
    units: dict[str, dict[Unit, str]] = {}
    for name, topics in classes.items():
        eligible = [m for m in sorted(members) if all(topic in members[m].topics for topic in topics)]
        if not eligible:
            # Nobody reads all of them: without the bond each topic still finds its readers.
            for topic in topics:
                readers = [m for m in sorted(members) if topic in members[m].topics]
                if readers:
                    units[f"={topic}"] = _spread(f"={topic}", partitions[topic], readers, owner, load, 1)
            continue
        count = max(partitions[topic] for topic in topics)
        units[name] = _spread(name, count, eligible, owner, load, len(topics))
    _level(units, members, classes, load)
    result: dict[str, dict[str, list[int]]] = {name: {} for name in members}
    for name, owners in units.items():
        for topic in classes.get(name, [name[1:]]):
            for (_, partition), member in sorted(owners.items()):
                if partition < partitions[topic]:
                    result[member].setdefault(topic, []).append(partition)
    return result


def _previous(members: Mapping[str, Member], classes: Mapping[str, list[str]]) -> dict[Unit, str]:
    """Who had what; where two claim the same (one was away), the later generation is right."""
    of_topic = {topic: name for name, topics in classes.items() for topic in topics}
    claims: dict[Unit, tuple[int, str]] = {}
    for name, member in sorted(members.items()):
        for topic, had in member.had.items():
            for partition in had:
                if topic in of_topic:
                    unit = (of_topic[topic], int(partition))
                    claims[unit] = max(claims.get(unit, (-2, "")), (member.generation, name))
    return {unit: name for unit, (_, name) in claims.items()}


def _spread(
    name: str, count: int, eligible: list[str], owner: Mapping[Unit, str], load: dict[str, int], weight: int
) -> dict[Unit, str]:
    """Deal the units of one class: keep up to a fair share, then the rest to whom has least."""
    fair, extra = divmod(count, len(eligible))
    had: dict[str, list[Unit]] = {member: [] for member in eligible}
    free: list[Unit] = []
    for partition in range(count):
        unit = (name, partition)
        had.get(owner.get(unit, ""), free).append(unit)
    result: dict[Unit, str] = {}
    # The members that may keep one more than the fair share: who had more, then who has less to do.
    for member in sorted(eligible, key=lambda m: (-len(had[m]), load[m], m)):
        keep = fair
        if extra and len(had[member]) > fair:
            keep, extra = fair + 1, extra - 1
        for unit in had[member][:keep]:
            result[unit] = member
        free.extend(had[member][keep:])
    mine = dict.fromkeys(eligible, 0)
    for member in result.values():
        mine[member] += 1
    for member, kept in mine.items():
        load[member] += kept * weight
    for unit in sorted(free):
        least = min(eligible, key=lambda m: (mine[m], load[m], m))
        result[unit] = least
        mine[least] += 1
        load[least] += weight
    return result


def _level(
    units: dict[str, dict[Unit, str]],
    members: Mapping[str, Member],
    classes: Mapping[str, list[str]],
    load: dict[str, int],
) -> None:
    """Move units from more to less loaded members until no move evens the total.

    Moves that leave a class as even as it was come first; the others serve members that may run less than all.
    It runs on the event loop of the leader, between heartbeats, hence the bound: less even is still right.
    """
    topics = {name: classes.get(name, [name[1:]]) for name in units}
    able = {
        member: [name for name in units if all(topic in members[member].topics for topic in topics[name])]
        for member in members
    }
    held: dict[str, dict[str, list[Unit]]] = {name: {} for name in units}
    for name, owners in units.items():
        for unit, member in sorted(owners.items()):
            held[name].setdefault(member, []).append(unit)
    looks = 0
    for even in (True, False):
        givers = set(load)
        while givers and looks < _MOST_LOOKS:
            heavy = min(givers, key=lambda m: (-load[m], m))
            move: tuple[str, str] | None = None  # the class and who takes one of its units
            for light in sorted(load, key=lambda m: (load[m], m)):
                gap = load[heavy] - load[light]
                if gap < 2 or move is not None:
                    break
                looks += 1 + len(able[light])
                for name in able[light]:
                    if _gives(held[name], heavy, light, gap, len(topics[name]), even):
                        move = (name, light)
                        break
            if move is None:
                givers.discard(heavy)
                continue
            name, light = move
            unit = held[name][heavy].pop()
            held[name].setdefault(light, []).append(unit)
            units[name][unit] = light
            load[heavy] -= len(topics[name])
            load[light] += len(topics[name])


def _gives(held: Mapping[str, Sequence[Unit]], heavy: str, light: str, gap: int, weight: int, even: bool) -> bool:
    """Whether a unit of this class may go from *heavy* to *light*, whose loads differ by *gap*."""
    theirs = len(held.get(heavy, ()))
    return weight < gap and theirs > 0 and (not even or theirs > len(held.get(light, ())))
