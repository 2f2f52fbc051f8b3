"""kafka: sources and sinks: topics that the outside world writes or reads, one record a message."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any

from jupyterflow.codecs import Codec, for_type, inside_key, outside_key
from jupyterflow.codecs import get as get_codec
from jupyterflow.model import Batch, Flow, Node
from jupyterflow.nodes.base import Kind, NodeContext, Operator, Option
from jupyterflow.nodes.calls import resume, value_hints
from jupyterflow.nodes.stateless import PARALLEL
from jupyterflow.transport import Rows


def value_type(flow: Flow, name: str) -> Any:
    """The type of the values that a kafka: source gives or a kafka: sink gets, by the hints of the functions beside
    it; None where they do not say or do not agree."""
    if flow.nodes[name].role == "source":
        hints = [_taken(flow, below) for below in flow.downstreams(name)]
    else:
        hints = [_given(flow, above) for above in flow.upstreams(name)]
    return hints[0] if hints and all(hint == hints[0] for hint in hints) else None


def _taken(flow: Flow, name: str) -> Any:
    node = flow.nodes[name]
    if node.kind in ("reduce", "aggregate", "count", "union", "collect") or node.options.get("batch"):
        return None
    return value_hints(node.fn)[0]


def _given(flow: Flow, name: str) -> Any:
    node = flow.nodes[name]
    if node.kind in ("filter", "key_by", "union"):
        above = {_given(flow, up) for up in flow.upstreams(name)}
        return above.pop() if len(above) == 1 else None
    if node.kind == "file":
        return str
    return value_hints(node.fn)[1] if node.kind == "map" and not node.options.get("batch") else None


def codec_name(flow: Flow, name: str) -> str:
    """The codec of a kafka: node: the one it names, else the one for the type of its values, else JSON."""
    hint = value_type(flow, name)
    return str(flow.nodes[name].options.get("codec") or (for_type(hint) if hint is not None else "json"))


def _codec(node: Node, context: NodeContext) -> Codec:
    flow = context.flow
    name = codec_name(flow, node.name) if flow is not None else str(node.options.get("codec") or "json")
    codec = get_codec(name, value_type(flow, node.name) if flow is not None and node.role == "source" else None)
    if context.sealer is None:
        return codec
    # A record's partition is chosen by its key, after its value was encoded: the seal is good for the whole topic.
    return codec.bound(context.sealer, node.options["topic"], -1)


class KafkaSource:
    """Turns fetched messages into records. Not an Operator: its input has no values yet."""

    def __init__(self, node: Node, context: NodeContext) -> None:
        self.context = context
        self.codec = _codec(node, context)
        self.keep_bytes = node.options.get("key") == "bytes"

    def decode(self, records: Sequence[Any]) -> Batch:
        """A batch of messages (`Rows`, or any with .key .value .timestamp .headers); what cannot be decoded is a dead
        letter."""
        counters = self.context.counters
        headers: list[Any] | None
        if isinstance(records, Rows):
            raw: list[Any] = records.values
            keys: list[Any] | None = records.keys
            stamps = records.timestamps
            headers = None if records.headers is None else list(map(tuple, records.headers))
        else:
            raw, keys = [record.value for record in records], [record.key for record in records]
            stamps = [record.timestamp for record in records]
            headers = [tuple(record.headers) for record in records]
        try:
            counters.bytes_in += sum(map(len, raw))
        except TypeError:  # a tombstone has no value
            counters.bytes_in += sum(len(value) for value in raw if value is not None)
        if keys is not None and not any(keys):
            keys = None if all(key is None for key in keys) else keys
        if keys is not None and not self.keep_bytes:
            keys = _inside_keys(keys)
        batch = Batch(raw, keys, stamps, headers if headers is not None and any(headers) else None)
        counters.records_in += len(raw)
        decode = self.codec.decode
        try:
            values, rows = self.codec.decode_many(raw), None
        except Exception:
            safe = (lambda data: None if data is None else decode(data)) if None in raw else decode
            values, rows = resume(map(safe, raw), len(raw), lambda row, error: self.context.fail(batch, row, error))
        counters.records_out += len(values)
        if rows is not None:
            batch = batch.take(rows)
        batch.values = values
        self.rows = rows
        return batch


class KafkaSink(Operator):
    """Turns records into messages: a batch whose values and keys are bytes."""

    def __init__(self, node: Node, context: NodeContext) -> None:
        super().__init__(node, context)
        self.codec = _codec(node, context)

    def process(self, batch: Batch) -> Batch:
        encode, given = self.codec.encode, batch
        rows = None
        try:
            values = self.codec.encode_many(batch.values)
        except Exception:
            values, rows = resume(
                map(encode, batch.values), len(batch), lambda row, error: self.context.fail(batch, row, error)
            )
        self.lineage = rows
        if rows is not None:
            batch = batch.take(rows)
        keys: list[Any] | None = None
        if batch.keys is not None:
            try:
                keys = _outside_keys(batch.keys)
            except Exception:  # a key that has no form outside costs its own record
                before = rows
                keys, good = resume(
                    map(outside_key, batch.keys),
                    len(batch),
                    lambda i, error: self.context.fail(given, i if before is None else before[i], error),
                )
                if good is not None:
                    batch, values = batch.take(good), [values[i] for i in good]
                    self.lineage = good if before is None else [before[i] for i in good]
        self.context.counters.bytes_out += sum(map(len, values))
        return Batch(values, keys, batch.timestamps, batch.headers)


def _inside_keys(keys: list[Any]) -> list[Any]:
    try:
        return [key.decode() for key in keys]
    except (AttributeError, UnicodeDecodeError):  # a record without a key, a key that is no text
        return list(map(inside_key, keys))


def _outside_keys(keys: list[Any]) -> list[bytes | None]:
    if set(map(type, keys)) == {str}:
        try:
            return [key.encode() for key in keys]
        except UnicodeEncodeError:
            pass  # said in our words below
    return list(map(outside_key, keys))


def messages(batch: Batch) -> zip[Any]:
    """(key, value, timestamp, headers) of each row of a batch of bytes."""
    n = len(batch)
    stamps = batch.timestamps
    return zip(
        batch.keys if batch.keys is not None else repeat(None, n),
        batch.values,
        repeat(stamps, n) if isinstance(stamps, int) else stamps,
        batch.headers if batch.headers is not None else repeat((), n),
        strict=False,
    )


_CODEC = Option(str, None, "json (the default where no type hint says otherwise), text, bytes, pickle or a plugin's")
KINDS = [
    Kind(
        "kafka", "source", "the records of a topic",
        {
            "topic": Option(str, None, "the topic"), "codec": _CODEC,
            "start": Option(str, "earliest", "where to begin", choices=("earliest", "latest")),
            "until": Option(str, None, "where to end", choices=("latest",)),
            "key": Option(str, "text", "how keys are read", choices=("text", "bytes")),
            "bootstrap": Option(str, None, "another cluster's address"),
            "on_error": PARALLEL["on_error"],
        }, 0,
    ),
    Kind(
        "kafka", "sink", "writes each record to a topic",
        {
            "topic": Option(str, None, "the topic"), "codec": _CODEC, **PARALLEL,
            "bootstrap": Option(str, None, "another cluster's address"),
        }, 0, make=KafkaSink,
    ),
]  # fmt: skip
