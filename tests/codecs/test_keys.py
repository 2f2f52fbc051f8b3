import math
from collections import namedtuple
from datetime import date
from enum import Enum, IntEnum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyterflow import codecs
from jupyterflow.model import FlowError

scalars = (
    st.text(st.characters())
    | st.binary()
    | st.integers()
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False)
)
keys = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=8)


def typed(key: object) -> object:
    """The key with the type of every part, so that 1, True and 1.0 differ; -0.0 is 0.0."""
    if isinstance(key, tuple):
        return tuple(typed(item) for item in key)
    return type(key), key


@given(keys)
def test_a_key_comes_back_as_it_was_with_its_type(key):
    assert typed(codecs.decode_key(codecs.encode_key(key))) == typed(key)


@given(keys, keys)
def test_two_keys_have_one_encoding_only_if_they_are_one_key(a, b):
    assert (codecs.encode_key(a) == codecs.encode_key(b)) == (typed(a) == typed(b))


def test_one_true_one_point_zero_and_their_texts_are_different_keys():
    family = [1, True, 1.0, "1", b"1", (1,), (True,), (1.0,), ("1",), ((1,),), "True", None, "", b"", ()]
    assert len({codecs.encode_key(key) for key in family}) == len(family)
    assert len({codecs.state_key(key) for key in family}) == len(family)


def test_how_items_of_a_tuple_are_cut_does_not_blur():
    assert codecs.encode_key(("ab", "c")) != codecs.encode_key(("a", "bc"))
    assert codecs.encode_key(("a", ("b",))) != codecs.encode_key(("a", "b"))
    assert codecs.encode_key((b"s\x00",)) != codecs.encode_key(("\x00",))


def test_minus_zero_is_zero_and_all_nan_are_one_key():
    assert codecs.encode_key(-0.0) == codecs.encode_key(0.0)
    assert codecs.encode_key(float("nan")) == codecs.encode_key(-float("nan"))
    assert math.isnan(codecs.decode_key(codecs.encode_key(float("nan"))))


def test_the_encoding_is_the_same_in_every_version():
    assert codecs.encode_key("é") == b"s\xc3\xa9"
    assert codecs.encode_key(300) == b"i\x01\x2c"
    assert codecs.encode_key((None, False)) == b"(\0\0\0\x01n\0\0\0\x01f"
    assert codecs.encode_key(1.5) == b"d\x3f\xf8\0\0\0\0\0\0"


Point = namedtuple("Point", "x y")


class Color(Enum):
    RED = 1


class Level(IntEnum):
    HIGH = 3


class Name(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("key", "kind", "fix"),
    [
        ([1], "list", "tuple(key)"),
        ({"a": 1}, "dict", "sorted(key.items())"),
        ({1}, "set", "tuple(sorted(key))"),
        (Point(1, 2), "Point", "tuple(key)"),
        (Color.RED, "Color", "key.value"),
        (Level.HIGH, "Level", "key.value"),
        (Name("a"), "Name", "str(key)"),
        (bytearray(b"a"), "bytearray", "bytes(key)"),
        (date(2024, 1, 1), "date", "isoformat"),
        (object(), "object", "str(key)"),
        (("a", [1]), "list", "tuple(key)"),
    ],
)
def test_what_is_no_key_is_refused_with_its_type_and_the_fix(key, kind, fix):
    for refuse in (
        codecs.encode_key,
        codecs.state_key,
        codecs.outside_key,
        codecs.Partitioner(3).partition,
        lambda k: codecs.Partitioner(3).partition_column([k]),
        lambda k: codecs.state_keys(["a", k]),
    ):
        with pytest.raises(FlowError) as caught:
            refuse(key)
        line = str(caught.value)
        assert line.startswith("JF210 ")
        assert kind in line
        assert fix in line
        assert "\n" not in line


def test_numpy_scalars_are_refused_also_where_they_pass_for_python_types():
    np = pytest.importorskip("numpy")
    for key in (np.int64(1), np.float64(1.0), np.str_("a"), np.bytes_(b"a"), np.bool_(True)):
        with pytest.raises(FlowError, match=r"JF210 .*numpy.*key\.item\(\)"):
            codecs.encode_key(key)


