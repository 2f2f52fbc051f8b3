"""What notebooks really contain, taken to another process."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jupyterflow.cluster import payload
from jupyterflow.model import FlowError


def notebook(*cells: str) -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "__main__", "_ih": [""]}
    for number, cell in enumerate(cells):
        space["_ih"].append(cell)
        exec(compile(cell, f"<ipython-input-{number}-abc>", "exec", dont_inherit=True), space)
    return space


def elsewhere(space: dict[str, Any], call: str, tmp_path: Path, node: str = "n") -> str:
    """What `call` prints in a new process, in which `n` is the node."""
    file = tmp_path / "package"
    file.write_bytes(pickle.dumps(payload.pack({node: space[node]})))
    program = (
        "import pickle, sys\nfrom jupyterflow.cluster import payload\n"
        f"n = payload.load(pickle.load(open(sys.argv[1], 'rb')))[{node!r}]\nprint({call})"
    )
    done = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


CASES = {
    "a decorator and a cache of the notebook": (
        "import functools\ncalls = []\ndef logged(f):\n    @functools.wraps(f)\n    def inner(*a):\n"
        "        calls.append(a)\n        return f(*a)\n    return inner\n"
        "@functools.lru_cache(maxsize=10)\ndef slow(v):\n    return v * 2\n@logged\ndef n(v):\n    return slow(v)\n",
        "n(2), n(2)",
        "4 4",
    ),
    "classes that name each other, and a helper that makes one": (
        "class Tree:\n    def __init__(self, v):\n        self.leaf = Leaf(self, v)\n    def again(self):\n"
        "        return plant(self.leaf.v + 1)\n"
        "class Leaf:\n    def __init__(self, tree, v):\n        self.tree, self.v = tree, v\n"
        "    def up(self):\n        return isinstance(self.tree, Tree)\n"
        "def plant(v):\n    return Tree(v)\ndef n(v):\n    return plant(v).again().leaf.v, Leaf(Tree(1), 1).up()\n",
        "n(3)",
        "(4, True)",
    ),
    "a default that is an instance of another class": (
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Unit:\n    name: str\nMETRE = Unit('m')\n"
        "@dataclass\nclass Length:\n    v: float\n    unit: Unit = METRE\nNORMAL = [Length(1.0)]\n"
        "def n(v):\n    return Length(v).unit is METRE, Length(v).unit == NORMAL[0].unit, isinstance(METRE, Unit)\n",
        "n(1)",
        # METRE was captured by the payload and by the class module: equal, of one class, two objects.
        "(False, True, True)",
    ),
    "a class decorated and checked by functions of the notebook": (
        "REGISTRY = {}\ndef register(cls):\n    REGISTRY[cls.__name__] = True\n    return cls\n"
        "class Base:\n    def __init_subclass__(cls, **kw):\n        super().__init_subclass__()\n        cls.tag = kw['tag']\n"
        "@register\nclass Sub(Base, tag='x'):\n    limit = 1 << 4\n    def f(self):\n        return self.tag, self.limit\n"
        "def n(v):\n    return Sub().f()\n",
        "n(1)",
        "('x', 16)",
    ),
    "functional and abstract classes": (
        "import abc, collections, enum, typing, functools\nPair = collections.namedtuple('Pair', ['a', 'b'], defaults=[7])\n"
        "Colour = enum.Enum('Colour', 'RED BLUE')\nclass Flags(enum.Flag):\n    A = enum.auto()\n    B = enum.auto()\n"
        "class Row(typing.TypedDict):\n    a: int\n"
        "class Shape(abc.ABC):\n    @abc.abstractmethod\n    def area(self): ...\n"
        "class Square(Shape):\n    def area(self):\n        return self._side ** 2\n    @functools.cached_property\n"
        "    def _side(self):\n        return 3\n    __hidden = 1\n    def __secret(self):\n        return Flags.A | Flags.B\n"
        "def n(v):\n    return Pair(v), Colour.RED, Square().area(), Row(a=1), Flags.A | Flags.B\n",
        "pickle.loads(pickle.dumps(n(1))) == n(1), n(1)[:4]",
        "True (Pair(a=1, b=7), <Colour.RED: 1>, 9, {'a': 1})",
    ),
    "a class made inside a function": (
        "def make():\n    class Inner:\n        def __init__(self, v):\n            self.v = v\n    return Inner\n"
        "Made = make()\ndef n(v):\n    return isinstance(Made(v), Made), make()(v).v\n",
        "n(5)",
        "(True, 5)",
    ),
    "generators, coroutines and lambdas": (
        "import asyncio, random\nstep = 2\nasync def later(v):\n    await asyncio.sleep(0)\n    return v + step\n"
        "def numbers(v):\n    yield from (i * step for i in range(v))\n"
        "n = lambda v: (asyncio.run(later(v)), [*numbers(v)], random.Random(1).random() < 1)\n",
        "n(3)",
        "(5, [0, 2, 4], True)",
    ),
    "bound methods and partials": (
        "import functools\nclass Adder:\n    def __init__(self, by):\n        self.by = by\n    def add(self, v):\n"
        "        return v + self.by\nadder = Adder(4)\nn = functools.partial(lambda f, v: f(v), adder.add)\n",
        "n(1)",
        "5",
    ),
    "hints that are variables and new types": (
        "import typing\nT = typing.TypeVar('T')\nUser = typing.NewType('User', int)\nclass Box(typing.Generic[T]):\n"
        "    item: T\n    owner: User\ndef n(v: T) -> dict[User, Box[T]]:\n    return {User(v): Box[int]().__class__.__name__}\n",
        "n(1)",
        "{1: 'Box'}",
    ),
    "recursion, deletion and names made by the code itself": (
        "def n(v):\n    global made\n    made = v\n    del globals()['made']\n    return 1 if v == 0 else v * n(v - 1)\n",
        "n(5)",
        "120",
    ),
    "a class cell whose lines are shared and indented": (
        "flag = 1\nif flag:\n    class P:\n        text = '''Text\n  kept'''\n        v = 1\nx = 1; Q = P\n"
        "def n(v):\n    return P.text, Q is P\n",
        "n(1)",
        "('Text\\n  kept', True)",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_does_elsewhere_what_it_does_in_the_notebook(case: str, tmp_path: Path) -> None:
    cell, call, expected = CASES[case]
    assert elsewhere(notebook(cell), call, tmp_path) == expected


@pytest.mark.parametrize("case", [case for case in CASES if "class" in case or "hints" in case])
def test_a_script_that_is_executed_under_its_own_name_is_not_imported(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, call, expected = CASES[case]
    script = tmp_path / "jf_script.py"
    script.write_text(cell)
    monkeypatch.syspath_prepend(str(tmp_path))
    space: dict[str, Any] = {"__name__": "jf_script", "__file__": str(script)}
    exec(compile(cell, str(script), "exec", dont_inherit=True), space)
    assert elsewhere(space, call, tmp_path) == expected
    assert "jf_script" not in sys.modules


def test_the_newest_definition_of_a_class_is_taken_whatever_the_order_of_the_cells(tmp_path: Path) -> None:
    one = "class P:\n    v = 1\n"
    two = "class P:\n    v = 2\n"
    use = "def n(_):\n    return P.v\n"
    assert elsewhere(notebook(one, use, two), "n(0)", tmp_path) == "2"
    assert elsewhere(notebook(one, two, one, use), "n(0)", tmp_path) == "1"


def test_quoted_annotations_that_are_no_names_do_no_harm(tmp_path: Path) -> None:
    cell = (
        "import typing, dataclasses\n@dataclasses.dataclass\nclass P:\n    kind: typing.Literal['buy', 'sell'] = 'buy'\n"
        "    next: 'P | None' = None\n    other: 'Missing | None' = None\ndef n(v):\n    return P().kind\n"
    )
    assert elsewhere(notebook(cell), "n(1)", tmp_path) == "buy"


def test_a_big_table_that_shares_its_name_with_a_local_stays_at_home() -> None:
    cell = (
        "df = bytes(50_000_000)\nclass P:\n    def f(self, df):\n        return [df for df in df]\n"
        "def n(df):\n    return P().f(df)\n"
    )
    package = payload.pack({"n": notebook(cell)["n"]})
    assert sum(map(len, package.blobs().values())) < 5_000


def refused(cell: str) -> str:
    with pytest.raises(FlowError) as caught:
        payload.pack({"n": notebook(cell)["n"]})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_a_class_uses_is_checked_and_named_too() -> None:
    assert "JF613 node 'n': class 'P': the name 'factr' is not defined - did you mean 'factor'?" in refused(
        "factor = 1\nclass P:\n    def f(self):\n        return factr\ndef n(v):\n    return P().f()\n"
    )
    assert "'table' is a bytes of 11.0 MB" in refused(
        "table = bytes(11_000_000)\nclass P:\n    def f(self):\n        return table\ndef n(v):\n    return P().f()\n"
    )
    assert "JF612 node 'n': the flow's classes: 'stream' is a generator and cannot be pickled" in refused(
        "stream = (i for i in [1])\nclass P:\n    def f(self):\n        return stream\ndef n(v):\n    return P().f()\n"
    )


def test_a_class_whose_source_is_gone_is_said_with_the_fix() -> None:
    space = notebook("class Gone:\n    v = 1\ndef n(v):\n    return Gone.v\n")
    space["_ih"].clear()
    with pytest.raises(FlowError, match="JF614 node 'n': the source of class 'Gone' is not found - run the cell"):
        payload.pack({"n": space["n"]})


def test_a_closure_over_a_socket_is_named() -> None:
    message = refused(
        "import socket\ndef outer():\n    link = socket.socket()\n    link.close()\n    def inner(v):\n        return link\n"
        "    return inner\nn = outer()\n"
    )
    assert "JF612 node 'n': 'link'" in message
    assert "is a socket and cannot be pickled" in message


def test_the_notebooks_own_module_is_no_capture() -> None:
    assert "JF612" in refused("import __main__ as notebook\ndef n(v):\n    return notebook\n")
