"""What an engine reads, and whom it tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from jupyterflow.transport.kafka._port import KafkaPort

Start = Literal["earliest", "latest"] | int
Guarantee = Literal["exactly-once", "at-least-once"]
CloseReason = Literal["revoked", "failed", "stopped"]


@dataclass(frozen=True)
class InputTopic:
    """A topic that is the input of a stage: each of its partitions is the input of one task.

    `changelog`: the topic whose partition p holds the state of the task of partition p, None if it has none.
    `start`: where a task without a committed position begins; a mapping gives it per partition (a partition
    that it lacks begins at the earliest). `transactional_prefix`: of the transactional ids, unique per flow,
    epoch and stage, the same for as long as positions are to be kept (default: group and topic). `until`: the end offset per
    partition of a bounded read. `copartition`: topics of one group have their equal partitions on one worker.
    `purge`: delete what is committed each minute (topics of frames, that nobody else reads).
    """

    topic: str
    changelog: str | None = None
    start: Start | Mapping[int, Start] = "earliest"
    transactional_prefix: str = ""
    until: Mapping[int, int] | None = None
    copartition: str | None = None
    purge: bool = False


@dataclass(frozen=True)
class Callbacks:
    """All are called on the I/O thread, must return at once, and never stop the engine by raising."""

    on_open: Callable[[KafkaPort, dict[bytes, bytes]], None]
    on_close: Callable[[KafkaPort, CloseReason], None]
    on_error: Callable[[BaseException], None]
    on_ready: Callable[[], None]
