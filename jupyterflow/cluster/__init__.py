"""Worker kernels, deployments and the control plane. Names are loaded when they are first used: a slot's supervisor
needs none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyterflow.cluster.client import Cluster, connect, down, up

__all__ = ["Cluster", "connect", "down", "up"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'jupyterflow.cluster' has no attribute {name!r}")
    from jupyterflow.cluster import client

    return getattr(client, name)
