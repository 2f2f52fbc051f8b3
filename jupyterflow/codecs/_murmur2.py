"""MurmurHash2 as Kafka's Java client computes it (org.apache.kafka.common.utils.Utils.murmur2)."""

from __future__ import annotations

from struct import Struct, unpack_from

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF
_WORDS = [Struct(f"<{n}I").unpack_from for n in range(64)]


def murmur2(data: bytes) -> int:
    """The hash of *data*, unsigned 32 bits (Java's signed int has the same bits).

    aiokafka's function gives the same at about twice the cost, and importing it brings in all of aiokafka.
    """
    size = len(data)
    h = (_SEED ^ size) & _MASK
    n = size >> 2
    for k in _WORDS[n](data) if n < 64 else unpack_from(f"<{n}I", data):
        k = k * _M & _MASK
        h = (h * _M ^ (k ^ k >> 24) * _M) & _MASK
    if rest := size & 3:
        h ^= data[-rest]
        if rest > 1:
            h ^= data[1 - rest] << 8
        if rest > 2:
            h ^= data[-1] << 16
        h = h * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def outside_partition(key: bytes, n: int) -> int:
    """The partition, of *n*, that Kafka's default partitioner gives to the bytes of a key."""
    return (murmur2(key) & 0x7FFFFFFF) % n
