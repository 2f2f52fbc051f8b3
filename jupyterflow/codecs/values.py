"""Value codecs by name: a value <-> the bytes of a message of an outside topic.

Built in are `json`, `text`, `bytes` and `pickle`; the entry point group `jupyterflow.codecs` brings more: each
a `Codec`, or a function without parameters that returns one. A null value (a tombstone) never reaches a codec.
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from itertools import repeat
from typing import TYPE_CHECKING, Any

from jupyterflow.codecs import _json
from jupyterflow.codecs.frames import Sealer
from jupyterflow.model import FlowError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "jupyterflow.codecs"


@dataclasses.dataclass(frozen=True, slots=True)
class Codec:
    """How values of one outside topic are written and read.

    `encode` and `decode` take one value and raise a FlowError that says what is wrong. `encode_many` and
    `decode_many` take a list, may be faster, and raise anything at the first bad one: the caller then goes one
    by one.
    `bind` is for codecs whose bytes belong to one place, see `bound`.
    """

    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    encode_many: Callable[[list[Any]], list[bytes]] = None  # type: ignore[assignment]
    decode_many: Callable[[list[bytes]], list[Any]] = None  # type: ignore[assignment]
    bind: Callable[[Sealer, str, int], Codec] | None = None

    def __post_init__(self) -> None:
        encode, decode = self.encode, self.decode
        if self.encode_many is None:
            object.__setattr__(self, "encode_many", lambda values: list(map(encode, values)))
        if self.decode_many is None:
            object.__setattr__(self, "decode_many", lambda column: list(map(decode, column)))

    def bound(self, sealer: Sealer, topic: str, partition: int) -> Codec:
        """This codec for one partition: `pickle` with its seal, any other codec as it is."""
        return self if self.bind is None else self.bind(sealer, topic, partition)


def _encode_text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise FlowError(
            "JF202",
            f"text: a value of type {type(value).__qualname__} is no str - use str(...), or codec=json",
        )
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise FlowError(
            "JF202", f"text: a lone surrogate at position {error.start} - use codec=bytes"
        ) from None


def _decode_text(data: bytes) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise FlowError(
            "JF203", f"text: byte {error.start} is not UTF-8 ({error.reason}) - use codec=bytes"
        ) from None


def _encode_bytes(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise FlowError(
        "JF202",
        f"bytes: a value of type {type(value).__qualname__} is no bytes - use codec=text or codec=json",
    )


def _encode_texts(values: list[Any]) -> list[bytes]:
    return list(map(str.encode, values))


def _decode_texts(column: list[bytes]) -> list[str]:
    return list(map(str, column, repeat("utf-8")))


def _encode_bytes_many(values: list[Any]) -> list[bytes]:
    return values if set(map(type, values)) == {bytes} else list(map(_encode_bytes, values))


def _no_key(_: Any) -> Any:
    raise FlowError(
        "JF204", "pickle: the codec needs the cluster's key - bind it to a topic and partition first"
    )


def _sealed_pickle(sealer: Sealer, topic: str, partition: int) -> Codec:
    def encode(value: Any) -> bytes:
        try:
            payload = pickle.dumps(value, 5)
        except Exception as error:
            reason = " ".join(str(error).split())
            kind = type(value).__qualname__
            raise FlowError("JF202", f"pickle: a value of type {kind}: {reason} - emit plain data") from None
        return sealer.seal(topic, partition, payload)

    def decode(data: bytes) -> Any:
        payload = sealer.open(topic, partition, data)
        try:
            return pickle.loads(payload)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise FlowError("JF203", f"pickle: {reason} - is the value's module on this worker?") from None

    return Codec("pickle", encode, decode, bind=_sealed_pickle)


_BUILT_IN = {
    "json": Codec("json", _json.encode, _json.decode, _json.encode_many, _json.decode_many),
    "text": Codec("text", _encode_text, _decode_text, _encode_texts, _decode_texts),
    "bytes": Codec(
        "bytes", _encode_bytes, bytes, _encode_bytes_many, lambda column: list(map(bytes, column))
    ),
    "pickle": Codec("pickle", _no_key, _no_key, bind=_sealed_pickle),
}


def _plugins() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # 20 ms, and only plugins need it

    return {point.name: point for point in entry_points(group=GROUP)}


def names() -> list[str]:
    """Names of all codecs, the built-in ones first."""
    return [*_BUILT_IN, *sorted(set(_plugins()) - set(_BUILT_IN))]


def get(name: str, hint: Any = None) -> Codec:
    """The codec of a name. With a type *hint*, `json` decodes to it: a dataclass, a Struct, `list[int]`, ...

    Raises FlowError JF201 for an unknown name, JF205 for a plugin that fails, JF206 for a type that JSON cannot
    become.
    """
    codec = _BUILT_IN.get(name)
    if codec is None:
        return _plugin(name)
    if name == "json" and not _json.is_plain(hint):
        decode, decode_many = _json.decoders(hint)
        return dataclasses.replace(codec, decode=decode, decode_many=decode_many)
    return codec


def _plugin(name: str) -> Codec:
    point = _plugins().get(name)
    if point is None:
        hint = did_you_mean(str(name), names()) or f" - use one of {', '.join(names())}"
        raise FlowError("JF201", f"unknown codec {name!r}{hint}")
    origin = f" of {point.dist.name}" if point.dist else ""
    try:
        codec = point.load()
        if not isinstance(codec, Codec):
            codec = codec()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise FlowError(
            "JF205", f"codec '{name}'{origin} cannot be loaded: {reason} - reinstall or remove it"
        ) from error
    if not isinstance(codec, Codec):
        raise FlowError(
            "JF205", f"codec '{name}'{origin} is a {type(codec).__qualname__}, not a jupyterflow.codecs.Codec"
        )
    return codec


def for_type(hint: Any) -> str:
    """The codec for values of a type: str -> `text`; bytes, bytearray -> `bytes`; all else, and no type, `json`.

    Only these two exact types differ: `str | None` is JSON. `pickle` is never chosen, only asked for.
    """
    if hint is str or hint == "str":
        return "text"
    return "bytes" if hint in (bytes, bytearray, "bytes", "bytearray") else "json"
