"""`%flow` and `%%flow`: a thin skin over the Python API."""

from __future__ import annotations

import threading
import warnings
from importlib import import_module
from typing import Any

from IPython.core.magic import Magics, line_cell_magic, magics_class
from traitlets import Bool

from jupyterflow.magics._commands import COMMANDS, overview, run_command
from jupyterflow.magics._declare import declare
from jupyterflow.magics._line import cell_kinds, command_words, kind_help, magic_row, parse_line, split
from jupyterflow.magics._session import Session
from jupyterflow.magics._show import close_views, refresh, show_flow, show_node
from jupyterflow.model import FlowError

_NAMES = ("flow", "jupyterflow")


@magics_class
class FlowMagics(Magics):  # type: ignore[misc]
    """The magics. `session` holds the notebook's flows, cluster and runs."""

    readout = Bool(True, help="Show a node's live readout under its cell.").tag(config=True)

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self.session = Session(shell.user_ns)
        if _foreign(shell):
            warnings.warn("%flow belongs to another extension here: use %jupyterflow and %%jupyterflow", stacklevel=2)
            for table in self.magics.values():
                table.pop("flow", None)

    @line_cell_magic  # type: ignore[untyped-decorator]
    def flow(self, line: str, cell: str | None = None) -> Any:
        """Declare nodes, see, run and deploy flows: %flow --help."""
        if cell is not None:
            return self._declare(line, cell)
        words = command_words(line)
        if not words:
            flow = self.session.flow
            return show_flow(flow, self.session.runs.get(flow.name))
        if words[0] not in COMMANDS and words[0] in cell_kinds():
            return self._declare(line, None)
        return run_command(self.session, words)

    @line_cell_magic("jupyterflow")  # type: ignore[untyped-decorator]
    def jupyterflow_(self, line: str, cell: str | None = None) -> Any:
        """The same as %flow, whatever other extensions are loaded."""
        return self.flow(line, cell)

    def _declare(self, line: str, cell: str | None) -> None:
        words = split(line)
        if {"-h", "--help"} & set(words):
            print(kind_help(words[0]) if words[0] in cell_kinds() else overview())
            return
        if cell is not None and words and words[0] in COMMANDS:
            raise FlowError("JF714", f"%%flow {words[0]}: a command stands on a line of its own - %flow {line.strip()}")
        parsed = parse_line(line)
        declare(
            self.session.flow,
            parsed,
            cell,
            self.shell.user_ns,
            header=_above(self.shell, line),
        )
        if self.readout:
            show_node(self.session.flow, parsed.name)
        else:
            refresh(self.session.flow)


def _above(shell: Any, line: str) -> str:
    """What stands above a cell's body, as blank lines: they count in a traceback."""
    raw = getattr(shell.history_manager, "input_hist_raw", [""])[-1]
    return "\n" * (magic_row(raw.splitlines()) or 0) + f"%%flow {line}"


def _as_magic(lines: list[str]) -> list[str]:
    """A cell with `%%flow` as IPython takes it: on the first line, and with a body below.

    Comments above it go; `%%flow count n --from a` with nothing below is `%flow count n --from a`.
    """
    row = magic_row(lines)
    if row is None:
        return lines
    magic, *body = lines[row:]
    return [magic, *body] if "".join(body).strip() else [magic[1:]]


def _foreign(shell: Any) -> bool:
    tables = shell.magics_manager.magics
    taken = [tables[kind]["flow"] for kind in ("line", "cell") if "flow" in tables[kind]]
    return any(not isinstance(getattr(call, "__self__", None), FlowMagics) for call in taken)


def load(shell: Any) -> FlowMagics:
    """Register the magics."""
    import jupyterflow.views
    from jupyterflow._flow import Flow

    # What the first cell needs is loaded here, what its widget needs while the person writes it.
    _ = Flow, cell_kinds(), jupyterflow.views.hub
    if getattr(shell, "kernel", None) is not None:
        threading.Thread(target=import_module, args=("jupyterflow.views._widgets",), daemon=True).start()
    magics = FlowMagics(shell)
    shell.register_magics(magics)
    shell.input_transformers_cleanup.insert(0, _as_magic)
    return magics


def unload(shell: Any) -> None:
    """End what runs in this process, and unregister the magics."""
    manager = shell.magics_manager
    magics = manager.registry.pop("FlowMagics", None)
    if magics is None:
        return
    for table in manager.magics.values():
        for name in _NAMES:
            if getattr(table.get(name), "__self__", None) is magics:
                del table[name]
    shell.input_transformers_cleanup[:] = [t for t in shell.input_transformers_cleanup if t is not _as_magic]
    magics.session.close()
    close_views()
