"""Where nodes stand: layers from left to right, few crossings, short and straight edges.

The four steps of Sugiyama, Tagawa and Toda (1981): layers by longest path, an invisible node wherever an edge
passes a layer, order by barycenter, then coordinates by least squares (pool adjacent violators). Deterministic.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from itertools import pairwise

WIDTH, HEIGHT = 180, 78
PITCH_X, PITCH_Y = 276, 112
_PASSING = 0.7  # room for an edge that passes a layer, as a share of a node's
_STRAIGHT = 5.0  # how much more an edge that passes a layer pulls than a node: it is drawn straight through
_SWEEPS = 8


def layout(nodes: Sequence[str], edges: Iterable[tuple[str, str]]) -> dict[str, tuple[float, float]]:
    """Centres in pixels for *nodes*, connected by *edges* (upstream, downstream) without a cycle."""
    known = set(nodes)
    pairs = [(up, down) for up, down in edges if up in known and down in known]
    layer = _layers(nodes, pairs)
    columns: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for name in nodes:
        columns[layer[name]].append(name)
    left: dict[str, list[str]] = {}
    right: dict[str, list[str]] = {}
    passing: set[str] = set()
    for up, down in pairs:
        before = up
        for column in range(layer[up] + 1, layer[down]):
            via = f"{up}\0{down}\0{column}"
            passing.add(via)
            columns[column].append(via)
            right.setdefault(before, []).append(via)
            left.setdefault(via, []).append(before)
            before = via
        right.setdefault(before, []).append(down)
        left.setdefault(down, []).append(before)
    columns = _order(columns, left, right)
    y = _heights(columns, left, right, passing)
    top = min((y[name] for name in nodes), default=0.0)
    return {name: (float(layer[name] * PITCH_X), round((y[name] - top) * PITCH_Y, 1)) for name in nodes}


def _layers(nodes: Sequence[str], pairs: list[tuple[str, str]]) -> dict[str, int]:
    layer = dict.fromkeys(nodes, 0)
    for _ in range(len(layer)):
        moved = False
        for up, down in pairs:
            if layer[down] <= layer[up]:
                layer[down] = layer[up] + 1
                moved = True
        if not moved:
            break
    return layer


def _order(columns: list[list[str]], left: dict[str, list[str]], right: dict[str, list[str]]) -> list[list[str]]:
    best, fewest = [list(c) for c in columns], _crossings(columns, right)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        forward = sweep % 2 == 0
        beside = left if forward else right
        for at in range(1, len(columns)) if forward else range(len(columns) - 2, -1, -1):
            place = {name: i for i, name in enumerate(columns[at - 1 if forward else at + 1])}
            centre: dict[str, float] = {}
            for i, name in enumerate(columns[at]):
                near = [place[n] for n in beside.get(name, ())]
                centre[name] = sum(near) / len(near) if near else float(i)
            columns[at].sort(key=centre.__getitem__)
        crossings = _crossings(columns, right)
        if crossings < fewest:
            best, fewest = [list(c) for c in columns], crossings
    return best


def _crossings(columns: list[list[str]], right: dict[str, list[str]]) -> int:
    total = 0
    for column, after in pairwise(columns):
        place = {name: i for i, name in enumerate(after)}
        seen: list[int] = []
        for name in column:
            ends = sorted(place[n] for n in right.get(name, ()))
            for end in ends:
                total += len(seen) - bisect_left(seen, end + 1)
            for end in ends:
                insort(seen, end)
    return total


def _heights(
    columns: list[list[str]], left: dict[str, list[str]], right: dict[str, list[str]], passing: set[str]
) -> dict[str, float]:
    room = {name: _PASSING if name in passing else 1.0 for column in columns for name in column}
    y: dict[str, float] = {}
    for column in columns:
        at = -sum(room[name] for name in column) / 2
        for name in column:
            y[name] = at + room[name] / 2
            at += room[name]
    for sweep in range(2 * _SWEEPS + 1):
        last = sweep == 2 * _SWEEPS  # follow what is on the left alone: edges of chains become straight
        for column in columns if sweep % 2 == 0 else reversed(columns):
            wish = []
            for name in column:
                near = [*left.get(name, ()), *(() if last else right.get(name, ()))]
                weights = [_STRAIGHT if n in passing else 1.0 for n in near]
                total = sum(y[n] * w for n, w in zip(near, weights, strict=True))
                wish.append(total / sum(weights) if near else y[name])
            pull = [_STRAIGHT if name in passing else 1.0 for name in column]
            for name, height in zip(column, _apart(wish, [room[name] for name in column], pull), strict=True):
                y[name] = height
    return y


def _apart(wish: list[float], room: list[float], pull: list[float]) -> list[float]:
    """The heights nearest to *wish* (least squares, weighted by *pull*) in the same order, each with its *room*."""
    offsets, at = [], 0.0
    for size in room:
        offsets.append(at + size / 2)
        at += size
    blocks: list[tuple[float, float, int]] = []  # weighted sum, weight, members
    for want, offset, weight in zip(wish, offsets, pull, strict=True):
        total, n = (want - offset) * weight, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / weight:
            total, weight, n = total + blocks[-1][0], weight + blocks[-1][1], n + blocks[-1][2]
            blocks.pop()
        blocks.append((total, weight, n))
    bases = [total / weight for total, weight, n in blocks for _ in range(n)]
    return [base + offset for base, offset in zip(bases, offsets, strict=True)]
