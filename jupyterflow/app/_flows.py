"""Commands for a flow in a file: demo, run, deploy, tree, explain."""

from __future__ import annotations

import contextlib
import sys
from typing import Any, ClassVar

from jupyter_core.application import base_aliases, base_flags
from traitlets import Bool, Enum, Float, Int, Unicode

from jupyterflow.app._base import Command, WaitCommand, dumps, note


class FileCommand(WaitCommand):
    """A command on the flow of a file."""

    takes: ClassVar[tuple[str, ...]] = ("FILE",)
    flow = Unicode("", help="Which flow, where FILE defines several.").tag(config=True)
    aliases: ClassVar[Any] = {**WaitCommand.aliases, "flow": "FileCommand.flow"}

    def load(self, file: str) -> Any:
        """The flow of FILE."""
        from jupyterflow.app._load import load_flow

        return load_flow(file, self.flow)


class RunApp(FileCommand):
    """`run FILE`."""

    name = "jupyter-flow-run"
    description = "Run a flow in this process, until it has finished.\n\nWhat its sinks print goes to stdout."

    def go(self, *arguments: str) -> None:
        from jupyterflow.app._watch import snapshot, watch

        with contextlib.redirect_stdout(sys.stderr) if self.json else contextlib.nullcontext():
            run = self.load(arguments[0]).run()
            try:
                if self.json or not sys.stderr.isatty():
                    run.wait(self.limit)
                else:
                    watch(run, limit=self.limit, out=sys.stderr)
            finally:
                run.terminate()
        if self.json:
            print(dumps(snapshot(run)))
        else:
            note(f"flow '{run.name}' {run.state}")


class DeployApp(FileCommand):
    """`deploy FILE`."""

    name = "jupyter-flow-deploy"
    description = "Deploy a flow to the workers of a cluster; it goes on when this command has ended."
    wait = Bool(False, help="Wait until it has finished.").tag(config=True)
    guarantee = Enum(("exactly-once", "at-least-once"), "exactly-once", help="What a crash may do.").tag(config=True)
    commit_interval = Float(0.1, help="Seconds between commits.").tag(config=True)
    flags: ClassVar[Any] = {
        **FileCommand.flags,
        "wait": ({"DeployApp": {"wait": True}}, "Wait until it has finished."),
    }
    aliases: ClassVar[Any] = {
        **FileCommand.aliases,
        "guarantee": "DeployApp.guarantee",
        "commit-interval": "DeployApp.commit_interval",
    }

    def go(self, *arguments: str) -> None:
        from jupyterflow.app._watch import snapshot, watch

        flow = self.load(arguments[0])
        with self.cluster() as cluster:
            run = flow.deploy(cluster, guarantee=self.guarantee, commit_interval=self.commit_interval)
            if self.wait and sys.stderr.isatty() and not self.json:
                watch(run, limit=self.limit, out=sys.stderr)
            elif self.wait:
                run.wait(self.limit)
            text = f"flow '{run.name}' version {run.version}: {run.state} on {cluster.bootstrap}"
            self.say(text, snapshot(run) if self.json else None)


class TreeApp(FileCommand):
    """`tree FILE`."""

    name = "jupyter-flow-tree"
    description = "Print a flow as a tree; (c N) is the concurrency."

    def go(self, *arguments: str) -> None:
        flow = self.load(arguments[0])
        self.say(flow.tree(), flow.to_dict())


class ExplainApp(FileCommand):
    """`explain FILE`."""

    name = "jupyter-flow-explain"
    description = "Print how a flow is cut into stages, tasks and topics."

    def go(self, *arguments: str) -> None:
        text = self.load(arguments[0]).explain()
        self.say(text, {"explain": text})


class DemoApp(Command):
    """`demo`."""

    name = "jupyter-flow-demo"
    description = "Count the words of Python's standard library on a local Kafka and two workers; nothing is left."
    workers = Int(2, min=1, help="Worker slots.").tag(config=True)
    timeout = Float(300.0, help="Seconds for the flow.").tag(config=True)
    flags: ClassVar[Any] = {**base_flags}
    aliases: ClassVar[Any] = {**base_aliases, "workers": "DemoApp.workers", "timeout": "DemoApp.timeout"}

    def go(self, *arguments: str) -> int:
        from jupyterflow.app._demo import demo

        return demo(self.workers, self.timeout)


FLOW_COMMANDS: dict[str, type[Command]] = {
    "demo": DemoApp,
    "run": RunApp,
    "deploy": DeployApp,
    "tree": TreeApp,
    "explain": ExplainApp,
}
