"""Keys: one canonical encoding that decides partition, changelog and state.

A key is a str, bytes, int, bool, None, float or a tuple of these. Its encoding is a tag byte and the content,
so that keys of different types never meet (1, True, 1.0, "1" and b"1" are five keys):

    n  None         s  UTF-8 text                    d  IEEE 754, 8 bytes, big-endian
    t  True         b  the bytes                     (  for each item: 4 bytes of length, then its encoding
    f  False        i  two's complement, big-endian

As in SQL engines, -0.0 is the key 0.0, and all NaN are one key. Types are exact: a subclass (an enum, a named
tuple, a NumPy scalar) is refused, since what comes back would not be what went in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from struct import Struct
from typing import Any

from jupyterflow.codecs._murmur2 import murmur2, outside_partition
from jupyterflow.model import FlowError

Key = Any
"""str | bytes | int | bool | None | float | tuple of these."""

StateKey = str | bytes
"""What stands for a key in a dict: the str itself, or the canonical encoding of any other key."""

_ALLOWED = "str, bytes, int, bool, None, float or a tuple of these"
_DOUBLE = Struct(">d")
_LENGTH = Struct(">I")
_NAN = b"d\x7f\xf8\x00\x00\x00\x00\x00\x00"


def _encode_str(key: str) -> bytes:
    try:
        return b"s" + key.encode()
    except UnicodeEncodeError:  # a lone surrogate, as in a file name that is not UTF-8: a key all the same
        return b"s" + key.encode("utf-8", "surrogatepass")


def _encode_bytes(key: bytes) -> bytes:
    return b"b" + key


def _encode_int(key: int) -> bytes:
    return b"i" + key.to_bytes((key.bit_length() + 8) >> 3, "big", signed=True)


def _encode_bool(key: bool) -> bytes:
    return b"t" if key else b"f"


def _encode_none(key: None) -> bytes:
    return b"n"


def _encode_float(key: float) -> bytes:
    return _NAN if key != key else b"d" + _DOUBLE.pack(key + 0.0)  # -0.0 + 0.0 is 0.0


def _encode_tuple(key: tuple[Any, ...]) -> bytes:
    out = b"("
    for item in key:
        encoder = _ENCODERS.get(type(item))
        if encoder is None:
            raise _refused(item)
        encoded = encoder(item)
        out += _LENGTH.pack(len(encoded)) + encoded
    return out


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    str: _encode_str,
    bytes: _encode_bytes,
    int: _encode_int,
    bool: _encode_bool,
    type(None): _encode_none,
    float: _encode_float,
    tuple: _encode_tuple,
}


def _refused(key: object) -> FlowError:
    kind = type(key)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if kind.__module__.partition(".")[0] == "numpy" and hasattr(key, "item"):
        fix = "use key.tolist() and a tuple" if getattr(key, "ndim", 0) else "use key.item()"
    elif hasattr(kind, "__members__"):
        fix = "use key.value"
    elif isinstance(key, tuple | list):
        fix = "use tuple(key)"
    elif isinstance(key, dict):
        fix = "use tuple(sorted(key.items()))"
    elif isinstance(key, set | frozenset):
        fix = "use tuple(sorted(key))"
    elif isinstance(key, bytearray | memoryview):
        fix = "use bytes(key)"
    elif hasattr(key, "isoformat"):
        fix = "use key.isoformat()"
    elif isinstance(key, str | bytes | int | float):
        base = next(t for t in (str, bytes, int, float) if isinstance(key, t))
        fix = f"use {base.__name__}(key)"
    else:
        fix = "use str(key), or a tuple of its fields"
    return FlowError("JF210", f"a key cannot be of type {name} - {fix}; a key is {_ALLOWED}")


def encode_key(key: Key) -> bytes:
    """The canonical encoding of *key*. Raises FlowError JF210 for anything else than a key."""
    encoder = _ENCODERS.get(type(key))
    if encoder is None:
        raise _refused(key)
    try:
        return encoder(key)
    except RecursionError:
        raise FlowError("JF210", "a key is nested too deeply - use a flat tuple") from None


def _decode(data: bytes) -> Key:
    tag, body = data[:1], data[1:]
    if tag == b"s":
        return body.decode("utf-8", "surrogatepass")
    if tag == b"b":
        return body
    if tag == b"i":
        return int.from_bytes(body, "big", signed=True)
    if tag == b"d":
        return float(_DOUBLE.unpack(body)[0])
    if tag == b"(":
        items, at = [], 0
        while at < len(body):
            (size,) = _LENGTH.unpack_from(body, at)
            items.append(_decode(body[at + 4 : at + 4 + size]))
            at += 4 + size
        return tuple(items)
    return {b"n": None, b"t": True, b"f": False}[tag]


def decode_key(data: bytes) -> Key:
    """The key of a canonical encoding; FlowError JF211 for bytes that `encode_key` does not write."""
    try:
        key = _decode(bytes(data))
        canonical = encode_key(key) == data
    except Exception as error:
        raise FlowError(
            "JF211", f"{_short(data)} is not the encoding of a key ({type(error).__name__})"
        ) from None
    if not canonical:
        raise FlowError("JF211", f"{_short(data)} is not the encoding of a key (not canonical)")
    return key


def state_key(key: Key) -> StateKey:
    """A hashable for dicts, one per key: the str itself, or the encoding of any other key."""
    return key if type(key) is str else encode_key(key)


def state_keys(keys: list[Key]) -> list[StateKey]:
    """`state_key` of a column; a column of str is returned as it is."""
    if set(map(type, keys)) == {str}:
        return keys
    return [key if type(key) is str else encode_key(key) for key in keys]


def state_key_bytes(key: StateKey) -> bytes:
    """The canonical encoding of the key that *key* stands for: the changelog's key."""
    return _encode_str(key) if isinstance(key, str) else key


