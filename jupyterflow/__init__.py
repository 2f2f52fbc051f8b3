"""JupyterFlow: build, see and run streaming systems from a notebook.

Importing it imports no IPython, Kafka or widget: names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jupyterflow._flow import Flow, Handle
    from jupyterflow._run import Run
    from jupyterflow.cluster import Cluster, connect, up
    from jupyterflow.magics import load_ipython_extension, unload_ipython_extension
    from jupyterflow.model import FlowError, FlowTimeout, Record
    from jupyterflow.nodes.connectors import CSV, JSON, Collect, File, Kafka

_WHERE = {
    "Flow": "_flow", "Handle": "_flow", "Run": "_run", "FlowError": "model", "FlowTimeout": "model", "Record": "model",
    "Kafka": "nodes.connectors", "File": "nodes.connectors", "CSV": "nodes.connectors", "JSON": "nodes.connectors",
    "Collect": "nodes.connectors", "Cluster": "cluster", "connect": "cluster", "up": "cluster",
    "load_ipython_extension": "magics", "unload_ipython_extension": "magics",
}  # fmt: skip

__all__ = [
    "CSV",
    "JSON",
    "Cluster",
    "Collect",
    "File",
    "Flow",
    "FlowError",
    "FlowTimeout",
    "Handle",
    "Kafka",
    "Record",
    "Run",
    "connect",
    "load_ipython_extension",
    "unload_ipython_extension",
    "up",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _WHERE:
        raise AttributeError(f"module 'jupyterflow' has no attribute {name!r}")
    value = getattr(import_module(f"jupyterflow.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
