"""What a task wants done, all of it or nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from jupyterflow.codecs import Mark
from jupyterflow.model import Batch


class _Gone(Enum):
    GONE = "gone"


GONE = _Gone.GONE  # in the place of a value: the key has no state any more


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that a node could not process. `position`: where it came from; `version`: of the flow."""

    node: str
    value: Any
    error: str
    traceback: str
    position: dict[str, Any]
    version: int
    key: Any = None
    timestamp: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class Effects:
    """Outputs, state changes, dead letters and the position of one task: committed together or not at all.

    `outputs`: batches and marks by (internal topic, partition), in order. `published`: batches of bytes by
    (sink, outside topic). `collected`: batches by collect sink. `changes`: changed state by (node, state key),
    GONE where there is none any more. `meta`: the task's own state. `position`: the next offset of its input to read.
    """

    outputs: dict[tuple[str, int], list[Batch | Mark]] = field(default_factory=dict)
    published: dict[tuple[str, str], list[Batch]] = field(default_factory=dict)
    collected: dict[str, list[Batch]] = field(default_factory=dict)
    changes: dict[tuple[str, Any], Any] = field(default_factory=dict)
    dead: list[DeadLetter] = field(default_factory=list)
    prints: dict[str, str] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    position: int | None = None
