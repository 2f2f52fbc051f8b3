"""Deploying: check, make topics, write splits and code, and last of all the manifest that makes it true."""

from __future__ import annotations

import base64
import getpass
import re
import socket
import time
from collections.abc import Container
from typing import TYPE_CHECKING, Any

from jupyterflow.cluster import payload
from jupyterflow.cluster._runner import queued
from jupyterflow.cluster.control import Control
from jupyterflow.cluster.manifest import dump_items, flow_data, package, plan_of
from jupyterflow.cluster.worker import settled
from jupyterflow.codecs import SPLIT, Mark, Sealer
from jupyterflow.model import Flow, FlowError, FlowTimeout
from jupyterflow.nodes.base import error_line
from jupyterflow.nodes.catalogue import find, validate
from jupyterflow.plan import Plan, Stage, needs_key
from jupyterflow.transport.kafka import TopicSpec

if TYPE_CHECKING:
    from jupyterflow.cluster.live import LiveRun
    from jupyterflow.cluster.payload import Package

_CHUNK = 500_000
_MESSAGE = 900_000  # bytes: what the broker takes in one message, less its overhead
TASKS = 4
_FRAMES = {"retention.ms": "-1"}
_CHANGELOG = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.3", "segment.ms": "600000"}


def refuse_remote(flow: Flow) -> None:
    """Raise FlowError where a function of the flow is only on the workers."""
    from jupyterflow.cluster.live import Elsewhere

    for name, node in flow.nodes.items():
        if isinstance(node.fn, Elsewhere):
            raise FlowError(
                "JF641", f"flow '{flow.name}', node '{name}': its code is not in this kernel - run its cell again"
            )


def deploy(
    control: Control,
    flow: Flow,
    *,
    guarantee: str = "exactly-once",
    commit_interval: float = 0.1,
    tasks: int = TASKS,
    session_timeout: float = 10.0,
    checked: bool = True,
) -> dict[str, Any]:
    """Publish the manifest of a flow, and all that it needs before it; returns the manifest.

    *tasks*: how many tasks a stage has where the flow does not say. Raises FlowError before anything changed where
    something does not fit.
    """
    if guarantee not in ("exactly-once", "at-least-once"):
        raise FlowError("JF534", f"guarantee '{guarantee}' is neither 'exactly-once' nor 'at-least-once'")
    validate(flow)
    if not flow.nodes:
        raise FlowError("JF301", f"flow '{flow.name}' has no nodes - declare a source first")
    refuse_remote(flow)
    code = package(flow, tuple(getattr(flow, "includes", ())))
    old = control.tables["deployments"].get(flow.name)
    partitions = _outside(control, flow)
    if checked:
        _check(flow, code)
        _check_workers(control, code)
    done = settled(old, control.tables["telemetry"]) if old else None
    fresh = old is None or done == "finished"
    revision = _next(old)
    manifest: dict[str, Any] = {
        "flow": flow_data(flow),
        "epoch": str(revision) if fresh or old is None else old["epoch"],
        "revision": revision,
        "version": (old["version"] if old else 0) + 1,
        "state": "running",
        "stop": 0,
        "prefix": control.prefix,
        "guarantee": guarantee,
        "commit_interval": commit_interval,
        "session_timeout": session_timeout,
        "tasks": tasks,
        "partitions": partitions,
        "package": {**code.manifest(), "blobs": sorted(code.blobs())},
        # Frames and state of this epoch may still hold instances of the classes of earlier versions.
        "classes": {} if fresh or old is None else class_modules(old),
        "folders": code.folders,
        "host": socket.gethostname(),
        "author": f"{getpass.getuser()}@{socket.gethostname()}",
        "time": time.time(),
    }
    plan = plan_of(manifest, flow)
    manifest["stateful"] = [name for name, node in flow.nodes.items() if needs_key(flow, node)]
    manifest["stages"] = {stage.id: stage.tasks for stage in plan.stages}
    manifest["shape"] = [_shape(stage) for stage in plan.stages]
    # The stages that this epoch ever had: what was removed and comes back goes on where it was.
    before = {**old.get("known", {}), **old["stages"]} if old is not None and not fresh else {}
    manifest["known"] = {**before, **manifest["stages"]}
    for id, number in before.items():
        if manifest["stages"].get(id, number) != number:
            raise FlowError(
                "JF636",
                f"flow '{flow.name}': stage '{id}' has {number} tasks and cannot become {manifest['stages'][id]} while its "
                "positions are kept - remove the flow first, or keep the parallelism",
            )
    if old is not None and done is None and manifest["shape"] != old["shape"]:
        from jupyterflow.cluster.live import LiveRun

        live = LiveRun(control, flow.name)
        if old["state"] == "running":
            live.stop()  # drain what a vanished stage still holds
            manifest["revision"] = revision = _next(control.tables["deployments"].get(flow.name))
        else:
            _refuse_loss(control, live, manifest["stages"])
    if fresh:
        bounds = _bounds(control, flow, plan)
    else:
        assert old is not None
        fixed = old["bounds"]
        bounds = {**_bounds(control, flow, plan, skip=set(fixed)), **fixed}
    manifest["bounds"] = bounds
    manifest["sinks"] = _make_topics(control, flow, plan, tasks)
    for stage in plan.stages:
        if stage.input == "splits" and stage.id not in before:
            if not fresh and (ends := control.admin.end_offsets(stage.topic)):
                control.admin.delete_records(stage.topic, ends)  # what a deploy that was cut off wrote
            _write_splits(control, flow, plan, stage, code.class_module)
    _send_code(control, code)
    control.publish("deployments", flow.name, manifest)
    if not control.wait(lambda: control.tables["deployments"].get(flow.name, {}).get("revision", 0) >= revision, 10):
        raise FlowTimeout("JF522", f"Kafka at {control.config.bootstrap} took the deployment and does not give it back")
    return manifest


