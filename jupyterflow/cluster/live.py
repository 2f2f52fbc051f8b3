"""A deployed flow seen from a notebook: the same interface as a run in process; the truth is in Kafka."""

from __future__ import annotations

import inspect
import logging
import pickle
import time
from collections import deque
from typing import Any

from jupyterflow.cluster import deploy as deploying
from jupyterflow.cluster._classes import install
from jupyterflow.cluster._runner import queued
from jupyterflow.cluster.control import Control, workers_alive, workers_of
from jupyterflow.cluster.manifest import plan_of
from jupyterflow.cluster.worker import collect_code, settled
from jupyterflow.codecs import BATCH, Sealer, decode_batch, payload_kind
from jupyterflow.model import Flow, FlowError, FlowTimeout, Record
from jupyterflow.plan import Plan
from jupyterflow.runtime.run import BaseRun
from jupyterflow.telemetry import Meter

_log = logging.getLogger("jupyterflow.live")
_IDLE = 3.0  # seconds without a change in any counter
_LINES = 200
_OPEN = 5.0  # seconds that a read waits for a transaction to end


class LiveRun(BaseRun):
    """A deployment. It goes on when this object, the notebook or its kernel are gone."""

    def __init__(self, control: Control, name: str, flow: Flow | None = None) -> None:
        self._control, self.name = control, name
        self._final: dict[str, Any] | None = None
        manifest = self._manifest
        self._seen = (manifest["epoch"], manifest["version"])
        self._flow = flow if flow is not None else flow_of(manifest)
        self._plan = plan_of(manifest, self._flow)
        self._meter = Meter(self.flow.order())
        self._prints: dict[str, deque[str]] = {}
        self._last: tuple[float, int] = (time.monotonic(), -1)

    def _follow(self) -> None:
        """Look at what is deployed now: it may be another version, from another kernel."""
        manifest = self._manifest
        if self._seen != (manifest["epoch"], manifest["version"]):
            self._flow = flow_of(manifest)
            self._plan = plan_of(manifest, self._flow)
            self._meter = Meter(self._flow.order())
            self._seen = (manifest["epoch"], manifest["version"])

    @property
    def flow(self) -> Flow:  # type: ignore[override]
        """The flow as it is deployed now."""
        self._follow()
        return self._flow

    @property
    def plan(self) -> Plan:  # type: ignore[override]
        """Its plan."""
        self._follow()
        return self._plan

    def printed(self, body: dict[str, Any]) -> None:
        """Take what a worker says that a node printed."""
        lines = self._prints.setdefault(body["node"], deque(maxlen=_LINES))
        lines.extend(body["text"].splitlines())

    @property
    def _manifest(self) -> dict[str, Any]:
        manifest = self._control.tables["deployments"].get(self.name)
        if manifest is None:
            if self._final is not None:
                return self._final
            raise FlowError("JF640", f"no deployment '{self.name}'{deploying.names(self._control)}")
        self._final = manifest
        return manifest

    @property
    def version(self) -> int:  # type: ignore[override]
        """The deployed version, from 1."""
        return int(self._manifest["version"])

    def _tasks(self) -> list[dict[str, Any]]:
        manifest = self._manifest
        table = self._control.tables["telemetry"]
        prefix = f"{self.name}/{manifest['epoch']}"
        found = (
            table.get(f"{prefix}/{stage}/{index}")
            for stage, number in manifest["stages"].items()
            for index in range(number)
        )
        return [body for body in found if body is not None]

    @property
    def state(self) -> str:
        manifest = self._manifest
        if manifest["state"] == "failed":
            return "failed"
        if manifest["state"] == "terminated" or self.name not in self._control.tables["deployments"]:
            return "stopped"
        done = settled(manifest, self._control.tables["telemetry"])
        if done is not None:
            return done
        tasks = self._tasks()
        if len(tasks) < sum(manifest["stages"].values()):
            return "deploying"
        total = sum(data[0] + data[1] for body in tasks for data in body["counters"].values())
        now = time.monotonic()
        if total != self._last[1]:
            self._last = (now, total)
        if now - self._last[0] < _IDLE:
            return "running"
        waits = any(body.get("lag") for body in tasks) or any(
            queued(self.plan, self._control.tables["telemetry"]).values()
        )
        waits = waits or not workers_alive(self._control)
        return "stalled" if waits else "idle"

    @property
    def error(self) -> FlowError | None:
        problem = self._manifest.get("error")
        return FlowError(problem["code"], problem["message"]) if problem and self.state == "failed" else None

    def metrics(self) -> list[dict[str, Any]]:
        tasks = self._tasks()
        lags: dict[str, int | None] = {}
        for body in tasks:
            if body.get("lag") is not None and self.plan.stage(body["stage"]).input == "kafka":
                lags[body["stage"]] = (lags.get(body["stage"]) or 0) + body["lag"]
        rows = self._meter.metrics((body["counters"] for body in tasks), lags)
        waiting = queued(self.plan, self._control.tables["telemetry"])
        for row in rows:
            stage = next((s for s in self.plan.stages if s.id == row["node"] and s.input == "frames"), None)
            if stage is not None:
                row["lag"] = waiting.get(stage.topic, 0)
        return rows

    def _queued(self, stage: str) -> int:
        return queued(self.plan, self._control.tables["telemetry"]).get(self.plan.stage(stage).topic, 0)

    def records(self, node: str) -> list[Record]:
        self._sink(node, "collect")
        install_classes(self._control, self._manifest)
        topic = self.plan.collect_topic(node)
        limit = self.flow.nodes[node].options.get("limit") or 1_000_000
        out: deque[Record] = deque(maxlen=limit)
        sealer = Sealer(self._control.key, self.plan.epoch)
        for _, value in self._read(topic):
            try:
                payload = sealer.open(topic, 0, value)
            except FlowError as error:
                _log.warning("%s - it is left out", error)
                continue
            if payload_kind(payload) == BATCH:
                out.extend(decode_batch(payload))
        return list(out)

    def dead_letters(self, node: str | None = None) -> list[dict[str, Any]]:
        install_classes(self._control, self._manifest)
        topic = self.plan.dead_topic
        sealer = Sealer(self._control.key, self.plan.epoch)
        out = []
        for _, value in self._read(topic):
            try:
                letter = pickle.loads(sealer.open(topic, 0, value))
            except FlowError:
                continue  # of an earlier epoch
            except Exception as error:
                _log.warning("a dead letter of flow '%s' cannot be read here: %r", self.name, error)
                continue
            if node in (None, letter["node"]):
                out.append(letter)
        return out

    def _read(self, topic: str) -> list[tuple[bytes | None, bytes]]:
        """All committed messages of a topic's only partition.

        A commit is acknowledged before its markers are written: read up to the uncommitted end, where a running
        transaction does not hold that back for long.
        """
        end = self._control.admin.end_offsets(topic, committed=False).get(0, 0)

        async def read() -> list[tuple[bytes | None, bytes]]:
            from aiokafka import AIOKafkaConsumer, TopicPartition

            consumer = AIOKafkaConsumer(
                **self._control.config.client(),
                group_id=None,
                isolation_level="read_committed",
                max_partition_fetch_bytes=8 << 20,
                fetch_max_wait_ms=50,
            )
            await consumer.start()
            try:
                part = TopicPartition(topic, 0)
                consumer.assign([part])
                await consumer.seek_to_beginning(part)
                out: list[tuple[bytes | None, bytes]] = []
                patience = time.monotonic() + _OPEN
                while await consumer.position(part) < end and time.monotonic() < patience:
                    for records in (await consumer.getmany(timeout_ms=100)).values():
                        patience = time.monotonic() + _OPEN
                        out += [(r.key, r.value) for r in records if r.offset < end and r.value is not None]
                return out
            finally:
                await consumer.stop()

        return self._control.io.call(read(), 120)

    def prints(self, node: str) -> list[str]:
        return list(self._prints.get(node, ()))

    def sample(self, node: str) -> Any:
        """The text of the latest value of a node, or None."""
        latest = max(
            (body for body in self._tasks() if node in body["samples"]), key=lambda body: body["time"], default=None
        )
        return None if latest is None else Shown(latest["samples"][node])

    def workers(self) -> list[dict[str, Any]]:
        """The workers that run tasks of this flow."""
        return [
            row for row in workers_of(self._control) if any(task.startswith(f"{self.name}:") for task in row["tasks"])
        ]

    def progress(self) -> dict[str, Any] | None:
        manifest = self._manifest
        state = self.state
        if state not in ("deploying", "stalled"):
            return None
        wanted, there = sum(manifest["stages"].values()), len(self._tasks())
        what = f"{there} of {wanted} tasks have started"
        if not workers_alive(self._control):
            what = "no worker is there - start some with cluster.scale(n) or `jupyter flow worker`"
        elif state == "stalled":
            return None
        return {"what": what, "done": there, "total": wanted}

    def wait(self, timeout: float | None = None) -> LiveRun:
        try:
            return super().wait(timeout)
        except FlowTimeout as error:
            progress = self.progress()
            if progress is None:
                raise
            raise FlowTimeout(error.code, f"{error.message}: {progress['what']}") from None

    def stop(self, timeout: float = 30.0) -> LiveRun:
        """Sources stop, what is in flight reaches the sinks; positions and state stay. Waits until that is done."""
        if self.state in ("finished", "failed", "stopped"):
            return self
        deploying.change(self._control, self.name, state="stopped", stop=0)
        return self.wait(timeout)

    def terminate(self) -> LiveRun:
        """End at once; deploying again goes on from the last commit."""
        if self.state not in ("finished", "stopped", "failed"):
            deploying.change(self._control, self.name, state="terminated")
        return self

    def _changed(self, timeout: float) -> None:
        with self._control.changed:
            news = self._control.news
            if not self._control.changed.wait_for(lambda: self._control.news != news, min(timeout, 0.25)):
                return


