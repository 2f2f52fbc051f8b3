import hashlib
import hmac
import pickle
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterflow import codecs
from jupyterflow.model import Batch, FlowError

KEY = bytes(range(32))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def batches(draw):
    n = draw(st.integers(0, 20))

    def column(items):
        return st.lists(items, min_size=n, max_size=n)

    return Batch(
        draw(column(values)),
        draw(st.none() | column(st.text(max_size=3) | st.integers())),
        draw(st.integers(0, 2**50) | column(st.integers(0, 2**50))),
        draw(st.none() | column(st.just(()) | st.just((("h", b"x"),)))),
    )


def no_pickle(*_args, **_kwargs):
    raise AssertionError("unpickled before it was checked")


@given(batches())
def test_a_batch_comes_back_with_its_types_and_columns(batch):
    back = codecs.decode_batch(codecs.encode_batch(batch))
    assert repr(list(back)) == repr(list(batch))
    assert (back.keys is None, back.headers is None) == (batch.keys is None, batch.headers is None)
    assert back.timestamps == batch.timestamps


def test_a_tuple_stays_a_tuple():
    back = codecs.decode_batch(codecs.encode_batch(Batch([("a", [1, (2,)])], [("k", 1)])))
    assert list(back) == list(Batch([("a", [1, (2,)])], [("k", 1)]))
    assert type(back.values[0]) is tuple
    assert type(back.values[0][1][1]) is tuple


@given(batches(), st.integers(200, 600))
def test_frames_hold_the_batch_in_order_within_the_limit(batch, limit):
    too_large = [row for row in range(len(batch)) if len(codecs.encode_batch(batch[row : row + 1])) > limit]
    if too_large:
        with pytest.raises(codecs.RowError, match=r"^JF226 ") as caught:
            codecs.frames(batch, limit)
        assert caught.value.row == too_large[0]
        return
    payloads = codecs.frames(batch, limit)
    assert all(len(payload) <= limit for payload in payloads)
    back = [record for payload in payloads for record in codecs.decode_batch(payload)]
    assert repr(back) == repr(list(batch))


def test_an_empty_batch_makes_no_frame():
    assert codecs.frames(Batch([])) == []


def test_a_large_batch_is_split_into_few_frames():
    payloads = codecs.frames(Batch([f"word {i}" for i in range(300_000)]))
    assert max(map(len, payloads)) <= 900_000
    assert len(payloads) <= 2 * sum(map(len, payloads)) // 900_000 + 1


def test_one_record_over_the_limit_is_refused_with_its_row_and_size():
    batch = Batch(["a"] * 50 + ["x" * 1_000_000] + ["b"] * 50)
    with pytest.raises(codecs.RowError, match=r"^JF226 [^\n]*str takes 1,000,\d+ bytes[^\n]*$") as caught:
        codecs.frames(batch)
    assert caught.value.row == 50


def test_a_value_that_cannot_be_pickled_is_refused_with_its_row():
    with pytest.raises(codecs.RowError, match=r"^JF225 [^\n]*function[^\n]*$") as caught:
        codecs.frames(Batch([1, 2, lambda: None, 4]))
    assert caught.value.row == 2


def test_a_sealed_payload_opens_in_its_own_place():
    sealer = codecs.Sealer(KEY, "e1")
    for payload in (b"", b"F", b"x" * 100_000):
        assert sealer.open("t", 3, sealer.seal("t", 3, payload)) == payload
        assert codecs.Sealer(KEY, "e1").open("t", 3, sealer.seal("t", 3, payload)) == payload


def test_the_seal_is_plain_hmac_sha256_for_keys_of_any_length():
    for key in (KEY, b"k" * 16, b"k" * 64, b"k" * 200):
        context = b"\x01" + pack(">IIq", 2, 5, 7) + b"e1" + b"topic"
        mac = hmac.digest(key, context + b"payload", hashlib.sha256)
        assert codecs.Sealer(key, "e1").seal("topic", 7, b"payload") == b"\x01" + mac + b"payload"


