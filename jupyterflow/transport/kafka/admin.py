"""Topics, offsets and groups, for any thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from jupyterflow.model import FlowError
from jupyterflow.transport.kafka._settings import KafkaConfig, flow_error
from jupyterflow.transport.kafka.io import IOThread

T = TypeVar("T")
_EXISTS, _UNKNOWN_TOPIC, _NO_GROUP = 36, 3, 69


@dataclass(frozen=True)
class TopicSpec:
    """A topic to be: `config` holds Kafka's own topic settings as text."""

    name: str
    partitions: int = 1
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GroupInfo:
    """A consumer group: its state as Kafka calls it (`Stable`, `Empty`, `Dead`, ...) and member ids."""

    state: str
    members: tuple[str, ...]


class Admin:
    """Administration of one Kafka. Every method waits at most *timeout* seconds and raises one FlowError line.

    Runs on *io*, or on an I/O thread of its own that `close` ends.
    """

    def __init__(self, config: KafkaConfig, io: IOThread | None = None, timeout: float = 20.0) -> None:
        self.config = config
        self._own = io is None
        self._io = io or IOThread("jupyterflow-admin")
        self._timeout = timeout
        self._client: Any = None
        self._lock: asyncio.Lock | None = None

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        try:
            self._io.call(self._disconnect(), 5)
        except FlowError:
            pass
        finally:
            if self._own:
                self._io.close()

    # Topics

    def ping(self) -> None:
        """Return if Kafka answers, raise JF521 or JF522 if not."""
        self._run("connecting", lambda client: client._get_cluster_metadata([]))

    def create_topics(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Create what does not exist yet; returns the names created, once they can be written.

        Raises FlowError JF540 where one exists with another number of partitions.
        """
        return self._run("creating topics", lambda client: self._create(client, list(specs)))

    def delete_topics(self, names: Iterable[str]) -> None:
        """Delete topics; those that do not exist are fine. Returns once they are gone."""
        self._run("deleting topics", lambda client: self._delete(client, sorted(set(names))))

    def topics(self) -> list[str]:
        """The names of all topics."""

        async def names(client: Any) -> list[str]:
            return sorted(await client.list_topics())

        return self._run("listing topics", names)

    def partitions(self, topic: str) -> int | None:
        """How many partitions a topic has, None if there is no such topic."""

        async def count(client: Any) -> int | None:
            return (await _counts(client, [topic])).get(topic)

        return self._run(f"looking up topic '{topic}'", count)

    def describe(self, topic: str) -> dict[str, str]:
        """All settings of a topic, as text. Raises JF523 if there is no such topic."""
        return self._run(f"describing topic '{topic}'", lambda client: _describe(client, topic))

    # Offsets

    def end_offsets(self, topic: str, *, committed: bool = True) -> dict[int, int]:
        """The end of each partition; *committed* stops below open transactions."""
        what = f"reading the ends of topic '{topic}'"
        return self._run(what, lambda client: _offsets(client, topic, -1, 1 if committed else 0))

    def beginning_offsets(self, topic: str) -> dict[int, int]:
        """The first offset of each partition that still exists."""
        return self._run(f"reading the beginnings of topic '{topic}'", lambda client: _offsets(client, topic, -2, 0))

    def delete_records(self, topic: str, below: Mapping[int, int]) -> None:
        """Delete all records below an offset per partition."""
        from aiokafka import TopicPartition

        wanted = {TopicPartition(topic, partition): offset for partition, offset in below.items()}
        self._run(f"deleting records of topic '{topic}'", lambda client: delete_records(client._client, wanted))

    # Groups

    def groups(self) -> list[str]:
        """The names of all consumer groups."""

        async def names(client: Any) -> list[str]:
            return sorted(group[0] for group in await client.list_consumer_groups())

        return self._run("listing groups", names)

    def group(self, group: str) -> GroupInfo:
        """State and members of a group; `Dead` if there is none."""

        async def info(client: Any) -> GroupInfo:
            answer = (await client.describe_consumer_groups([group]))[0].to_object()["groups"][0]
            return GroupInfo(answer["state"] or "Dead", tuple(member["member_id"] for member in answer["members"]))

        return self._run(f"describing group '{group}'", info)

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """The committed offsets of a group by (topic, partition); empty if there is no such group."""

        async def offsets(client: Any) -> dict[tuple[str, int], int]:
            found = await client.list_consumer_group_offsets(group)
            return {(at.topic, at.partition): meta.offset for at, meta in found.items() if meta.offset >= 0}

        return self._run(f"reading the offsets of group '{group}'", offsets)

    def delete_group(self, group: str) -> None:
        """Delete a group and its offsets; one that does not exist is fine. JF541 while it has members."""

        async def delete(client: Any) -> None:
            from aiokafka import errors
            from aiokafka.protocol.admin import DeleteGroupsRequest

            node = await client.find_coordinator(group)
            answer = await client._send_request_to_node(node, DeleteGroupsRequest([group]))
            for _, code in answer.results:
                error = errors.for_code(code)
                if error.__name__ == "NonEmptyGroupError" or code == 68:
                    raise FlowError("JF541", f"group '{group}' still has workers - stop the flow first")
                if code not in (0, _NO_GROUP):
                    raise error(group)

        self._run(f"deleting group '{group}'", delete)

    # The machinery

    def _run(self, doing: str, work: Callable[[Any], Awaitable[T]]) -> T:
        try:
            return self._io.call(self._attempt(work), self._timeout + 5)
        except Exception as error:
            raise flow_error(error, doing, self.config) from None

    async def _attempt(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Try again while the broker only is not ready, within the timeout."""
        from aiokafka import errors

        async with asyncio.timeout(self._timeout):
            while True:
                client = await self._connect()
                try:
                    return await work(client)
                except errors.KafkaError as error:
                    if isinstance(error, errors.KafkaConnectionError):
                        await self._disconnect()
                    elif not error.retriable or isinstance(error, errors.UnknownTopicOrPartitionError):
                        raise
                    await asyncio.sleep(0.2)

    async def _connect(self) -> Any:
        from aiokafka.admin import AIOKafkaAdminClient

        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            if self._client is None:
                client = AIOKafkaAdminClient(**self.config.client())
                try:
                    await client.start()
                except BaseException:
                    await client.close()
                    raise
                self._client = client
            return self._client

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _create(self, client: Any, specs: list[TopicSpec]) -> list[str]:
        from aiokafka import errors
        from aiokafka.admin import NewTopic

        wanted = {spec.name: spec for spec in specs}
        present = await _counts(client, list(wanted))
        brokers = len((await client._get_cluster_metadata([])).brokers)
        # The client speaks a version of the request that has no "the broker's default" for replicas.
        topics = [
            NewTopic(spec.name, spec.partitions, min(3, max(1, brokers)), topic_configs=dict(spec.config))
            for spec in wanted.values()
            if spec.name not in present
        ]
        created = []
        if topics:
            answer = await client.create_topics(topics, timeout_ms=int(self._timeout * 1000))
            for name, code, *message in answer.topic_errors:  # it never raises
                if code == 0:
                    created.append(name)
                elif code != _EXISTS:
                    kind = errors.for_code(code).__name__.removesuffix("Error")
                    detail = f": {message[0]}" if message and message[0] else ""
                    raise FlowError("JF542", f"topic '{name}' cannot be created: {kind}{detail}")
        while wanted.keys() - (present := await _counts(client, list(wanted))).keys():
            await asyncio.sleep(0.05)
        for name, spec in wanted.items():
            if present[name] != spec.partitions:
                raise FlowError(
                    "JF540",
                    f"topic '{name}' exists with {present[name]} partitions, {spec.partitions} are needed - "
                    "delete it or take its number as the parallelism",
                )
        return created

    async def _delete(self, client: Any, names: list[str]) -> None:
        from aiokafka import errors

        if not names:
            return
        answer = await client.delete_topics(names, timeout_ms=int(self._timeout * 1000))
        for name, code in answer.topic_error_codes:
            if code not in (0, _UNKNOWN_TOPIC):
                raise FlowError("JF542", f"topic '{name}' cannot be deleted: {errors.for_code(code).__name__}")
        while await _counts(client, names):
            await asyncio.sleep(0.05)


async def _counts(client: Any, topics: list[str]) -> dict[str, int]:
    """Partitions of the topics that exist and have a leader everywhere; asking creates none."""
    from aiokafka.protocol.metadata import MetadataRequest

    if not topics:
        return {}
    answer = await client._send_request(MetadataRequest(topics, allow_auto_topic_creation=False))
    return {
        topic["topic"]: len(topic["partitions"])
        for topic in answer.to_object()["topics"]
        if topic["error_code"] == 0 and all(partition["leader"] >= 0 for partition in topic["partitions"])
    }


async def _describe(client: Any, topic: str) -> dict[str, str]:
    from aiokafka import errors
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    answer = (await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))[0]
    for code, _message, _kind, _name, settings in answer.resources:
        if code:
            raise errors.for_code(code)(topic)
        return {setting[0]: setting[1] for setting in settings}
    return {}


