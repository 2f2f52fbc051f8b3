"""Topics, offsets and groups."""

from __future__ import annotations

import pytest
from _transport_count import Counter
from _transport_kafka import Kafka, until

from jupyterflow.model import FlowError
from jupyterflow.transport.kafka import Admin, Engine, InputTopic, TopicSpec

pytestmark = pytest.mark.kafka


def test_topics_are_created_once_with_their_settings(kafka: Kafka) -> None:
    name = kafka.topic("a", 3, cleanup_policy="compact", retention_ms="-1")
    assert kafka.admin.create_topics([TopicSpec(name, 3)]) == []
    assert kafka.admin.partitions(name) == 3
    assert name in kafka.admin.topics()
    settings = kafka.admin.describe(name)
    assert (settings["cleanup.policy"], settings["retention.ms"]) == ("compact", "-1")


def test_a_topic_with_another_number_of_partitions_is_refused(kafka: Kafka) -> None:
    name = kafka.topic("a", 3)
    with pytest.raises(FlowError, match=f"JF540 topic '{name}' exists with 3 partitions, 4 are needed"):
        kafka.admin.create_topics([TopicSpec(name, 4)])


def test_a_setting_that_kafka_does_not_know_is_one_line(kafka: Kafka) -> None:
    with pytest.raises(FlowError, match=r"JF542 topic '.*' cannot be created: InvalidConfiguration"):
        kafka.topic("a", 1, cleanup_policy="sometimes")


def test_deleted_topics_are_gone_and_may_be_deleted_again(kafka: Kafka) -> None:
    name = kafka.topic("a", 2)
    kafka.admin.delete_topics([name])
    assert kafka.admin.partitions(name) is None
    kafka.admin.delete_topics([name])
    kafka.topic("a", 5)
    assert kafka.admin.partitions(name) == 5


def test_offsets_tell_begin_and_end_and_records_can_be_deleted(kafka: Kafka) -> None:
    name = kafka.topic("a", 2)
    kafka.write(name, {0: [(None, b"x")] * 10})
    assert kafka.admin.beginning_offsets(name) == {0: 0, 1: 0}
    assert kafka.admin.end_offsets(name) == {0: 10, 1: 0}
    kafka.admin.delete_records(name, {0: 4})
    assert kafka.admin.beginning_offsets(name) == {0: 4, 1: 0}


def test_what_does_not_exist_is_said_in_one_line(kafka: Kafka) -> None:
    for ask in (kafka.admin.end_offsets, kafka.admin.beginning_offsets, kafka.admin.describe):
        with pytest.raises(FlowError, match=r"JF523 .*nowhere.* does not exist"):
            ask("nowhere")
    assert kafka.admin.committed("nobody") == {}
    assert kafka.admin.group("nobody").state == "Dead"
    kafka.admin.delete_group("nobody")


def test_a_group_shows_its_positions_and_is_deleted_only_when_it_is_empty(kafka: Kafka) -> None:
    topics = [kafka.topic(name, 1) for name in ("in", "out", "changelog")]
    counter = Counter(*topics[1:])
    engine = Engine(
        kafka.io,
        kafka.config,
        group=kafka.group,
        instance_id="one",
        inputs=[InputTopic(topics[0])],
        on_open=counter.on_open,
    )
    engine.start()
    until(lambda: kafka.admin.committed(kafka.group) == {(topics[0], 0): 0}, "the first position is committed")
    assert len(kafka.admin.group(kafka.group).members) == 1
    assert kafka.group in kafka.admin.groups()
    with pytest.raises(FlowError, match="JF541"):
        kafka.admin.delete_group(kafka.group)
    engine.stop()
    kafka.admin.delete_group(kafka.group)
    assert kafka.admin.committed(kafka.group) == {}


def test_an_admin_of_its_own_leaves_no_thread(bootstrap: str, kafka: Kafka) -> None:
    import threading

    before = threading.active_count()
    with Admin(kafka.config) as admin:
        admin.ping()
    assert threading.active_count() == before
