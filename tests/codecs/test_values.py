import dataclasses
import datetime
import pickle
import subprocess
import sys
from collections import namedtuple
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterflow import codecs
from jupyterflow.model import FlowError

text = st.text(st.characters(codec="utf-8"))
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | text
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@dataclasses.dataclass
class Bid:
    auction: int
    price: float | None = None


class Ask(msgspec.Struct):
    auction: int
    price: float | None = None


Point = namedtuple("Point", "x y")


def refusal(function, *args) -> str:
    """The one line with which something is refused."""
    with pytest.raises(FlowError) as caught:
        function(*args)
    line = str(caught.value)
    assert "\n" not in line
    return line


@given(st.lists(plain, max_size=5))
def test_json_comes_back_one_by_one_and_many_at_a_time(values):
    codec = codecs.get("json")
    data = codec.encode_many(values)
    assert data == [codec.encode(value) for value in values]
    assert codec.decode_many(data) == values
    assert [codec.decode(item) for item in data] == values


@given(st.lists(text))
def test_text_comes_back(values):
    codec = codecs.get("text")
    data = codec.encode_many(values)
    assert data == [codec.encode(value) for value in values] == [value.encode() for value in values]
    assert codec.decode_many(data) == [codec.decode(item) for item in data] == values


@given(st.lists(st.binary()))
def test_bytes_are_themselves(values):
    codec = codecs.get("bytes")
    assert codec.encode_many(values) == codec.decode_many(values) == values
    assert [codec.encode(value) for value in values] == [codec.decode(value) for value in values] == values


def test_json_writes_what_notebooks_hold():
    codec = codecs.get("json")
    day = datetime.date(2024, 1, 2)
    cases = [
        (Bid(1, 2.5), b'{"auction":1,"price":2.5}'),
        (Ask(1), b'{"auction":1,"price":null}'),
        ({"ask": Ask(1, 2.0), "bid": Bid(1)}, None),
        ((1, ("a",)), b'[1,["a"]]'),
        (Point(1, 2), b"[1,2]"),
        (day, b'"2024-01-02"'),
        ("é", '"é"'.encode()),
        (None, b"null"),
    ]
    for value, data in cases:
        assert codec.encode_many([value]) == [codec.encode(value)]
        if data is not None:
            assert codec.encode(value) == data
    values = [Bid(1), Ask(2), {"a": None}]
    assert codec.encode_many(values) == [codec.encode(value) for value in values]


def test_json_writes_numpy_arrays_and_scalars():
    np = pytest.importorskip("numpy")
    codec = codecs.get("json")
    assert codec.encode({"a": np.int64(1), "b": np.arange(3), "c": np.float64(1.5)}) == (
        b'{"a":1,"b":[0,1,2],"c":1.5}'
    )
    for bad in (np.float64("nan"), np.array([1.0, np.nan]), np.float32("inf")):
        assert "NaN or infinite" in refusal(codec.encode, {"a": [bad, None]})


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (float("nan"), "value is NaN"),
        ({"a": [1.0, None, float("inf")]}, "value.a[2] is NaN"),
        ({"a b": (None, float("-inf"))}, "value['a b'][1] is NaN"),
        (Bid(1, float("nan")), "value.price is NaN"),
        (Ask(1, float("nan")), "value.price is NaN"),
        ([{"x": Ask(1, float("nan"))}], "value[0].x.price is NaN"),
        ({b"a": 1}, "key b'a' of type bytes - use str keys"),
        ({"a": {1: 2}}, "value.a has the key 1 of type int"),
        ({"a": [b"x"]}, "value.a[0] is of type bytes - decode it"),
        ({"a": {1}}, "value.a is of type set - use sorted"),
        ({"a": Decimal(1)}, "value.a is of type Decimal - use str"),
        ([2**64], "value[0] is an integer over 64 bits"),
        (["\ud800"], "value[0] is a str with a lone surrogate"),
        (object(), "value is of type object"),
    ],
)
def test_what_json_cannot_say_is_refused_with_its_place(value, where):
    codec = codecs.get("json")
    for line in (refusal(codec.encode, value), refusal(codec.encode_many, [1, value])):
        assert line.startswith("JF202 JSON: ")
        assert where in line


def test_a_value_that_contains_itself_is_refused_as_json():
    loop: list[Any] = []
    loop.append(loop)
    deep: Any = 0
    for _ in range(400):
        deep = [deep]
    for value in (loop, {"a": loop}, deep):
        assert refusal(codecs.get("json").encode, value).startswith("JF202 ")


def test_none_and_the_word_null_are_fine_in_json():
    value = {"a": None, "b": "null", "c": [1.5, {"d": None}]}
    codec = codecs.get("json")
    assert codec.decode(codec.encode(value)) == value
    assert codec.decode_many(codec.encode_many([value])) == [value]


@pytest.mark.parametrize("data", [b"", b"{", b"nul", b"NaN", b"\xff", b"[1],2", b'"a\nb"'])
def test_what_is_not_json_is_refused_with_its_beginning(data):
    line = refusal(codecs.get("json").decode, data)
    assert line.startswith("JF203 JSON: ")
    with pytest.raises(ValueError):
        codecs.get("json").decode_many([b"1", data])


def test_texts_that_are_json_only_when_joined_are_refused():
    for column in ([b"[1", b"2],3"], [b'"a', b'b"'], [b"1,2", b"3"]):
        for hint in (None, list[int]):
            with pytest.raises(ValueError):
                codecs.get("json", hint).decode_many(column)


