"""Which modules a flow needs from outside, and which of them lie beside the notebook."""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jupyterflow.model import FlowError, did_you_mean


def missing(name: str) -> str:
    """What to do about a module that is not there."""
    top = name.split(".")[0]
    return f"module '{top}' is not there - install it for the workers, or `flow.include(\"{top}.py\")` if it is yours"


def outside(names: Iterable[str]) -> list[str]:
    """The top-level modules among dotted *names* that neither Python nor JupyterFlow itself brings."""
    tops = {name.split(".")[0] for name in names}
    return sorted(tops - sys.stdlib_module_names - {"__main__", "dill", "jupyterflow"})


def read(include: Sequence[str | Path], folder: Path | None) -> dict[str, bytes]:
    """The files of `flow.include(...)`: a `.py` file, or a package's folder with all `.py` files in it."""
    files: dict[str, bytes] = {}
    for given in include:
        path = Path(given) if Path(given).is_absolute() or folder is None else folder / given
        if path.is_dir() and (path / "__init__.py").is_file():
            found = {f"{path.name}/{file.relative_to(path).as_posix()}": file for file in sorted(path.rglob("*.py"))}
        elif path.suffix == ".py" and path.is_file():
            found = {path.name: path}
        else:
            near = did_you_mean(path.name, [p.name for p in path.parent.glob("*")]) if path.parent.is_dir() else ""
            state = "is neither a .py file nor a package" if path.exists() else "is not there"
            raise FlowError("JF619", f"include '{given}' {state}{near or ' - name helpers.py or a package folder'}")
        top = path.name.removesuffix(".py")
        if not top.isidentifier() or top in sys.stdlib_module_names or top == "jupyterflow":
            raise FlowError("JF619", f"include '{given}': '{top}' cannot be a module's name - rename the file")
        files |= {name: file.read_bytes() for name, file in found.items()}
    return files


def local(modules: Iterable[str], folder: Path | None, includes: Mapping[str, bytes]) -> dict[str, str]:
    """The modules that are files in *folder* (the notebook's, by default the current one), with what they import.

    Neither installed nor included ones are among them.
    """
    base = (folder or Path.cwd()).resolve()
    installed = _installed()
    found: dict[str, str] = {}
    queue = list(modules)
    while queue:
        name = queue.pop()
        if name in found or name in sys.stdlib_module_names or f"{name}.py" in includes:
            continue
        if f"{name}/__init__.py" in includes:
            continue
        path = _file(name, base)
        if path is None or any(path.is_relative_to(root) for root in installed):
            continue
        home = path.parent.parent if path.name == "__init__.py" else path.parent
        if home != base and not home.is_relative_to(base):
            continue
        found[name] = str(path.parent if path.name == "__init__.py" else path)
        queue += _imports(path)
    return dict(sorted(found.items()))


_texts: dict[str, bytes] = {}


def forget_edited(modules: Mapping[str, str]) -> None:
    """Let the user's own modules be imported anew where their files have changed since they were last asked for."""
    for name, path in modules.items():
        files = sorted(Path(path).rglob("*.py")) if Path(path).is_dir() else [Path(path)]
        digest = hashlib.sha256()
        for file in files:
            if file.is_file():  # on another machine it is not
                digest.update(file.read_bytes())
        if _texts.get(path) not in (None, digest.digest()):
            for loaded in [module for module in sys.modules if module.split(".")[0] == name]:
                del sys.modules[loaded]
        _texts[path] = digest.digest()


def _installed() -> list[Path]:
    roots = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    roots |= {*site.getsitepackages(), site.getusersitepackages()}
    return [Path(root).resolve() for root in roots if root]


def _file(name: str, base: Path) -> Path | None:
    module = sys.modules.get(name)
    origin = getattr(module, "__file__", None)
    if origin is None and name not in sys.modules:
        spec = importlib.machinery.PathFinder.find_spec(name, [str(base), *sys.path])
        origin = spec.origin if spec is not None else None
    return Path(origin).resolve() if isinstance(origin, str) and origin.endswith(".py") else None


def _imports(path: Path) -> set[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names
