"""Writes the source of a flow's class module: the notebook's classes and whatever their source uses."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

from jupyterflow.cluster import _classes, _names, _sources, capture
from jupyterflow.model import FlowError

_HEAD = "from jupyterflow.cluster._classes import value as _jf_value\n"
_BY_STATEMENT: tuple[type, ...] = tuple(
    kind
    for name in ("TypeVar", "ParamSpec", "TypeVarTuple", "NewType", "TypeAliasType")
    if isinstance(kind := getattr(typing, name, None), type)
)


class ClassModule:
    """Collects classes by `add`; `text()` is the module that defines them, in an order in which it can be executed."""

    def __init__(self, namespace: Mapping[str, Any] | None, limit: int) -> None:
        self._namespace = namespace if namespace is not None else vars(sys.modules["__main__"])
        self._limit = limit
        self._steps: list[str] = []
        self._begun: set[str] = set()
        self._later: list[str] = []
        self._added: dict[str, type] = {}
        self._future = False
        self.modules: set[str] = set()
        self.optional: set[str] = set()

    def add(self, cls: type) -> None:
        """Bring in *cls* and what its source uses."""
        self._class(cls)
        while self._later:
            self._name(self._later.pop(0))

    def text(self) -> str:
        """The module's source; empty without classes."""
        if not self._steps:
            return ""
        future = "from __future__ import annotations\n" if self._future else ""
        return future + _HEAD + "".join(self._steps)

    def module_name(self, flow: str) -> str:
        """The module's name: equal for equal text."""
        digest = hashlib.sha256(self.text().encode()).hexdigest()[:16]
        return f"{_classes.PREFIX}{re.sub(r'[^A-Za-z0-9_]', '_', flow)}_{digest}"

    def _class(self, cls: type) -> None:
        top = cls.__qualname__.split(".")[0]
        owner = self._namespace.get(top, cls if top == cls.__qualname__ else None)
        found: Any = owner
        for part in cls.__qualname__.split(".")[1:]:
            found = getattr(found, part, None)
        if found is not cls:
            known = isinstance(found, type)
            raise (
                capture._redefined(cls.__qualname__)
                if known
                else FlowError(
                    "JF614",
                    f"class '{cls.__qualname__}' is not what its name stands for - define it at a cell's top level",
                )
            )
        if self._added.get(top) is owner or not isinstance(owner, type):
            return
        self._added[top] = owner
        self._begun.add(top)
        source = _sources.statement(top, self._namespace, owner)
        if source is None:
            raise FlowError(
                "JF614",
                f"the source of class '{top}' is not found - run the cell that defines it again, "
                "or put the class into a module",
            )
        self._future = self._future or _sources.needs_future_annotations(source, owner)
        self._source(source, f"class '{top}'")

    def _source(self, source: str, what: str) -> None:
        names = _names.of_source(source)
        self.optional.update(names.imports)
        for name in (*names.first, *names.later):
            if name not in self._namespace and not _names.is_builtin(name):
                found = capture.Findings(unresolved={name: what}, namespace=dict(self._namespace))
                raise capture.unresolved(what, found) or AssertionError
        for name in names.first:
            self._name(name)
        self._steps.append(source)
        self._later += [*names.later, *names.quoted]

    def _name(self, name: str) -> None:
        """Bind *name* in the module to what it is in the notebook."""
        if name in self._begun or name not in self._namespace:
            return
        self._begun.add(name)
        value = self._namespace[name]
        if _names.is_builtin(name) and capture.from_ipython(value):
            return
        if isinstance(value, type) and capture.interactive_class(value):
            self._class(value)
            if value.__qualname__ != name:
                self._steps.append(f"{name} = {value.__qualname__}\n")
        elif isinstance(value, types.ModuleType):
            self._import(name, value)
        elif isinstance(value, _BY_STATEMENT) and (source := _sources.statement(name, self._namespace)):
            self._source(source, f"'{name}'")
        elif (origin := _origin(value)) is not None:
            self.modules.add(origin[0])
            self._steps.append(_import_line(name, *reversed(origin)))
        else:
            self._value(name, value)

    def _import(self, name: str, module: types.ModuleType) -> None:
        self.modules.add(module.__name__)
        parent, _, last = module.__name__.rpartition(".")
        self._steps.append(_import_line(name, last, parent))

    def _value(self, name: str, value: Any) -> None:
        try:
            data, found = capture.dump(value, inside=self._namespace, limit=self._limit)
        except Exception as error:
            raise capture.diagnose("the flow's classes", [(name, value, "classes")], self._limit, error) from None
        for cls in found.classes.values():
            self._class(cls)
        for wanted in found.wanted:
            self._name(wanted)
        self.modules |= found.modules
        self.optional |= found.optional
        self._steps.append(f"{name} = _jf_value(__name__, {base64.b85encode(data).decode()!r})\n")


def _import_line(name: str, what: str, module: str) -> str:
    start = f"from {module} import {what}" if module else f"import {what}"
    return f"{start}\n" if name == what else f"{start} as {name}\n"


def _origin(value: Any) -> tuple[str, str] | None:
    """The module and name by which *value* is imported, if that is how it came."""
    if not isinstance(value, type | types.FunctionType | types.BuiltinFunctionType) or "." in value.__qualname__:
        return None
    if value.__module__ == "__main__" or not capture.imported(value):
        return None
    return value.__module__, value.__qualname__