@pytest.mark.parametrize("hint", [Bid, Ask])
def test_json_is_decoded_to_the_type_of_the_hint(hint):
    codec = codecs.get("json", hint)
    data = codec.encode_many([hint(1, 2.0), hint(2)])
    assert codec.decode_many(data) == [hint(1, 2.0), hint(2)]
    assert codec.decode(data[0]) == hint(1, 2.0)
    line = refusal(codec.decode, b'{"auction":"x"}')
    assert line.startswith("JF203 ")
    assert "$.auction" in line


def test_json_keeps_the_tuples_of_a_hint():
    assert codecs.get("json", tuple[str, int]).decode(b'["a",1]') == ("a", 1)


@pytest.mark.parametrize("hint", [None, Any, dict, list, object, "Later"])
def test_hints_that_ask_for_nothing_leave_plain_json(hint):
    assert codecs.get("json", hint).decode(b'{"a":[1]}') == {"a": [1]}


def test_a_type_that_json_cannot_become_is_refused_at_once():
    class Opaque:
        def __init__(self, x):
            self.x = x

    line = refusal(codecs.get, "json", Opaque)
    assert line.startswith("JF206 ")
    assert "Opaque" in line


def test_text_and_bytes_refuse_other_types_in_one_line():
    assert "int is no str" in refusal(codecs.get("text").encode, 1)
    assert "surrogate" in refusal(codecs.get("text").encode, "a\ud800")
    assert "byte 1 is not UTF-8" in refusal(codecs.get("text").decode, b"a\xff")
    assert "str is no bytes" in refusal(codecs.get("bytes").encode, "a")
    assert codecs.get("bytes").encode(memoryview(b"ab")) == b"ab"
    for column in (["a", 1], ["\ud800"]):
        with pytest.raises((TypeError, ValueError)):
            codecs.get("text").encode_many(column)


def test_pickle_needs_a_seal_and_keeps_types(monkeypatch):
    sealer = codecs.Sealer(bytes(32), "")
    assert refusal(codecs.get("pickle").decode, b"x").startswith("JF204 ")
    codec = codecs.get("pickle").bound(sealer, "t", 0)
    values = [("a", {1}), Bid(1)]
    data = codec.encode_many(values)
    assert codec.decode_many(data) == values
    assert refusal(codec.encode, lambda: None).startswith("JF202 ")
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("unpickled before it was checked"))
    for bad in (pickle.dumps(1), data[0][:-1] + b"!", b""):
        assert refusal(codec.decode, bad).startswith("JF22")
    assert refusal(codecs.get("pickle").bound(sealer, "t", 1).decode, data[0]).startswith("JF222 ")


def test_codecs_that_need_no_seal_are_bound_as_they_are():
    sealer = codecs.Sealer(bytes(32), "")
    assert codecs.get("json").bound(sealer, "t", 0) is codecs.get("json")


@pytest.mark.parametrize(
    ("hint", "name"),
    [(str, "text"), ("str", "text"), (bytes, "bytes"), (dict, "json"), (Bid, "json"), (Ask, "json"),
     (list[int], "json"), (str | None, "json"), (int, "json"), (None, "json"), (Any, "json")],
)  # fmt: skip
def test_a_type_chooses_its_codec(hint, name):
    assert codecs.for_type(hint) == name


def test_an_unknown_codec_is_refused_with_the_nearest_name():
    assert refusal(codecs.get, "jsn") == "JF201 unknown codec 'jsn' - did you mean 'json'?"
    assert "json, text, bytes, pickle" in refusal(codecs.get, "x-y-z")


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """A distribution on the path that brings codecs."""
    info = tmp_path / "jf_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: jf-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[jupyterflow.codecs]\nrot=jf_plugin_codecs:rot\nmade=jf_plugin_codecs:make\n"
        "gone=jf_plugin_codecs:gone\nwrong=jf_plugin_codecs:wrong\njson=jf_plugin_codecs:rot\n"
    )
    (tmp_path / "jf_plugin_codecs.py").write_text(
        "from jupyterflow.codecs import Codec\n"
        "rot = Codec('rot', lambda v: v.encode()[::-1], lambda d: d[::-1].decode())\n"
        "def make(): return rot\n"
        "def wrong(): return 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("jf_plugin_codecs", None)


@pytest.mark.usefixtures("plugins")
def test_a_plugin_brings_a_codec_or_a_function_that_makes_one():
    for name in ("rot", "made"):
        codec = codecs.get(name)
        assert codec.encode_many(["abc"]) == [b"cba"]
        assert codec.decode_many([b"cba"]) == ["abc"]
    assert codecs.names() == ["json", "text", "bytes", "pickle", "gone", "made", "rot", "wrong"]
    assert "did you mean 'rot'" in refusal(codecs.get, "rott")


@pytest.mark.usefixtures("plugins")
def test_a_plugin_never_replaces_a_built_in_codec():
    assert codecs.get("json").encode("a") == b'"a"'


@pytest.mark.usefixtures("plugins")
def test_a_broken_plugin_is_named_with_its_distribution():
    for name in ("gone", "wrong"):
        line = refusal(codecs.get, name)
        assert line.startswith(f"JF205 codec '{name}' of jf-plugin ")


def test_importing_the_codecs_imports_neither_kafka_nor_numpy_nor_plugins():
    heavy = "aiokafka", "numpy", "pandas", "IPython", "importlib.metadata", "dill"
    code = f"import sys, jupyterflow.codecs; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"
