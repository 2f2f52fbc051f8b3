"""A worker: runs what the deployments say, tells what it does, in the background of a Jupyter kernel."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

from jupyterflow import __version__
from jupyterflow.cluster import _classes, keys
from jupyterflow.cluster._runner import FlowRunner
from jupyterflow.cluster.control import Control
from jupyterflow.cluster.manifest import Loaded, load_flow
from jupyterflow.cluster.payload import versions
from jupyterflow.model import FlowError
from jupyterflow.nodes.base import error_line
from jupyterflow.transport.kafka import KafkaConfig

_log = logging.getLogger("jupyterflow.worker")
_TICK = 0.5  # seconds between two reports
_PRESENCE = 2.0  # seconds between two signs of life


class Worker:
    """Keeps one FlowRunner for each deployment that should run."""

    def __init__(self, name: str, control: Control, labels: tuple[str, ...] = ()) -> None:
        self.name, self.labels, self.control = name, labels, control
        self._runners: dict[str, FlowRunner] = {}
        self._refused: dict[str, tuple[int, str]] = {}
        self._wake = threading.Event()
        self._closing = False
        self._seen = self._told = 0.0
        self._tasks: list[str] = []
        self._started = time.time()
        self._versions = versions()
        control.on_change = self._on_change
        self._thread = threading.Thread(target=self._loop, name="jupyterflow-worker", daemon=True)

    def start(self) -> Worker:
        """Begin."""
        self._thread.start()
        return self

    def _on_change(self, what: str, key: str) -> None:
        # Counters come all the time; only that a task has ended may change what is to be done.
        counting = what == "telemetry" and self.control.tables[what].get(key, {}).get("status") == "running"
        if what in ("deployments", "telemetry", "code") and not counting:
            self._wake.set()

    def _loop(self) -> None:
        while not self._closing:
            self._wake.clear()
            try:
                self._reconcile()
                self._tell()
            except Exception as error:
                _log.exception("worker %s: %s", self.name, error)
            self._wake.wait(_TICK)
        for runner in self._runners.values():
            runner.close()
        self._runners.clear()
        with contextlib.suppress(FlowError):  # Kafka may have gone before
            self.control.publish("workers", self.name, None, timeout=5)

    def _reconcile(self) -> None:
        wanted = dict(self.control.tables["deployments"])
        for look, names in ((self._keep, list(self._runners)), (self._begin, list(wanted))):
            for name in names:
                try:
                    look(name, wanted.get(name))
                except Exception as error:  # one deployment never keeps the others from what they need
                    _log.exception("flow '%s': %s", name, error)

    def _keep(self, name: str, manifest: dict[str, Any] | None) -> None:
        """What a runner has to do for its manifest as it is now."""
        runner = self._runners[name]
        if manifest is None or self._over(runner, manifest):
            del self._runners[name]
            runner.close()
        elif runner.error is not None:
            self._fail(manifest, runner.error)
        elif manifest["revision"] != runner.manifest["revision"]:
            loaded = self._newer(runner, manifest)
            if loaded is not None:
                runner.apply(loaded)

    def _begin(self, name: str, manifest: dict[str, Any] | None) -> None:
        """Start a runner for a manifest that has none and wants one."""
        if manifest is None or name in self._runners or manifest["state"] not in ("running", "stopped"):
            return
        if self._settled(manifest):
            return
        loaded = self._load(manifest)
        if loaded is None:
            return
        runner = FlowRunner(loaded, self.control, self.name, self._wake.set)
        try:
            runner.start()
        except FlowError as error:
            _log.error("flow '%s': %s", name, error)
            if error.code in ("JF523", "JF535"):
                self._refused[name] = (manifest["revision"], str(error))
                self._fail(manifest, error)
            return  # Kafka is away: again at the next look
        self._runners[name] = runner
        _settle_collector()

    def _over(self, runner: FlowRunner, manifest: dict[str, Any]) -> bool:
        """Whether a runner has nothing more to do, or has to make room for one of another epoch or shape."""
        current = runner.manifest
        other = any(manifest[field] != current[field] for field in ("epoch", "shape", "guarantee", "session_timeout"))
        # What has drained for a stop starts again from what it committed.
        other = other or (current["state"], manifest["state"]) == ("stopped", "running")
        # An error is that of its revision: a newer one is tried afresh.
        other = other or (runner.error is not None and manifest["revision"] != current["revision"])
        return other or manifest["state"] in ("terminated", "failed") or self._settled(manifest)

    def _settled(self, manifest: dict[str, Any]) -> bool:
        """Whether all tasks of a deployment have ended, or have drained for its stop."""
        return settled(manifest, self.control.tables["telemetry"]) is not None

    def _newer(self, runner: FlowRunner, manifest: dict[str, Any]) -> Loaded | None:
        """A newer manifest for a runner; with the code that runs, if it has no other or its own does not load."""
        current = runner.manifest
        if manifest["version"] != current["version"]:
            loaded = self._load(manifest)
            if loaded is not None:
                return loaded
            if manifest["state"] == "running" or self._refused.get(manifest["key"], (0, ""))[0] != manifest["revision"]:
                return None
            manifest = {**manifest, "version": current["version"], "package": current["package"]}
        return Loaded(manifest, runner.flow, runner.plan)

    def _load(self, manifest: dict[str, Any]) -> Loaded | None:
        name, revision = manifest["key"], manifest["revision"]
        if self._refused.get(name, (0, ""))[0] == revision:
            return None
        table = self.control.tables["code"]
        try:
            blobs = collect_code([*manifest["package"]["blobs"], *manifest.get("classes", {}).values()], table)
        except KeyError:
            return None  # still on its way
        try:
            for folder in manifest.get("folders", ()):
                if manifest["host"] == socket.gethostname() and folder not in sys.path:
                    sys.path.append(folder)
            for module, digest in manifest.get("classes", {}).items():
                _classes.install(module, blobs[digest].decode())
            return load_flow(manifest, blobs)
        except Exception as error:
            line = str(error) if isinstance(error, FlowError) else error_line(error)
            _log.error("flow '%s' does not load: %s", name, line)
            self._refused[name] = (revision, line)
            if name not in self._runners:
                self._fail(manifest, error if isinstance(error, FlowError) else FlowError("JF635", line))
            return None

    def _fail(self, manifest: dict[str, Any], error: FlowError) -> None:
        if self.control.tables["deployments"].get(manifest["key"], {}).get("revision") != manifest["revision"]:
            return  # changed or removed meanwhile
        body = {k: v for k, v in manifest.items() if k not in ("what", "key")}
        # Of the same revision: what a person deploys meanwhile is newer.
        body.update(state="failed", error={"code": error.code, "message": error.message})
        self.control.publish("deployments", manifest["key"], body)

    def _tell(self) -> None:
        now = time.monotonic()
        due = now - self._told >= _TICK
        for runner in list(self._runners.values()):
            for key, body in runner.report(ends=not due):
                self.control.publish("telemetry", key, body, timeout=None)
            if due:
                runner.throttle(self.control.tables["telemetry"])
        if due:
            self._told = now
        tasks = [f"{name}:{task}" for name, runner in self._runners.items() for task in runner.tasks]
        if now - self._seen < _PRESENCE and tasks == self._tasks:
            return
        self._seen, self._tasks = now, tasks
        import psutil

        process = psutil.Process()
        body = {
            "name": self.name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "labels": list(self.labels),
            "version": __version__,
            "python": self._versions[0],
            "dill": self._versions[1],
            "tasks": tasks,
            "cpu": process.cpu_percent(),
            "memory": process.memory_info().rss,
            "refused": {name: line for name, (_, line) in self._refused.items()},
            "started": self._started,
            "time": time.time(),
        }
        self.control.publish("workers", self.name, body, timeout=None)

    def stop(self, timeout: float = 15.0) -> None:
        """End all runners and say goodbye; the kernel's end calls it."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout)
        self.control.close()


