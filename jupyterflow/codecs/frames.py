"""Frames: the messages of internal topics, sealed with a MAC before a pickle is ever read.

A sealed message is a version byte, 32 bytes of HMAC-SHA256 (RFC 2104) over epoch, topic, partition and
payload, and the payload. A payload's first byte says what it is: `F` many records, `M` a mark, `S` a split.
"""

from __future__ import annotations

import hashlib
import hmac
import pickle
from dataclasses import asdict, dataclass
from itertools import pairwise
from struct import pack
from typing import Any, Literal

import orjson

from jupyterflow.model import Batch, FlowError

Buffer = bytes | bytearray | memoryview

BATCH = b"F"
MARK = b"M"
SPLIT = b"S"

_VERSION = b"\x01"
_MAC_SIZE = 32
_HEADER_SIZE = len(_VERSION) + _MAC_SIZE
_REMEMBERED = 4096  # (topic, partition) pairs whose hash state is kept


class RowError(FlowError):
    """A record of a batch that cannot be encoded; `row` is its number in the batch."""

    def __init__(self, code: str, message: str, row: int = 0) -> None:
        super().__init__(code, message)
        self.row = row


class Sealer:
    """Seals and opens the pickled bytes of one epoch with the cluster's key.

    `key`: at least 16 bytes. `epoch`: any text; what is sealed in one epoch, topic or partition opens in no
    other. Bytes that outlive an epoch (`codec=pickle` on a user's topic) take the epoch "".
    """

    def __init__(self, key: bytes, epoch: str) -> None:
        if len(key) < 16:
            raise FlowError("JF220", f"a key of {len(key)} bytes is no secret - use 32 random bytes")
        block = (hashlib.sha256(key).digest() if len(key) > 64 else bytes(key)).ljust(64, b"\0")
        # HMAC by hand around two prepared states: `hmac` costs twice as much for a small message.
        self._inner = hashlib.sha256(bytes(b ^ 0x36 for b in block))
        self._outer = hashlib.sha256(bytes(b ^ 0x5C for b in block))
        self._epoch = epoch.encode()
        self._states: dict[tuple[str, int], Any] = {}

    def _state(self, topic: str, partition: int) -> Any:
        """The inner state after the context; lengths first, so that no two contexts read alike."""
        name = topic.encode()
        state = self._inner.copy()
        state.update(_VERSION + pack(">IIq", len(self._epoch), len(name), partition) + self._epoch + name)
        if len(self._states) >= _REMEMBERED:
            self._states.clear()
        self._states[topic, partition] = state
        return state

    def _mac(self, topic: str, partition: int, payload: Buffer) -> bytes:
        inner = (self._states.get((topic, partition)) or self._state(topic, partition)).copy()
        inner.update(payload)
        outer = self._outer.copy()
        outer.update(inner.digest())
        mac: bytes = outer.digest()
        return mac

    def seal(self, topic: str, partition: int, payload: Buffer) -> bytes:
        """The sealed form of *payload*: 33 bytes longer, good for this topic and partition alone."""
        return b"".join((_VERSION, self._mac(topic, partition, payload), payload))

    def open(self, topic: str, partition: int, data: Buffer | None) -> memoryview:
        """The payload of sealed *data*; FlowError JF221 or JF222, before any of it is read, if it is not ours."""
        view = memoryview(data or b"")
        if len(view) < _HEADER_SIZE:
            raise FlowError(
                "JF221",
                f"{topic}[{partition}]: {len(view)} bytes are no frame - is the topic written by others?",
            )
        if view[0] != _VERSION[0]:
            raise FlowError(
                "JF221", f"{topic}[{partition}]: frame format {view[0]} is unknown - update jupyterflow here"
            )
        payload = view[_HEADER_SIZE:]
        if not hmac.compare_digest(view[1:_HEADER_SIZE], self._mac(topic, partition, payload)):
            raise FlowError(
                "JF222",
                f"{topic}[{partition}]: a message does not carry the seal of this cluster and epoch, and is not"
                " read - is the key file the same on all machines?",
            )
        return payload


def payload_kind(payload: Buffer) -> bytes:
    """BATCH, MARK or SPLIT; FlowError JF223 for anything else."""
    kind = bytes(payload[:1])
    if kind not in (BATCH, MARK, SPLIT):
        raise FlowError("JF223", f"a frame of unknown kind {kind!r} - was it written by a newer jupyterflow?")
    return kind