def state_key_of(encoded: bytes) -> StateKey:
    """The state key of a canonical encoding, as it is read back from a changelog."""
    if encoded[:1] != b"s":
        return encoded
    try:
        return encoded[1:].decode()
    except UnicodeDecodeError:
        return str(decode_key(encoded))


def key_of(key: StateKey) -> Key:
    """The key that a state key stands for."""
    return key if isinstance(key, str) else decode_key(key)


def outside_key(key: Key) -> bytes | None:
    """The key as other clients of Kafka see it: str is UTF-8 text, bytes are themselves, None is None.

    Any other key is JSON text: 1 is `1`, True `true`, 1.5 `1.5`, ("a", 1) `["a",1]`. A tuple that holds
    bytes, and a str that is not text, have no such form: FlowError JF212.
    """
    if type(key) is str:
        try:
            return key.encode()
        except UnicodeEncodeError:
            raise FlowError(
                "JF212", f"the key {_short(key)} is not UTF-8 text - use bytes for the key"
            ) from None
    if key is None or type(key) is bytes:
        return key
    encode_key(key)
    try:
        return json.dumps(key, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError):
        raise FlowError(
            "JF212", f"the key {_short(key)} has no JSON text - make it str or bytes first"
        ) from None


def inside_key(data: bytes | None) -> str | bytes | None:
    """The key of a message of an outside topic: text if it is UTF-8, else the bytes."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, memoryview) else repr(bytes(value[:60]))
    return text if len(text) <= 60 else text[:57] + "..."


class _Cache(dict[Any, int]):
    """Keys of one exact type -> partition. A miss computes; a full cache starts again empty."""

    def __init__(self, encode: Callable[[Any], bytes], n: int, limit: int) -> None:
        self._encode, self._n, self._limit = encode, n, limit

    def __missing__(self, key: Any) -> int:
        if len(self) >= self._limit:
            self.clear()
        self[key] = partition = outside_partition(self._encode(key), self._n)
        return partition


class Partitioner:
    """Keys -> partitions 0 to n-1: murmur2 of the canonical encoding, as Kafka's default does with bytes.

    At most *limit* partitions of each type of key are remembered: a key seen before costs one dict lookup.
    """

    def __init__(self, n: int, *, limit: int = 100_000) -> None:
        if n < 1:
            raise FlowError("JF213", f"{n} partitions - use at least 1")
        self.n = n
        # One cache for each type, since 1, True and 1.0 are one dict key. Other types are looked up encoded:
        # (1,) equals (True,).
        self._exact: dict[type, _Cache] = {
            kind: _Cache(_ENCODERS[kind], n, limit) for kind in (str, int, bytes)
        }
        self._encoded = _Cache(bytes, n, limit)

    def partition(self, key: Key) -> int:
        """The partition of one key."""
        cache = self._exact.get(type(key))
        return cache[key] if cache is not None else self._encoded[encode_key(key)]

    def partition_column(self, keys: Iterable[Key]) -> list[int]:
        """The partition of each key. Raises FlowError JF210 for what is not a key."""
        column = keys if isinstance(keys, list) else list(keys)
        kinds = set(map(type, column))
        if len(kinds) == 1:
            cache = self._exact.get(kinds.pop())
            if cache is not None:
                return list(map(cache.__getitem__, column))
        return list(map(self.partition, column))


__all__ = [
    "Key",
    "Partitioner",
    "StateKey",
    "decode_key",
    "encode_key",
    "inside_key",
    "key_of",
    "murmur2",
    "outside_key",
    "outside_partition",
    "state_key",
    "state_key_bytes",
    "state_key_of",
    "state_keys",
]