def _refuse_loss(control: Control, live: LiveRun, stages: Container[str]) -> None:
    """Raise FlowError where a stage that vanishes holds records: of a flow that did not drain they would be lost."""
    waiting = queued(live.plan, control.tables["telemetry"])
    for stage in live.plan.stages:
        if stage.id not in stages and waiting.get(stage.topic):
            raise FlowError(
                "JF643",
                f"flow '{live.name}': stage '{stage.id}' still holds {waiting[stage.topic]:,} records and is not in the flow "
                "any more - deploy it as it was and stop it first, or remove the flow",
            )


def _shape(stage: Stage) -> list[Any]:
    """What cannot be changed by a swap of code, as JSON has it."""
    edges = [list(edge) for edge in stage.edges]
    outputs = [[out.node, out.to, out.partitions, out.routing] for out in stage.outputs]
    return [stage.id, stage.input, stage.topic, stage.tasks, list(stage.nodes), edges, outputs]


def _next(old: dict[str, Any] | None) -> int:
    """A revision above the last one, and above those of a deployment of that name that was removed."""
    return max(int(time.time() * 1000), (old["revision"] if old else 0) + 1)


def class_modules(manifest: dict[str, Any]) -> dict[str, str]:
    """The class modules of a deployment's epoch so far, with the addresses of their texts."""
    package = manifest["package"]
    now = {package["class_module"]: package["classes"]} if package["classes"] else {}
    return {**manifest.get("classes", {}), **now}


def _check(flow: Flow, code: Package) -> None:
    problems = payload.check(code)
    if problems:
        raise FlowError("JF637", f"flow '{flow.name}': {problems[0]}")


def _check_workers(control: Control, code: Package) -> None:
    now = time.time()
    for worker in list(control.tables["workers"].values()):
        if now - worker["time"] >= 30:
            continue
        if worker["python"].rpartition(".")[0] != code.python.rpartition(".")[0]:
            raise FlowError(
                "JF616",
                f"worker '{worker['name']}' runs Python {worker['python']}, this notebook {code.python} - "
                "functions cannot travel between them; use the same version",
            )
        if worker.get("dill", code.dill) != code.dill:
            raise FlowError(
                "JF616",
                f"worker '{worker['name']}' has dill {worker['dill']}, this notebook {code.dill} - "
                "functions cannot travel between them; install the same version",
            )


