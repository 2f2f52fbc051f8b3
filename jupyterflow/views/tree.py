"""A flow as indented text, for terminals, logs and doctests."""

from __future__ import annotations

from jupyterflow.model import Flow

_MOST_LINES = 10_000  # stacked diamonds double the text at each level


def tree(flow: Flow) -> str:
    """The flow as text: a line a node, `(c N)` its concurrency, below it what reads from it.

    Roots in order of declaration with a blank line between them, children in order of edges; what has
    several upstreams is shown below each. No newline at the end. Ends with ` ...` after 10,000 lines.
    """
    below: dict[str, list[str]] = {}
    reads: set[str] = set()
    for edge in flow.edges:
        below.setdefault(edge.upstream, []).append(edge.downstream)
        reads.add(edge.downstream)

    lines: list[str] = []
    for root in flow.nodes:
        if root in reads:
            continue
        if lines:
            lines.append("")
        waiting = [(root, "", "")]  # node, what leads to it, the margin of its children
        while waiting:
            if len(lines) >= _MOST_LINES:
                return "\n".join([*lines, " ..."])
            name, lead, margin = waiting.pop()
            lines.append(f"{lead}{name} (c {flow.nodes[name].options.get('concurrency', 1)})")
            children = below.get(name, [])
            for i, child in reversed(list(enumerate(children))):
                last = i == len(children) - 1
                waiting.append((child, f"{margin} +--> ", margin + ("      " if last else " |    ")))
    return "\n".join(lines)
