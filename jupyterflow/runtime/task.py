"""The task: one stage on one partition, as a state machine without I/O.

In go batches, splits, marks and time; out come `Effects`. It knows no transport, thread or clock of its own,
so the runner in the notebook and the workers run the very same thing.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Literal

from jupyterflow.codecs import Mark, Partitioner, Sealer
from jupyterflow.model import Batch, Flow, FlowError, Node
from jupyterflow.nodes.base import NodeContext, SplitReader, error_line
from jupyterflow.nodes.catalogue import find
from jupyterflow.nodes.kafka import KafkaSource
from jupyterflow.plan import Output, Plan, Stage
from jupyterflow.runtime.chain import Chain, Route
from jupyterflow.runtime.effects import GONE, DeadLetter, Effects

Status = Literal["running", "drained", "ended"]
_DONE = "done"
MOST = 2_000  # records that a task is given at a time at most


def _least(node: Node) -> int:
    """As few records as a node can be given at a time and still do its best."""
    if node.options.get("batch"):
        return MOST
    calls = node.options.get("concurrency") or 1 if node.role != "source" else 1
    return min(MOST, 4 * calls) if calls > 1 else 1


class Task:
    """A stage on one partition.

    `version` is the deployment's; `durable` says whether state changes are to be kept (in process nobody
    would read them). `until` is the offset at which a bounded Kafka source ends. `limit` is how many records
    it should be given at a time, so that slow functions give the thread back (see `took`). Stops up to the one
    numbered `since` are history: a flow that went on meanwhile does not drain for the rest of their marks.
    """

    def __init__(
        self, plan: Plan, stage: Stage, index: int, flow: Flow, *, worker: str = "", version: int = 1,
        clock: Callable[[], float] = time.monotonic, durable: bool = True, until: int | None = None,
        since: int = 0, sealer: Sealer | None = None,
    ) -> None:  # fmt: skip
        self.plan, self.stage, self.index, self.version = plan, stage, index, version
        self.status: Status = "running"
        self.until, self.since = until, since
        self.position: int | None = None
        self._durable = durable
        self._flow = flow
        self._effects = Effects()
        self.pending = 0
        self._ended: set[tuple[str, int]] = set()
        self._draining: dict[int, set[tuple[str, int]]] = {}
        self.drained = 0
        self._cursor = index
        self.sent: dict[str, int] = {}
        self.received = 0
        self._waiting: list[tuple[int, dict[str, Any]]] = []
        self._open: dict[int, SplitReader] = {}
        self._given: dict[int, dict[str, Any]] = {}
        self._splits: dict[int, Any] = {}
        self._no_more_splits = False
        self._seen = -1
        self._broken: FlowError | None = None  # why the source cannot be read on
        self.chain = Chain(
            flow, stage, index, worker=worker, sealer=sealer, clock=clock, routes=self._routes, fail=self._failed
        )
        self._least = max(map(_least, (flow.nodes[name] for name in stage.nodes)))
        self.limit = self._least
        source = flow.nodes[stage.id]
        self._source = source if source.role == "source" else None
        self._kafka: KafkaSource | None = None
        if stage.input == "kafka":
            self._kafka = KafkaSource(source, self.chain.entry)
        self._at_once = source.options.get("concurrency") or 1

    # -- building ---------------------------------------------------------------------------------------

    def _routes(self, name: str) -> list[Route]:
        """Where the records of a node go besides the next nodes of the stage."""
        node = self._flow.nodes[name]
        routes = [self._route(output) for output in self.stage.outputs if output.node == name]
        if node.role == "sink" and node.kind == "kafka":
            routes.append(self._publish(name, node.options["topic"]))
        elif node.role == "sink" and node.fn is None:
            routes.append(self._collect(name))
        return routes

    def _route(self, output: Output) -> Route:
        topic, n = output.topic, output.partitions

        def single(batch: Batch) -> None:
            self._out(topic, 0, batch)

        def spread(batch: Batch) -> None:
            # Whole batches in turn; a large one is divided, so that all tasks get work at once.
            size = max(1, -(-len(batch) // n)) if len(batch) >= 64 * n else len(batch)
            for low in range(0, len(batch), size):
                self._out(topic, self._cursor % n, batch[low : low + size])
                self._cursor += 1

        partitioner = Partitioner(n)

        def hashed(batch: Batch) -> None:
            keys = batch.keys if batch.keys is not None else [None] * len(batch)
            rows: list[list[int]] = [[] for _ in range(n)]
            for row, partition in enumerate(partitioner.partition_column(keys)):
                rows[partition].append(row)
            for partition, own in enumerate(rows):
                if own:
                    self._out(topic, partition, batch.take(own))

        if n == 1:
            return single
        return {"hash": hashed, "spread": spread, "single": single}[output.routing]

    def _out(self, topic: str, partition: int, item: Batch | Mark) -> None:
        if isinstance(item, Batch):
            self.sent[topic] = self.sent.get(topic, 0) + len(item)
        self._effects.outputs.setdefault((topic, partition), []).append(item)

    def _publish(self, node: str, topic: str) -> Route:
        return lambda batch: self._effects.published.setdefault((node, topic), []).append(batch)

    def _collect(self, node: str) -> Route:
        return lambda batch: self._effects.collected.setdefault(node, []).append(batch)

    # -- input ------------------------------------------------------------------------------------------

    def process(self, batch: Batch, offset: int | None = None, first: int = 0) -> None:
        """Records of an internal topic, of the message at *offset*, where they begin at row *first*."""
        topic = self.stage.topic
        self.chain.origin = lambda row: {"topic": topic, "partition": self.index, "offset": offset, "row": first + row}
        self.received += len(batch)
        self._run(batch)
        if offset is not None:
            self.position = offset + 1

    def messages(self, records: Sequence[Any]) -> None:
        """Messages of an outside topic, in order of their offsets."""
        assert self._kafka is not None
        if self.until is not None and records and records[-1].offset >= self.until:
            records = [record for record in records if record.offset < self.until]
        if not records:
            return
        topic = self.stage.topic
        self.chain.origin = lambda row: {"topic": topic, "partition": self.index, "offset": records[row].offset}
        batch = self._kafka.decode(records)
        rows = self._kafka.rows
        if rows is not None:
            kept = rows
            self.chain.origin = lambda row: {
                "topic": topic, "partition": self.index, "offset": records[kept[row]].offset
            }  # fmt: skip
        self.position = records[-1].offset + 1
        self._run(batch)

    def reached(self, position: int) -> None:
        """All input before *position* has been seen: a bounded topic ends there."""
        if position > (self.position or 0):
            self.position = position
        if self.until is not None and position >= self.until:
            self.end()

    def split(self, split: dict[str, Any], offset: int) -> None:
        """A split to read, of the message at *offset* of the splits topic."""
        if self._splits.get(offset) == _DONE:
            return
        self._waiting.append((offset, split))
        self._given[offset] = split
        self._splits.setdefault(offset, None)
        self._seen = offset

    def pull(self, limit: int) -> bool:
        """Read about *limit* records from the open splits; whether anything came of it."""
        if self._source is None or self.stage.input != "splits" or self.status != "running":
            return False
        if self._broken is not None:
            if self.pending:  # what was read before it broke goes out first
                return False
            raise self._broken
        while self._waiting and len(self._open) < self._at_once:
            offset, split = self._waiting.pop(0)
            kind = find("source", self._source.kind, "")
            assert kind.connector is not None
            self._open[offset] = kind.connector.open(self._source, split, self._splits.get(offset), self.chain.entry)
        worked = False
        for offset, reader in list(self._open.items()):
            self.chain.origin, before = self._place(offset, reader), reader.position
            try:
                batch = reader.read(limit)
            except FlowError as error:
                self._broken = error
                return worked
            except Exception as error:
                self._broken = FlowError(
                    "JF403", f"node '{self._source.name}': it cannot be read on: {error_line(error)}"
                )
                self._broken.__cause__ = error
                return worked
            if batch is not None:
                worked = True
                self.chain.entry.counters.records_in += len(batch)
                self.chain.entry.counters.records_out += len(batch)
                self._run(batch)
            if reader.position is not None:
                self._splits[offset] = reader.position
                worked = worked or reader.position != before  # it may have passed over all that it read
            if reader.done:
                worked = True
                reader.close()
                del self._open[offset]
                self._splits[offset] = _DONE
                self._given.pop(offset, None)
                self.pending += 1
        self._advance()
        if self._no_more_splits and not self._waiting and not self._open:
            self.end()
            worked = True
        return worked

    def _place(self, offset: int, reader: SplitReader) -> Callable[[int], dict[str, Any]]:
        before, path = reader.count, self._given[offset].get("path")

        def place(row: int) -> dict[str, Any]:
            rows = getattr(reader, "rows", None)
            number = before + (row if rows is None else rows[row])
            return {"split": offset, "record": number} | ({"path": path} if path else {})

        return place

    def _advance(self) -> None:
        """Move the committed position of the splits topic behind what has been read completely."""
        done = [offset for offset, position in self._splits.items() if position == _DONE]
        open_ = [offset for offset, position in self._splits.items() if position != _DONE]
        low = min(open_, default=self._seen + 1)
        for offset in done:
            if offset < low:
                del self._splits[offset]
        if low > (self.position or 0):
            self.position = low

    def mark(self, mark: Mark, offset: int | None = None) -> None:
        """A mark in the input: an upstream task has ended, or has drained for a stop."""
        self.pending += 1
        if mark.kind == "end" and self.stage.input == "splits":
            # The position stays before the splits that are still to be read (see `_advance`).
            self._seen = offset if offset is not None else self._seen
            self._no_more_splits = True
            return
        if offset is not None:
            self.position = offset + 1
        sender = (mark.stage, mark.task)
        if mark.kind == "end":
            self._ended.add(sender)
        elif mark.kind == "drain" and isinstance(mark.value, int) and mark.value > self.since:
            self._draining.setdefault(mark.value, set()).add(sender)
        self._settle()

    def _settle(self) -> None:
        everyone = {(stage, task) for stage, tasks in self.stage.upstream for task in range(tasks)}
        if everyone and everyone <= self._ended:
            self.end()
            return
        for stop, senders in list(self._draining.items()):
            if everyone <= senders | self._ended:
                self.drain(stop)

    def end(self) -> None:
        """The input has ended: flush what is held, and pass the end on."""
        if self.status == "ended":
            return
        self._run(None, flush=True)
        self._send("end", None)
        self.status = "ended"
        self.pending += 1

    def drain(self, stop: int) -> None:
        """What came in before has been processed for the stop numbered *stop*: pass it on, keep all state."""
        if self.status != "running" or stop <= self.drained:
            return
        self._draining = {number: who for number, who in self._draining.items() if number > stop}
        self.drained = stop
        self._send("drain", stop)
        self.status = "drained"
        self.pending += 1

    def _send(self, kind: Literal["end", "drain"], value: int | None) -> None:
        mark = Mark(kind, self.plan.epoch, self.version, self.stage.id, self.index, self.stage.tasks, value)
        for topic, n in dict.fromkeys((output.topic, output.partitions) for output in self.stage.outputs):
            for partition in range(n):
                self._out(topic, partition, mark)

    def took(self, records: int, seconds: float, slice: float) -> None:
        """It was given so many records at once and took so long: adapt `limit` to *slice* seconds."""
        fit = int(records * slice / max(seconds, 1e-6))
        self.limit = max(self._least, min(fit, 4 * self.limit, MOST))

    def tick(self, now: float) -> None:
        """Time passed: let the timed nodes emit."""
        if self.chain.tick(now):
            self.pending += 1

    def _run(self, batch: Batch | None, *, flush: bool = False) -> None:
        self.pending += len(batch) if batch is not None else 1
        self.chain.run(batch, flush=flush)

    def _failed(self, context: NodeContext, batch: Batch, row: int, error: BaseException) -> None:
        node = self._flow.nodes[context.node]
        if node.options.get("on_error") == "fail":
            raise FlowError(
                "JF404",
                f"flow '{self.plan.flow}', node '{node.name}': {error_line(error)} - on_error is 'fail'; fix the cell and run it again",
            ) from error
        i = self.stage.nodes.index(context.node)
        position, _ = self.chain.trace(i, row)
        record = next(iter(batch[row : row + 1]))
        # The first frames are ours; what helps is the user's.
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self._effects.dead.append(
            DeadLetter(
                node.name,
                record.value,
                error_line(error),
                text[-8_000:],
                position,
                self.version,
                record.key,
                record.timestamp,
            )
        )
        self.pending += 1

    def refuse(self, error: FlowError, offset: int) -> None:
        """A message of the input that is not ours, or cannot be read here: kept as a dead letter, not opened."""
        if self._splits.get(offset) == _DONE:
            return  # told before
        self.chain.entry.counters.errors += 1
        place = {"topic": self.stage.topic, "partition": self.index, "offset": offset}
        self._effects.dead.append(DeadLetter(self.stage.id, None, str(error), "", place, self.version))
        if self.stage.input == "splits":
            self._splits[offset], self._seen = _DONE, offset
            self._advance()
        else:
            self.position = offset + 1
        self.pending += 1

    def adopt(self, old: Task) -> None:
        """Go on from another version of this task, between two batches: all state, splits and effects move here."""
        mine = {step.name: step.context for step in self.chain.steps}
        forms: dict[str, str] = {}
        for step in old.chain.steps:
            if step.name in mine:
                forms[step.name] = step.operator.form if step.operator is not None else ""
                mine[step.name].table = step.context.table
                mine[step.name].counters = step.context.counters
                mine[step.name].prints = step.context.prints
        self.chain.reform(forms)
        self.status, self.position, self.pending, self.since = old.status, old.position, old.pending, old.since
        self._effects, self._ended, self._draining = old._effects, old._ended, old._draining
        self.drained, self._cursor, self._seen = old.drained, old._cursor, old._seen
        self.sent, self.received = old.sent, old.received
        self.chain.emissions = old.chain.emissions
        self._waiting, self._splits, self._no_more_splits = old._waiting, old._splits, old._no_more_splits
        # Readers run the source's old code: open them again from where they are.
        self._given = old._given
        for reader in old._open.values():
            reader.close()
        self._waiting = [*((offset, self._given[offset]) for offset in old._open), *old._waiting]
        old._open = {}

    # -- effects and state ------------------------------------------------------------------------------

    def take(self) -> Effects:
        """All effects since the last time, to be performed atomically."""
        effects, self._effects = self._effects, Effects()
        self.pending = 0
        for step in self.chain.steps:
            table = step.context.table
            if table.dirty:
                if self._durable:
                    values = table.values
                    for key in table.dirty:
                        value = values.get(key, GONE)
                        if type(value) is dict and not value:
                            del values[key]
                            value = GONE
                        effects.changes[step.name, key] = value
                table.dirty.clear()
            if lines := len(step.context.prints):  # a generator's thread may add more meanwhile
                effects.prints[step.name] = "".join(step.context.prints[:lines])
                del step.context.prints[:lines]
        effects.meta = self.meta()
        effects.position = self.position
        return effects

    def meta(self) -> dict[str, Any]:
        """The task's own state, as plain data."""
        # Without the splits that are not begun: there may be more than a message holds, and they are read again.
        unbegun = [offset for offset, position in self._splits.items() if position is None]
        return {
            "status": self.status,
            "splits": {offset: position for offset, position in self._splits.items() if position is not None},
            "no_more": self._no_more_splits and all(position == _DONE for position in self._splits.values()),
            "seen": min(unbegun) - 1 if unbegun else self._seen,
            "ended": sorted(self._ended),
            "draining": self._draining,
            "drained": self.drained,
            "emissions": self.chain.emissions,
            "forms": self.chain.forms(),
            "sent": dict(self.sent),
            "received": self.received,
            "counters": self.chain.counters(),
        }

    def restore(self, meta: dict[str, Any] | None, changes: dict[tuple[str, Any], Any]) -> None:
        """Go on from what was last committed."""
        by_name = {step.name: step.context for step in self.chain.steps}
        for (node, key), value in changes.items():
            if node in by_name:
                by_name[node].table.values[key] = value
        if not meta:
            return
        self.chain.reform(meta.get("forms", {}))
        self.status = "ended" if meta["status"] == "ended" else "running"
        self._splits, self._seen = dict(meta["splits"]), meta["seen"]
        # Splits that were not done are read again from the topic, and the mark after them with them.
        self._no_more_splits = meta["no_more"]
        self._ended = {tuple(sender) for sender in meta["ended"]}
        self._draining = {stop: set(who) for stop, who in meta["draining"].items() if stop > self.since}
        self.drained = meta["drained"]
        self.sent, self.received = dict(meta["sent"]), meta["received"]
        self.chain.emissions = meta["emissions"]
        for name, data in meta["counters"].items():
            if name in by_name:
                by_name[name].counters.restore(data)
        if self.status == "running" and self._ended:
            self._settle()  # what it waited for may be gone from the flow

    def counters(self) -> dict[str, list[Any]]:
        """The exact counters of each node, as plain data."""
        return self.chain.counters()

    def samples(self) -> dict[str, Any]:
        """The latest value of each node."""
        return self.chain.samples()

    @property
    def restoring(self) -> int:
        """Values that generators have yet to skip to come back to their place."""
        return sum(getattr(reader, "restoring", 0) for reader in self._open.values())

    def close(self) -> None:
        """Release readers, threads and files."""
        for reader in self._open.values():
            reader.close()
        self._open.clear()
        self.chain.close()

    def due(self, now: float) -> float | None:
        """Seconds after which there is something to pull, where a reader knows."""
        if self._broken is not None:
            return None
        times = [reader.due(now) for reader in self._open.values() if hasattr(reader, "due")]
        return min((time for time in times if time is not None), default=None)

    def on_ready(self, wake: Callable[[], None]) -> None:
        """Have generators call *wake* when they have something."""
        for reader in self._open.values():
            if getattr(reader, "on_ready", False) is None:
                reader.on_ready = wake  # type: ignore[attr-defined]
                wake()  # it may have had something before
