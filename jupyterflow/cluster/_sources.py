"""Where the source text of what a notebook defines is found."""

from __future__ import annotations
import __future__

import ast
import inspect
import linecache
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any


def of_function(function: Any) -> str:
    """The source text of a function, or an empty text."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is not None and code.co_filename.startswith("<%%flow "):
        # The statements of a cell without a definition: no syntax says where such a function ends.
        lines = linecache.getlines(code.co_filename)[code.co_firstlineno - 1 :]
        if lines and not lines[0].lstrip().startswith(("def ", "async def ", "@", "class ")) and "lambda" not in lines[0]:
            return "".join(lines)
    try:
        return inspect.getsource(inspect.unwrap(function))
    except (OSError, TypeError, ValueError, IndentationError, SyntaxError):
        return ""


def statement(name: str, namespace: Mapping[str, Any], cls: type | None = None) -> str | None:
    """The text of the newest statement that binds *name*; with *cls*, of the one that most likely made it."""
    spare: str | None = None
    seen: set[str] = set()
    for text in _texts(namespace, cls):
        if text in seen:
            continue
        seen.add(text)
        found = _binding(text, name)
        if found is None:
            continue
        if cls is None or _made(found, cls):
            return found
        spare = spare or found
    return spare


def _texts(namespace: Mapping[str, Any], cls: type | None) -> Iterator[str]:
    """Texts that may hold it, the likeliest first."""
    for code in _methods(cls) if cls is not None else ():
        yield _lines(code.co_filename, namespace)
    history = namespace.get("_ih")  # IPython's inputs in the order of execution, transformed to Python
    if isinstance(history, list):
        yield from (text for text in reversed(history) if isinstance(text, str))
    for entry in reversed(list(linecache.cache.values())):
        if len(entry) == 4 and entry[1] is None:  # no file: an interactive cell
            yield "".join(entry[2])
    main = sys.modules.get("__main__")
    for file in (namespace.get("__file__"), getattr(main, "__file__", None)):
        if isinstance(file, str) and not file.startswith("<"):
            yield _lines(file, namespace)


def _lines(filename: str, namespace: Mapping[str, Any]) -> str:
    linecache.checkcache(filename)
    return "".join(linecache.getlines(filename, dict(namespace) if "__loader__" in namespace else None))


def _methods(cls: type) -> Iterator[CodeType]:
    for member in vars(cls).values():
        function = inspect.unwrap(getattr(member, "__func__", getattr(member, "fget", member)))
        if not isinstance(function, FunctionType) or function.__code__.co_filename.startswith("<string>"):
            continue
        if function.__qualname__.startswith(cls.__qualname__ + "."):
            yield function.__code__


@lru_cache(maxsize=256)
def _parse(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return None


def _binding(text: str, name: str) -> str | None:
    if name not in text:
        return None
    tree = _parse(text)
    if tree is None:
        return None
    found = None
    for node in _top_level(tree.body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            names = [node.target.id] if isinstance(node.target, ast.Name) else []
        elif sys.version_info >= (3, 12) and isinstance(node, ast.TypeAlias):
            names = [node.name.id]
        else:
            names = []
        if name in names:
            found = node
    return None if found is None else _text(text, found)


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            for field in ("body", "orelse", "finalbody"):
                yield from _top_level(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from _top_level(handler.body)


def _text(text: str, node: ast.stmt) -> str:
    """The statement as it was written; as Python would write it where it shares its lines or is indented."""
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(d.lineno for d in decorators)])
    lines = "\n".join(text.split("\n")[first - 1 : node.end_lineno])
    if node.col_offset == 0:
        tree = _parse(lines)
        if tree is not None and len(tree.body) == 1:
            return lines + "\n"
    return ast.unparse(node) + "\n"


def _made(text: str, cls: type) -> bool:
    """Whether the statement fits the class: the same annotated names and methods."""
    node = ast.parse(text).body[0]
    if not isinstance(node, ast.ClassDef):
        return isinstance(node, ast.Assign | ast.AnnAssign)
    annotated = {
        member.target.id
        for member in node.body
        if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name)
    }
    methods = {member.name for member in node.body if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)}
    has = set(getattr(cls, "__annotations__", {})) if "__annotations__" in vars(cls) else set()
    return annotated == has and all(hasattr(cls, _mangled(method, node.name)) for method in methods)


def _mangled(name: str, owner: str) -> str:
    private = name.startswith("__") and not name.endswith("__")
    return f"_{owner.lstrip('_')}{name}" if private else name


def needs_future_annotations(text: str, cls: type) -> bool:
    """Whether the class of source *text* was compiled under `from __future__ import annotations`."""
    notes = vars(cls).get("__annotations__", {})
    for member in getattr(ast.parse(text).body[0], "body", []):
        if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
            quoted = isinstance(member.annotation, ast.Constant) and isinstance(member.annotation.value, str)
            if not quoted and isinstance(notes.get(member.target.id), str):
                return True
    future = __future__.annotations.compiler_flag
    return any(code.co_flags & future for code in _methods(cls))
