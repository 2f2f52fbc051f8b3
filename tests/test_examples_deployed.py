"""The example flows on two workers, with their exact results."""

from __future__ import annotations

import itertools
import os
import signal
import sysconfig
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import pytest
from deployed import notebook, until

import jupyterflow as jf
from jupyterflow.broker import tools
from jupyterflow.cluster.client import Cluster
from jupyterflow.transport.kafka import TopicSpec

NAMES = ["Adam", "Borat", "Cecil", "David", "Eugene", "Frank", "Gina", "Honza", "Ian", "Jakub", "Karl", "Lenka"]


def test_simple_gives_ten_ints_and_ten_strings(cluster: Cluster, name: str) -> None:
    flow = jf.Flow(name)
    strings = flow.source("string_source", ["1", "2", "3", "4", "5"], concurrency=2)
    ints = flow.source("int_source", [1, 2, 3, 4, 5])
    processed = strings.map("string_processor", lambda text: text + "0")
    processed.map("string_to_int", int).sink("int_out", "collect")
    flow.connect("string_source", "string_to_int")
    processed.sink("string_out", "collect")
    ints.map("int_to_string", str)
    flow.connect("int_to_string", "string_out")
    live = flow.deploy(cluster).wait(30)
    assert sorted(live.collect("int_out")) == [1, 2, 3, 4, 5, 10, 20, 30, 40, 50]
    assert sorted(live.collect("string_out")) == sorted(["1", "2", "3", "4", "5", "10", "20", "30", "40", "50"])
    assert {row["node"]: row["records_in"] for row in live.metrics()}["int_out"] == 10


def test_the_numbers_to_1000_have_7069_factors(cluster: Cluster, name: str) -> None:
    def factors(n: int) -> list[int]:
        return [d for d in range(1, n + 1) if n % d == 0]

    flow = jf.Flow(name)
    numbers = flow.source("numbers", range(1, 1001)).flat_map("factors", factors, parallelism=3)
    numbers.count("all", emit="end").sink("out", "collect")
    assert flow.deploy(cluster).wait(30).collect("out") == [7069]


def test_xml_filter_ends_with_the_sum_of_an_independent_loop(cluster: Cluster, name: str) -> None:
    n = 500_000
    texts = [f"<name>{name}</name>" for name in itertools.islice(itertools.cycle(NAMES), n)]
    flow = jf.Flow(name)
    parsed = flow.source("xml", texts).map("parse", lambda text: ElementTree.fromstring(text).text)
    kept = parsed.filter("no_b", lambda text: "B" not in text, concurrency=4)
    kept.aggregate("sum", 0, lambda total, text: total + len(text), every=50_000).sink("sums", "collect")
    live = flow.deploy(cluster).wait(90)
    lengths = [len(name) for name in itertools.islice(itertools.cycle(NAMES), n) if "B" not in name]
    sums = live.collect("sums")
    assert sums[-1] == sum(lengths)
    assert len(sums) == len(lengths) // 50_000 + 1
    assert live.dead_letters() == []


def test_scatter_gather_gives_the_set(cluster: Cluster, name: str) -> None:
    flow = jf.Flow(name)
    lines = flow.source("lines", ["aaa\tbbb\tccc", "ddd", "eee", "fff", "ggg\thhh"], parallelism=3)
    words = lines.flat_map("split", lambda line: line.split("\t"))
    words.map("upper", str.upper, concurrency=4, parallelism=2).sink("out", "collect")
    out = flow.deploy(cluster).wait(30).collect("out")
    assert sorted(out) == ["AAA", "BBB", "CCC", "DDD", "EEE", "FFF", "GGG", "HHH"]


def test_dedup_gives_each_distinct_value_once(cluster: Cluster, name: str) -> None:
    def first(value: int, state: dict[str, bool]) -> bool:
        return not state.setdefault("seen", False) and not state.update(seen=True)

    flow = jf.Flow(name)
    keyed = flow.source("ints", [i * 7 % 10 for i in range(100)]).key_by("self", lambda value: value)
    keyed.filter("first", first).sink("out", "collect")
    assert sorted(flow.deploy(cluster).wait(30).collect("out")) == list(range(10))


