"""A deployment as data: from a flow to a manifest with payloads, and back to a flow that runs.

A manifest holds the flow (nodes, options, source texts), the hashes of its payloads, the epoch and version, what
outside topics looked like, and how it is to be run. It is signed by `cluster.keys` wherever it travels.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jupyterflow.cluster.payload import Package, load, pack
from jupyterflow.model import Flow, FlowError
from jupyterflow.plan import Plan, plan

_JSON = (str, int, float, bool, type(None))


def functions_of(flow: Flow) -> dict[str, Callable[..., Any]]:
    """All that must travel as code: each node's function, and options that are no JSON values (`NODE:OPTION`)."""
    out: dict[str, Callable[..., Any]] = {}
    for name, node in flow.nodes.items():
        if node.fn is not None:
            out[name] = node.fn
        for option, value in node.options.items():
            if option != "items" and not isinstance(value, _JSON):
                maker = value if callable(value) else functools.partial(copy.deepcopy, value)
                out[f"{name}:{option}"] = maker
    return out


def package(flow: Flow, include: tuple[str, ...] = ()) -> Package:
    """The flow's code as payloads. Raises FlowError for what cannot travel."""
    for name, node in flow.nodes.items():
        fn = node.fn
        if node.role == "source" and node.kind == "function" and fn is not None and fn.__name__ == "<lambda>":
            cells = [cell.cell_contents for cell in (fn.__closure__ or ())]
            if any(type(value).__name__ == "generator" for value in cells):
                raise FlowError(
                    "JF613", f"flow '{flow.name}', node '{name}': a started generator cannot travel - give the function"
                )
    return pack(functions_of(flow), flow=flow.name, include=list(include))


def flow_data(flow: Flow) -> dict[str, Any]:
    """`Flow.to_dict()` without the options that travel as code."""
    data = flow.to_dict()
    for node in data["nodes"]:
        node["options"] = {k: v for k, v in node["options"].items() if isinstance(v, _JSON)}
    return data


@dataclass(slots=True)
class Loaded:
    """A deployment ready to run."""

    manifest: dict[str, Any]
    flow: Flow
    plan: Plan


def plan_of(manifest: Mapping[str, Any], flow: Flow) -> Plan:
    """The plan of a manifest: the same on every worker."""
    return plan(
        flow,
        epoch=manifest["epoch"],
        tasks=manifest["tasks"],
        partitions=manifest["partitions"],
        prefix=manifest["prefix"],
    )


def load_flow(manifest: dict[str, Any], code: Mapping[str, bytes]) -> Loaded:
    """The flow of a manifest with its functions. Raises FlowError where its code does not load here."""
    flow = Flow.from_dict(manifest["flow"])
    functions = load(Package.join(manifest["package"], code))
    for name, fn in functions.items():
        node, _, option = name.partition(":")
        if option:
            flow.nodes[node].options[option] = fn
        else:
            flow.nodes[node].fn = fn
    return Loaded(manifest, flow, plan_of(manifest, flow))
