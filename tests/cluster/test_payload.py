"""Functions of a notebook run in another process, with the classes and names that they use."""

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from jupyterflow.cluster import payload
from jupyterflow.model import FlowError

CELLS = '''
import math as m
import dataclasses, enum, typing
from dataclasses import dataclass, field
import msgspec

LIMIT = 10
T = typing.TypeVar("T")

def doubled(n):
    return n * FACTOR

def corner():
    return Point(0.0, 0.0)

FACTOR = 2

@dataclass
class Point:
    """A point with 'a \\' quote'."""
    x: float
    y: float = 0.0
    tags: list[str] = field(default_factory=list)

    def length(self) -> float:
        return m.hypot(self.x, self.y)

    def shifted(self, by: "Vector"):
        return Point(corner().x + self.x + doubled(by.x), self.y)

class Kind(enum.Enum):
    BUY = 1
    SELL = 2

class Vector(typing.NamedTuple):
    x: float
    y: float

class Bid(msgspec.Struct, frozen=True):
    price: int
    kind: Kind = Kind.BUY
    below: "Bid | None" = None

class Better(Bid):
    bonus: int = LIMIT

class Box(typing.Generic[T]):
    class Lid:
        height = 3
    def __init__(self, content: T) -> None:
        super().__init__()
        self.content = content

ORIGIN = Point(1.0, 1.0)

@dataclass
class Circle(Point):
    middle: Point = field(default_factory=lambda: ORIGIN)

def make(n):
    return [Point(n, 4.0), Better(n, Kind.SELL), Circle(n), Box(Box.Lid()), Vector(n, 1)]

def look(values):
    point, bid, circle, box, vector = values
    assert isinstance(point, Point) and isinstance(bid, Bid) and isinstance(circle, Point)
    assert isinstance(box, Box) and isinstance(box.content, Box.Lid) and isinstance(vector, Vector)
    assert bid.kind is Kind.SELL and bid.bonus == 10 and circle.middle == ORIGIN
    return point.length() + point.shifted(vector).x + msgspec.convert({"price": 7}, Bid).price
'''

LOADER = """
import pickle, sys
from jupyterflow.cluster import payload
package = pickle.load(open(sys.argv[1], "rb"))
joined = payload.Package.join(package.manifest(), package.blobs())
"""


def in_another_process(package: payload.Package, tmp_path: Path, code: str) -> str:
    file = tmp_path / "package"
    file.write_bytes(pickle.dumps(package))
    program = LOADER + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def notebook(*cells: str, name: str = "__main__") -> dict[str, Any]:
    """A namespace in which the cells have run, as in IPython."""
    space: dict[str, Any] = {"__name__": name, "_ih": [""]}
    for number, cell in enumerate(cells):
        space["_ih"].append(cell)
        exec(compile(cell, f"<ipython-input-{number}-abc>", "exec", dont_inherit=True), space)
    return space


def test_instances_of_notebook_classes_cross_from_node_to_node(tmp_path: Path) -> None:
    space = notebook(CELLS)
    package = payload.pack({"make": space["make"], "look": space["look"]}, flow="my-flow")
    assert package.class_module.startswith("jupyterflow_flow_my_flow_")
    out = in_another_process(
        package,
        tmp_path,
        """
        functions = payload.load(joined)
        values = pickle.loads(pickle.dumps(functions["make"](3.0)))
        print(functions["look"](values), type(values[0]).__module__ == package.class_module)
        """,
    )
    assert out == "21.0 True"


def test_a_script_that_is_main_travels_too(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    file = tmp_path / "package"
    script.write_text(
        "from __future__ import annotations\n"
        + CELLS
        + "\nimport pickle, sys\nfrom jupyterflow.cluster import payload\n"
        "package = payload.pack({'make': make, 'look': look})\n"
        "pickle.dump(package, open(sys.argv[1], 'wb'))\n"
    )
    subprocess.run([sys.executable, str(script), str(file)], check=True, timeout=60)
    package = pickle.loads(file.read_bytes())
    out = in_another_process(
        package, tmp_path, "f = payload.load(joined); print(f['look'](pickle.loads(pickle.dumps(f['make'](3.0)))))"
    )
    assert out == "21.0"


def test_values_are_captured_as_they_are_and_helpers_share_one_namespace(tmp_path: Path) -> None:
    space = notebook(
        "import collections, concurrent.futures\nseen = 0\nrate = 3\n"
        "def bump():\n    global seen\n    seen += 1\n"
        "def node(value):\n    bump()\n    concurrent.futures.Future()\n    return value * rate + seen, again(value)\n"
        "def again(n):\n    return node if n < 0 else n\n"
        "def outer():\n    total = 5\n    def inner(value):\n        nonlocal total\n        total += value\n"
        "        return total if value else inner(1)\n    return inner\nclosed = outer()\n"
        "late = lambda value, by=rate: value + by\n"
    )
    space["rate"] = 4
    package = payload.pack({"node": space["node"], "closed": space["closed"], "late": space["late"]})
    out = in_another_process(
        package,
        tmp_path,
        """
        f = payload.load(joined)
        print(f["node"](1), f["node"](1)[0], f["closed"](2), f["closed"](0), f["late"](1))
        """,
    )
    assert out == "(5, 1) 6 7 8 4"
    assert package.classes == ""
    assert package.modules == []


def test_equal_code_makes_an_equal_payload_whatever_the_kernel() -> None:
    cell = "def node(value):\n    return value + 1\n"
    hashes = set()
    for pid in (11, 12):
        space: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(cell, f"/tmp/ipykernel_{pid}/123.py", "exec"), space)
        hashes.add(payload.pack({"n": space["node"]}).nodes["n"])
    assert len(hashes) == 1


