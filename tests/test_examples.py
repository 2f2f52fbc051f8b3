"""The example flows, in process, with their exact results."""

from __future__ import annotations

import itertools
import sysconfig
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import pytest

import jupyterflow as jf

NAMES = ["Adam", "Borat", "Cecil", "David", "Eugene", "Frank", "Gina", "Honza", "Ian", "Jakub", "Karl", "Lenka"]

SIMPLE_TREE = """\
string_source (c 2)
 +--> string_processor (c 1)
 |     +--> string_to_int (c 1)
 |     |     +--> int_out (c 1)
 |     +--> string_out (c 1)
 +--> string_to_int (c 1)
       +--> int_out (c 1)

int_source (c 1)
 +--> int_to_string (c 1)
       +--> string_out (c 1)"""


def simple() -> jf.Flow:
    flow = jf.Flow("simple")
    strings = flow.source("string_source", ["1", "2", "3", "4", "5"], concurrency=2)
    ints = flow.source("int_source", [1, 2, 3, 4, 5])
    processed = strings.map("string_processor", lambda text: text + "0")
    processed.map("string_to_int", int).sink("int_out", "collect")
    flow.connect("string_source", "string_to_int")
    processed.sink("string_out", "collect")
    ints.map("int_to_string", str)
    flow.connect("int_to_string", "string_out")
    return flow


@pytest.mark.parametrize("tasks", [1, 3])
def test_simple_gives_ten_ints_and_ten_strings(tasks: int) -> None:
    run = simple().run(tasks=tasks).wait(20)
    assert sorted(run.collect("int_out")) == [1, 2, 3, 4, 5, 10, 20, 30, 40, 50]
    assert sorted(run.collect("string_out")) == sorted(["1", "2", "3", "4", "5", "10", "20", "30", "40", "50"])


def test_simple_is_drawn_as_a_tree() -> None:
    assert simple().tree().rstrip() == SIMPLE_TREE


@pytest.mark.parametrize("tasks", [1, 4])
def test_the_numbers_to_1000_have_7069_factors(tasks: int) -> None:
    def factors(n: int) -> list[int]:
        return [d for d in range(1, n + 1) if n % d == 0]

    flow = jf.Flow("factors")
    flow.source("numbers", range(1, 1001)).flat_map("factors", factors).count("all", emit="end").sink("out", "collect")
    assert flow.run(tasks=tasks).wait(20).collect("out") == [7069]


@pytest.mark.parametrize(
    ("n", "every"), [(60_000, 5_000), pytest.param(500_000, 50_000, marks=pytest.mark.slow), (50_001, 50_000)]
)
def test_xml_filter_emits_the_sums_of_an_independent_loop(n: int, every: int) -> None:
    flow = jf.Flow("xml")
    source = flow.source("xml", [f"<name>{name}</name>" for name in itertools.islice(itertools.cycle(NAMES), n)])
    texts = source.map("parse", lambda text: ElementTree.fromstring(text).text)
    texts = texts.filter("no_b", lambda text: "B" not in text, concurrency=4)
    texts.aggregate("sum", 0, lambda total, text: total + len(text), every=every).sink("sums", "collect")
    run = flow.run().wait(60)

    expected, total, kept = [], 0, 0
    for name in itertools.islice(itertools.cycle(NAMES), n):
        if "B" not in name:
            kept, total = kept + 1, total + len(name)
            if kept % every == 0:
                expected.append(total)
    if kept % every:
        expected.append(total)
    assert run.collect("sums") == expected
    assert run.dead_letters() == []


LINES = ["aaa\tbbb\tccc", "ddd", "eee", "fff", "ggg\thhh"]
UPPER = ["AAA", "BBB", "CCC", "DDD", "EEE", "FFF", "GGG", "HHH"]


def test_scatter_gather_keeps_the_order() -> None:
    flow = jf.Flow("scatter")
    words = flow.source("lines", LINES).flat_map("split", lambda line: line.split("\t"))
    words.map("upper", str.upper, concurrency=4).sink("out", "collect")
    assert flow.run().wait(20).collect("out") == UPPER


def test_scatter_gather_on_many_tasks_gives_the_same_set() -> None:
    flow = jf.Flow("scatter")
    words = flow.source("lines", LINES, parallelism=3).flat_map("split", lambda line: line.split("\t"))
    words.map("upper", str.upper, concurrency=4, parallelism=2).sink("out", "collect")
    assert sorted(flow.run().wait(20).collect("out")) == UPPER


@pytest.mark.parametrize("tasks", [1, 3])
def test_dedup_gives_each_distinct_value_once(tasks: int) -> None:
    def first(value: int, state: dict[str, bool]) -> bool:
        return not state.setdefault("seen", False) and not state.update(seen=True)

    flow = jf.Flow("dedup")
    keyed = flow.source("ints", [i * 7 % 10 for i in range(100)]).key_by("self", lambda value: value)
    keyed.filter("first", first).sink("out", "collect")
    assert sorted(flow.run(tasks=tasks).wait(20).collect("out")) == list(range(10))


@pytest.mark.parametrize("tasks", [1, 3])
def test_words_of_the_standard_library_equal_a_counter(tasks: int) -> None:
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = f"{folder}/{'[a-d]*.py' if tasks == 1 else 'json/*.py'}"
    flow = jf.Flow("words")
    lines = flow.source("files", f"file:{files}?errors=replace")
    words = lines.flat_map("words", lambda line: line.split()).key_by("word", lambda word: word)
    words.count("count", emit="end").sink("out", "collect")
    run = flow.run(tasks=tasks).wait(60)

    expected: Counter[str] = Counter()
    for path in folder.glob(files.removeprefix(f"{folder}/")):
        expected.update(path.read_text("utf-8", "replace").split())
    assert {record.key: record.value for record in run.records("out")} == expected
    assert len(run.records("out")) == len(expected)
