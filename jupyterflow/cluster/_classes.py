"""What payloads refer to when a worker unpickles them.

The classes of a notebook live in one module per flow and version, `jupyterflow_flow_<flow>_<hash>`, which is
in `sys.modules` alone. Names here are written into payloads: they may be added to, never renamed.
"""

from __future__ import annotations

import base64
import builtins
import importlib
import io
import linecache
import sys
import types
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from typing import Any

from jupyterflow.model import FlowError

PREFIX = "jupyterflow_flow_"


def unpickle(data: bytes, module: str = "") -> Any:
    """The object of a payload; *module* is the class module that relative references mean."""
    import dill

    class Unpickler(dill.Unpickler):  # type: ignore[misc]  # dill is untyped
        def persistent_load(self, pid: tuple[str, str, str]) -> Any:
            kind, name, qualname = pid
            if kind == "class":
                return resolve(name or module, qualname)
            return sys.modules[name or module].__dict__

    return Unpickler(io.BytesIO(data), ignore=True).load()


def resolve(module: str, qualname: str) -> Any:
    """The class *qualname* of a class module that has been installed."""
    found: Any = sys.modules.get(module)
    if found is None:
        raise FlowError("JF618", f"the classes of '{module}' are not loaded - load the whole package")
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def value(module: str, data: str) -> Any:
    """A captured value of a class module: *data* is Base85 of its pickle."""
    return unpickle(base64.b85decode(data), module)


def install(name: str, text: str) -> types.ModuleType:
    """Execute the classes' source as module *name*, once per process."""
    if name in sys.modules:
        return sys.modules[name]
    if not name.startswith(PREFIX):
        raise FlowError("JF618", f"'{name}' is no name of a class module - it must begin with '{PREFIX}'")
    module = types.ModuleType(name, "Classes of a flow, as they were defined in the notebook.")
    module.__file__ = f"<{name}>"
    linecache.cache[module.__file__] = (len(text), None, text.splitlines(True), module.__file__)
    sys.modules[name] = module
    try:
        exec(compile(text, module.__file__, "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def fresh_globals(name: str) -> dict[str, Any]:
    """The empty namespace that the functions of one payload share."""
    return {"__name__": name, "__builtins__": builtins}


def module_globals(name: str) -> dict[str, Any]:
    """The namespace of an importable module."""
    return importlib.import_module(name).__dict__


def make_function(
    code: types.CodeType, namespace: dict[str, Any], name: str, closure: tuple[types.CellType, ...] | None
) -> types.FunctionType:
    """A function that `fill_function` completes: made first, so that it may refer to itself."""
    return types.FunctionType(code, namespace, name, None, closure)


def fill_function(function: types.FunctionType, state: dict[str, Any]) -> None:
    """Set what a function carries: captured globals, defaults, annotations and the like."""
    for module in state.pop("imports", ()):
        importlib.import_module(module)
    function.__globals__.update(state.pop("globals", {}))
    for name, content in state.items():
        setattr(function, name, content)


def make_cell() -> types.CellType:
    """An empty closure cell."""
    return types.CellType()


def fill_cell(cell: types.CellType, content: tuple[Any]) -> None:
    """Set what a closure cell holds."""
    cell.cell_contents = content[0]


class _Included:
    """Finds the modules that came with a flow: path such as `helpers.py` or `lib/__init__.py` -> its bytes."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        stem = fullname.replace(".", "/")
        for name, package in ((f"{stem}/__init__.py", True), (f"{stem}.py", False)):
            if name in self.files:
                spec = ModuleSpec(fullname, self, origin=f"<included {name}>", is_package=package)  # type: ignore[arg-type]
                spec.has_location = True
                return spec
        return None

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        stem = module.__name__.replace(".", "/")
        name = f"{stem}.py" if f"{stem}.py" in self.files else f"{stem}/__init__.py"
        source = self.files[name]
        where = f"<included {name}>"
        text = source.decode("utf-8", "replace")
        linecache.cache[where] = (len(text), None, text.splitlines(True), where)
        exec(compile(source, where, "exec", dont_inherit=True), module.__dict__)


_included = _Included()


def include(files: Mapping[str, bytes]) -> None:
    """Make *files* importable; a module whose text is another than before is imported anew."""
    if _included not in sys.meta_path:
        sys.meta_path.insert(0, _included)
    changed = {
        name.split("/")[0].removesuffix(".py") for name, data in files.items() if _included.files.get(name) != data
    }
    for loaded in [name for name in sys.modules if name.split(".")[0] in changed]:
        del sys.modules[loaded]
    for old in [name for name in _included.files if name.split("/")[0].removesuffix(".py") in changed]:
        del _included.files[old]
    _included.files.update(files)
