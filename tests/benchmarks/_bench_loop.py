"""The same work by hand: one loop over aiokafka, as fast as it can be without JupyterFlow.

`python _bench_loop.py WORKLOAD BOOTSTRAP SOURCE TARGET`. It says `ready` once all is imported and connected, waits for
a line, works until it has committed the end of SOURCE, and writes the CPU seconds that this took.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
import time
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.partitioner import murmur2

RATE = 0.908
PARTITIONS = 4
INTERVAL = 0.1  # s between commits
BATCH = 512 << 10
GROUP = "by-hand"


class Partitions(dict[Any, int]):
    """Key bytes -> partition, as Kafka's default partitioner has it."""

    def __missing__(self, key: bytes) -> int:
        self[key] = partition = (murmur2(key) & 0x7FFFFFFF) % PARTITIONS
        return partition


class Output:
    """Batches by (topic, partition), to be sent together."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.producer = producer
        self.full: list[tuple[Any, str, int]] = []
        self.open: dict[tuple[str, int], Any] = {}

    def batch(self, topic: str, partition: int) -> Any:
        batch = self.open.get((topic, partition))
        if batch is None:
            batch = self.open[topic, partition] = self.producer.create_batch()
        return batch

    def next(self, topic: str, partition: int) -> Any:
        self.full.append((self.open.pop((topic, partition)), topic, partition))
        return self.batch(topic, partition)

    def append(self, topic: str, partition: int, key: bytes | None, value: bytes, stamp: int | None = None) -> None:
        if self.batch(topic, partition).append(timestamp=stamp, key=key, value=value) is None:
            self.next(topic, partition).append(timestamp=stamp, key=key, value=value)

    async def send(self) -> None:
        batches = [*self.full, *((batch, *to) for to, batch in self.open.items())]
        self.full, self.open = [], {}
        futures = [
            await self.producer.send_batch(batch, topic, partition=partition)
            for batch, topic, partition in batches
            if batch.record_count()
        ]
        for future in futures:
            await future


def consumer_of(bootstrap: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=GROUP,
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_partition_fetch_bytes=2 << 20,
        fetch_max_wait_ms=100,
    )


async def stateless(bootstrap: str, source: str, target: str) -> None:
    """At least once: price in euros, a quarter of the bids, key and timestamp kept."""
    consumer, producer = consumer_of(bootstrap), AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=BATCH)
    await consumer.start()
    await producer.start()
    parts = [TopicPartition(source, p) for p in range(PARTITIONS)]
    consumer.assign(parts)
    await consumer.seek_to_beginning(*parts)
    ends = await consumer.end_offsets(parts)
    await go()
    output, where = Output(producer), Partitions()
    loads, dumps = orjson.loads, orjson.dumps
    positions: dict[Any, int] = {}
    committed: dict[Any, int] = {}
    sending: asyncio.Task[None] | None = None
    last = time.monotonic()

    async def send(out: Output, upto: dict[Any, int]) -> None:
        await out.send()
        await consumer.commit(upto)
        committed.update(upto)

    while any(committed.get(part, 0) < end for part, end in ends.items()):
        for part, records in (await consumer.getmany(timeout_ms=50)).items():
            for record in records:
                bid = loads(record.value)
                bid["price"] *= RATE
                if bid["auction"] % 4 == 0:
                    key, value = record.key, dumps(bid)
                    partition = where[key]
                    if output.batch(target, partition).append(timestamp=record.timestamp, key=key, value=value) is None:
                        output.next(target, partition).append(timestamp=record.timestamp, key=key, value=value)
            positions[part] = records[-1].offset + 1
        now = time.monotonic()
        if positions and now - last >= INTERVAL and (sending is None or sending.done()):
            if sending is not None:
                sending.result()
            last = now
            sending = asyncio.create_task(send(output, positions))
            output, positions = Output(producer), {}
    report()
    await consumer.stop()
    await producer.stop()


async def words(bootstrap: str, source: str, target: str) -> None:
    """Exactly once: words shuffled in frames, a running count of each, its changelog; a transaction each 100 ms."""
    shuffle, changelog = f"{target}.shuffle", f"{target}.changelog"
    consumer = consumer_of(bootstrap)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=GROUP + target, max_batch_size=BATCH)
    await consumer.start()
    await producer.start()
    inputs = [TopicPartition(source, p) for p in range(PARTITIONS)]
    frames = [TopicPartition(shuffle, p) for p in range(PARTITIONS)]
    consumer.assign([*inputs, *frames])
    await consumer.seek_to_beginning(*inputs, *frames)
    ends = await consumer.end_offsets(inputs)
    total = sum(ends.values())
    await go()
    output, where = Output(producer), Partitions()
    counts: list[dict[bytes, int]] = [{} for _ in range(PARTITIONS)]
    dirty: list[set[bytes]] = [set() for _ in range(PARTITIONS)]
    out: list[list[list[bytes]]] = [[] for _ in range(PARTITIONS)]
    positions: dict[Any, int] = {}
    counted = done = 0
    sending: asyncio.Task[None] | None = None
    last = time.monotonic()

    async def commit(now: Output, upto: dict[Any, int], number: int) -> None:
        nonlocal done
        await producer.begin_transaction()
        await now.send()
        await producer.send_offsets_to_transaction(upto, GROUP)
        await producer.commit_transaction()
        done = number

    while done < total:
        for part, records in (await consumer.getmany(timeout_ms=20)).items():
            if part.topic == source:
                lists: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
                for record in records:
                    word = record.value
                    lists[where[word]].append(word)
                for partition, some in enumerate(lists):
                    out[partition].append(some)
            else:
                partition = part.partition
                count, changed = counts[partition], dirty[partition]
                for record in records:
                    some = pickle.loads(record.value)
                    changed.update(some)
                    counted += len(some)
                    batch = output.batch(target, partition)
                    for word in some:
                        count[word] = n = count.get(word, 0) + 1
                        if batch.append(timestamp=None, key=word, value=b"%d" % n) is None:
                            batch = output.next(target, partition)
                            batch.append(timestamp=None, key=word, value=b"%d" % n)
            positions[part] = records[-1].offset + 1
        now = time.monotonic()
        if positions and now - last >= INTERVAL and (sending is None or sending.done()):
            if sending is not None:
                sending.result()
            last = now
            for partition in range(PARTITIONS):
                for some in out[partition]:
                    for low in range(0, len(some), 40_000):
                        output.append(shuffle, partition, None, pickle.dumps(some[low : low + 40_000], 5))
                count = counts[partition]
                for word in dirty[partition]:
                    output.append(changelog, partition, word, b"%d" % count[word])
                out[partition], dirty[partition] = [], set()
            sending = asyncio.create_task(commit(output, positions, counted))
            output, positions = Output(producer), {}
    report()
    await consumer.stop()
    await producer.stop()


_began = 0.0


async def go() -> None:
    """Wait to be told."""
    global _began
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    _began = time.process_time()


def report() -> None:
    """The CPU seconds since `go`."""
    print(time.process_time() - _began, flush=True)


if __name__ == "__main__":
    asyncio.run({"stateless": stateless, "words": words}[sys.argv[1]](*sys.argv[2:5]))
