"""The data of the benchmarks: the same bytes each time, and what must come of them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from zlib import crc32

import orjson

from jupyterflow.transport.kafka import Admin, KafkaConfig, TopicSpec

PARTITIONS = 4
RATE = 0.908  # dollars to euros
_BLOCK = 100_000  # different bids; then they come again
_WORDS = 5_000


@dataclass(frozen=True)
class Expected:
    """What an output topic must hold: how many records, and the sum of the checksums of `KEY=VALUE`."""

    records: int
    checksum: int


def bids(n: int) -> Iterator[tuple[bytes | None, bytes]]:
    """(key, JSON) of *n* bids of about 150 B."""
    chance = random.Random(7)
    block = []
    for number in range(min(n, _BLOCK)):
        auction = chance.randrange(1000, 2000)
        bid = {
            "auction": auction,
            "bidder": chance.randrange(1000, 50_000),
            "price": chance.randrange(100, 10_000_000),
            "channel": chance.choice(("Google", "Facebook", "Baidu", "Apple")),
            "url": f"https://www.nexmark.com/{chance.randrange(10**6):06d}/item.htm?query=1",
            "dateTime": 1_700_000_000_000 + number,
        }
        block.append((str(auction).encode(), orjson.dumps(bid)))
    return islice(cycle(block), n)


def words(n: int) -> Iterator[tuple[bytes | None, bytes]]:
    """(None, word) of *n* words, the frequent ones much more frequent than others."""
    chance = random.Random(11)
    weights = [1 / (rank + 10) for rank in range(_WORDS)]
    block = chance.choices([f"word{rank:04d}".encode() for rank in range(_WORDS)], weights, k=min(n, 500_000))
    return islice(((None, word) for word in cycle(block)), n)


def expected_bids(n: int) -> Expected:
    """Every bid in euros whose auction's number is a multiple of 4."""
    count = total = 0
    for times, key, data in _counted(bids(n)):
        bid = orjson.loads(data)
        if bid["auction"] % 4 == 0:
            bid["price"] = bid["price"] * RATE
            count += times
            total += times * crc32(b"%b=%b" % (key, orjson.dumps(bid)))
    return Expected(count, total)


def expected_words(n: int) -> Expected:
    """For each word the counts from 1 to how often it comes."""
    total = 0
    for word, times in Counter(word for _, word in words(n)).items():
        total += sum(crc32(b"%b=%d" % (word, i)) for i in range(1, times + 1))
    return Expected(n, total)


def _counted(records: Iterator[tuple[bytes | None, bytes]]) -> Iterator[tuple[int, bytes | None, bytes]]:
    for (key, data), times in Counter(records).items():
        yield times, key, data


def fill(bootstrap: str, topic: str, records: Iterator[tuple[bytes | None, bytes]]) -> None:
    """Make a topic and write the records to its partitions, in turn 1,000 by 1,000."""
    with Admin(KafkaConfig(bootstrap)) as admin:
        admin.create_topics([TopicSpec(topic, PARTITIONS, {})])
    asyncio.run(_fill(bootstrap, topic, records))


async def _fill(bootstrap: str, topic: str, records: Iterator[tuple[bytes | None, bytes]]) -> None:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=512 << 10)
    await producer.start()
    try:
        turn = 0
        while chunk := list(islice(records, 1_000)):
            batch = producer.create_batch()
            for key, value in chunk:
                assert batch.append(timestamp=None, key=key, value=value) is not None
            await producer.send_batch(batch, topic, partition=turn % PARTITIONS)
            turn += 1
        await producer.flush()
    finally:
        await producer.stop()


def found(bootstrap: str, topic: str) -> Expected:
    """What a topic holds under `read_committed`."""
    return asyncio.run(_found(bootstrap, topic))


async def _found(bootstrap: str, topic: str) -> Expected:
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        max_partition_fetch_bytes=4 << 20,
        fetch_max_wait_ms=50,
    )
    await consumer.start()
    try:
        parts = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        consumer.assign(parts)
        await consumer.seek_to_beginning(*parts)
        ends = await consumer.end_offsets(parts)
        count = total = 0
        while parts:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                count += len(records)
                total += sum(crc32(b"%b=%b" % (record.key, record.value)) for record in records)
            parts = [part for part in parts if await consumer.position(part) < ends[part]]
        return Expected(count, total)
    finally:
        await consumer.stop()
