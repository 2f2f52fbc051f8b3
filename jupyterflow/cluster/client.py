"""A cluster from a notebook: a Kafka, its workers and what is deployed on them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Self

from jupyterflow.cluster import deploy as deploying
from jupyterflow.cluster import keys, slots
from jupyterflow.cluster.control import Control, workers_of
from jupyterflow.cluster.live import LiveRun
from jupyterflow.cluster.worker import settled
from jupyterflow.model import Flow, FlowError, FlowTimeout
from jupyterflow.transport.kafka import KafkaConfig

Progress = Callable[[str], None]

_NO_KAFKA = (
    "no local Kafka is up - start one: %flow up, `jupyter flow up` or jf.up(); or give an address: "
    "%flow connect HOST:PORT, --bootstrap HOST:PORT or jf.connect('HOST:PORT')"
)


def up(
    workers: int = 2,
    *,
    progress: Progress | None = None,
    prefix: str = "jf",
    labels: tuple[str, ...] = (),
    timeout: float = 60,
) -> Cluster:
    """A local Kafka and *workers* worker slots, started where they are not there yet; returns the cluster.

    They go on when the notebook ends, until `down()`. Raises FlowError, FlowTimeout after *timeout* seconds.
    """
    from jupyterflow import broker

    say = progress or (lambda text: None)
    keys.load(create=True)
    say("starting Kafka")
    local = broker.start(progress)
    cluster = Cluster(KafkaConfig(local.bootstrap), prefix=prefix)
    try:
        there = len(slots.list(broker.home()))
        if workers > there:
            say(f"starting {workers - there} worker{'s' * (workers - there > 1)}")
            cluster.scale(workers, labels=labels, timeout=timeout)
        say(f"Kafka at {local.bootstrap} keeps {local.disk_use() / 1e6:,.0f} MB on disk")
        goes_on = [row["name"] for row in cluster.deployments if row["state"] not in ("finished", "stopped", "failed")]
        if goes_on:
            say(f"goes on: {', '.join(goes_on)}")
    except BaseException:
        cluster.close()
        raise
    return cluster


def connect(bootstrap: str | None = None, *, prefix: str = "jf", **settings: Any) -> Cluster:
    """A Kafka that is there (SASL and TLS settings by their usual names), by default this user's `up`.

    Raises FlowError where none answers.
    """
    from jupyterflow import broker

    if bootstrap is None:
        local = broker.find()
        if local is None:
            raise FlowError("JF630", _NO_KAFKA)
        bootstrap = local.bootstrap
    return Cluster(KafkaConfig(bootstrap, settings), prefix=prefix)


class Cluster:
    """A Kafka, its workers and its deployments. Closing it (or losing it) ends nothing of that."""

    def __init__(self, config: KafkaConfig, *, prefix: str = "jf") -> None:
        self.bootstrap = config.bootstrap
        self._config, self._prefix = config, prefix
        self._control = Control(config, keys.load(), prefix, code=True)
        self._lives: weakref.WeakSet[LiveRun] = weakref.WeakSet()
        self._control.on_output = self._printed
        self._control.start()
        if self._control.refused and not any(self._control.tables.values()):
            self._control.close()
            raise FlowError(
                "JF606",
                f"what Kafka at {self.bootstrap} holds under the prefix '{prefix}' is signed with another key - copy the "
                "key file from the machine where that cluster was started, or take another prefix",
            )

    def _printed(self, body: dict[str, Any]) -> None:
        for live in list(self._lives):
            if live.name == body["flow"]:
                live.printed(body)

    @property
    def workers(self) -> list[dict[str, Any]]:
        """One dict a worker: name, host, pid (the kernel's), labels, tasks, version, cpu, memory, last sign of life."""
        return workers_of(self._control)

    @property
    def disk_use(self) -> int | None:
        """Bytes that the local Kafka holds on disk; None where it is another's."""
        from jupyterflow import broker

        local = broker.find()
        return local.disk_use() if local is not None and local.bootstrap == self.bootstrap else None

    @property
    def deployments(self) -> list[dict[str, Any]]:
        """One dict a deployment: name, state, version, epoch, author, time."""
        out = []
        for name, manifest in sorted(self._control.tables["deployments"].items()):
            state = settled(manifest, self._control.tables["telemetry"]) or manifest["state"]
            state = "stopped" if state == "terminated" else state
            row = {key: manifest[key] for key in ("version", "epoch", "author", "time", "guarantee")}
            out.append({"name": name, "state": state, **row})
        return out

    def deploy(self, flow: Flow, **options: Any) -> LiveRun:
        """Deploy a flow to the workers: `guarantee`, `commit_interval` (s), `tasks`; returns at once with the live run.

        A deployment of that name that runs with the same shape is changed between two transactions; one of another
        shape is drained first.
        """
        deploying.deploy(self._control, flow, **options)
        return self._live(flow.name, flow)

    def attach(self, name: str) -> LiveRun:
        """A deployment that runs, from any kernel. Raises FlowError where there is none of that name."""
        return self._live(name, None)

    def _live(self, name: str, flow: Flow | None) -> LiveRun:
        live = LiveRun(self._control, name, flow)
        self._lives.add(live)
        return live

    def remove(self, name: str) -> None:
        """End a deployment and delete its topics, positions and state."""
        deploying.remove(self._control, name)

    def scale(self, n: int, *, labels: tuple[str, ...] = (), timeout: float = 60.0) -> Self:
        """Have *n* worker slots on this machine; returns when they are ready."""
        from jupyterflow import broker

        if n < 0:
            raise FlowError("JF631", f"cannot scale to {n} workers - give 0 or more")
        home = broker.home()
        there = [slot for slot in slots.list(home) if slot.bootstrap == self.bootstrap]
        if n < len(there):
            slots.stop([slot.name for slot in there[n:]], home=home)
        elif n > len(there):
            new = slots.start(
                n - len(there),
                home=home,
                bootstrap=self.bootstrap,
                prefix=self._prefix,
                labels=labels,
                settings={"kafka": dict(self._config.options)},
            )
            names = [slot.name for slot in new]
            slots.wait_ready(home, names, timeout)
            seen = self._control.wait(lambda: set(names) <= set(self._control.tables["workers"]), timeout)
            if not seen:
                raise FlowTimeout("JF632", f"the workers {', '.join(names)} did not report within {timeout:g} s")
        return self

    def down(self, *, purge: bool = False) -> None:
        """End this machine's workers and local Kafka; its data stay, `purge` erases them."""
        from jupyterflow import broker

        self.close()
        down(purge=purge)
        if purge and (local := broker.find()) is not None:
            raise FlowError("JF633", f"Kafka at {local.bootstrap} still runs - end it, then purge")

    def close(self) -> None:
        """Close this connection; workers, deployments and Kafka go on."""
        self._control.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Cluster {self.bootstrap}: {len(self.workers)} workers, {len(self.deployments)} deployments>"


def down(*, purge: bool = False) -> None:
    """End this machine's workers and local Kafka; its data stay, `purge` erases them."""
    from jupyterflow import broker

    slots.stop(home=broker.home())
    local = broker.find()
    if local is not None:
        local.stop()
    if purge:
        broker.purge()
