"""Commands for a cluster and what is deployed on it."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

from traitlets import Bool, Float, Int, List, Unicode

from jupyterflow.app._base import USAGE, ClusterCommand, Command, WaitCommand, dumps, show_rows
from jupyterflow.magics._ending import take_down, undone_if_interrupted
from jupyterflow.model import FlowError, FlowTimeout, did_you_mean


class UpApp(Command):
    """`up`."""

    name = "jupyter-flow-up"
    description = "Start a local Kafka and worker slots, or find those that are up; they go on until `down`."
    workers = Int(2, min=0, help="Worker slots.").tag(config=True)
    aliases: ClassVar[Any] = {**Command.aliases, "workers": "UpApp.workers"}

    def go(self, *arguments: str) -> None:
        import jupyterflow as jf
        from jupyterflow import broker
        from jupyterflow.magics._rows import Steps

        with Steps(sys.stderr, live=sys.stderr.isatty()) as steps, undone_if_interrupted():
            cluster = jf.up(self.workers, progress=steps)
        with cluster:
            local = broker.find()
            disk = local.disk_use() if local else 0
            data = {"bootstrap": cluster.bootstrap, "workers": cluster.workers, "disk_bytes": disk}
            text = f"Kafka at {cluster.bootstrap} ({disk / 1e6:.0f} MB on disk), {len(cluster.workers)} workers"
            self.say(text, data if self.json else None)


class DownApp(Command):
    """`down`."""

    name = "jupyter-flow-down"
    description = "End this machine's workers and local Kafka; its data stay."
    purge = Bool(False, help="Erase Kafka's data.").tag(config=True)
    flags: ClassVar[Any] = {**Command.flags, "purge": ({"DownApp": {"purge": True}}, "Erase Kafka's data.")}

    def go(self, *arguments: str) -> None:
        self.say(take_down(purge=self.purge))


class WorkerApp(ClusterCommand):
    """`worker`."""

    name = "jupyter-flow-worker"
    description = "Be one worker slot of a Kafka, here, until Ctrl-C."
    labels = List(Unicode(), help="What this worker has, such as gpu.").tag(config=True)
    prefix = Unicode("jf", help="The prefix of the control topics.").tag(config=True)
    aliases: ClassVar[Any] = {**ClusterCommand.aliases, "labels": "WorkerApp.labels", "prefix": "WorkerApp.prefix"}

    def go(self, *arguments: str) -> int:
        from jupyterflow import broker
        from jupyterflow.cluster import keys, slot, slots

        keys.load()
        bootstrap = self.bootstrap
        if not bootstrap:
            local = broker.find()
            if local is None:
                raise FlowError(USAGE, "no local Kafka is up - give --bootstrap HOST:PORT, or `jupyter flow up` first")
            bootstrap = local.bootstrap
        home = broker.home()
        name = slots.configure(home=home, bootstrap=bootstrap, prefix=self.prefix, labels=self.labels)
        return slot.main(["--name", name, "--home", str(home)]) or 0


class WorkersApp(ClusterCommand):
    """`workers`."""

    name = "jupyter-flow-workers"
    description = "List the workers: host, pid, labels, tasks, load, last sign of life."

    def go(self, *arguments: str) -> None:
        from jupyterflow.magics._rows import workers

        with self.cluster() as cluster:
            rows = cluster.workers
            show_rows(self, rows if self.json else workers(rows), "no workers - jupyter flow scale 2 starts two")


class ScaleApp(ClusterCommand):
    """`scale N`."""

    name = "jupyter-flow-scale"
    description = "Have N worker slots on this machine."
    takes: ClassVar[tuple[str, ...]] = ("N",)

    def go(self, *arguments: str) -> None:
        if not arguments[0].isdigit():
            raise FlowError(USAGE, f"usage: {self.usage()} - N is a number, not '{arguments[0]}'")
        with self.cluster() as cluster:
            with undone_if_interrupted():
                cluster.scale(int(arguments[0]))
            self.say(f"{len(cluster.workers)} workers", cluster.workers if self.json else None)


class ListApp(ClusterCommand):
    """`ls`."""

    name = "jupyter-flow-ls"
    description = "List what is deployed."

    def go(self, *arguments: str) -> None:
        from datetime import datetime

        with self.cluster() as cluster:
            rows = cluster.deployments
            if not self.json:
                rows = [{**r, "time": datetime.fromtimestamp(r["time"]).isoformat(" ", "seconds")} for r in rows]
            show_rows(self, rows, "nothing is deployed")


class NamedCommand(WaitCommand):
    """A command on a deployed flow."""

    takes: ClassVar[tuple[str, ...]] = ("NAME",)

    def go(self, *arguments: str) -> None:
        with self.cluster() as cluster:
            self.do(cluster.attach(arguments[0]), *arguments[1:])

    def do(self, run: Any, *arguments: str) -> None:
        """Do it to the run."""
        raise NotImplementedError


class AttachApp(NamedCommand):
    """`attach NAME`."""

    name = "jupyter-flow-attach"
    description = "Show a deployed flow's live table until it has ended or Ctrl-C; with --json a line a tick."

    def do(self, run: Any, *arguments: str) -> None:
        from jupyterflow.app._watch import stream, watch

        if self.json:
            stream(run)
        else:
            watch(run, limit=self.limit)


class StatusApp(NamedCommand):
    """`status NAME`."""

    name = "jupyter-flow-status"
    description = "Print a deployed flow's state and the numbers of its nodes."

    def do(self, run: Any, *arguments: str) -> None:
        from jupyterflow.app._watch import snapshot
        from jupyterflow.magics._rows import table

        data = snapshot(run)
        text = f"{run.name} version {run.version}: {run.state}\n\n{table(data['metrics'])}"
        if run.error is not None:
            text = f"{text}\n\n{run.error}"
        self.say(text, data if self.json else None)


class StopApp(NamedCommand):
    """`stop NAME`."""

    name = "jupyter-flow-stop"
    description = "Stop a flow: sources stop, what is in flight reaches the sinks; deploying again goes on."
    timeout = Float(60.0, help="Seconds to wait at most. Exit code 124 when they are over.").tag(config=True)

    def do(self, run: Any, *arguments: str) -> None:
        run.stop(self.timeout)
        self.say(f"flow '{run.name}' {run.state}", {"flow": run.name, "state": run.state})


class TerminateApp(NamedCommand):
    """`terminate NAME`."""

    name = "jupyter-flow-terminate"
    description = "End a flow at once; deploying again goes on from the last commit."

    def do(self, run: Any, *arguments: str) -> None:
        run.terminate()
        self.say(f"flow '{run.name}' {run.state}", {"flow": run.name, "state": run.state})


class RemoveApp(ClusterCommand):
    """`rm NAME`."""

    name = "jupyter-flow-rm"
    description = "End a flow and delete its topics and state."
    takes: ClassVar[tuple[str, ...]] = ("NAME",)

    def go(self, *arguments: str) -> None:
        with self.cluster() as cluster:
            cluster.remove(arguments[0])
        self.say(f"flow '{arguments[0]}' is removed", {"flow": arguments[0], "state": "removed"})


class TapApp(NamedCommand):
    """`tap NAME NODE`."""

    name = "jupyter-flow-tap"
    description = "Print samples of what a node gives, as they change."
    takes: ClassVar[tuple[str, ...]] = ("NAME", "NODE")
    count = Int(10, min=1, help="How many samples.").tag(config=True)
    aliases: ClassVar[Any] = {**NamedCommand.aliases, "count": "TapApp.count"}

    def do(self, run: Any, *arguments: str) -> None:
        node = arguments[0]
        if node not in run.flow.nodes:
            raise FlowError("JF104", f"flow '{run.name}': unknown node '{node}'{did_you_mean(node, run.flow.nodes)}")
        last, shown, waited = None, 0, 0.0
        while shown < self.count:
            sample = run.sample(node)
            if sample is not None and sample != last:
                print(dumps(sample) if self.json else sample, flush=True)
                last, shown = sample, shown + 1
                continue
            if run.state in ("finished", "stopped", "failed"):
                return
            if self.limit is not None and waited >= self.limit:
                raise FlowTimeout("JF725", f"{shown} of {self.count} samples of '{node}' in {self.limit:g} s")
            try:
                run.wait(0.5)
            except FlowTimeout:
                waited += 0.5


class KeyApp(Command):
    """`key`."""

    name = "jupyter-flow-key"
    description = "Make the cluster's key if there is none, and print where it is: copy that file by hand."

    def go(self, *arguments: str) -> None:
        from jupyterflow import broker
        from jupyterflow.cluster import keys

        keys.load(create=True)
        self.say(str(broker.key_file()), {"key_file": str(broker.key_file())})


CLUSTER_COMMANDS: dict[str, type[Command]] = {
    "up": UpApp,
    "down": DownApp,
    "worker": WorkerApp,
    "ls": ListApp,
    "attach": AttachApp,
    "status": StatusApp,
    "stop": StopApp,
    "terminate": TerminateApp,
    "rm": RemoveApp,
    "tap": TapApp,
    "workers": WorkersApp,
    "scale": ScaleApp,
    "key": KeyApp,
}
