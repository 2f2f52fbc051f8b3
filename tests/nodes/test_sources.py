"""Sources: lists, functions, generators and files; what is missing, broken or endless in them."""

from __future__ import annotations

import asyncio
import gzip
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import jupyterflow as jf
from jupyterflow.nodes.base import NodeContext
from jupyterflow.nodes.catalogue import find
from jupyterflow.nodes.sources import GeneratorReader


def read(source: Any, tasks: int = 1, **options: Any) -> jf.Run:
    flow = jf.Flow("sources")
    flow.source("values", source, **options).sink("out", "collect")
    return flow.run(tasks=tasks).wait(20)


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come true in time"
        time.sleep(0.005)


# Lists, functions, generators.


@pytest.mark.parametrize("n", [0, 1, 7, 5000, 12_345])
@pytest.mark.parametrize("parallelism", [1, 4])
def test_a_list_is_divided_among_its_tasks(n: int, parallelism: int) -> None:
    run = read(range(n), parallelism=parallelism)
    out = run.collect("out")
    assert sorted(out) == list(range(n))
    if parallelism == 1:
        assert out == list(range(n))


def test_a_generator_is_called_once_in_each_task() -> None:
    def numbers(instance: int, instances: int) -> Iterator[tuple[int, int]]:
        for value in range(3):
            yield instance, instances * value

    out = read(numbers, parallelism=3).collect("out")
    assert sorted(out) == [(i, 3 * v) for i in range(3) for v in range(3)]


def test_a_generator_that_names_position_and_context_gets_them() -> None:
    def numbers(position: int, context: Any, step: int = 2) -> list[Any]:
        return [position, context.node, step]

    assert read(numbers).collect("out") == [0, "values", 2]


def test_an_async_generator_is_a_source() -> None:
    async def numbers() -> AsyncIterator[int]:
        for value in range(3):
            await asyncio.sleep(0)
            yield value

    assert read(numbers).collect("out") == [0, 1, 2]


def test_a_generator_that_raises_fails_the_flow_and_keeps_what_came_before() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("no more\nnumbers")

    flow = jf.Flow("broken")
    flow.source("values", numbers).sink("out", "collect")
    run = flow.run()
    with pytest.raises(jf.FlowError, match=r"^JF402 source 'values' failed: ValueError: no more numbers - ") as caught:
        run.wait(10)
    assert isinstance(caught.value.__cause__, ValueError)
    assert run.state == "failed"
    assert run.error is caught.value
    assert run.collect("out") == [1, 2]


def test_a_source_function_that_gives_no_values_to_go_through_says_so() -> None:
    with pytest.raises(jf.FlowError) as caught:
        read(lambda: 5)
    assert str(caught.value).count("JF402") == 1
    assert "gave int" in str(caught.value)
    assert "yield" in str(caught.value)


def test_a_rate_is_the_nodes_total_over_its_tasks() -> None:
    def numbers() -> Iterator[int]:
        yield from range(20)

    begin = time.monotonic()
    run = read(numbers, rate=200, parallelism=2)
    took = time.monotonic() - begin
    assert len(run.collect("out")) == 40
    assert 0.15 < took < 5  # 40 records at 200 a second


def test_a_slow_generators_values_are_handed_over_at_once() -> None:
    more = threading.Event()

    def numbers() -> Iterator[int]:
        yield 1
        more.wait(10)
        yield 2

    flow = jf.Flow("slow")
    flow.source("values", numbers, rate=1000).sink("out", "collect")
    run = flow.run()
    until(lambda: run.collect("out") == [1])
    more.set()
    assert run.wait(10).collect("out") == [1, 2]


def test_a_generator_that_is_started_again_skips_what_was_handed_over() -> None:
    started: list[int] = []

    def numbers() -> Iterator[int]:
        started.append(1)
        yield from range(10)

    flow = jf.Flow("again")
    flow.source("values", numbers)
    connector = find("source", "function", "").connector
    assert connector is not None
    reader = connector.open(flow.nodes["values"], {"instance": 0, "instances": 1}, 4, NodeContext("values"))
    values: list[int] = []

    def drain() -> bool:
        batch = reader.read(3)
        values.extend(batch.values if batch else [])
        assert batch is None or len(batch) <= 3
        return reader.done

    until(drain)
    assert values == [4, 5, 6, 7, 8, 9]
    assert (reader.position, reader.count, started) == (10, 10, [1])
    assert isinstance(reader, GeneratorReader)
    assert reader.restoring == 0
    reader.close()


# Files.


def test_lines_of_files_are_read_without_their_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\n\nthree\x0bstill\xe2\x80\xa8three")
    with gzip.open(tmp_path / "b.txt.gz", "wb") as file:
        file.write(b"four\nfive\n")
    (tmp_path / "c.txt").write_bytes(b"")
    out = read(f"file:{tmp_path}/*").collect("out")
    assert out == ["one", "two", "", "three\x0bstill\u2028three", "four", "five"]


