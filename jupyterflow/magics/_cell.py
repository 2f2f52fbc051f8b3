"""The body of a `%%flow` cell becomes a function, through its syntax tree.

Statements are moved into a function definition as they were parsed; text is never indented, so strings
over many lines stay what they are. Nothing here needs IPython: `jupyter flow run notebook.ipynb` compiles
cells with the same code.
"""

from __future__ import annotations

import ast
import hashlib
import linecache
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from jupyterflow.magics._scope import first_event, global_loads, own_scope
from jupyterflow.model import FlowError

_COMMON = ("key", "timestamp", "headers", "state", "context")
_SOURCE = ("position", "instance", "instances", "context")
_FOLDS = ("reduce", "aggregate")


@dataclass(frozen=True, slots=True)
class Cell:
    """A compiled cell: its function (or class), the source text, and whether it defined a name of its own."""

    fn: Callable[..., Any]
    code: str
    filename: str
    defined: bool


def compile_cell(kind: str, name: str, body: str, namespace: dict[str, Any], *, header: str = "") -> Cell:
    """The function of a cell.

    `body` is the text below the `%%flow` line and `header` what stands above it, that line itself last: line
    numbers count from its first line, as the notebook does. `namespace` holds what the body reads, at the time
    when it runs.

    If the last statement defines `name` (a function, a class or a lambda), the whole body runs in `namespace`
    as in any cell and that definition is the node. Else the body is the function. Its parameters are those that
    it reads of `value key timestamp headers state context` (`value` always comes first), for a source of
    `position instance instances context`; `reduce` and `aggregate` see `acc` and `value` first. What it assigns
    is local to a call; its last expression is its result.

    Raises FlowError JF711 for a syntax error and JF712 for an empty body.
    """
    where = f"%%flow {kind} {name}"
    header = header or where
    # By its text and not by a number: equal cells give equal code, on workers too.
    filename = f"<{where} {hashlib.sha256((header + chr(10) + body).encode()).hexdigest()[:8]}>"
    above = header.count("\n") + 1
    text = "\n" * above + body
    try:
        tree = ast.parse(text, filename)
    except (SyntaxError, ValueError) as error:
        raise _syntax_error(error, where, text) from None
    if not tree.body:
        raise FlowError("JF712", f"{where}: the cell has no body - say below this line what it does")
    try:
        fn, defined = _build(tree, above + 1, kind, name, filename, namespace)
    except SyntaxError as error:
        raise _syntax_error(error, where, text) from None
    # The line of the magic as a comment: the whole is then Python, for all that reads source text.
    blank, magic = "\n" * (above - 1), header.lstrip("\n")
    lines = f"{blank}# {magic}\n{body.rstrip()}\n".splitlines(keepends=True)
    linecache.cache[filename] = (sum(map(len, lines)), None, lines, filename)
    if isinstance(fn, CodeType):  # a definition: the cell runs as any other
        exec(fn, namespace)
        return Cell(namespace[name], body, filename, True)
    return Cell(fn, body, filename, defined)


def outside_names(body: list[ast.stmt]) -> set[str]:
    """Names that statements look up outside, if they are a function's body. Raises SyntaxError."""
    # `import *` alone is refused in a function.
    inside = [s for s in body if not (isinstance(s, ast.ImportFrom) and s.names[0].name == "*")]
    awaits = any(_awaits(node) for node in own_scope(inside))
    return global_loads(_function_code(inside, "body", (), awaits, "<cell>")) if inside else set()


def _build(
    tree: ast.Module, line: int, kind: str, name: str, filename: str, namespace: dict[str, Any]
) -> tuple[FunctionType | CodeType, bool]:
    if _defines(tree.body[-1], name):
        return compile(tree, filename, "exec", dont_inherit=True), True
    own = list(own_scope(tree.body))
    yields = any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own)
    last = tree.body[-1]
    if isinstance(last, ast.Expr) and not yields:
        tree.body[-1] = ast.copy_location(ast.Return(last.value), last)
    awaits = any(_awaits(node) for node in own)
    identifier = re.sub(r"\W", "_", name)
    names = _parameters(tree.body, own, kind, identifier, awaits, filename)
    code = _function_code(tree.body, identifier, names, awaits, filename, line)
    return FunctionType(code, namespace, identifier), False


def _defines(statement: ast.stmt, name: str) -> bool:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return statement.name == name
    if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Lambda):
        return any(isinstance(target, ast.Name) and target.id == name for target in statement.targets)
    return False


def _awaits(node: ast.AST) -> bool:
    if isinstance(node, ast.comprehension):
        return bool(node.is_async)
    return isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith)


def _function_code(
    body: list[ast.stmt], name: str, names: tuple[str, ...], awaits: bool, filename: str, line: int = 1
) -> CodeType:
    args = ast.arguments(
        posonlyargs=[],
        args=[ast.arg(arg=parameter) for parameter in names],
        kwonlyargs=[],
        kw_defaults=[],
        defaults=[],
    )
    make = ast.AsyncFunctionDef if awaits else ast.FunctionDef
    definition = make(name=name, args=args, body=body, decorator_list=[], lineno=line, col_offset=0)
    definition.end_lineno, definition.end_col_offset = body[-1].end_lineno, body[-1].end_col_offset
    if "type_params" in definition._fields:  # Python 3.12
        setattr(definition, "type_params", [])  # noqa: B010
    module = ast.fix_missing_locations(ast.Module(body=[definition], type_ignores=[]))
    code = compile(module, filename, "exec", dont_inherit=True)
    return next(c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == name)


def _parameters(
    body: list[ast.stmt], own: list[ast.AST], kind: str, name: str, awaits: bool, filename: str
) -> tuple[str, ...]:
    first: tuple[str, ...]
    possible: tuple[str, ...]
    if kind == "source":
        first, possible = (), _SOURCE
    elif kind in _FOLDS:
        first, possible = ("acc", "value"), _COMMON
    else:
        first, possible = ("value",), _COMMON
    code = _function_code(body, name, first, awaits, filename)
    free = global_loads(code)
    stated = {n for node in own if isinstance(node, ast.Global) for n in node.names}
    local = {*code.co_varnames, *code.co_cellvars}

    def needed(parameter: str) -> bool:
        if parameter in stated:
            return False
        return parameter in free or (parameter in local and first_event(body, parameter) == "read")

    return (*first, *filter(needed, possible))


def _syntax_error(error: Exception, where: str, text: str) -> FlowError:
    if not isinstance(error, SyntaxError):
        return FlowError("JF711", f"{where}: {error}")
    message = f"{where}, line {error.lineno or 1}: {error.msg}"
    lines = text.splitlines()
    row = (error.lineno or 1) - 1
    if 0 <= row < len(lines) and lines[row].strip():
        line, column = lines[row], (error.offset or 1) - 1
        message += f" - in '{line.strip()}'"
        if 0 < column < len(line) and line[:column].strip():
            message += f" at '{line[column:].strip()}'"
    return FlowError("JF711", message)
