"""Which names a cell's body expects from outside, and which it sets for itself."""

from __future__ import annotations

import ast
import dis
from collections.abc import Iterable, Iterator
from types import CodeType
from typing import Literal

Event = Literal["read", "set"] | None

_LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_NESTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def own_scope(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All syntax nodes but those inside nested functions, classes and lambdas."""
    for node in body:
        yield node
        if not isinstance(node, _NESTED):
            yield from own_scope(ast.iter_child_nodes(node))


def global_loads(code: CodeType) -> set[str]:
    """Names that a function and what is nested in it look up outside, as its compiler sees it."""
    found = {str(i.argval) for i in dis.get_instructions(code) if i.opname in _LOADS}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= global_loads(constant)
    return found


def first_event(nodes: Iterable[ast.AST | None], name: str) -> Event:
    """What happens first to a local *name*: it is read, or it is set for certain; None if neither.

    Follows the order of evaluation. A branch that may not run does not set a name for certain.
    """
    for node in nodes:
        event = _event(node, name) if node is not None else None
        if event:
            return event
    return None


def _event(node: ast.AST, name: str) -> Event:
    match node:
        case ast.Name(id=found, ctx=context):
            return None if found != name else "set" if isinstance(context, ast.Store) else "read"
        case ast.AugAssign(target=ast.Name(id=found)) if found == name:
            return "read"
        case ast.Assign(targets=targets, value=value):
            return first_event([value, *targets], name)
        case ast.AnnAssign(target=target, value=value):
            return first_event([value, target], name) if value is not None else None
        case ast.NamedExpr(target=target, value=value):
            return first_event([value, target], name)
        case ast.FunctionDef(name=found) | ast.AsyncFunctionDef(name=found):
            outside = [*node.decorator_list, *node.args.defaults, *node.args.kw_defaults]
            return first_event(outside, name) or ("set" if found == name else None)
        case ast.ClassDef(name=found):
            return first_event([*node.decorator_list, *node.bases], name) or ("set" if found == name else None)
        case ast.Lambda(args=args):
            return first_event([*args.defaults, *args.kw_defaults], name)
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            return _comprehension(node, name)
        case ast.alias(name=found, asname=renamed):
            return "set" if (renamed or found.partition(".")[0]) == name else None
        case ast.MatchAs(name=found) | ast.MatchStar(name=found) if found == name:
            return "set"
        case ast.If(test=test, body=body, orelse=orelse):
            return first_event([test], name) or _branches([body, orelse], name)
        case ast.For(iter=iterable, target=target) | ast.AsyncFor(iter=iterable, target=target):
            return first_event([iterable, target], name) or _branches([node.body, node.orelse, []], name)
        case ast.While(test=test, body=body, orelse=orelse):
            return first_event([test], name) or _branches([body, orelse, []], name)
        case ast.Try() | ast.TryStar():
            tried = first_event(node.body, name)
            handled = [("set" if h.name == name else None) or first_event(h.body, name) for h in node.handlers]
            return tried or ("read" if "read" in handled else first_event([*node.orelse, *node.finalbody], name))
        case ast.Match(subject=subject, cases=cases):
            return first_event([subject], name) or _branches([*([case] for case in cases), []], name)
    return first_event(ast.iter_child_nodes(node), name)


def _branches(branches: Iterable[Iterable[ast.AST]], name: str) -> Event:
    events = [first_event(branch, name) for branch in branches]
    if "read" in events:
        return "read"
    return "set" if all(event == "set" for event in events) else None


def _comprehension(node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp, name: str) -> Event:
    first, *_ = node.generators
    event = first_event([first.iter], name)
    hidden = any(
        isinstance(inner, ast.Name) and inner.id == name
        for generator in node.generators
        for inner in ast.walk(generator.target)
    )
    if event or hidden:
        return event
    results = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
    return first_event([*node.generators, *results], name)
