"""A `%%flow` cell declares a node: one place for the magics and for notebooks run from the shell."""

from __future__ import annotations

import ast
import textwrap
from typing import TYPE_CHECKING, Any

from jupyterflow.magics._cell import compile_cell
from jupyterflow.magics._line import Line, typed
from jupyterflow.model import Flow as ModelFlow
from jupyterflow.model import FlowError

if TYPE_CHECKING:
    from jupyterflow._flow import Flow


def declare(flow: Flow, line: Line, body: str | None, namespace: dict[str, Any], *, header: str = "") -> None:
    """Add the node of a cell to *flow*, or replace the one of that name: position and connections stay.

    `body` is None for a `%flow source NAME URL` line; `header` is that of `compile_cell`. The
    flow is unchanged if this raises (FlowError, or whatever the cell's own top-level statements raise).
    """
    from jupyterflow.nodes.catalogue import check_options, find

    where = f"flow '{flow.name}', node '{line.name}'"
    has_body = body is not None and bool(body.strip())
    if line.url is not None and has_body:
        raise FlowError("JF713", f"{where}: it has a URL and a body - give one of them")
    scheme = line.url.partition(":")[0] if line.url is not None else "function"
    kind = find(line.role, line.kind if line.role == "operator" else scheme, where)
    options = {}
    for name, words in line.options.items():
        if name not in kind.options:
            check_options(kind, {name: None}, where)
        options[name] = typed(name, words, kind.options[name].type, namespace)
    if line.kind == "aggregate" and "initial" not in options:
        raise FlowError("JF713", f"{where}: aggregate needs a start - give --initial 0, or --initial dict")
    code: str | None = None
    target: Any = line.url
    if line.url is None and kind.positional != 0:
        if body is None:
            fix = (
                "code below it"
                if line.role == "operator"
                else f"code below it, or a URL: %flow {line.kind} {line.name} URL"
            )
            raise FlowError("JF712", f"{where}: {line.kind} needs {fix}")
        cell = compile_cell(line.kind, line.name, body, namespace, header=header)
        code, target = cell.code, cell.fn
    elif line.url is None and has_body:
        raise FlowError("JF713", f"{where}: {line.kind} has no function - leave the cell below the first line empty")
    upstreams = line.upstreams or ()
    if line.role == "source":
        if upstreams:
            raise FlowError("JF105", f"{where}: a source has no upstream - drop --from, or use an operator")
        flow.source(line.name, target, replace=True, **options)
    elif line.role == "sink":
        flow.sink(line.name, target, upstreams, replace=True, **options)
    else:
        flow.operator(line.kind, line.name, upstreams, target, replace=True, **options)
    if code is not None:
        flow.nodes[line.name].code = code


def restore_functions(flow: ModelFlow, namespace: dict[str, Any]) -> None:
    """Give the nodes of `Flow.from_dict` their functions back, from their source text.

    A text that is a single definition (what a function handed to the Python API leaves) is that function;
    any other is a cell's body. Text that does not stand for itself (a lambda's line) leaves None behind:
    running the flow then names the node.
    """
    for node in flow.nodes.values():
        if node.fn is not None or not node.code:
            continue
        try:
            body = ast.parse(textwrap.dedent(node.code)).body
            if len(body) == 1 and isinstance(body[0], ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                node.fn = compile_cell("map", body[0].name, textwrap.dedent(node.code), namespace).fn
            else:
                kind = node.kind if node.role == "operator" else node.role
                node.fn = compile_cell(kind, node.name, node.code, namespace).fn
        except (SyntaxError, FlowError):
            continue