def test_editing_a_class_changes_only_the_nodes_that_use_it() -> None:
    uses = "def uses(v):\n    return P(v)\ndef plain(v):\n    return v\n"
    one = notebook("class P:\n    def __init__(self, v): self.v = v\n", uses)
    two = notebook("class P:\n    def __init__(self, v): self.v = -v\n", uses)
    first, second = (payload.pack({n: s[n] for n in ("uses", "plain")}) for s in (one, two))
    assert first.nodes["plain"] == second.nodes["plain"]
    assert first.nodes["uses"] != second.nodes["uses"]
    assert first.class_module != second.class_module


def error(function: Any, **options: Any) -> FlowError:
    with pytest.raises(FlowError) as caught:
        payload.pack({"n": function}, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_capture_that_is_too_large_is_named_with_type_and_size() -> None:
    space = notebook(
        "table = bytes(12_000_000)\nsmall = 1\ndef helper():\n    return table\ndef n(v):\n    return helper(), small\n"
    )
    found = error(space["n"])
    assert found.code == "JF611"
    assert "node 'n': 'table' is a bytes of 12.0 MB, and at most 10 MB" in str(found)


def test_what_cannot_be_pickled_is_named_with_the_reason() -> None:
    space = notebook("import threading\nstream = (n for n in [1])\ndef n(v):\n    return next(stream)\n")
    found = error(space["n"])
    assert found.code == "JF612"
    assert "'stream' is a generator and cannot be pickled" in str(found)


def test_a_name_that_is_nowhere_is_named_with_its_neighbour() -> None:
    space = notebook("factor = 2\ndef n(v):\n    return [v * facto for _ in v]\n")
    found = error(space["n"])
    assert found.code == "JF613"
    assert "node 'n': the name 'facto' is not defined - did you mean 'factor'?" in str(found)


def test_a_class_that_was_defined_again_after_a_value_was_made_is_refused() -> None:
    space = notebook("class P:\n    pass\nold = P()\n", "class P:\n    pass\n", "def n(v):\n    return P(), old\n")
    assert error(space["n"]).code == "JF615"


def test_another_python_or_dill_is_said_before_anything_is_unpickled() -> None:
    package = payload.pack({"n": len})
    package.python = "3.9.1"
    with pytest.raises(FlowError, match=r"JF616 .*Python 3\.9\.1"):
        payload.load(package)
    package = payload.pack({"n": len})
    package.dill = "0.3.0"
    with pytest.raises(FlowError, match=r"JF616 .*dill 0\.3\.0"):
        payload.load(package)


def test_damaged_bytes_are_never_unpickled() -> None:
    package = payload.pack({"n": len})
    key = package.nodes["n"]
    package.payloads[key] = b"cos\nabort\n(tR."
    with pytest.raises(FlowError, match=r"JF617 node 'n': payload \w{12} is damaged"):
        payload.load(package)
    with pytest.raises(FlowError, match="JF617"):
        payload.Package.join(package.manifest(), {key: b"x"})


def test_a_module_beside_the_notebook_is_reported_and_can_be_included(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "jf_beside.py").write_text("import jf_deeper\ndef clean(v):\n    return jf_deeper.STEP + v\n")
    (tmp_path / "jf_deeper.py").write_text("STEP = 40\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    space = notebook(
        "import jf_beside\nfrom jf_beside import clean\ndef n(v):\n    import json\n    return clean(v) + len(jf_beside.__name__)\n"
    )
    package = payload.pack({"n": space["n"]}, modules_dir=tmp_path)
    assert package.local_modules == {
        "jf_beside": str(tmp_path / "jf_beside.py"),
        "jf_deeper": str(tmp_path / "jf_deeper.py"),
    }
    assert package.modules == ["jf_beside"]
    package = payload.pack({"n": space["n"]}, modules_dir=tmp_path, include=["jf_beside.py", "jf_deeper.py"])
    assert package.local_modules == {}
    assert in_another_process(package, tmp_path, "print(payload.load(joined)['n'](2))") == "51"
    for name in ("jf_beside", "jf_deeper"):
        sys.modules.pop(name, None)


def test_an_edited_module_beside_the_notebook_is_read_again_by_the_next_deployment(
    tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "jf_edited.py").write_text("def clean(v):\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    space = notebook("from jf_edited import clean\ndef n(v):\n    return clean(v)\n")
    package = payload.pack({"n": space["n"]}, modules_dir=tmp_path)
    old = payload.load(package)["n"]
    (tmp_path / "jf_edited.py").write_text("def clean(v):\n    return 2\n")
    assert (old(0), payload.load(package)["n"](0), old(0)) == (1, 2, 1)
    sys.modules.pop("jf_edited", None)


def test_an_include_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "helpers.py").touch()
    found = error(len, modules_dir=tmp_path, include=["helper.py"])
    assert str(found) == "JF619 include 'helper.py' is not there - did you mean 'helpers.py'?"


def test_a_traceback_in_a_worker_shows_the_lines_of_the_cell(tmp_path: Path) -> None:
    import linecache

    cell = "\n\ndef n(v):\n    return v / 0  # here\n"
    name = "/tmp/ipykernel_1/77.py"
    linecache.cache[name] = (len(cell), None, cell.splitlines(True), name)
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(cell, name, "exec"), space)
    assert isinstance(space["n"], FunctionType)
    package = payload.pack({"n": space["n"]})
    out = in_another_process(
        package,
        tmp_path,
        """
        import traceback
        try:
            payload.load(joined)["n"](1)
        except ZeroDivisionError:
            print(traceback.format_exc())
        """,
    )
    assert "return v / 0  # here" in out
    assert "line 4" in out
