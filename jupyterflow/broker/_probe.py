"""Ask an address whether an Apache Kafka broker serves there, and of which cluster."""

import socket
import struct

_METADATA, _VERSION, _CORRELATION = 3, 2, 7


def cluster_at(address: str, timeout: float = 2.0) -> str | None:
    """The id of the cluster whose registered broker serves at *address* (`host:port`), else None.

    None within about *timeout* seconds if nobody listens, if what listens is not Kafka, or if the
    broker has not registered with its controller yet. One Metadata request (version 2, for no topics),
    written by hand: a whole client takes longer to import than this takes to run.
    """
    host, _, port = address.rpartition(":")
    client = b"jupyterflow"
    body = struct.pack(f">hhih{len(client)}si", _METADATA, _VERSION, _CORRELATION, len(client), client, 0)
    try:
        with socket.create_connection((host, int(port)), timeout) as connection:
            connection.settimeout(timeout)
            connection.sendall(struct.pack(">i", len(body)) + body)
            (size,) = struct.unpack(">i", _read(connection, 4))
            if not 8 <= size <= 1 << 20:
                return None
            return _parse(_read(connection, size))
    except (OSError, ValueError, struct.error):
        return None


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise ConnectionError("closed")
        data += chunk
    return data


def _parse(answer: bytes) -> str | None:
    correlation, brokers = struct.unpack_from(">ii", answer)
    if correlation != _CORRELATION or brokers < 1:
        return None
    at = 8
    for _ in range(brokers):
        _, at = _text(answer, at + 4)  # node id, host
        _, at = _text(answer, at + 4)  # port, rack
    return _text(answer, at)[0]


def _text(answer: bytes, at: int) -> tuple[str | None, int]:
    (length,) = struct.unpack_from(">h", answer, at)
    if length < 0:
        return None, at + 2
    return answer[at + 2 : at + 2 + length].decode(), at + 2 + length