@pytest.mark.parametrize("tasks", [1, 3])
def test_csv_rows_are_dicts_and_may_span_lines(tmp_path: Path, tasks: int) -> None:
    (tmp_path / "a.csv").write_text('name,text\nx,"two\nlines"\ny,"a,b"\n')
    assert read(f"csv:{tmp_path}/a.csv", tasks).collect("out") == [
        {"name": "x", "text": "two\nlines"},
        {"name": "y", "text": "a,b"},
    ]


def test_a_line_that_is_not_json_is_a_dead_letter_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "bids.json"
    path.write_text('{"a": 1}\n\nnot json\n[2]\n{"a": \n3\n')
    run = read(f"json:{path}")
    assert run.collect("out") == [{"a": 1}, [2], 3]
    assert [dead["value"] for dead in run.dead_letters()] == ["not json", '{"a": ']
    assert [dead["position"]["record"] for dead in run.dead_letters()] == [2, 4]
    assert run.dead_letters()[0]["position"]["path"] == str(path)
    assert run.dead_letters()[0]["error"].startswith("JSONDecodeError: ")


def test_what_fails_below_a_file_knows_its_line_although_others_were_left_out(tmp_path: Path) -> None:
    path = tmp_path / "bids.json"
    path.write_text("\nnot json\n1\n0\n")
    flow = jf.Flow("lines")
    flow.source("values", f"json:{path}").map("inverse", lambda v: 1 / v).sink("out", "collect")
    run = flow.run().wait(10)
    assert [dead["position"]["record"] for dead in run.dead_letters("inverse")] == [3]


@pytest.mark.parametrize("scheme", ["file", "json", "csv"])
def test_a_line_that_is_not_utf8_costs_no_other_line(tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b'"name"\n"a"\n"\xff"\n"c"\n')
    run = read(f"{scheme}:{path}")
    (dead,) = run.dead_letters()
    assert dead["error"].startswith("Unicode")
    assert dead["position"]["record"] == (1 if scheme == "csv" else 2)
    expected = {"file": ['"name"', '"a"', '"c"'], "json": ["name", "a", "c"], "csv": [{"name": "a"}, {"name": "c"}]}
    assert run.collect("out") == expected[scheme]
    assert len(read(f"{scheme}:{path}?errors=replace").dead_letters()) == 0


def test_a_bad_line_ends_the_flow_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "bids.json").write_text("1\nno\n")
    with pytest.raises(jf.FlowError, match=r"^JF404 .*node 'values': JSONDecodeError"):
        read(f"json:{tmp_path}/bids.json", on_error="fail")


def test_a_missing_file_is_said_before_anything_runs(tmp_path: Path) -> None:
    threads = threading.active_count()

    async def later(value: int) -> int:
        return value

    flow = jf.Flow("missing")
    flow.source("there", [1]).map("later", later).sink("out", "collect")
    flow.source("values", f"file:{tmp_path}/*.txt").sink("lines", "collect")
    with pytest.raises(jf.FlowError, match=r"^JF303 node 'values': no file at '.*\*.txt'"):
        flow.run()
    until(lambda: threading.active_count() <= threads)


def test_a_file_that_is_no_gzip_fails_the_flow_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_text("plain")
    with pytest.raises(jf.FlowError, match=r"^JF4\d\d .*'values'.*gzip") as caught:
        read(f"file:{tmp_path}/a.gz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["file", "json", "csv"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_file_is_read_on_from_every_position(tmp_path: Path, scheme: str, suffix: str) -> None:
    path = tmp_path / f"lines{suffix}"
    lines = ["1", "", "22", "x", "333", '"4 4"', "\u00fc"] * 20
    data = "\n".join(["head", *lines] if scheme == "csv" else lines).encode()
    path.write_bytes(gzip.compress(data) if suffix else data)
    flow = jf.Flow("resume")
    node = flow.nodes[flow.source("values", f"{scheme}:{path}").name]
    connector = find("source", scheme, "").connector
    assert connector is not None
    ((split,),) = connector.splits(node, 1)

    def context() -> NodeContext:
        return NodeContext("values", fail=lambda *args: None)

    whole: list[Any] = []
    reader = connector.open(node, split, None, context())
    while not reader.done:
        batch = reader.read(1000)
        whole += batch.values if batch else []

    pieces: list[Any] = []
    position: Any = None
    for _ in range(1000):
        reader = connector.open(node, split, position, context())
        batch = reader.read(3)
        pieces += batch.values if batch else []
        position = reader.position
        reader.close()
        if reader.done:
            break
    assert pieces == whole
    assert len(whole) > 50
