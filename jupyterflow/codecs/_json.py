"""JSON by orjson and msgspec; what JSON cannot say is refused with the place where it stands."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import orjson

from jupyterflow.model import FlowError

_FIXES = {
    "bytes": "decode it to str, or use codec=pickle",
    "bytearray": "decode it to str, or use codec=pickle",
    "set": "use sorted(...)",
    "frozenset": "use sorted(...)",
    "Decimal": "use str(...) or float(...)",
    "timedelta": "use .total_seconds()",
    "complex": "use [z.real, z.imag]",
    "DataFrame": "use .to_dict('records')",
}
_LEAVES = frozenset((str, int, bool, type(None)))
# With the newline, a slice cuts the text to its size: orjson's own result is a shrunk block of 1 KiB, and keeping
# many of those costs 1.8 µs each in the allocator, against 0.2 µs.
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


def _default(value: Any) -> Any:
    """Plain data for what orjson does not know: Structs, NumPy arrays and scalars, named tuples."""
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    if isinstance(value, tuple):
        return list(value)
    if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(type(value).__qualname__)


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value is made of, with the path to it, as the encoder sees it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{repr(key)[:60]}]"), item
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield f"[{i}]", item
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield f".{name}", getattr(value, name)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield f".{field.name}", getattr(value, field.name)
    elif type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        plain = value.tolist()
        if isinstance(plain, list):
            yield from _children(plain)
        else:
            yield "", plain


def _all_finite(value: Any) -> bool:
    """Whether *value* holds no NaN and no infinity; quick for plain data, whose leaves are looked at by type."""
    if isinstance(value, dict):
        items: Any = value.values()
    elif isinstance(value, list | tuple):
        items = value
    else:
        return _not_finite(value) is None
    if _LEAVES.issuperset(map(type, items)):
        return True
    for item in items:
        kind = type(item)
        if kind is float:
            if item - item != 0.0:
                return False
        elif kind not in _LEAVES and not _all_finite(item):
            return False
    return True


def _not_finite(value: Any, path: str = "value") -> str | None:
    """The path of the first NaN or infinity in *value*."""
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    for step, item in _children(value):
        found = _not_finite(item, path + step)
        if found:
            return found
    return None


def _culprit(value: Any, path: str = "value") -> str:
    """The path of what cannot be encoded, as near as one can say, what it is, and the fix."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                return f"{path} has the key {repr(key)[:60]} of type {type(key).__qualname__} - use str keys"
    for step, item in _children(value):
        try:
            _dumps(item)
        except Exception:
            return _culprit(item, path + step)
    kind = type(value).__qualname__
    if isinstance(value, dict | list):
        return f"{path} contains itself, or is nested too deeply - make it flat"
    if isinstance(value, int):
        return f"{path} is an integer over 64 bits - use str(...)"
    if isinstance(value, str):
        return f"{path} is a str with a lone surrogate - encode it as text first"
    return f"{path} is of type {kind} - {_FIXES.get(kind, 'make it plain data, or use codec=pickle')}"


def _dumps(value: Any) -> bytes:
    if isinstance(value, msgspec.Struct):
        return msgspec.json.encode(value)
    return orjson.dumps(value, _default, _OPTIONS)[:-1]


def encode(value: Any) -> bytes:
    """The JSON of a value: plain data, dataclasses, Structs, dates, UUIDs, enums, NumPy.

    Raises FlowError JF202, with the place, for what JSON cannot say: NaN, bytes, keys that are no str, ...
    """
    try:
        data = _dumps(value)
    except RecursionError:
        raise FlowError(
            "JF202", "JSON: value contains itself, or is nested too deeply - make it flat"
        ) from None
    except Exception:
        try:
            where = _culprit(value)
        except RecursionError:
            where = "value contains itself, or is nested too deeply - make it flat"
        raise FlowError("JF202", f"JSON: {where}") from None
    # NaN becomes null in silence: look for it, but only where a null was written.
    if b"null" in data and not _all_finite(value):
        raise FlowError("JF202", f"JSON: {_not_finite(value)} is NaN or infinite - use None, or codec=pickle")
    return data


def encode_many(values: list[Any]) -> list[bytes]:
    """`encode` of each; FlowError JF202 for the first that fails."""
    try:
        structs = [issubclass(kind, msgspec.Struct) for kind in set(map(type, values))]
        if any(structs):
            column = list(map(msgspec.json.encode if all(structs) else _dumps, values))
        else:
            column = [orjson.dumps(value, _default, _OPTIONS)[:-1] for value in values]
    except Exception:
        return list(map(encode, values))
    if b"null" in b"".join(column):
        for data, value in zip(column, values, strict=True):
            if b"null" in data and not _all_finite(value):
                encode(value)
    return column


def _cannot_decode(data: bytes, error: Exception) -> FlowError:
    start = repr(bytes(data[:40]))[1:] + ("..." if len(data) > 40 else "")
    reason = " ".join(str(error).split())
    what = "is not the type asked for" if isinstance(error, msgspec.ValidationError) else "is not JSON"
    return FlowError("JF203", f"JSON: {start} {what}: {reason} - another codec, or another type?")


def decode(data: bytes) -> Any:
    """The value of JSON text. FlowError JF203 if it is none."""
    try:
        return orjson.loads(data)
    except ValueError as error:
        raise _cannot_decode(data, error) from None


def decode_many(column: list[bytes]) -> list[Any]:
    """`decode` of each; the plain decoder's error at the first bad one."""
    return list(map(orjson.loads, column))


def is_plain(hint: Any) -> bool:
    """Whether plain JSON data is already what *hint* asks for, so that nothing needs to be converted."""
    return hint in (None, Any, object, dict, list, typing.Any) or isinstance(hint, str | typing.TypeVar)


def decoders(hint: Any) -> tuple[Callable[[bytes], Any], Callable[[list[bytes]], list[Any]]]:
    """`decode` and `decode_many` to the type *hint*, checked by msgspec; FlowError JF206 if it cannot build one."""
    from msgspec.inspect import CustomType, type_info

    try:
        if isinstance(type_info(hint), CustomType):
            raise TypeError("it has no declared fields")
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(hint)
    except TypeError as error:
        plain_class = isinstance(hint, type) and not isinstance(hint, types.GenericAlias)
        name = hint.__qualname__ if plain_class else hint
        reason = " ".join(str(error).split())
        raise FlowError(
            "JF206", f"JSON cannot be decoded to {name}: {reason} - use a dataclass or dict"
        ) from None

    def decode_one(data: bytes) -> Any:
        try:
            return decoder.decode(data)
        except (msgspec.DecodeError, ValueError) as error:
            raise _cannot_decode(data, error) from None

    def decode_column(column: list[bytes]) -> list[Any]:
        return list(map(decoder.decode, column))

    return decode_one, decode_column
