"""Flows in process that read and write Kafka: no group, nothing committed, Kafka read from `start`."""

import dataclasses
import time
import uuid

import orjson
import pytest

import jupyterflow as jf
from jupyterflow.broker import tools
from jupyterflow.transport.kafka import Admin, KafkaConfig, TopicSpec

pytestmark = pytest.mark.kafka


@pytest.fixture
def topics(bootstrap):
    names = [f"in-{uuid.uuid4().hex[:8]}", f"out-{uuid.uuid4().hex[:8]}"]
    with Admin(KafkaConfig(bootstrap)) as admin:
        admin.create_topics([TopicSpec(name, 3, {}) for name in names])
        yield names
        admin.delete_topics(names)


def write(bootstrap, topic, lines):
    done = tools.console(
        tools.PRODUCER, "--bootstrap-server", bootstrap, "--topic", topic,
        "--property", "parse.key=true", "--property", "key.separator=|", input="\n".join(lines) + "\n",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_bounded_topic_is_read_to_its_end_and_written_to_another(bootstrap, topics):
    source, sink = topics
    write(bootstrap, source, [f"k{i % 5}|" + orjson.dumps({"n": i}).decode() for i in range(100)])
    flow = jf.Flow("copy")
    bids = flow.source("bids", f"kafka://{source}?until=latest")
    bids.filter("even", lambda bid: bid["n"] % 2 == 0).sink("out", f"kafka://{sink}")
    bids.sink("seen", "collect")
    run = flow.run(bootstrap=bootstrap).wait(30)
    assert sorted(bid["n"] for bid in run.collect("seen")) == list(range(100))
    assert {record.key for record in run.records("seen")} == {f"k{i}" for i in range(5)}
    again = jf.Flow("again")
    again.source("out", f"kafka://{sink}?until=latest").sink("all", "collect")
    back = again.run(bootstrap=bootstrap).wait(30)
    assert sorted(bid["n"] for bid in back.collect("all")) == list(range(0, 100, 2))


def test_a_record_that_is_not_json_becomes_a_dead_letter_with_its_offset(bootstrap, topics):
    source, _ = topics
    write(bootstrap, source, ['a|{"n": 1}', "a|not json", 'a|{"n": 2}'])
    flow = jf.Flow("bad")
    flow.source("bids", f"kafka://{source}?until=latest").sink("seen", "collect")
    run = flow.run(bootstrap=bootstrap).wait(30)
    assert run.collect("seen") == [{"n": 1}, {"n": 2}]
    (letter,) = run.dead_letters("bids")
    assert letter["position"]["topic"] == source
    assert letter["position"]["offset"] == 1
    assert letter["value"] == b"not json"


def test_an_empty_bounded_topic_ends_at_once(bootstrap, topics):
    flow = jf.Flow("empty")
    flow.source("bids", f"kafka://{topics[0]}?until=latest").sink("seen", "collect")
    assert flow.run(bootstrap=bootstrap).wait(30).collect("seen") == []


def test_an_unbounded_topic_is_followed_until_the_run_is_stopped(bootstrap, topics):
    source, _ = topics
    flow = jf.Flow("follow")
    flow.source("bids", f"kafka://{source}").sink("seen", "collect")
    run = flow.run(bootstrap=bootstrap)
    write(bootstrap, source, ['a|{"n": 1}'])
    deadline = time.monotonic() + 30
    while not run.collect("seen") and time.monotonic() < deadline:
        run._changed(0.05)
    assert run.collect("seen") == [{"n": 1}]
    assert run.stop().state == "stopped"


def test_a_topic_that_does_not_exist_is_one_line(bootstrap):
    flow = jf.Flow("none")
    flow.source("bids", "kafka://no-such-topic").sink("seen", "collect")
    with pytest.raises(jf.FlowError, match=r"JF523 flow 'none', node 'bids': topic 'no-such-topic' does not exist"):
        flow.run(bootstrap=bootstrap)


def test_a_kafka_that_is_not_there_is_one_line_within_its_bound():
    flow = jf.Flow("gone")
    flow.source("bids", "kafka://bids").sink("seen", "collect")
    begin = time.monotonic()
    with pytest.raises(jf.FlowError, match="JF52"):
        flow.run(bootstrap="127.0.0.1:1")
    assert time.monotonic() - begin < 45


@dataclasses.dataclass
class Bid:
    n: int
    euros: float = 1.0


def double(bid: Bid) -> Bid:
    return dataclasses.replace(bid, n=bid.n * 2)


def test_values_are_decoded_to_the_type_that_the_function_takes(bootstrap, topics):
    source, sink = topics
    write(bootstrap, source, ['a|{"n": 1}', 'a|{"n": 2, "euros": 3.5}'])
    flow = jf.Flow("typed")
    flow.source("bids", f"kafka://{source}?until=latest").map("double", double).sink("out", f"kafka://{sink}")
    flow.run(bootstrap=bootstrap).wait(30)
    again = jf.Flow("typed-again")
    again.source("out", f"kafka://{sink}?until=latest").sink("all", "collect")
    back = again.run(bootstrap=bootstrap).wait(30).collect("all")
    assert sorted(back, key=lambda bid: bid["n"]) == [{"n": 2, "euros": 1.0}, {"n": 4, "euros": 3.5}]


def shout(text: str) -> str:
    return text.upper()


def test_text_is_text_where_the_functions_say_so(bootstrap, topics):
    source, sink = topics
    write(bootstrap, source, ["a|hello"])
    flow = jf.Flow("texts")
    flow.source("lines", f"kafka://{source}?until=latest").map("shout", shout).sink("out", f"kafka://{sink}")
    flow.run(bootstrap=bootstrap).wait(30)
    again = jf.Flow("texts-again")
    again.source("out", f"kafka://{sink}?until=latest&codec=text").sink("all", "collect")
    assert again.run(bootstrap=bootstrap).wait(30).collect("all") == ["HELLO"]


def test_pickled_values_are_sealed_and_keep_their_types(bootstrap, topics):
    source, _ = topics
    flow = jf.Flow("pickles")
    flow.source("pairs", [(1, "a"), {2, 3}]).sink("out", f"kafka://{source}?codec=pickle")
    flow.run(bootstrap=bootstrap).wait(30)
    write(bootstrap, source, ["a|forged"])
    again = jf.Flow("pickles-again")
    again.source("out", f"kafka://{source}?codec=pickle&until=latest").sink("all", "collect")
    run = again.run(bootstrap=bootstrap).wait(30)
    assert sorted(map(str, run.collect("all"))) == ["(1, 'a')", "{2, 3}"]
    (letter,) = run.dead_letters("out")
    assert "JF22" in letter["error"]
