"""Pickles what a notebook's function reaches, and says by name what cannot travel.

The pickler is dill's (`recurse=True`) with three things done differently. A function takes with it exactly the
globals that its code uses, and all functions of one payload share one namespace, as they do in the notebook (the
scheme is cloudpickle's). A class of the notebook becomes a reference into the flow's class module, because a class
that travels by value is another class in each payload. A module is imported by name, never copied.
"""

from __future__ import annotations

import functools
import importlib
import io
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NewType, TypeVar

from jupyterflow.cluster import _classes, _names
from jupyterflow.model import FlowError, did_you_mean

_CELL = re.compile(r".*ipykernel_\d+[/\\](\w+)\.py$|<ipython-input-\d+-(\w+)>$")


@dataclass(slots=True)
class Findings:
    """What one pickling came across."""

    classes: dict[str, type] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)  # dotted names
    optional: set[str] = field(default_factory=set)  # imported inside functions
    wanted: dict[str, None] = field(default_factory=dict)  # names of the class module that its functions use
    unresolved: dict[str, str] = field(default_factory=dict)  # name -> function that uses it
    namespace: dict[str, Any] | None = None
    submodules: set[str] = field(default_factory=set)


class TooLarge(Exception):
    """The pickle grew beyond its limit."""


class _Bounded(io.BytesIO):
    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._size = 0

    def write(self, data: Any) -> int:
        self._size += len(data)
        if self._size > self._limit:
            raise TooLarge
        return super().write(data)


class _Globals:
    """Stands for the namespace that the functions of one payload share, or for the class module's own."""

    def __init__(self, inside: bool) -> None:
        self.inside = inside


def interactive_class(cls: type) -> bool:
    """Whether *cls* was defined in the notebook itself, at its top level."""
    return "<locals>" not in cls.__qualname__ and _at_home(cls.__module__)


def _at_home(module: Any) -> bool:
    """Whether a module's name is the notebook's: `__main__`, or that of a script which is executed, not imported."""
    return isinstance(module, str) and (
        module == "__main__" or (module not in sys.modules and not module.startswith(_classes.PREFIX))
    )


def interactive(function: types.FunctionType) -> bool:
    """Whether a function's globals are a notebook's, so that they must travel with it."""
    name = function.__globals__.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    return name == "__main__" or module is None or module.__dict__ is not function.__globals__


def imported(obj: Any) -> bool:
    """Whether *obj* is what its module has under its own name; nothing is imported to find out."""
    found: Any = sys.modules.get(obj.__module__) if isinstance(obj.__module__, str) else None
    for part in obj.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is obj


