"""A flow's functions as payloads: addressed by their content, made in the notebook, loaded in a worker."""

from __future__ import annotations

import hashlib
import linecache
import platform
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyterflow.cluster import _classes, _modules, _names, _sources, capture
from jupyterflow.model import FlowError

LIMIT = 10_000_000
_loading = threading.RLock()  # a class module is found by other threads while it is still being executed


@dataclass(slots=True)
class Package:
    """What a worker needs to run a flow's functions.

    `payloads` maps SHA-256 (hex) to the pickle, `nodes` a node's name to its payload's hash, `sources` to its text.
    `classes` is the source of the class module `class_module` (both empty without classes). `includes` maps paths
    (`helpers.py`) to file contents. `modules` are the top-level modules beyond Python's own that must be importable, `local_modules` those
    of them that lie in `folder` (the notebook's), with their paths.
    """

    payloads: dict[str, bytes] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    classes: str = ""
    class_module: str = ""
    includes: dict[str, bytes] = field(default_factory=dict)
    python: str = ""
    dill: str = ""
    modules: list[str] = field(default_factory=list)
    local_modules: dict[str, str] = field(default_factory=dict)
    folder: str = ""

    @property
    def folders(self) -> list[str]:
        """Where the local modules lie: for the `sys.path` of workers on the notebook's machine."""
        return sorted({str(Path(path).parent) for path in self.local_modules.values()})

    def blobs(self) -> dict[str, bytes]:
        """Everything that travels as bytes, by SHA-256 (hex): payloads, the classes' source, included files."""
        extra = [self.classes.encode(), *self.includes.values()] if self.classes else [*self.includes.values()]
        return {**self.payloads, **{digest(data): data for data in extra}}

    def manifest(self) -> dict[str, Any]:
        """The rest, as JSON values; `join` brings both together again."""
        return {
            "nodes": self.nodes,
            "sources": self.sources,
            "classes": digest(self.classes.encode()) if self.classes else "",
            "class_module": self.class_module,
            "includes": {name: digest(data) for name, data in self.includes.items()},
            "python": self.python,
            "dill": self.dill,
            "modules": self.modules,
            "local_modules": self.local_modules,
            "folder": self.folder,
        }

    @classmethod
    def join(cls, manifest: Mapping[str, Any], blobs: Mapping[str, bytes]) -> Package:
        """The package of a manifest and (at least) its blobs.

        Raises FlowError JF617 where a blob is missing or is not what its hash says.
        """

        def blob(key: str) -> bytes:
            data = blobs.get(key)
            if data is None or digest(data) != key:
                state = "is missing" if data is None else "is damaged"
                raise FlowError("JF617", f"payload {key[:12]} {state} - deploy the flow again")
            return data

        plain = {k: v for k, v in manifest.items() if k not in ("classes", "includes") and k in cls.__slots__}
        return cls(
            payloads={key: blob(key) for key in sorted(set(manifest["nodes"].values()))},
            classes=blob(manifest["classes"]).decode() if manifest["classes"] else "",
            includes={name: blob(key) for name, key in manifest["includes"].items()},
            **plain,
        )


