"""`jupyter flow` itself: finds the command, and turns errors into one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

from jupyter_core.application import NoStart

from jupyterflow.app._base import USAGE, Command, note
from jupyterflow.app._clusters import CLUSTER_COMMANDS
from jupyterflow.app._flows import FLOW_COMMANDS
from jupyterflow.model import FlowError, FlowTimeout, did_you_mean


def _make(cls: type[Command], parent: Command) -> Command:
    return cls(parent=parent)


class FlowApp(Command):
    """`jupyter flow COMMAND`."""

    name = "jupyter-flow"
    description = "Build, see and run streaming systems: flows declared in Python or in a notebook, on Kafka."
    examples = """
    jupyter flow demo                   # words of the standard library, on Kafka and two workers
    jupyter flow run flow.py            # in this process
    jupyter flow up --workers 2         # a local Kafka and two workers
    jupyter flow deploy notebook.ipynb  # its %%flow cells, on those workers
    jupyter flow attach prices          # a live table
    """
    subcommands: ClassVar[Any] = {
        word: (partial(_make, cls), cls.description.partition("\n")[0])
        for word, cls in (FLOW_COMMANDS | CLUSTER_COMMANDS).items()
    }
    classes: ClassVar[Any] = [*FLOW_COMMANDS.values(), *CLUSTER_COMMANDS.values()]

    def start(self) -> None:
        """Start the command; without one, say what there is."""
        if self.subapp is None and not self.generate_config:
            if self.extra_args:
                word = self.extra_args[0]
                hint = did_you_mean(word, self.subcommands) or " - jupyter flow --help lists them"
                raise FlowError(USAGE, f"there is no command '{word}'{hint}")
            self.print_help()
            self.code = 2
            return
        super().start()


def run(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit code."""
    app = FlowApp()
    try:
        app.initialize(None if argv is None else list(argv))
        app.start()
    except NoStart:
        return app.subapp.code if app.subapp is not None else 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        note("interrupted")
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone: Python would complain once more at exit
        return 1
    except FlowTimeout as error:
        note(str(error))
        return 124
    except FlowError as error:
        note(str(error))
        return 2 if error.code == USAGE else 1
    return app.code