def dump(obj: Any, *, module: str = "", inside: Mapping[str, Any] | None = None, limit: int) -> tuple[bytes, Findings]:
    """Pickle *obj*; references to notebook classes name the class module *module*.

    With *inside*, the namespace of the notebook, the pickle is a value of the class module itself: functions take
    that module's globals and carry none. Raises TooLarge beyond *limit* bytes, and whatever pickling raises.
    """
    import dill

    found = Findings()
    shared: dict[int, _Globals] = {}

    class Pickler(dill.Pickler):  # type: ignore[misc]  # dill is untyped
        def save(self, obj: Any, save_persistent_id: bool = True) -> None:
            local = isinstance(obj, type) and "<locals>" in obj.__qualname__ and _at_home(obj.__module__)
            if not local or obj.__module__ == "__main__":
                return super().save(obj, save_persistent_id)  # type: ignore[no-any-return]
            home, obj.__module__ = obj.__module__, "__main__"  # else dill looks for it by executing the script again
            try:
                return super().save(obj, save_persistent_id)  # type: ignore[no-any-return]
            finally:
                obj.__module__ = home

        def persistent_id(self, obj: Any) -> tuple[str, str, str] | None:
            if isinstance(obj, type) and interactive_class(obj):
                known = found.classes.setdefault(obj.__qualname__, obj)
                if known is not obj:
                    raise _redefined(obj.__qualname__)
                return ("class", module, obj.__qualname__)
            if isinstance(obj, _Globals) and obj.inside:
                return ("globals", module, "")
            return None

        def reducer_override(self, obj: Any) -> Any:
            kind = type(obj)
            if kind is types.FunctionType:
                return reduce_function(obj)
            if kind is types.CellType:
                try:
                    content = (obj.cell_contents,)
                except ValueError:
                    return _classes.make_cell, ()
                return _classes.make_cell, (), content, None, None, _classes.fill_cell
            if kind is types.ModuleType:
                if obj.__name__ == "__main__":
                    raise TypeError("the notebook's own module cannot travel; name what is used of it")
                found.modules.add(obj.__name__)
                return importlib.import_module, (obj.__name__,)
            if kind in (TypeVar, NewType) and _at_home(obj.__module__):  # pickle would look for it by name
                return kind, (obj.__name__, *([obj.__supertype__] if kind is NewType else obj.__constraints__))
            if kind is _Globals:
                return _classes.fresh_globals, ("__main__",)
            if isinstance(obj, type | types.BuiltinFunctionType) and isinstance(obj.__module__, str):
                found.modules.add(obj.__module__)
            return NotImplemented

    def reduce_function(function: types.FunctionType) -> Any:
        if not interactive(function):
            found.modules.add(function.__globals__["__name__"])
            if imported(function):
                return NotImplemented
            space: Any = None
        else:
            space = shared.setdefault(id(function.__globals__), _Globals(function.__globals__ is inside))
        captured: dict[str, Any] = {}
        names = _names.of_code(function.__code__)
        found.optional.update(names.imports)
        if space is not None and space.inside:
            found.wanted.update(dict.fromkeys(names.loads))
        elif space is not None:
            captured = dict(captures(function))
            found.namespace = found.namespace or function.__globals__
            stored.update(names.stores)
            for name in names.loads:
                if name not in function.__globals__ and not _names.is_builtin(name) and name not in _names.OWN:
                    found.unresolved.setdefault(name, function.__qualname__)
        state: dict[str, Any] = {
            "globals": captured,
            "imports": sorted(_submodules(captured.values(), names.attributes)),
            "__qualname__": function.__qualname__,
            "__module__": function.__module__,
            "__doc__": function.__doc__,
            "__defaults__": function.__defaults__,
            "__kwdefaults__": function.__kwdefaults__,
            "__annotations__": function.__annotations__,
        }
        if function.__dict__:
            state["__dict__"] = function.__dict__
        if space is None:
            home = _ModuleGlobals(function.__globals__["__name__"])
            args = (_portable(function.__code__), home, function.__name__, function.__closure__)
        else:
            args = (_portable(function.__code__), space, function.__name__, function.__closure__)
        return _classes.make_function, args, state, None, None, _classes.fill_function

    stored: set[str] = set()
    file = _Bounded(limit)
    Pickler(file, protocol=5, recurse=True, byref=False).dump(obj)
    for name in stored:
        found.unresolved.pop(name, None)
    return file.getvalue(), found


class _ModuleGlobals:
    """Stands for the namespace of an importable module."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> Any:
        return _classes.module_globals, (self.name,)


def captures(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """The globals that a function's code uses, by name, as they are now."""
    space = function.__globals__
    for name in _names.of_code(function.__code__).loads:
        if name in ("__name__", "__builtins__"):
            continue
        if name in space and not from_ipython(space[name]):
            yield name, space[name]
        elif name in ("display", "get_ipython") and (name in space or _names.is_builtin(name)):
            import IPython  # a name only in its kernels, and in their threads only at times

            yield name, getattr(IPython, name) if name == "get_ipython" else IPython.display.display
        elif name in space and not _names.is_builtin(name):
            yield name, space[name]


def from_ipython(value: Any) -> bool:
    """Whether *value* is what IPython puts among the user's names: its own `open`, `exit`, `get_ipython`."""
    inner = getattr(value, "__func__", value)
    module = getattr(inner, "__globals__", {}).get("__name__") if inner is not None else None
    if module is None and not isinstance(value, type | types.ModuleType):
        module = type(value).__module__
    return isinstance(module, str) and module.split(".")[0] in ("IPython", "ipykernel")


def _submodules(values: Any, attributes: frozenset[str]) -> Iterator[str]:
    """`concurrent.futures` for code that says `concurrent.futures.wait` and holds `concurrent` alone."""
    for value in values:
        if isinstance(value, types.ModuleType) and hasattr(value, "__path__"):
            start = value.__name__ + "."
            for name in list(sys.modules):
                if name.startswith(start) and attributes.issuperset(name[len(start) :].split(".")):
                    yield name


