"""The commands of `%flow`: each parses its line and makes one call into the Python API."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from jupyterflow.magics._ending import take_down, undone_if_interrupted
from jupyterflow.magics._rows import DeadLetters, Rows, Steps, workers
from jupyterflow.magics._session import Session
from jupyterflow.magics._show import freeze, refresh, show_flow
from jupyterflow.model import FlowError, did_you_mean

Do = Callable[[Session, argparse.Namespace], Any]
Argument = tuple[tuple[str, ...], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Command:
    """A word behind `%flow`: what it does in a few words, its arguments, and the call."""

    name: str
    help: str
    arguments: tuple[Argument, ...]
    do: Do

    def parser(self) -> _Parser:
        """The parser of its line."""
        parser = _Parser(prog=f"%flow {self.name}", description=self.help, add_help=False)
        for names, options in self.arguments:
            parser.add_argument(*names, **options)
        parser.add_argument("-h", "--help", action="store_true", help="show this help")
        return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: --"):
            message += did_you_mean(message.rpartition(": ")[2].split()[0], self._option_string_actions)
        raise FlowError("JF713", f"{self.prog}: {message} - {self.prog} -h shows how")


COMMANDS: dict[str, Command] = {}


def run_command(session: Session, words: list[str]) -> Any:
    """Carry out `%flow WORDS`; the result is what the notebook shows. Raises FlowError."""
    if words[0] in ("-h", "--help", "help"):
        print(overview())
        return None
    command = COMMANDS.get(words[0])
    if command is None:
        hint = did_you_mean(words[0], COMMANDS) or " - %flow --help lists the commands"
        raise FlowError("JF714", f"%flow {words[0]}: there is no such command{hint}")
    parser = command.parser()
    if {"-h", "--help"} & set(words[1:]):
        print(parser.format_help().rstrip())
        return None
    given = parser.parse_args(words[1:])
    try:
        return command.do(session, given)
    except KeyboardInterrupt:
        raise FlowError("JF719", f"%flow {command.name}: interrupted - %flow status shows what is there") from None


def overview() -> str:
    """What `%flow --help` says."""
    wide = max(map(len, COMMANDS))
    lines = [
        "%%flow KIND NAME [--from A B ...] [options]   declares a node, its code below; %%flow KIND -h: its options",
        "%flow source NAME URL                         a source that needs no code",
        "%flow sink NAME URL --from A B ...            a sink that needs no code",
        "%flow                                         shows the live graph",
        "%flow COMMAND                                 each has -h:",
        "",
    ]
    return "\n".join([*lines, *(f"  {c.name.ljust(wide)}  {c.help}" for c in COMMANDS.values())])


def _arg(*names: str, **options: Any) -> Argument:
    return names, options


def _command(name: str, help: str, *arguments: Argument) -> Callable[[Do], Do]:
    def register(do: Do) -> Do:
        COMMANDS[name] = Command(name, help, arguments, do)
        return do

    return register


_FLOW = _arg("name", nargs="?", help="a flow (default: the one in use)")


@_command("new", "a new flow: the cells that follow add to it; goes back to one that is there", _arg("name"))
def _new(session: Session, given: argparse.Namespace) -> Any:
    nodes = len(session.flows[given.name].nodes) if given.name in session.flows else 0
    if nodes:  # the notebook is run again
        print(f"flow '{given.name}' is there already, with {nodes} node{'s' * (nodes > 1)}: cells add to it again")
    return session.new(given.name)


@_command("use", "add to another flow from now on", _arg("name"))
def _use(session: Session, given: argparse.Namespace) -> Any:
    return session.use(given.name)


@_command("ls", "the flows of this notebook, and what is deployed on the cluster")
def _ls(session: Session, given: argparse.Namespace) -> Any:
    rows = [
        {
            "flow": name,
            "nodes": len(flow.nodes),
            "state": session.runs[name].state if name in session.runs else "draft",
            "in use": "*" if name == session.current else "",
        }
        for name, flow in session.flows.items()
    ]
    if session.cluster is not None:
        here = {row["flow"] for row in rows}
        rows += [
            {"flow": d["name"], "nodes": d.get("nodes"), "state": d.get("state"), "in use": ""}
            for d in session.cluster.deployments
            if d["name"] not in here
        ]
    return Rows(rows, "no flows yet")


@_command(
    "rm",
    "remove a node from the flow, or a whole flow with its topics and state",
    _arg("names", nargs="+", metavar="NAME", help="a node of the flow in use, or a flow"),
    _arg("--flow", action="store_true", help="the names are flows, whatever nodes are called"),
)
def _rm(session: Session, given: argparse.Namespace) -> Any:
    for name in given.names:
        if not given.flow and name in session.flow.nodes:
            session.flow.remove(name)
            refresh(session.flow)
        else:
            session.remove(name)


@_command(
    "up",
    "start a local Kafka and worker slots, or find those that are up",
    _arg("--workers", type=int, default=None, metavar="N", help="worker slots (default: 2)"),
)
def _up(session: Session, given: argparse.Namespace) -> Any:
    import jupyterflow as jf

    with Steps(sys.stdout, live=True, keep=True) as steps, undone_if_interrupted():
        session.cluster = jf.up(**({} if given.workers is None else {"workers": given.workers}), progress=steps)
    return session.cluster


@_command(
    "connect",
    "use a Kafka that is up: this user's own, or any by its address",
    _arg("bootstrap", nargs="?", metavar="HOST:PORT"),
)
def _connect(session: Session, given: argparse.Namespace) -> Any:
    import jupyterflow as jf

    session.cluster = jf.connect(given.bootstrap) if given.bootstrap else jf.connect()
    return session.cluster


@_command("attach", "take up a deployed flow: graph, code and live numbers", _arg("name"))
def _attach(session: Session, given: argparse.Namespace) -> Any:
    run = session.attach(given.name)
    for name, node in run.flow.nodes.items():
        if node.code:
            print(f"# {name}: {node.role} {node.kind}\n{node.code.rstrip()}\n")
    show_flow(run.flow, run)


@_command(
    "down",
    "end workers and the local Kafka; their data stay",
    _arg("--purge", action="store_true", help="erase their data"),
)
def _down(session: Session, given: argparse.Namespace) -> Any:
    said = take_down(purge=given.purge, cluster=session.cluster)
    session.forget_cluster()
    print(said)


@_command("workers", "the worker slots: host, pid, labels, tasks, version")
def _workers(session: Session, given: argparse.Namespace) -> Any:
    return Rows(workers(session.needs_cluster().workers), "no workers - %flow scale 2 starts two")


@_command("scale", "this many worker slots on this machine", _arg("workers", type=int, metavar="N"))
def _scale(session: Session, given: argparse.Namespace) -> Any:
    cluster = session.needs_cluster()
    with undone_if_interrupted():
        cluster.scale(given.workers)


@_command("run", "run the flow in this process", _FLOW)
def _run(session: Session, given: argparse.Namespace) -> Any:
    flow = session.use(given.name) if given.name else session.flow
    session.end_local(flow.name)
    return session.started(flow.name, flow.run(), local=True)


@_command(
    "deploy",
    "run the flow on the cluster's workers",
    _FLOW,
    _arg("--guarantee", choices=("exactly-once", "at-least-once"), default=None),
    _arg("--commit-interval", type=float, default=None, metavar="SECONDS"),
)
def _deploy(session: Session, given: argparse.Namespace) -> Any:
    flow = session.use(given.name) if given.name else session.flow
    cluster = session.needs_cluster()
    options = {k: v for k in ("guarantee", "commit_interval") if (v := getattr(given, k)) is not None}
    session.end_local(flow.name)
    return session.started(flow.name, flow.deploy(cluster, **options), local=False)


@_command("stop", "sources stop, what is in flight reaches the sinks; positions and state stay", _FLOW)
def _stop(session: Session, given: argparse.Namespace) -> Any:
    session.run(given.name).stop()
    freeze(given.name or session.current)


@_command("terminate", "end at once; deploying again goes on from the last commit", _FLOW)
def _terminate(session: Session, given: argparse.Namespace) -> Any:
    session.run(given.name).terminate()
    freeze(given.name or session.current)


@_command("status", "state and version of the flow, its workers and the cluster", _FLOW)
def _status(session: Session, given: argparse.Namespace) -> Any:
    return Rows([session.status(given.name or session.current)])


@_command("metrics", "records, bytes, errors, rates, lag and latency of each node", _FLOW)
def _metrics(session: Session, given: argparse.Namespace) -> Any:
    return Rows(session.run(given.name).metrics(), "no numbers yet")


@_command("tree", "the flow as indented text", _FLOW)
def _tree(session: Session, given: argparse.Namespace) -> Any:
    print(session.named(given.name).tree())


@_command("explain", "how the flow is cut into stages, tasks and topics", _FLOW)
def _explain(session: Session, given: argparse.Namespace) -> Any:
    print(session.named(given.name).explain())


@_command("tap", "the latest sample of what a node gives", _arg("node"))
def _tap(session: Session, given: argparse.Namespace) -> Any:
    node = session.known_node(given.node)
    return session.run().sample(node)


@_command("dead-letters", "what could not be processed, and why", _arg("node", nargs="?"))
def _dead_letters(session: Session, given: argparse.Namespace) -> Any:
    node = session.known_node(given.node) if given.node else None
    return DeadLetters(session.run().dead_letters(node), "no dead letters")


@_command("export", "the flow as JSON, positions included", _arg("file", nargs="?", help="default: print it"))
def _export(session: Session, given: argparse.Namespace) -> Any:
    import json
    from pathlib import Path

    text = json.dumps(session.flow.to_dict(), indent=2, default=repr)
    if given.file is None:
        print(text)
    else:
        Path(given.file).write_text(text + "\n", encoding="utf-8")


@_command("import", "take up a flow from JSON", _arg("file"))
def _import(session: Session, given: argparse.Namespace) -> Any:
    return session.load(given.file)
