"""The flow model: plain data, validated; it imports nothing of the other rooms."""

from jupyterflow.model.errors import FlowError, FlowTimeout, did_you_mean
from jupyterflow.model.flow import Edge, Flow, Node, Role
from jupyterflow.model.records import Batch, Headers, Record

__all__ = ["Batch", "Edge", "Flow", "FlowError", "FlowTimeout", "Headers", "Node", "Record", "Role", "did_you_mean"]
