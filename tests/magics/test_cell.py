"""What a cell's body becomes."""

import ast
import asyncio
import linecache
import textwrap
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterflow.magics._cell import compile_cell
from jupyterflow.model import FlowError


def function(body: str, kind: str = "map", name: str = "node", **names: Any) -> Any:
    return compile_cell(kind, name, textwrap.dedent(body).strip("\n"), {"__name__": "__main__", **names}).fn


def parameters(body: str, kind: str = "map") -> tuple[str, ...]:
    code = function(body, kind).__code__
    return tuple(code.co_varnames[: code.co_argcount])


def test_the_last_expression_is_the_result() -> None:
    assert function("doubled = value * 2\ndoubled + 1")(4) == 9


def test_return_works_at_the_top_of_a_body() -> None:
    keep = function("if value < 0:\n    return None\nreturn value")
    assert (keep(-1), keep(1)) == (None, 1)


def test_an_early_return_does_not_hide_the_last_expression() -> None:
    keep = function("if value < 0:\n    return 'less'\n'more'")
    assert (keep(-1), keep(1)) == ("less", "more")


def test_yield_makes_a_generator() -> None:
    assert list(function("for i in range(value):\n    yield i\n'ignored'")(3)) == [0, 1, 2]


def test_await_makes_a_coroutine() -> None:
    assert asyncio.run(function("import asyncio\nawait asyncio.sleep(0)\nvalue + 1")(1)) == 2


def test_async_comprehensions_make_a_coroutine() -> None:
    async def numbers() -> Any:
        for i in range(3):
            yield i

    body = "[i * value async for i in numbers()]"
    assert asyncio.run(function(body, numbers=numbers)(2)) == [0, 2, 4]


def test_await_and_yield_make_an_asynchronous_generator() -> None:
    async def drain(items: Any) -> list[int]:
        return [item async for item in items]

    body = "import asyncio\nwhile position is None:\n    await asyncio.sleep(0)\n    yield 1\n    return"
    assert asyncio.run(drain(function(body, "source")(None))) == [1]


def test_strings_over_many_lines_are_unchanged() -> None:
    body = 'text = """a\n  b\n\tc\n"""\nif value:\n    text += """\nd\n    e"""\ntext'
    assert function(body)(True) == "a\n  b\n\tc\n\nd\n    e"


NO_LINE_ENDS = st.characters(exclude_characters="\r\0\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", codec="utf-8")
NAMES = st.sampled_from(["value", "key", "state", "other"])


@given(st.text(alphabet=NO_LINE_ENDS))
def test_any_text_in_a_string_is_unchanged(text: str) -> None:
    literal = '"""' + text.replace("\\", "\\\\").replace('"', '\\"') + '"""'
    assert compile_cell("map", "node", f"def inner():\n    return {literal}\ninner()", {}).fn(None) == text


@given(NAMES, NAMES)
def test_a_body_has_the_result_of_the_same_function_written_by_hand(first: str, second: str) -> None:
    body = f"{first} = ({first}, 1)\nfound = [{second} for {second} in [{first}]]\n"
    body += f"(found, (last := {second}))"
    names = {"other": "o"}
    made = compile_cell("map", "node", body.replace("other = (other", "mine = (other"), dict(names)).fn
    given_names = made.__code__.co_varnames[: made.__code__.co_argcount]
    arguments = {"value": "v", "key": "k", "state": "s"}
    by_hand: dict[str, Any] = dict(names)
    text = body.replace("other = (other", "mine = (other").replace("(found, (", "return (found, (")
    exec(f"def hand({', '.join(arguments)}):\n" + textwrap.indent(text, "    "), by_hand)
    assert made(**{n: arguments[n] for n in given_names}) == by_hand["hand"](**arguments)


def test_names_come_from_the_namespace_when_the_body_runs() -> None:
    namespace: dict[str, Any] = {"factor": 2}
    fn = compile_cell("map", "node", "value * factor", namespace).fn
    namespace["factor"] = 10
    assert fn(3) == 30


def test_what_a_body_assigns_is_local() -> None:
    namespace: dict[str, Any] = {"total": 1}
    assert compile_cell("map", "node", "total = value\ntotal", namespace).fn(5) == 5
    assert namespace["total"] == 1


def test_global_reaches_the_namespace() -> None:
    namespace: dict[str, Any] = {"seen": 1}
    compile_cell("map", "node", "global seen\nseen += value", namespace).fn(5)
    assert namespace["seen"] == 6


def test_a_walrus_is_local_and_works_in_a_comprehension() -> None:
    assert function("[(last := i) for i in range(value)]\nlast")(3) == 2


