"""How a task's effects reach Kafka: a transaction of its own, or a shared idempotent producer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from jupyterflow.transport.kafka._settings import KafkaConfig
from jupyterflow.transport.messages import Written

BATCH_BYTES = 512 << 10  # the broker takes 1 MiB at most; the client's 16 KiB are its brake
TRANSACTION_TIMEOUT = 30.0  # seconds; ours are open for milliseconds, so only a dead owner reaches it
_CLOSE_TIMEOUT = 5.0
_NO_HEADERS: list[tuple[str, bytes]] = []

Writes = Mapping[tuple[str, int], Sequence[Written]]


class Writer(Protocol):
    """What performs one task's transactions. After any exception it must be abandoned."""

    async def start(self) -> None: ...
    async def commit(self, writes: Writes, position: int | None) -> None: ...
    async def abandon(self) -> None: ...


def new_producer(config: KafkaConfig, transactional_id: str | None = None, compression: str | None = None) -> Any:
    """An idempotent aiokafka producer; with an id a transactional one."""
    from aiokafka import AIOKafkaProducer

    kwargs: dict[str, Any] = {
        "enable_idempotence": True,
        "compression_type": compression,
        "retry_backoff_ms": 50,  # also between two looks whether the former owner's transaction has ended
    }
    if transactional_id is not None:
        kwargs["transactional_id"] = transactional_id
        kwargs["transaction_timeout_ms"] = int(TRANSACTION_TIMEOUT * 1000)
    kwargs.update(config.client())
    return AIOKafkaProducer(max_batch_size=BATCH_BYTES, **kwargs)


def batches(producer: Any, messages: Sequence[Written]) -> Iterator[Any]:
    """The messages in batches of at most `BATCH_BYTES`; a larger message has a batch of its own.

    Built by the producer that sends them: a batch that another one built would be accepted in a
    transaction, and show although it was aborted.
    """
    batch = producer.create_batch()
    # The builder's own append: BatchBuilder.append around it costs twice as much.
    append, count = batch._builder.append, 0
    for key, value, timestamp, given in messages:
        stamp, headers = timestamp if timestamp >= 0 else None, [*given] if given else _NO_HEADERS
        if append(count, stamp, key, value, headers) is None:
            batch._relative_offset = count
            batch.close()
            yield batch
            batch = producer.create_batch()
            append, count = batch._builder.append, 0
            append(count, stamp, key, value, headers)
        count += 1
    batch._relative_offset = count
    if count:
        yield batch


async def write(producer: Any, writes: Writes) -> None:
    """Send everything and wait for every acknowledgement; raises the first failure.

    `commit_transaction` succeeds although a batch failed, so each future counts.
    """
    futures: list[asyncio.Future[Any]] = []
    try:
        for (topic, partition), messages in writes.items():
            for batch in batches(producer, messages):
                futures.append(await producer.send_batch(batch, topic, partition=partition))
    finally:
        results = await asyncio.gather(*futures, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def close(producer: Any) -> None:
    """Stop a producer whatever its state, in bounded time."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await producer.stop()
            return
    # Its batches cannot be delivered: end the sender and the connections without them.
    producer._closed = True
    with contextlib.suppress(Exception):
        sender = producer._sender.sender_task
        if sender is not None:
            sender.cancel()
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await producer.client.close()


class TransactionalWriter:
    """One producer per task; starting it fences the former owner and finishes its transaction."""

    def __init__(
        self, config: KafkaConfig, transactional_id: str, group: str, source: Any, compression: str | None
    ) -> None:
        self._producer = new_producer(config, transactional_id, compression)
        self._group = group
        self._source = source  # TopicPartition of the task's input

    async def start(self) -> None:
        await self._producer.start()

    async def commit(self, writes: Writes, position: int | None) -> None:
        async with asyncio.timeout(TRANSACTION_TIMEOUT * 1.5):
            await self._producer.begin_transaction()
            await write(self._producer, writes)
            if position is not None:
                await self._producer.send_offsets_to_transaction({self._source: position}, self._group)
            await self._producer.commit_transaction()

    async def abandon(self) -> None:
        """Abort what is open, then stop: `stop` alone would leave readers waiting for the timeout."""
        # After a fatal error abort raises AssertionError; a fenced transaction is the new owner's to end.
        with contextlib.suppress(Exception):
            if self._producer._txn_manager.state.name in ("IN_TRANSACTION", "ABORTABLE_ERROR"):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await self._producer.abort_transaction()
        await close(self._producer)


class SharedProducer:
    """The idempotent producer of an at-least-once engine; replaced once it has failed."""

    def __init__(self, config: KafkaConfig, compression: str | None) -> None:
        self._config = config
        self._compression = compression
        self._producer: Any = None
        self._lock = asyncio.Lock()

    async def get(self) -> Any:
        async with self._lock:
            if self._producer is None:
                producer = new_producer(self._config, None, self._compression)
                try:
                    await producer.start()
                except BaseException:
                    await close(producer)
                    raise
                self._producer = producer
            return self._producer

    async def replace(self, failed: Any) -> None:
        async with self._lock:
            if self._producer is failed and failed is not None:
                self._producer = None
                await close(failed)

    async def close(self) -> None:
        await self.replace(self._producer)


class PlainWriter:
    """At least once: outputs first, then the state, then the position with the group's generation.

    State may hold positions too (those of splits): it must not get ahead of the outputs.
    """

    def __init__(
        self, shared: SharedProducer, source: Any, consumer: Callable[[], Any], changelog: str | None = None
    ) -> None:
        self._shared = shared
        self._changelog = changelog
        self._source = source
        self._consumer = consumer
        self._producer: Any = None
        self._broken = False

    async def start(self) -> None:
        self._producer = await self._shared.get()

    async def commit(self, writes: Writes, position: int | None) -> None:
        async with asyncio.timeout(TRANSACTION_TIMEOUT * 1.5):
            self._broken = True  # until every batch is acknowledged, the producer is suspect
            await write(self._producer, {to: rows for to, rows in writes.items() if to[0] != self._changelog})
            await write(self._producer, {to: rows for to, rows in writes.items() if to[0] == self._changelog})
            self._broken = False
            if position is not None:
                await self._consumer().commit({self._source: position})

    async def abandon(self) -> None:
        if self._broken:
            await self._shared.replace(self._producer)
