"""Worker kernels, deployments and the control plane. Importing it imports no Kafka client."""

from jupyterflow.cluster.client import Cluster, connect, down, up

__all__ = ["Cluster", "connect", "down", "up"]