def test_nested_functions_and_closures_work() -> None:
    body = """
    def times(n):
        def inner(x):
            return x * n * value
        return inner
    times(2)(5)
    """
    assert function(body)(3) == 30


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("1", ("value",)),
        ("value + 1", ("value",)),
        ("(key, timestamp, headers)", ("value", "key", "timestamp", "headers")),
        ("state['n'] = state.get('n', 0) + 1\nstate['n']", ("value", "state")),
        ("print(context.id)", ("value", "context")),
        ("[key for k in value]", ("value", "key")),
        ("[key for key in value]", ("value",)),
        ("{key: state for key, state in value}", ("value",)),
        ("sorted(value, key=lambda state: state[0])", ("value",)),
        ("lambda: key", ("value", "key")),
        ("key = value['id']\nkey", ("value",)),
        ("key = key.lower()\nkey", ("value", "key")),
        ("key += 'x'\nkey", ("value", "key")),
        ("if value:\n    key = 1\nkey", ("value", "key")),
        ("if value:\n    key = 1\nelse:\n    key = 2\nkey", ("value",)),
        ("for key, state in value.items():\n    print(key, state)", ("value",)),
        ("try:\n    key = value['id']\nexcept KeyError:\n    key = None\nkey", ("value",)),
        ("with value as key:\n    print(key)", ("value",)),
        ("import headers\nheaders.x", ("value",)),
        ("from a import b as state\nstate", ("value",)),
        ("def key():\n    return 1\nkey()", ("value",)),
        ("match value:\n    case {'key': key}:\n        print(key)", ("value",)),
        ("global state\nstate = 1", ("value",)),
        ("value.state.key", ("value",)),
        ("f(key=1)", ("value",)),
    ],
)
def test_a_body_asks_for_what_it_reads(body: str, expected: tuple[str, ...]) -> None:
    assert parameters(body) == expected


def test_a_source_may_ask_for_its_position_and_instance() -> None:
    assert parameters("yield 1", "source") == ()
    assert parameters("yield position or 0\nyield instances", "source") == ("position", "instances")
    assert parameters("yield value", "source") == ()


def test_a_fold_sees_acc_and_value() -> None:
    assert parameters("acc + value", "reduce") == ("acc", "value")
    assert function("acc + value", "aggregate")(1, 2) == 3


def test_a_definition_of_the_nodes_name_is_the_node_and_can_be_called() -> None:
    namespace: dict[str, Any] = {}
    body = "import math\nlimit = 10\ndef double(n: int) -> int:\n    return math.floor(n) * 2 + limit"
    cell = compile_cell("map", "double", body, namespace)
    assert cell.defined
    assert cell.fn is namespace["double"]
    assert cell.code == body
    assert namespace["double"](2) == 14
    assert namespace["limit"] == 10


@pytest.mark.parametrize(
    "body",
    [
        "async def node(value):\n    return value",
        "class node:\n    def __init__(self, value): ...",
        "node = lambda value: value",
    ],
)
def test_async_functions_classes_and_lambdas_are_definitions_too(body: str) -> None:
    assert compile_cell("map", "node", body, {}).defined


def test_an_assignment_to_the_nodes_name_is_no_definition() -> None:
    assert not compile_cell("map", "price", "price = value\nprice", {}).defined


def test_a_traceback_points_at_the_line_in_the_cell() -> None:
    cell = compile_cell("map", "factors", "a = 1\n\nvalue / 0", {}, header="%%flow map factors --from x")
    with pytest.raises(ZeroDivisionError) as caught:
        cell.fn(1)
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (frame.lineno, frame.name, frame.line) == (4, "factors", "value / 0")
    assert frame.filename.startswith("<%%flow map factors ")
    assert linecache.getline(cell.filename, 1) == "# %%flow map factors --from x\n"


def test_a_traceback_points_into_a_defined_function_too() -> None:
    cell = compile_cell("map", "bad", "x = 1\ndef bad(n):\n    raise KeyError(n)", {})
    with pytest.raises(KeyError) as caught:
        cell.fn(1)
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (frame.lineno, frame.line) == (4, "raise KeyError(n)")


def test_a_syntax_error_is_one_line_with_its_place() -> None:
    with pytest.raises(FlowError) as caught:
        compile_cell("map", "factors", "a = 1\nx = = 2", {})
    assert str(caught.value) == "JF711 %%flow map factors, line 3: invalid syntax - in 'x = = 2' at '= 2'"


@pytest.mark.parametrize(
    "body", ["  value", "return (", "nonlocal x", "global value\nvalue", "break", "a\0b", "from m import *"]
)
def test_every_syntax_error_is_a_flow_error(body: str) -> None:
    with pytest.raises(FlowError, match=r"^JF711 %%flow map node.*[^\n]$") as caught:
        compile_cell("map", "node", body, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("body", ["", "\n\n", "# only a comment"])
def test_an_empty_body_says_so(body: str) -> None:
    with pytest.raises(FlowError, match="JF712"):
        compile_cell("map", "node", body, {})


def test_a_node_whose_name_is_no_identifier_still_works() -> None:
    assert function("value", name="to-euros.2")(1) == 1


def test_a_body_is_never_parsed_twice_or_changed() -> None:
    body = "x = 1  # note\n'''doc'''\nvalue"
    assert compile_cell("map", "node", body, {}).code == body
    assert ast.parse(body)


def test_equal_cells_give_equal_code() -> None:
    first, second = (compile_cell("map", "x", "y = value\ny + 1", {}).fn.__code__ for _ in range(2))
    assert (first, first.co_filename) == (second, second.co_filename)


def test_classes_of_a_cell_have_their_source() -> None:
    import inspect

    namespace = {"__name__": "jupyterflow_test_cell"}
    cell = compile_cell(
        "map", "node", "class Bid:\n    def price(self):\n        return 1\n\ndef node(v):\n    v", namespace
    )
    assert inspect.getsource(cell.fn) == "def node(v):\n    v\n"
    assert inspect.getsource(namespace["Bid"].price) == "    def price(self):\n        return 1\n"
