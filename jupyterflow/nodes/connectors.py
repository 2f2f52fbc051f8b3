"""Connectors as classes: `jf.Kafka("bids", codec="json")` is what `kafka://bids?codec=json` writes shorter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jupyterflow.model import Node, Role


@dataclass(frozen=True)
class ConnectorSpec:
    """A kind of source or sink with its options."""

    scheme: str
    options: dict[str, Any] = field(default_factory=dict)

    def node(self, role: Role) -> Node:
        """The unnamed node of this connector."""
        return Node("", role, self.scheme, options=dict(self.options))


def Kafka(topic: str, **options: Any) -> ConnectorSpec:
    """A topic, as a source or a sink. Options: codec, start, until, key, bootstrap."""
    return ConnectorSpec("kafka", {"topic": topic, **options})


def File(path: str, **options: Any) -> ConnectorSpec:
    """Files of lines: a path or a glob, `.gz` by suffix. Options: encoding, errors."""
    return ConnectorSpec("file", {"path": path, **options})


def CSV(path: str, **options: Any) -> ConnectorSpec:
    """CSV files, a dict a row."""
    return ConnectorSpec("csv", {"path": path, **options})


def JSON(path: str, **options: Any) -> ConnectorSpec:
    """JSON Lines files, a value a line."""
    return ConnectorSpec("json", {"path": path, **options})


def Collect(**options: Any) -> ConnectorSpec:
    """Keeps records for `run.collect(name)`. Option: limit."""
    return ConnectorSpec("collect", dict(options))
