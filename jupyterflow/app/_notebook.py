"""The flows of a notebook, without a kernel: its declaring magics are followed, and the cells that they need."""

from __future__ import annotations

import ast
import builtins
import json
import linecache
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyterflow.magics._cell import outside_names
from jupyterflow.magics._declare import declare
from jupyterflow.magics._line import cell_kinds, command_words, magic_row, parse_line
from jupyterflow.magics._scope import own_scope
from jupyterflow.magics._session import Session
from jupyterflow.model import FlowError

if TYPE_CHECKING:
    from jupyterflow._flow import Flow

_MAGICS = ("flow", "jupyterflow")


@dataclass(slots=True)
class _Cell:
    """A code cell as Python: its statements, and the names that it binds, perhaps changes by a call, and reads.

    `above` counts the lines above its first magic.
    """

    number: int
    filename: str
    body: list[ast.stmt]
    above: int = 0
    binds: set[str] = field(default_factory=set)
    changes: set[str] = field(default_factory=set)
    reads: set[str] = field(default_factory=set)
    declares: set[str] = field(default_factory=set)


def flows_of(path: Path, execute: Callable[[Callable[[], None], str, str], None]) -> dict[str, Flow]:
    """The flows that the notebook at *path* declares, by name.

    Followed are `%%flow` cells, `%flow new`, `use`, `source`, `sink` and so on; nothing is run or deployed. A cell
    of plain Python is executed only if what is declared needs a name that it binds, directly or through other cells, so
    that `run.wait()` and plots are left alone. `execute(call, filename, where)` calls and words errors.
    """
    cells = [cell for number, text in enumerate(_code_cells(path), 1) if (cell := _parse(path.name, number, text))]
    needed = {"sys"}.union(*(cell.declares for cell in cells))
    taken: set[int] = set()
    # `print(...)` makes no `print`: a builtin is there anyhow, unless a cell really has one of its own.
    given = set(dir(builtins)) - set().union(*(cell.binds for cell in cells))
    while more := [
        c for c in cells if c.number not in taken and ((c.binds | c.changes) & needed - given or "*" in c.binds)
    ]:
        taken.update(cell.number for cell in more)
        needed.update(*(cell.reads for cell in more))
    shell = _Shell(Session({"__name__": "__main__", "__file__": str(path.resolve())}))
    for cell in cells:
        shell.above = cell.above
        for statement in cell.body:
            if cell.number in taken or _flow_call(statement):
                code = compile(ast.Module([statement], []), cell.filename, "exec", dont_inherit=True)
                execute(
                    lambda code=code: exec(code, shell.session.namespace),  # type: ignore[misc]
                    cell.filename,
                    f"{path.name}, cell {cell.number}",
                )
    return {name: flow for name, flow in shell.session.flows.items() if flow.nodes}


class _Shell:
    """Stands for IPython where cells are executed: declares nodes, and does nothing else."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.above = 0
        session.namespace["get_ipython"] = lambda: self

    def run_line_magic(self, name: str, line: str, *_: Any) -> None:
        line = self._expanded(line)
        words = command_words(line) if name in _MAGICS else []
        match words:
            case ["new", flow]:
                self.session.new(flow)
            case ["use", flow]:
                self.session.use(flow)
            case [kind, *_] if kind in cell_kinds():
                declare(self.session.flow, parse_line(line), None, self.session.namespace)

    def run_cell_magic(self, name: str, line: str, body: str) -> None:
        if name in _MAGICS:
            line = self._expanded(line)
            header = "\n" * self.above + f"%%{name} {line}"
            declare(self.session.flow, parse_line(line), body, self.session.namespace, header=header)

    def _expanded(self, line: str) -> str:
        """The line with the values of `{NAME}` and `$NAME`, as IPython hands it to a magic."""
        from IPython.utils.text import DollarFormatter

        try:
            return str(DollarFormatter().vformat(line, [], self.session.namespace))
        except Exception:
            return line  # as IPython does

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def _code_cells(path: Path) -> Iterator[str]:
    try:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                yield cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
    except (ValueError, KeyError, TypeError):
        raise FlowError("JF722", f"'{path.name}' is no notebook of format 4") from None


def _parse(file: str, number: int, text: str) -> _Cell | None:
    from IPython.core.inputtransformer2 import TransformerManager

    filename = f"<{file} cell {number}>"
    lines = text.splitlines(keepends=True)
    above = magic_row(lines) or 0
    try:
        python = TransformerManager().transform_cell("".join(lines[above:]))
        cell = _Cell(number, filename, ast.parse(python, filename).body, above)
    except SyntaxError:
        return None  # such a cell does nothing in the notebook either
    linecache.cache[filename] = (len(python), None, python.splitlines(keepends=True), filename)
    plain = []
    for statement in cell.body:
        if call := _flow_call(statement):
            cell.declares |= _reads_of(call)
        else:
            plain.append(statement)
            binds, changes = _binds(statement)
            cell.binds |= binds
            cell.changes |= changes
    with suppress(SyntaxError):  # executing it says so
        cell.reads = outside_names(plain)
    # What it reads and binds anew (`x = x + 1`) comes from outside too.
    cell.reads |= {n.id for n in own_scope(plain) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return cell


def _flow_call(statement: ast.stmt) -> list[str] | None:
    """The texts behind `get_ipython().run_line_magic('flow', LINE)` or `run_cell_magic('flow', LINE, BODY)`."""
    match statement:
        case ast.Expr(ast.Call(ast.Attribute(ast.Call(ast.Name("get_ipython")), method), given)):
            texts = [a.value for a in given if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            if method in ("run_line_magic", "run_cell_magic") and texts[:1] and texts[0] in _MAGICS:
                return texts[1:]
    return None


def _reads_of(texts: list[str]) -> set[str]:
    """Names that the line (`--initial start`, `--rate {RATE}`) or the body of a magic may read."""
    names = _in_braces(texts[0])
    with suppress(FlowError):
        names |= set(parse_line(texts[0]).options.get("initial", []))
    with suppress(SyntaxError):  # declaring it says so
        names |= outside_names(ast.parse(texts[1]).body) if len(texts) > 1 else set()
    return names


def _in_braces(line: str) -> set[str]:
    """Names in a line's `{RATE}` or `{2 * RATE}` or `$RATE`."""
    from IPython.utils.text import DollarFormatter

    names: set[str] = set()
    with suppress(ValueError, SyntaxError):  # a lone brace: IPython leaves such a line as it is
        for _, expression, _, _ in DollarFormatter().parse(line):
            if expression:
                tree = ast.parse(expression.strip(), mode="eval")
                names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names


def _binds(statement: ast.stmt) -> tuple[set[str], set[str]]:
    """Names that a statement binds (`x = 1`), and those that it may change: `x[0] = 1`, `x.append(1)`, `x()`."""
    names: set[str] = set()
    changed: set[str] = set()
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue
        if isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            changed |= _root(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            changed |= _root(node.value.func)
        waiting.extend(ast.iter_child_nodes(node))
    return names, changed


def _root(node: ast.expr) -> set[str]:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()