def _outside(control: Control, flow: Flow) -> dict[str, int]:
    """The outside topics that are read, with their numbers of partitions."""
    partitions: dict[str, int] = {}
    for node in flow.nodes.values():
        if node.kind != "kafka":
            continue
        other = node.options.get("bootstrap")
        if other and other != control.config.bootstrap:
            raise FlowError(
                "JF642",
                f"flow '{flow.name}', node '{node.name}': a deployed flow reads and writes the cluster's own Kafka "
                f"({control.config.bootstrap}), not {other} - leave out bootstrap=",
            )
        if node.role != "source":
            continue
        topic = node.options["topic"]
        if topic in partitions:
            raise FlowError(
                "JF638", f"flow '{flow.name}': two sources read topic '{topic}' - declare one and use it twice"
            )
        count = control.admin.partitions(topic)
        if count is None:
            raise FlowError(
                "JF523",
                f"flow '{flow.name}', node '{node.name}': topic '{topic}' does not exist on Kafka at "
                f"{control.config.bootstrap} - create it first, or check its name",
            )
        partitions[topic] = count
    return partitions


def _bounds(control: Control, flow: Flow, plan: Plan, skip: set[str] | None = None) -> dict[str, Any]:
    """Where outside topics begin and end, resolved once and recorded."""
    out: dict[str, Any] = {}
    for stage in plan.stages:
        options = flow.nodes[stage.id].options
        if stage.input != "kafka" or stage.topic in (skip or ()):
            continue
        entry: dict[str, Any] = {}
        if options.get("start") == "latest":
            entry["start"] = {str(p): o for p, o in control.admin.end_offsets(stage.topic).items()}
        if options.get("until") == "latest":
            entry["until"] = {str(p): o for p, o in control.admin.end_offsets(stage.topic).items()}
        out[stage.topic] = entry
    return out


def _make_topics(control: Control, flow: Flow, plan: Plan, tasks: int) -> dict[str, int]:
    specs = [TopicSpec(plan.dead_topic, 1, {"retention.ms": "-1"})]
    for stage in plan.stages:
        if stage.input != "kafka":
            specs.append(TopicSpec(stage.topic, stage.tasks, _FRAMES))
        specs.append(TopicSpec(stage.changelog, stage.tasks, _CHANGELOG))
    sinks: dict[str, int] = {}
    for node in flow.nodes.values():
        if node.role != "sink":
            continue
        if node.kind == "collect":
            specs.append(TopicSpec(plan.collect_topic(node.name), 1, {"retention.ms": "-1"}))
        elif node.kind == "kafka":
            topic = node.options["topic"]
            count = control.admin.partitions(topic)
            if count is None:
                count = tasks
                specs.append(TopicSpec(topic, tasks, {}))
            sinks[topic] = count
    control.admin.create_topics(specs)
    return sinks


def _write_splits(control: Control, flow: Flow, plan: Plan, stage: Stage, class_module: str) -> None:
    node = flow.nodes[stage.id]
    connector = find("source", node.kind, f"node '{node.name}'").connector
    assert connector is not None
    sealer = Sealer(control.key, plan.epoch)
    messages: list[tuple[int, bytes]] = []
    for number, splits in enumerate(connector.splits(node, stage.tasks)):
        for split in splits:
            for data in _split_payloads(split, class_module, f"flow '{flow.name}', node '{node.name}'"):
                messages.append((number, sealer.seal(stage.topic, number, data)))
        mark = Mark("end", plan.epoch, 1, stage.id, number, stage.tasks)
        messages.append((number, sealer.seal(stage.topic, number, mark.encode())))

    async def send() -> None:
        from aiokafka import AIOKafkaProducer

        producer = AIOKafkaProducer(**control.config.client(), enable_idempotence=True, max_batch_size=512 * 1024)
        await producer.start()
        try:
            futures = [await producer.send(stage.topic, data, partition=number) for number, data in messages]
            for future in futures:
                await future
        finally:
            await producer.stop()

    try:
        control.io.call(send(), 120)
    except FlowError:
        raise
    except Exception as error:
        raise FlowError(
            "JF639", f"flow '{flow.name}', node '{node.name}': writing its splits: {error_line(error)}"
        ) from error