def _body(payload: Buffer, kind: bytes) -> memoryview:
    if payload_kind(payload) != kind:
        raise FlowError("JF223", f"a frame of kind {bytes(payload[:1])!r} where {kind!r} was expected")
    return memoryview(payload)[1:]


def _unpickle(body: Buffer) -> Any:
    try:
        return pickle.loads(body)
    except Exception as error:
        raise FlowError(
            "JF224", f"a pickled value cannot be loaded here: {_line(error)} - is its module on this worker?"
        ) from error


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def _dumps(value: object) -> bytes:
    return pickle.dumps(value, 5)


def encode_batch(batch: Batch) -> bytes:
    """The payload of a batch, types kept. RowError JF225 names the first record that cannot be pickled."""
    try:
        return BATCH + _dumps((batch.values, batch.keys, batch.timestamps, batch.headers))
    except Exception as error:
        for row, record in enumerate(batch):
            try:
                _dumps((record.value, record.key, record.headers))
            except Exception as reason:
                kind = type(record.value).__qualname__
                raise RowError(
                    "JF225",
                    f"a value of type {kind} cannot be pickled: {_line(reason)} - emit plain data instead",
                    row,
                ) from error
        raise FlowError("JF225", f"a batch cannot be pickled: {_line(error)}") from error


def decode_batch(payload: Buffer) -> Batch:
    """The batch of a payload; only of one that a Sealer opened."""
    return Batch(*_unpickle(_body(payload, BATCH)))


def frames(batch: Batch, limit: int = 900_000) -> list[bytes]:
    """Payloads of at most *limit* bytes that hold the batch in order; none for an empty batch.

    RowError JF226 for a record that alone is larger, JF225 for one that cannot be pickled.
    """
    out: list[bytes] = []
    waiting = [(0, len(batch))] if len(batch) else []
    while waiting:
        start, stop = waiting.pop()
        part = batch if stop - start == len(batch) else batch[start:stop]
        try:
            payload = encode_batch(part)
        except RowError as error:
            error.row += start
            raise
        if len(payload) <= limit:
            out.append(payload)
        elif stop - start == 1:
            kind = type(part.values[0]).__qualname__
            raise RowError(
                "JF226",
                f"a record with a value of type {kind} takes {len(payload):,} bytes, over the limit of"
                f" {limit:,} - split it up, or send a reference to it",
                start,
            )
        else:
            parts = min(stop - start, len(payload) * 11 // (10 * limit) + 1)
            cuts = [start + (stop - start) * i // parts for i in range(parts + 1)]
            waiting.extend(reversed(list(pairwise(cuts))))
    return out


def encode_split(split: object) -> bytes:
    """The payload of a split of a source. FlowError JF225 if it cannot be pickled."""
    try:
        return SPLIT + _dumps(split)
    except Exception as error:
        raise FlowError(
            "JF225", f"a split of type {type(split).__qualname__} cannot be pickled: {_line(error)}"
        ) from error


def decode_split(payload: Buffer) -> Any:
    """The split of a payload; only of one that a Sealer opened."""
    return _unpickle(_body(payload, SPLIT))


@dataclass(frozen=True, slots=True)
class Mark:
    """What a task tells its readers in-band: its input has ended, is drained, or has reached a watermark.

    `task` of `tasks` of `stage` at plan `version` in `epoch`; `value`: the watermark in ms, or None.
    """

    kind: Literal["end", "drain", "watermark"]
    epoch: str
    version: int
    stage: str
    task: int
    tasks: int
    value: int | None = None

    def encode(self) -> bytes:
        """The payload of the mark."""
        return MARK + orjson.dumps(asdict(self))

    @classmethod
    def decode(cls, payload: Buffer) -> Mark:
        """The mark of a payload. FlowError JF223 if it is none."""
        try:
            return cls(**orjson.loads(_body(payload, MARK)))
        except (TypeError, ValueError) as error:
            raise FlowError("JF223", f"a mark that cannot be read: {_line(error)}") from None


__all__ = [
    "BATCH",
    "MARK",
    "SPLIT",
    "Mark",
    "RowError",
    "Sealer",
    "decode_batch",
    "decode_split",
    "encode_batch",
    "encode_split",
    "frames",
    "payload_kind",
]