def settled(manifest: dict[str, Any], telemetry: dict[str, dict[str, Any]]) -> str | None:
    """`finished` if all tasks have ended, `stopped` if all have ended or drained for the manifest's stop."""
    name, epoch, stop = manifest["flow"]["name"], manifest["epoch"], manifest["stop"]
    stopped = manifest["state"] == "stopped"
    ended = drained = 0
    for stage, tasks in manifest["stages"].items():
        for index in range(tasks):
            body = telemetry.get(f"{name}/{epoch}/{stage}/{index}")
            if body is None:
                return None
            if body["status"] == "ended":
                ended += 1
            elif body["status"] == "drained" and stopped and body["stop"] >= stop:
                drained += 1
            else:
                return None
    return "stopped" if drained else "finished"


def collect_code(digests: Iterable[str], table: dict[str, dict[str, Any]]) -> dict[str, bytes]:
    """Blobs from the code topic, by address. KeyError while one is missing."""
    import base64

    out = {}
    for digest in digests:
        first = table[f"{digest}/0"]
        parts = [first["data"]] + [table[f"{digest}/{i}"]["data"] for i in range(1, first["chunks"])]
        data = b"".join(map(base64.b64decode, parts))
        if hashlib.sha256(data).hexdigest() != digest:
            raise FlowError("JF617", f"payload {digest[:12]} is damaged - deploy the flow again")
        out[digest] = data
    return out


def _settle_collector() -> None:
    """Take all that is loaded out of the collector's sight: looking through it costs 1 µs a record, and gives nothing.

    What was frozen for flows that are gone is collected first.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def start(slot: dict[str, Any]) -> Worker:
    """Start a worker in this process, as its slot's configuration says (name, bootstrap, options, prefix, labels)."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    sys.setswitchinterval(0.0005)
    gc.set_threshold(50_000, 20, 20)  # a batch makes thousands of objects, and few cycles
    config = KafkaConfig(slot["bootstrap"], (slot.get("settings") or {}).get("kafka") or {})
    deadline = time.monotonic() + 120
    while True:
        control = Control(config, keys.load(), slot.get("prefix") or "jf", code=True)
        try:
            control.start()
            break
        except FlowError as error:
            _log.warning("worker %s waits for Kafka: %s", slot["name"], error)
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
    return Worker(slot["name"], control, tuple(slot.get("labels") or ())).start()