def flow_of(manifest: dict[str, Any]) -> Flow:
    """The flow of a manifest for looking at: declared, with source texts, its functions not loaded."""
    from jupyterflow._flow import Flow as FluentFlow

    flow = FluentFlow.from_dict(manifest["flow"])
    for name, node in flow.nodes.items():
        if name in manifest["package"]["nodes"]:
            source = node.code or manifest["package"]["sources"].get(name) or ""
            node.code = source
            node.fn = Elsewhere(name, source, name in manifest["stateful"])
    return flow


class Shown(str):
    """The text of a value that stayed on a worker: shown as it is."""

    __slots__ = ()
    __repr__ = str.__str__


class Elsewhere:
    """Stands for a function that runs on the workers."""

    def __init__(self, name: str, source: str, stateful: bool) -> None:
        self.__name__, self.source = name, source
        if stateful:
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            self.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in ("value", "state")])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise FlowError("JF641", f"'{self.__name__}' runs on the workers - run its cell again to have it here")


def install_classes(control: Control, manifest: dict[str, Any]) -> None:
    """Make the notebook's classes of a deployment loadable here, so that its values can be read."""
    modules = deploying.class_modules(manifest)
    try:
        texts = collect_code(modules.values(), control.tables["code"])
    except KeyError:
        return
    for module, digest in modules.items():
        install(module, texts[digest].decode())