def _portable(code: types.CodeType) -> types.CodeType:
    """*code* under a file name that does not change with the kernel's pid: equal code gives equal payloads."""
    match = _CELL.match(code.co_filename)
    constants = tuple(_portable(c) if isinstance(c, types.CodeType) else c for c in code.co_consts)
    name = f"<cell {match[1] or match[2]}>" if match else code.co_filename
    return code.replace(co_filename=name, co_consts=constants)


def _redefined(name: str) -> FlowError:
    return FlowError(
        "JF615",
        f"class '{name}' was defined again after a captured value was made with the old one - "
        "re-run the cell that makes the value",
    )


def unresolved(where: str, found: Findings) -> FlowError | None:
    """The error for the first name that is nowhere, if there is one."""
    for name, function in found.unresolved.items():
        known = [n for n in found.namespace or {} if not n.startswith("_")]
        hint = did_you_mean(name, known) or " - define or import it, then deploy again"
        inside = "" if function.split(".")[-1] in where else f" (in '{function}')"
        return FlowError("JF613", f"{where}: the name '{name}'{inside} is not defined{hint}")
    return None


def walk(function: Callable[..., Any]) -> Iterator[tuple[str, Any, str]]:
    """Every value that *function* takes along: its name, the value, the function that uses it."""
    queue: list[Any] = [function]
    if isinstance(function, functools.partial):
        queue = [function.func]
        for number, value in enumerate((*function.args, *function.keywords.values())):
            yield f"argument {number + 1} of partial", value, "the node"
    seen: set[int] = set()
    while queue:
        current = queue.pop(0)
        current = getattr(current, "__func__", current)
        if id(current) in seen or not isinstance(current, types.FunctionType):
            if id(current) not in seen and current is function:
                yield getattr(current, "__name__", type(current).__name__), current, "the node"
            continue
        seen.add(id(current))
        pairs = list(captures(current)) if interactive(current) else []
        for name, cell in zip(current.__code__.co_freevars, current.__closure__ or (), strict=False):
            try:
                pairs.append((name, cell.cell_contents))
            except ValueError:
                continue
        arguments = current.__code__.co_varnames[: current.__code__.co_argcount]
        pairs += zip(arguments[::-1], (current.__defaults__ or ())[::-1], strict=False)
        pairs += (current.__kwdefaults__ or {}).items()
        for name, value in pairs:
            inner = getattr(value, "__func__", value)
            if isinstance(inner, types.FunctionType) and interactive(inner):
                queue.append(inner)
            elif not isinstance(value, types.ModuleType | type):
                yield name, value, current.__qualname__


def diagnose(where: str, captured: Iterable[tuple[str, Any, str]], limit: int, problem: BaseException) -> FlowError:
    """Which of the *captured* values (see `walk`) is too large or cannot be pickled, after *problem* with the whole."""
    if isinstance(problem, FlowError):
        return problem
    sizes: list[tuple[int, str, Any]] = []
    for name, value, user in captured:
        try:
            data, _ = dump(value, limit=limit * 20)
            sizes.append((len(data), name, value))
        except TooLarge:
            sizes.append((limit * 20, name, value))
        except FlowError as error:
            return error
        except Exception as error:
            used = "" if user.split(".")[-1] in where else f" (in '{user}')"
            return FlowError(
                "JF612",
                f"{where}: '{name}'{used} is a {_type(value)} and cannot be pickled: {_reason(error)} - "
                "make it inside the function, or keep it out of the node",
            )
    if isinstance(problem, TooLarge) and sizes:
        size, name, value = max(sizes, key=lambda entry: entry[0])
        more = "over " if size >= limit * 20 else ""
        return FlowError(
            "JF611",
            f"{where}: '{name}' is a {_type(value)} of {more}{size / 1e6:.1f} MB, and at most {limit / 1e6:g} MB may be "
            "captured - read it inside the function, or send it through a topic",
        )
    if isinstance(problem, TooLarge):
        return FlowError("JF611", f"{where}: the payload is over {limit / 1e6:g} MB - capture less")
    return FlowError(
        "JF612", f"{where}: the function cannot be pickled: {_reason(problem)} - simplify what it captures"
    )


def _type(value: Any) -> str:
    return type(value).__name__


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