def digest(data: bytes) -> str:
    """The address of a blob: SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def versions() -> tuple[str, str]:
    """The versions of Python and dill that this process pickles with."""
    import dill

    return platform.python_version(), str(dill.__version__)


def pack(
    functions: Mapping[str, Callable[..., Any]],
    *,
    flow: str = "flow",
    limit: int = LIMIT,
    modules_dir: Path | None = None,
    include: Sequence[str | Path] = (),
) -> Package:
    """Turn the functions of *flow*'s nodes into a package.

    *limit* is in bytes per node, *modules_dir* the notebook's folder, *include* files and packages to send along.
    Raises FlowError: JF611 a capture is too large, JF612 it cannot be pickled, JF613 a name is nowhere, JF614 and JF615
    a class has no source or was defined again, JF619 an include is no module.
    """
    from jupyterflow.cluster._class_module import ClassModule

    python, dill_version = versions()
    package = Package(python=python, dill=dill_version, folder=str((modules_dir or Path.cwd()).resolve()))
    package.includes = _modules.read(include, modules_dir)
    first = {node: _dump(f"node '{node}'", function, "", limit) for node, function in functions.items()}
    spaces = (found.namespace for _, found in first.values() if found.namespace is not None)
    classes = ClassModule(next(spaces, None), limit)
    modules: set[str] = set()
    optional: set[str] = set()
    for node, (_, found) in first.items():
        for cls in found.classes.values():
            try:
                classes.add(cls)
            except FlowError as error:
                raise FlowError(error.code, f"node '{node}': {error.message}") from None
        modules |= found.modules
        source = package.sources[node] = _sources.of_function(functions[node])
        optional |= found.optional - _names.guarded_imports(source)
    package.classes = classes.text()
    if package.classes:
        package.class_module = classes.module_name(flow)
    for node, (data, found) in first.items():
        if found.classes:  # now that the module's name is known
            data, _ = _dump(f"node '{node}'", functions[node], package.class_module, limit)
        key = package.nodes[node] = digest(data)
        package.payloads[key] = data
    needed = modules | optional | classes.modules | (classes.optional - _names.guarded_imports(package.classes))
    package.modules = _modules.outside(needed)
    package.local_modules = _modules.local(package.modules, modules_dir, package.includes)
    return package


def _dump(where: str, function: Callable[..., Any], module: str, limit: int) -> tuple[bytes, capture.Findings]:
    try:
        data, found = capture.dump(function, module=module, limit=limit)
    except FlowError as error:
        raise FlowError(error.code, f"{where}: {error.message}") from None
    except Exception as error:
        raise capture.diagnose(where, capture.walk(function), limit, error) from None
    problem = capture.unresolved(where, found)
    if problem is not None:
        raise problem
    return data, found


def load(package: Package, nodes: Iterable[str] | None = None) -> dict[str, Callable[..., Any]]:
    """The functions of *nodes* (of all), with the classes they share; for a worker.

    Raises FlowError: JF616 another Python or dill made the package, JF617 bytes are missing or damaged, JF618 a payload
    does not load here.
    """
    wanted = list(package.nodes) if nodes is None else list(nodes)
    _same_versions(package)
    for node in wanted:
        key = package.nodes[node]
        if key not in package.payloads or digest(package.payloads[key]) != key:
            state = "is damaged" if key in package.payloads else "is missing"
            raise FlowError("JF617", f"node '{node}': payload {key[:12]} {state} - deploy the flow again")
    functions: dict[str, Callable[..., Any]] = {}
    with _loading:
        _modules.forget_edited(package.local_modules)
        _classes.include(package.includes)
        if package.classes:
            _guard("the flow's classes", lambda: _classes.install(package.class_module, package.classes))
        for node in wanted:
            data = package.payloads[package.nodes[node]]
            functions[node] = _guard(f"node '{node}'", lambda data=data: _classes.unpickle(data))  # type: ignore[misc]
            _show_source(functions[node], package.sources.get(node, ""))
    return functions


def check(package: Package, timeout: float = 20.0) -> list[str]:
    """What would go wrong in a worker on this machine, one line per problem: see `cluster.check`."""
    from jupyterflow.cluster import check as clean

    return clean.check(package, timeout)


def _same_versions(package: Package) -> None:
    python, dill_version = versions()
    if package.python.split(".")[:2] != python.split(".")[:2]:
        raise FlowError(
            "JF616",
            f"the flow was deployed from Python {package.python}, this worker has {python} - "
            f"start workers with Python {'.'.join(package.python.split('.')[:2])}",
        )
    if package.dill != dill_version:
        raise FlowError(
            "JF616",
            f"the flow was deployed with dill {package.dill}, this worker has {dill_version} - "
            f"install dill=={package.dill} here",
        )


def _guard(where: str, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except FlowError as error:
        raise FlowError(error.code, f"{where}: {error.message}") from None
    except ModuleNotFoundError as error:
        raise FlowError("JF618", f"{where}: {_modules.missing(error.name or str(error))}") from None
    except Exception as error:
        line = (str(error).strip().splitlines() or [""])[0][:300]
        raise FlowError("JF618", f"{where}: does not load here: {type(error).__name__}: {line}") from error


def _show_source(function: Any, source: str) -> None:
    """Let tracebacks in a worker show the lines of the cell."""
    code = getattr(function, "__code__", None)
    if code is None or not source or not code.co_filename.startswith("<"):
        return
    start = code.co_firstlineno - 1
    entry = linecache.cache.get(code.co_filename)
    lines = list(entry[2]) if entry is not None and len(entry) == 4 else []
    text = source.splitlines(True)
    lines += ["\n"] * (start + len(text) - len(lines))
    lines[start : start + len(text)] = text
    linecache.cache[code.co_filename] = (sum(map(len, lines)), None, lines, code.co_filename)
