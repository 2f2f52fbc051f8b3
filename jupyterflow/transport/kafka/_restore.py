"""Reading a task's state back from its changelog."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from jupyterflow.model import FlowError
from jupyterflow.transport.kafka._consumer import bare_records
from jupyterflow.transport.kafka._settings import KafkaConfig

_STALLED = 30.0  # seconds without progress


async def restore(
    config: KafkaConfig, topic: str, partition: int, progress: Callable[[int, int], None]
) -> tuple[dict[bytes, bytes], int]:
    """(the latest value of each key without tombstones, the end offset) of a changelog partition.

    Reads committed records up to the end as it is now; `progress(offset, end)` is called as it goes. Call it
    when the task's producer has started: then the former owner's transaction is finished, the end is final.
    """
    from aiokafka import AIOKafkaConsumer, TopicPartition

    source = TopicPartition(topic, partition)
    consumer = AIOKafkaConsumer(
        group_id=None,
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="none",
        fetch_max_wait_ms=100,
        max_partition_fetch_bytes=4 << 20,
        **config.client(),
    )
    state: dict[bytes, bytes] = {}
    try:
        await consumer.start()
        bare_records(consumer)
        consumer.assign([source])
        begin = (await consumer.beginning_offsets([source]))[source]
        end = (await consumer.end_offsets([source]))[source]
        consumer.seek(source, begin)
        position, moved = begin, time.monotonic()
        # The last record lies below the end (a marker takes an offset): the position does reach it.
        while position < end:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    if record.value is None:
                        state.pop(record.key, None)
                    elif record.key is not None:
                        state[record.key] = record.value
                await asyncio.sleep(0)
            now_at = await consumer.position(source)
            if now_at > position:
                position, moved = now_at, time.monotonic()
                progress(position, end)
            elif time.monotonic() - moved > _STALLED:
                raise FlowError(
                    "JF528", f"changelog {topic}/{partition}: no progress at {position} of {end} - is Kafka well?"
                )
        return state, int(end)
    finally:
        await consumer.stop()
