"""A deployment as data: from a flow to a manifest with payloads, and back to a flow that runs.

A manifest holds the flow (nodes, options, source texts), the hashes of its payloads, the epoch and version, what
outside topics looked like, and how it is to be run. It is signed by `cluster.keys` wherever it travels.
"""

from __future__ import annotations

import copy
import functools
import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jupyterflow.cluster import _classes
from jupyterflow.cluster.capture import interactive_class
from jupyterflow.cluster.payload import Package, load, pack
from jupyterflow.model import Flow, FlowError
from jupyterflow.nodes.base import error_line
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
                    "JF634", f"flow '{flow.name}', node '{name}': a started generator cannot travel - give the function"
                )
    functions = functions_of(flow)
    for name, node in flow.nodes.items():
        if node.options.get("items"):
            _, classes = dump_items(node.options["items"], "", f"flow '{flow.name}', node '{name}'")
            if classes:  # its items are no code, but their classes are
                functions[f"{name}:items"] = functools.partial(tuple, classes)
    return pack(functions, flow=flow.name, include=list(include))


def dump_items(items: Any, module: str, where: str) -> tuple[bytes, list[type]]:
    """The pickle of a list source's items, and the notebook's classes in it, which it names as those of *module*.

    `pickle.loads` reads it once the class module is installed. Raises FlowError JF620 where it cannot be pickled.
    """
    found: dict[type, None] = {}

    class Pickler(pickle.Pickler):
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, type) and interactive_class(obj):
                found[obj] = None
                return _classes.resolve, (module, obj.__qualname__)
            return NotImplemented

    file = io.BytesIO()
    try:
        Pickler(file, 5).dump(items)
    except Exception as error:
        raise FlowError(
            "JF639", f"{where}: its items cannot be pickled: {error_line(error)} - give plain data"
        ) from error
    return file.getvalue(), list(found)


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
        if option == "items":
            continue  # the classes of a list's items, now loaded
        if option:
            flow.nodes[node].options[option] = fn
        else:
            flow.nodes[node].fn = fn
    return Loaded(manifest, flow, plan_of(manifest, flow))