def test_words_equal_a_counter_although_a_worker_is_killed_half_way(cluster: Cluster, name: str) -> None:
    folder = Path(sysconfig.get_paths()["stdlib"])
    expected: Counter[str] = Counter()
    for path in folder.glob("*.py"):
        expected.update(path.read_text("utf-8", "replace").split())
    flow = jf.Flow(name)
    lines = flow.source("files", f"file:{folder}/*.py?errors=replace")
    words = lines.flat_map("words", lambda line: line.split()).key_by("word", lambda word: word)
    words.count("count", emit="end").sink("out", "collect")
    live = flow.deploy(cluster)

    def counted() -> int:
        return next(int(row["records_in"]) for row in live.metrics() if row["node"] == "count")

    until(lambda: counted() > expected.total() // 4, 60)
    assert live.state != "finished"
    victim = until(live.workers)[0]
    os.kill(victim["pid"], signal.SIGKILL)
    live.wait(40)
    records = live.records("out")
    assert {record.key: record.value for record in records} == expected
    assert len(records) == len(expected)
    assert counted() == expected.total()
    until(lambda: len({w["pid"] for w in cluster.workers} - {victim["pid"]}) == 2, 30)


def test_nobody_elses_input_is_read_and_written_as_any_client_does(cluster: Cluster, name: str) -> None:
    cluster._control.admin.create_topics([TopicSpec(f"{name}-in", 2)])
    produced = tools.console(
        tools.PRODUCER, "--bootstrap-server", cluster.bootstrap, "--topic", f"{name}-in",
        "--reader-property", "parse.key=true", "--reader-property", "key.separator=:",
        input="".join(f'k{i % 3}:{{"n": {i}}}\n' for i in range(30)),
    )  # fmt: skip
    assert produced.returncode == 0, produced.stderr
    flow = jf.Flow(name)
    bids = flow.source("bids", f"kafka://{name}-in?until=latest")
    bids.map("twice", lambda bid: {"n": bid["n"] * 2}).sink("out", f"kafka://{name}-out")
    live = flow.deploy(cluster).wait(30)
    consumed = tools.console(
        tools.CONSUMER, "--bootstrap-server", cluster.bootstrap, "--topic", f"{name}-out", "--from-beginning",
        "--isolation-level", "read_committed", "--max-messages", "30", "--timeout-ms", "20000",
        "--formatter-property", "print.key=true", "--formatter-property", "key.separator=:",
    )  # fmt: skip
    got = sorted(consumed.stdout.split())
    assert got == sorted(f'k{i % 3}:{{"n":{i * 2}}}' for i in range(30)), consumed.stderr
    assert {row["node"]: row["records_in"] for row in live.metrics()}["out"] == 30


CELLS = """
import dataclasses
import msgspec

@dataclasses.dataclass
class Bid:
    auction: int
    price: float

class Total(msgspec.Struct):
    auction: int
    count: int = 0
    price: float = 0.0

def to_bid(n):
    return Bid(n % 3, float(n))

def total(bid, key, state):
    assert isinstance(bid, Bid), type(bid)
    kept = state.setdefault("total", Total(key))
    assert isinstance(kept, Total)
    kept.count += 1
    kept.price += bid.price
    return kept

def plain(total):
    return (total.auction, total.count, total.price) if isinstance(total, Total) else "another class"
"""


@pytest.mark.parametrize("as_items", [False, True])
def test_a_dataclass_and_a_struct_of_a_cell_cross_a_shuffle(cluster: Cluster, name: str, as_items: bool) -> None:
    cell = notebook(CELLS)
    flow = jf.Flow(name)
    if as_items:
        bids = flow.source("bids", [cell["to_bid"](n) for n in range(60)])
    else:
        bids = flow.source("numbers", range(60)).map("bids", cell["to_bid"])
    totals = bids.key_by("auction", lambda bid: bid.auction).map("total", cell["total"])
    totals.map("plain", cell["plain"], parallelism=2).sink("out", "collect")
    totals.sink("kept", "collect")
    live = flow.deploy(cluster).wait(30)
    assert live.dead_letters() == []
    assert {row[:2]: row[2] for row in live.collect("out")}[(0, 20)] == sum(range(0, 60, 3))
    assert len(live.collect("out")) == 60
    assert max(kept.count for kept in live.collect("kept")) == 20