def test_any_changed_byte_is_refused_before_anything_is_unpickled(monkeypatch):
    sealer = codecs.Sealer(KEY, "e1")
    sealed = sealer.seal("t", 0, codecs.encode_batch(Batch(["a", ("b", 1)], ["k", None])))
    monkeypatch.setattr(pickle, "loads", no_pickle)
    for i in range(len(sealed)):
        for flip in (0x01, 0x80):
            bad = bytearray(sealed)
            bad[i] ^= flip
            with pytest.raises(FlowError, match=r"^JF22[12] [^\n]*$"):
                codecs.decode_batch(sealer.open("t", 0, bytes(bad)))


def test_a_shortened_lengthened_or_missing_message_is_refused(monkeypatch):
    sealer = codecs.Sealer(KEY, "e1")
    sealed = sealer.seal("t", 0, codecs.encode_batch(Batch(["a"])))
    monkeypatch.setattr(pickle, "loads", no_pickle)
    for bad in [*(sealed[:i] for i in range(len(sealed))), sealed + b"\0", None]:
        with pytest.raises(FlowError, match=r"^JF22[12] "):
            sealer.open("t", 0, bad)


def test_a_message_moved_to_another_topic_partition_epoch_or_cluster_is_refused():
    sealed = codecs.Sealer(KEY, "e1").seal("t", 0, b"payload")
    for key, epoch, topic, partition in [
        (KEY, "e1", "t", 1),
        (KEY, "e1", "u", 0),
        (KEY, "e2", "t", 0),
        (KEY, "e", "1t", 0),
        (KEY, "e1t", "", 0),
        (KEY[::-1], "e1", "t", 0),
    ]:
        with pytest.raises(FlowError, match=r"^JF222 .*key file"):
            codecs.Sealer(key, epoch).open(topic, partition, sealed)


def test_a_sealer_for_more_partitions_than_it_remembers_still_opens_all():
    sealer = codecs.Sealer(KEY, "e1")
    sealed = [sealer.seal("t", i, b"x") for i in range(5000)]
    assert all(sealer.open("t", i, data) == b"x" for i, data in enumerate(sealed))


def test_a_short_key_is_refused():
    with pytest.raises(FlowError, match=r"^JF220 "):
        codecs.Sealer(b"secret", "e1")


@given(
    st.sampled_from(["end", "drain", "watermark"]),
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.integers(0, 2**53 - 1),
    st.none() | st.integers(-(2**53), 2**53),
)
def test_a_mark_comes_back(kind, text, number, value):
    mark = codecs.Mark(kind, text, number, text, 1, 4, value)
    payload = mark.encode()
    assert codecs.payload_kind(payload) == codecs.MARK
    assert codecs.Mark.decode(memoryview(payload)) == mark


def test_a_split_comes_back():
    payload = codecs.encode_split(("file", 3))
    assert codecs.payload_kind(memoryview(payload)) == codecs.SPLIT
    assert codecs.decode_split(payload) == ("file", 3)


def test_payloads_of_the_wrong_kind_are_refused():
    for decode, payload in [
        (codecs.decode_batch, codecs.encode_split(1)),
        (codecs.decode_split, codecs.encode_batch(Batch([1]))),
        (codecs.Mark.decode, codecs.encode_split(1)),
        (codecs.Mark.decode, b"M{}"),
        (codecs.Mark.decode, b"M{"),
        (codecs.payload_kind, b""),
        (codecs.payload_kind, b"Z"),
    ]:
        with pytest.raises(FlowError, match=r"^JF223 [^\n]*$"):
            decode(payload)


def test_a_frame_of_a_class_that_is_not_here_says_which():
    payload = codecs.BATCH + b"cnowhere_module\nThing\n."
    with pytest.raises(FlowError, match=r"^JF224 [^\n]*nowhere_module[^\n]*$"):
        codecs.decode_batch(payload)
