"""Which global names and modules a piece of code uses."""

from __future__ import annotations

import ast
import builtins
import dis
import symtable
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType

# What every module's namespace has by itself.
OWN = frozenset({"__name__", "__builtins__", "__doc__", "__loader__", "__spec__", "__package__", "__annotations__"})


@dataclass(frozen=True, slots=True)
class Names:
    """The names that code takes from its globals or builtins, those it sets there, attributes, and imports."""

    loads: tuple[str, ...]
    stores: frozenset[str]
    attributes: frozenset[str]
    imports: tuple[str, ...]


def codes(code: CodeType) -> Iterator[CodeType]:
    """*code* and all that is nested in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


@lru_cache(maxsize=1024)
def of_code(code: CodeType) -> Names:
    """The names of a compiled function, nested functions and classes included."""
    loads: dict[str, None] = {}
    stores: set[str] = set()
    attributes: set[str] = set()
    imports: dict[str, None] = {}
    for part in codes(code):
        attributes.update(part.co_names)
        local: set[str] = {"__name__", "__module__", "__qualname__", "__annotations__", "__classdict__"}
        for instruction in dis.get_instructions(part):
            name, op = instruction.argval, instruction.opname
            if op == "STORE_NAME":
                local.add(name)
            elif op in ("LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS") or (op == "LOAD_NAME" and name not in local):
                loads[name] = None
            elif op in ("STORE_GLOBAL", "DELETE_GLOBAL"):
                stores.add(name)
            elif op == "IMPORT_NAME" and name:
                imports[name] = None
    return Names(tuple(loads), frozenset(stores), frozenset(attributes), tuple(imports))


@dataclass(frozen=True, slots=True)
class SourceNames:
    """The names of a statement: needed when it is executed, or only later, when its functions are called."""

    first: tuple[str, ...]
    later: tuple[str, ...]
    quoted: tuple[str, ...]  # in forward references: perhaps a name, perhaps only a text
    imports: tuple[str, ...]


def of_source(text: str) -> SourceNames:
    """The global names that the statement *text* (a class or an assignment) uses; builtins are left out."""
    first: dict[str, None] = {}
    later: dict[str, None] = {}
    quoted: dict[str, None] = {}

    def visit(table: symtable.SymbolTable, inside: bool) -> None:
        function = table.get_type() == "function"
        for symbol in table.get_symbols():
            top = table.get_type() == "module"
            is_global = symbol.is_global() or (top and not symbol.is_assigned() and not symbol.is_imported())
            if symbol.is_referenced() and is_global:
                (later if inside or function else first)[symbol.get_name()] = None
        for child in table.get_children():
            visit(child, inside or function)

    visit(symtable.symtable(text, "<class>", "exec"), False)
    tree = ast.parse(text)
    bound = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    for node in ast.walk(tree):
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            for name in _quoted(annotation):
                quoted[name] = None
    imports: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports.append(node.module)
    skip = bound | OWN

    def wanted(name: str) -> bool:
        return name not in skip and not name.startswith(".")

    return SourceNames(
        first=tuple(filter(wanted, first)),
        later=tuple(name for name in later if wanted(name) and name not in first),
        quoted=tuple(filter(wanted, quoted)),
        imports=tuple(imports),
    )


def _quoted(annotation: ast.AST | None) -> Iterator[str]:
    """The names in the forward references of an annotation."""
    if annotation is None:
        return
    for node in ast.walk(annotation):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                inner = ast.parse(node.value, mode="eval")
            except SyntaxError:
                continue  # `Literal["a b"]` is no reference
            yield from (name.id for name in ast.walk(inner) if isinstance(name, ast.Name))


def guarded_imports(text: str) -> set[str]:
    """Modules that *text* imports inside a `try`: it can do without them."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return set()
    found: set[str] = set()
    for block in ast.walk(tree):
        if isinstance(block, ast.Try) and block.handlers:
            for node in (inner for statement in block.body for inner in ast.walk(statement)):
                if isinstance(node, ast.Import):
                    found |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.add(node.module)
    return found


def is_builtin(name: str) -> bool:
    """Whether *name* is found without any global."""
    return hasattr(builtins, name)