def _split_payloads(split: dict[str, Any], class_module: str, where: str) -> list[bytes]:
    """The payloads of a split; one of many items is divided until each fits in a message."""
    data = SPLIT + dump_items(split, class_module, where)[0]
    if len(data) <= _MESSAGE:
        return [data]
    items = split.get("items", ())
    if len(items) < 2:
        raise FlowError("JF639", f"{where}: a split takes {len(data):,} bytes, over {_MESSAGE:,} - make it smaller")
    half = len(items) // 2
    parts = ({**split, "items": items[:half]}, {**split, "items": items[half:]})
    return [payload for part in parts for payload in _split_payloads(part, class_module, where)]


def _send_code(control: Control, code: Package) -> None:
    known = control.tables["code"]
    for digest, data in code.blobs().items():
        if f"{digest}/0" in known:
            continue
        chunks = [data[i : i + _CHUNK] for i in range(0, len(data), _CHUNK)] or [b""]
        for i, chunk in reversed(list(enumerate(chunks))):
            body = {"data": base64.b64encode(chunk).decode(), "chunks": len(chunks)}
            control.publish("code", f"{digest}/{i}", body)


def remove(control: Control, name: str) -> None:
    """Delete a deployment with its topics, positions and state. What it is cut off at, it goes on with when repeated."""
    manifest = control.tables["deployments"].get(name)
    if manifest is None:
        raise FlowError("JF640", f"no deployment '{name}'{names(control)}")
    if manifest["state"] != "terminated":
        change(control, name, state="terminated")
    # A name may hold dots: leave the topics of 'a.b' when 'a' goes.
    mine = re.compile(re.escape(f"{control.prefix}.{name}.") + r"(dead|\d+(\..*)?)$")
    known = list(control.tables["deployments"])
    others = tuple(f"{control.prefix}.{other}." for other in known if other.startswith(f"{name}."))

    def own(topic: str) -> bool:
        return mine.match(topic) is not None and not topic.startswith(others)

    deadline = time.monotonic() + 30
    for group in control.admin.groups():
        if not own(group):
            continue
        while True:
            try:
                control.admin.delete_group(group)
                break
            except FlowError:
                if time.monotonic() > deadline:
                    raise
                control.wait(lambda: False, 0.25)
    control.admin.delete_topics([topic for topic in control.admin.topics() if own(topic)])
    for key in [key for key in list(control.tables["telemetry"]) if key.startswith(f"{name}/")]:
        control.publish("telemetry", key, None, timeout=None)
    control.publish("deployments", name, None)
    control.wait(lambda: name not in control.tables["deployments"], 10)


def _body(manifest: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in manifest.items() if k not in ("what", "key")}


def change(control: Control, name: str, **fields: Any) -> dict[str, Any]:
    """Publish a newer revision of a manifest with some fields changed."""
    manifest = control.tables["deployments"][name]
    revision = _next(manifest)
    if "stop" in fields:
        fields["stop"] = revision  # tells this stop from others
    control.publish("deployments", name, {**_body(manifest), **fields, "revision": revision})
    control.wait(lambda: control.tables["deployments"].get(name, {}).get("revision", 0) >= revision, 10)
    return control.tables["deployments"][name]


__all__ = ["TASKS", "change", "class_modules", "deploy", "remove"]


def names(control: Control) -> str:
    """` - there is 'a', 'b'`, for messages."""
    known = sorted(control.tables["deployments"])
    return " - there is " + ", ".join(f"'{name}'" for name in known) if known else " - nothing is deployed"