def test_a_str_subclass_is_refused_even_when_its_text_was_seen_before():
    partitioner = codecs.Partitioner(4)
    partitioner.partition_column(["a"])
    with pytest.raises(FlowError, match="JF210"):
        partitioner.partition_column([Name("a")])


def test_a_tuple_nested_too_deeply_is_refused_in_one_line():
    key: tuple = ()
    for _ in range(100_000):
        key = (key,)
    with pytest.raises(FlowError, match=r"JF210 .*nested"):
        codecs.encode_key(key)
    while key:  # freed layer by layer
        (key,) = key


@given(st.binary(max_size=40))
@settings(max_examples=300)
def test_bytes_that_are_no_key_are_refused_and_others_are_canonical(data):
    refused = None
    try:
        key = codecs.decode_key(data)
    except FlowError as error:
        refused = error.code
    assert refused == "JF211" or codecs.encode_key(key) == data


@given(keys)
def test_a_state_key_goes_to_the_changelog_and_back(key):
    state_key = codecs.state_key(key)
    encoded = codecs.state_key_bytes(state_key)
    assert encoded == codecs.encode_key(key)
    assert codecs.state_key_of(encoded) == state_key
    assert typed(codecs.key_of(state_key)) == typed(key)


def test_a_column_of_str_is_its_own_column_of_state_keys():
    column = ["a", "b"]
    assert codecs.state_keys(column) is column
    assert codecs.state_keys(["a", 1]) == ["a", codecs.encode_key(1)]


@pytest.mark.parametrize(
    ("key", "data"),
    [
        ("é", "é".encode()),
        (b"\xff", b"\xff"),
        (None, None),
        (12, b"12"),
        (True, b"true"),
        (1.5, b"1.5"),
        (("é", 1, None), '["é",1,null]'.encode()),
    ],
)
def test_an_outside_topic_shows_keys_as_text(key, data):
    assert codecs.outside_key(key) == data


def test_a_key_without_a_text_form_is_refused_on_an_outside_topic():
    for key in ("\ud800", ("a", b"b")):
        with pytest.raises(FlowError, match=r"^JF212 [^\n]*$"):
            codecs.outside_key(key)


def test_keys_of_outside_topics_are_read_as_text_unless_they_are_not_utf8():
    assert codecs.inside_key("é".encode()) == "é"
    assert codecs.inside_key(b"\xff") == b"\xff"
    assert codecs.inside_key(None) is None


@given(st.binary(max_size=300))
def test_murmur2_is_the_one_of_kafka_clients(data):
    reference = pytest.importorskip("aiokafka.partitioner")
    assert codecs.murmur2(data) == reference.murmur2(data)
    parts = list(range(7))
    assert codecs.outside_partition(data, 7) == reference.DefaultPartitioner()(data, parts, parts)


def test_murmur2_has_the_values_of_kafkas_own_test():
    known = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    for data, value in known.items():
        assert codecs.murmur2(data) == value & 0xFFFFFFFF


@given(st.lists(keys, max_size=30), st.integers(1, 50))
def test_a_column_is_partitioned_as_each_key_alone_and_again_from_the_cache(column, n):
    expected = [codecs.outside_partition(codecs.encode_key(key), n) for key in column]
    partitioner = codecs.Partitioner(n, limit=3)
    assert partitioner.partition_column(column) == expected
    assert partitioner.partition_column(column) == expected
    assert [partitioner.partition(key) for key in column] == expected


def test_the_cache_of_partitions_is_bounded():
    partitioner = codecs.Partitioner(8, limit=100)
    column = [str(i) for i in range(1000)]
    assert partitioner.partition_column(column) == codecs.Partitioner(8).partition_column(column)
    assert all(len(cache) <= 100 for cache in partitioner._exact.values())


def test_keys_spread_over_all_partitions():
    assert set(codecs.Partitioner(8).partition_column([f"user{i}" for i in range(500)])) == set(range(8))
