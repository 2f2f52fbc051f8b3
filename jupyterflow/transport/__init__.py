"""Topics, partitions, positions and transactions behind one interface."""

from jupyterflow.transport.messages import Fetch, Fetched, Message, Port, Row, Rows, Transaction, Written

__all__ = ["Fetch", "Fetched", "Message", "Port", "Row", "Rows", "Transaction", "Written"]