async def _offsets(client: Any, topic: str, stamp: int, isolation: int) -> dict[int, int]:
    """ListOffsets at each partition's leader: stamp -1 is the end, -2 the beginning."""
    from aiokafka import errors
    from aiokafka.protocol.metadata import MetadataRequest
    from aiokafka.protocol.offset import OffsetRequest

    answer = await client._send_request(MetadataRequest([topic], allow_auto_topic_creation=False))
    (found,) = answer.to_object()["topics"]
    if found["error_code"]:
        raise errors.for_code(found["error_code"])(topic)
    by_leader: dict[int, list[tuple[int, int]]] = {}
    for partition in found["partitions"]:
        if partition["leader"] < 0:
            raise errors.LeaderNotAvailableError(topic)
        by_leader.setdefault(partition["leader"], []).append((partition["partition"], stamp))
    offsets: dict[int, int] = {}
    for leader, wanted in by_leader.items():
        reply = await client._send_request_to_node(leader, OffsetRequest(-1, isolation, [(topic, wanted)]))
        for _, partitions in reply.topics:
            for partition, code, *rest in partitions:
                if code:
                    raise errors.for_code(code)(topic)
                offsets[partition] = rest[-1]
    return dict(sorted(offsets.items()))


async def delete_records(client: Any, below: Mapping[Any, int]) -> None:
    """Delete records below an offset per TopicPartition, with any aiokafka client that knows the leaders."""
    from aiokafka import errors
    from aiokafka.protocol.admin import DeleteRecordsRequest
    from aiokafka.protocol.metadata import MetadataRequest

    topics = sorted({source.topic for source in below})
    answer = await client.send(client.get_random_node(), MetadataRequest(topics, allow_auto_topic_creation=False))
    leaders = {
        (topic["topic"], partition["partition"]): partition["leader"]
        for topic in answer.to_object()["topics"]
        for partition in topic["partitions"]
    }
    by_leader: dict[int, dict[str, list[tuple[int, int]]]] = {}
    for source, offset in below.items():
        leader = leaders.get((source.topic, source.partition))
        if leader is None:
            raise errors.UnknownTopicOrPartitionError(source)
        by_leader.setdefault(leader, {}).setdefault(source.topic, []).append((source.partition, offset))
    for leader, wanted in by_leader.items():
        deadline = time.monotonic() + 10
        while not await client.ready(leader):
            if time.monotonic() > deadline:
                raise errors.NodeNotReadyError(leader)
            await asyncio.sleep(0.1)
        reply = await client.send(leader, DeleteRecordsRequest(list(wanted.items()), 10_000))
        for _topic, partitions, *_ in reply.topics:
            for _partition, _low, code, *_ in partitions:
                if code:
                    raise errors.for_code(code)()
