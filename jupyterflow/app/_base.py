"""What every `jupyter flow` command has: its arguments checked, its errors one line, its exit code."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Any, ClassVar, NoReturn

from jupyter_core.application import JupyterApp, base_aliases, base_flags
from traitlets import Bool, Float, Unicode
from traitlets.config.loader import KVArgParseConfigLoader

from jupyterflow import __version__
from jupyterflow.model import FlowError

USAGE = "JF721"


class _Loader(KVArgParseConfigLoader):  # type: ignore[misc]
    def _handle_unrecognized_alias(self, arg: str) -> None:
        raise FlowError(USAGE, f"there is no option '{arg}' - --help lists them")

    def _add_arguments(self, *args: Any) -> None:
        super()._add_arguments(*args)
        self.parser.error = self._refuse

    def _refuse(self, message: str) -> NoReturn:
        """What argparse finds wrong, as one line: it takes any `--foo` for an option whose value is missing."""
        option = re.match(r"argument --?([^\s:/]+).*: expected", message)
        if option is None:
            raise FlowError(USAGE, f"{message} - --help shows how")
        name = option[1].rpartition(".")[2].replace("_", "-")
        if option[1] in self.argparse_traits:
            raise FlowError(USAGE, f"--{name} needs a value - --help shows which")
        raise FlowError(USAGE, f"there is no option '{name}' - --help lists them")


class Command(JupyterApp):  # type: ignore[misc]
    """A command. `takes` names its arguments, an optional one with a `?` behind; `go` gets them."""

    version = __version__
    config_file_name = Unicode("jupyter_flow_config").tag(config=True)
    takes: ClassVar[tuple[str, ...]] = ()
    code = 0

    json = Bool(False, help="Print JSON for machines.").tag(config=True)

    flags: ClassVar[Any] = {**base_flags, "json": ({"Command": {"json": True}}, "Print JSON for machines.")}
    aliases: ClassVar[Any] = {**base_aliases}

    def _create_loader(self, argv: Any, aliases: Any, flags: Any, classes: Any) -> _Loader:
        return _Loader(argv, aliases, flags, classes=classes, log=self.log, subcommands=self.subcommands)

    def _find_subcommand(self, name: str) -> str:
        return ""  # an argument is never the name of a program

    def exit(self, exit_status: int | str = 0) -> None:
        """Leave; traitlets comes here with 1 when an option does not fit, which is a usage error."""
        super().exit(2 if exit_status == 1 else exit_status)

    def start(self) -> None:
        """Check the arguments and do what the command is for."""
        super().start()
        given = self.extra_args
        least = sum(not name.endswith("?") for name in self.takes)
        if not least <= len(given) <= len(self.takes):
            raise FlowError(USAGE, f"usage: {self.usage()}")
        self.code = self.go(*given) or 0

    def usage(self) -> str:
        """The command with its arguments."""
        words = (f"[{name[:-1]}]" if name.endswith("?") else name for name in self.takes)
        return " ".join([self.name.replace("-", " ", 2), *words])

    def go(self, *arguments: str) -> int | None:
        """Do it; the exit code, None is 0."""
        raise NotImplementedError

    def say(self, text: str, data: Any = None) -> None:
        """Print the text, or with `--json` the data."""
        print(dumps(data if data is not None else {"message": text}) if self.json else text)


class ClusterCommand(Command):
    """A command that talks to Kafka: this user's own, or the one of `--bootstrap`."""

    bootstrap = Unicode("", help="Kafka's address, HOST:PORT (default: the one that `up` started).").tag(config=True)
    aliases: ClassVar[Any] = {**base_aliases, "bootstrap": "ClusterCommand.bootstrap"}

    def cluster(self) -> Any:
        """The cluster."""
        import jupyterflow as jf

        return jf.connect(self.bootstrap) if self.bootstrap else jf.connect()


class WaitCommand(ClusterCommand):
    """A command that may wait for a flow."""

    timeout = Float(0.0, help="Seconds to wait at most; 0: no limit. Exit code 124 when they are over.").tag(
        config=True
    )
    aliases: ClassVar[Any] = {**ClusterCommand.aliases, "timeout": "WaitCommand.timeout"}

    @property
    def limit(self) -> float | None:
        """The timeout for `run.wait`."""
        return self.timeout if self.timeout > 0 else None


def dumps(data: Any) -> str:
    """JSON in one line; what JSON does not know is shown as text."""
    return json.dumps(data, default=str, ensure_ascii=False)


def show_rows(command: Command, rows: Iterable[dict[str, Any]], empty: str) -> None:
    """Print rows as a table, or as JSON."""
    from jupyterflow.magics._rows import table

    rows = list(rows)
    print(dumps(rows) if command.json else table(rows, 100) or empty)


def note(text: str) -> None:
    """A line for people, kept apart from results."""
    print(text, file=sys.stderr)
