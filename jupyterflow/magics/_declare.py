"""A `%%flow` cell declares a node: one place for the magics and for notebooks run from the shell."""

from __future__ import annotations

import ast
import textwrap
from typing import Any

from jupyterflow.magics._cell import compile_cell
from jupyterflow.magics._line import Line, typed
from jupyterflow.model import Flow, FlowError, Node


def declare(
    flow: Flow, line: Line, body: str | None, namespace: dict[str, Any], *, header: str = "", number: int | None = None
) -> Node:
    """Add the node of a cell to *flow*, or replace the one of that name: position and connections stay.

    `body` is None for a `%flow source NAME URL` line. The flow is unchanged if this raises (FlowError).
    """
    from jupyterflow.nodes import catalogue

    where = f"flow '{flow.name}', node '{line.name}'"
    has_body = body is not None and bool(body.strip())
    if line.url is not None:
        if has_body:
            raise FlowError("JF713", f"{where}: it has a URL and a body - give one of them")
        node = catalogue.parse_url(line.url, line.role, where)
        node.name = line.name
    else:
        node = Node(line.name, line.role, "function" if line.role != "operator" else line.kind)
    kind = catalogue.find(node.role, node.kind, where)
    for name, words in line.options.items():
        option = kind.options.get(name)
        node.options[name] = typed(name, words, option.type if option else str, namespace)
    catalogue.check_options(kind, node.options, where)
    if line.url is None and kind.positional != 0:
        if body is None:
            raise FlowError("JF713", f"{where}: no URL - write %flow {line.kind} {line.name} URL, or a %%flow cell")
        cell = compile_cell(line.kind, line.name, body, namespace, header=header, number=number)
        node.fn, node.code = cell.fn, cell.code
    elif has_body:
        raise FlowError("JF713", f"{where}: {line.kind} has no function - leave the cell below the first line empty")
    return flow.add(node, line.upstreams or (), replace=True)


def restore_functions(flow: Flow, namespace: dict[str, Any]) -> None:
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
