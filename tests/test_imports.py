"""Rooms import downwards only; importing the package loads nothing heavy; the public names are these."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jupyterflow as jf

PACKAGE = Path(jf.__file__).parent
LEVELS = [
    {"model"},
    {"codecs", "transport", "telemetry"},
    {"nodes"},
    {"plan"},
    {"runtime"},
    {"broker", "cluster"},
    {"views"},
    {"magics", "server", "app"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
FREE = {"_flow", "_run", "_outside"}  # private modules beside the rooms: they may import any room
FACE = {("cluster/live.py", "_flow")}  # what is attached from a cluster is handed out as the fluent flow


def type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported, however deep, except for type checking alone."""
    for node in ast.iter_child_nodes(tree):
        if type_checking(node):
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import in line {node.lineno}"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        yield from imports(node)


def room_of(name: str) -> str | None:
    """The room that a full name such as `jupyterflow.model.Flow` belongs to; None where it is not ours."""
    first, _, rest = name.partition(".")
    return rest.partition(".")[0] if first == "jupyterflow" and rest else None


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] in LEVEL)


@pytest.mark.parametrize("room", sorted(LEVEL))
def test_a_room_imports_downwards_only(room: str) -> None:
    wrong = []
    for path in MODULES:
        if path.relative_to(PACKAGE).parts[0] != room:
            continue
        for line, name in imports(ast.parse(path.read_text())):
            other = room_of(name)
            file = path.relative_to(PACKAGE).as_posix()
            if other in FREE and (file, other) not in FACE and room not in LEVELS[-1]:
                wrong.append(f"{file}:{line} imports {name}")
            if other in LEVEL and LEVEL[other] > LEVEL[room]:
                wrong.append(f"{file}:{line} imports {name}")
    assert wrong == []


def test_every_module_belongs_to_a_room() -> None:
    tops = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert tops - set(LEVEL) - FREE - {"__init__", "py.typed", "labextension"} == set()


HEAVY = [
    "IPython",
    "aiokafka",
    "ipywidgets",
    "ipycytoscape",
    "anywidget",
    "pandas",
    "numpy",
    "dill",
    "traitlets",
    "jgo",
]


@pytest.mark.parametrize(
    "code", ["import jupyterflow", "import jupyterflow as jf; jf.Flow; jf.Run; jf.Kafka; jf.FlowError"]
)
def test_importing_it_loads_nothing_heavy(code: str) -> None:
    script = f"{code}; import sys; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []


def test_running_a_flow_loads_nothing_heavy() -> None:
    script = f"""
import sys
import jupyterflow as jf

flow = jf.Flow("light")
flow.source("values", [1, 2]).key_by("key", lambda v: v).count("n").sink("out", "collect")
assert flow.run().wait(10).collect("out") == [1, 1]
flow.tree(), flow.explain()
print(*[name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []


def test_the_public_names_are_all_there_and_no_others() -> None:
    assert jf.__all__ == sorted(jf.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
    for name in jf.__all__:
        assert getattr(jf, name) is not None
    assert set(jf._WHERE) == set(jf.__all__)
    public = {name for name in vars(jf) if not name.startswith("_")}
    modules = {name for name in public if isinstance(getattr(jf, name), type(ast))}
    assert public - modules - {"annotations", "TYPE_CHECKING", "Any"} <= set(jf.__all__)
    with pytest.raises(AttributeError, match="no attribute 'flow'"):
        jf.flow  # noqa: B018
