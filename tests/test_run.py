"""A run in process: its ends, its limits, what it shows, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import itertools
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import jupyterflow as jf


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come true in time"
        time.sleep(0.005)


def endless(rate: float | None = None, **options: Any) -> tuple[jf.Flow, jf.Handle]:
    def numbers() -> Iterator[int]:
        yield from itertools.count()

    flow = jf.Flow("endless")
    return flow, flow.source("numbers", numbers, rate=rate, **options)


def row(run: jf.Run, node: str) -> dict[str, Any]:
    return next(row for row in run.metrics() if row["node"] == node)


# Ends.


def test_a_bounded_flow_finishes() -> None:
    flow = jf.Flow("bounded")
    flow.source("values", [1, 2, 3]).sink("out", "collect")
    run = flow.run()
    assert run.wait(10) is run
    assert run.state == "finished"
    assert run.error is None
    assert repr(run) == "<Run bounded: finished>"
    assert run.stop().state == run.terminate().state == "finished"


@pytest.mark.parametrize("tasks", [1, 3])
def test_a_stop_drains_what_is_in_flight_and_flushes_no_fold(tasks: int) -> None:
    flow, numbers = endless(rate=20_000)
    keyed = numbers.map("same", lambda v: v).key_by("key", lambda v: v % 7)
    keyed.count("each").sink("out", "collect")
    keyed.count("final", emit="end").sink("never", "collect")
    run = flow.run(tasks=tasks)
    until(lambda: len(run.collect("out")) > 100)
    assert run.stop(10).state == "stopped"
    counted = row(run, "numbers")["records_out"]
    assert counted == row(run, "same")["records_in"] == row(run, "each")["records_in"] == row(run, "out")["records_in"]
    assert counted == len(run.collect("out"))
    assert run.collect("never") == []


def test_a_stop_reaches_a_flow_of_which_a_part_has_ended() -> None:
    flow, numbers = endless(rate=1000)
    bounded = flow.source("bounded", [1, 2, 3], parallelism=2)
    flow.union("both", numbers, bounded).map("moved", lambda v: v, parallelism=2).sink("out", "collect")
    run = flow.run()
    until(lambda: len(run.collect("out")) > 50)
    assert run.stop(10).state == "stopped"
    assert len(run.collect("out")) == row(run, "numbers")["records_out"] + 3


def test_terminate_ends_at_once_although_a_function_sleeps() -> None:
    release = threading.Event()
    flow = jf.Flow("sleeper")
    seen: list[int] = []

    def sleeper(value: int) -> None:
        seen.append(value)
        release.wait(20)

    flow.source("values", range(100)).sink("sleeper", sleeper)
    run = flow.run()
    until(lambda: seen == [0])
    begin = time.monotonic()
    assert run.terminate().state == "stopped"
    assert time.monotonic() - begin < 5
    release.set()
    until(lambda: not any("sleeper" in thread.name for thread in threading.enumerate()))
    assert len(seen) < 100


def test_a_stop_that_a_function_holds_up_says_so() -> None:
    release = threading.Event()
    flow = jf.Flow("held")
    flow.source("values", [1]).sink("hold", lambda value: release.wait(20))
    run = flow.run()
    with pytest.raises(jf.FlowTimeout, match="JF405"):
        run.stop(0.05)
    release.set()
    assert run.wait(10).state in ("finished", "stopped")


@pytest.mark.parametrize("parallelism", [None, 2])
def test_slow_functions_are_seen_at_work_and_can_be_stopped(parallelism: int | None) -> None:
    def slow(value: int) -> int:
        time.sleep(0.06)
        return value

    flow = jf.Flow("slow")
    source = flow.source("values", range(1000))
    source.map("slow", slow, parallelism=parallelism).sink("out", "collect")
    run = flow.run()
    until(lambda: len(run.collect("out")) > 0)
    assert len(run.collect("out")) < 10
    if parallelism is None:
        run.stop(10)
        assert run.collect("out") == list(range(len(run.collect("out"))))
    else:
        run.terminate()
    assert len(run.collect("out")) < 100


def test_waiting_too_short_is_a_timeout() -> None:
    flow, numbers = endless(rate=100)
    numbers.sink("out", "collect")
    run = flow.run()
    with pytest.raises(jf.FlowTimeout, match=r"^JF405 flow 'endless' is still \w+ after 0.05 s - ") as caught:
        run.wait(0.05)
    assert isinstance(caught.value, TimeoutError)
    assert run.state in ("running", "idle")
    run.terminate()


def test_a_run_can_be_awaited_and_called_off() -> None:
    async def both() -> None:
        bounded = jf.Flow("bounded")
        bounded.source("values", [1, 2, 3]).sink("out", "collect")
        run = await bounded.run()
        assert run.collect("out") == [1, 2, 3]

        flow, numbers = endless(rate=100)
        numbers.sink("out", "collect")
        run = flow.run()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run, 0.1)
        run.terminate()

        failing = jf.Flow("failing")
        failing.source("values", [1]).map("bad", lambda v: 1 / 0, on_error="fail")
        with pytest.raises(jf.FlowError, match="JF404"):
            await failing.run()

    asyncio.run(asyncio.wait_for(both(), 20))


@pytest.mark.parametrize("options", [{"tasks": 0}, {"max_queue": 0}])
def test_a_run_without_room_is_refused(options: dict[str, int]) -> None:
    flow, numbers = endless()
    numbers.sink("out", "collect")
    with pytest.raises(jf.FlowError, match="JF306"):
        flow.run(**options)
    with pytest.raises(jf.FlowError, match="JF301"):
        jf.Flow("empty").run()


# Results.


def test_records_are_whole_and_unknown_sinks_are_named() -> None:
    flow = jf.Flow("records")
    flow.source("values", [5]).key_by("key", lambda v: "k").sink("out", "collect")
    run = flow.run().wait(10)
    (record,) = run.records("out")
    assert (record.value, record.key, record.headers) == (5, "k", ())
    assert abs(record.timestamp - time.time() * 1000) < 60_000
    for read in (run.collect, run.records):
        with pytest.raises(jf.FlowError, match=r"JF406 .*'values' is no collect sink - it has out"):
            read("values")


def test_collect_keeps_the_last_ones_and_says_when_it_dropped_some() -> None:
    flow = jf.Flow("limited")
    flow.source("values", range(10_000)).sink("out", "collect", limit=3)
    run = flow.run().wait(10)
    with pytest.warns(UserWarning, match="9,997 older records were dropped"):
        assert run.collect("out") == [9997, 9998, 9999]
    with pytest.warns(UserWarning, match="dropped"):
        assert len(run.records("out")) == 3
    flow = jf.Flow("unlimited")
    flow.source("values", range(10)).sink("out", "collect", limit=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(flow.run().wait(10).collect("out")) == 10


def test_counters_are_exact_and_rates_are_taken_from_the_start() -> None:
    flow = jf.Flow("counters")
    source = flow.source("values", range(1000), parallelism=3)
    source.filter("odd", lambda v: v % 2).flat_map("twice", lambda v: [v, v]).sink("out", "collect")
    source.map("bad", lambda v: 1 / (v % 100))
    run = flow.run(tasks=2).wait(10)
    counts = {r["node"]: (r["records_in"], r["records_out"], r["errors"]) for r in run.metrics()}
    assert counts == {
        "values": (1000, 1000, 0),
        "odd": (1000, 500, 0),
        "twice": (500, 1000, 0),
        "out": (1000, 1000, 0),
        "bad": (1000, 990, 10),
    }
    assert run.sample("odd") in range(1000)
    assert {row["p50_ms"] is not None for row in run.metrics() if row["node"] != "values"} == {True}


def test_a_running_flow_shows_its_rates() -> None:
    flow, numbers = endless(rate=500)
    numbers.map("moved", lambda v: v, parallelism=2).sink("out", "collect")
    run = flow.run(max_queue=77)
    until(lambda: row(run, "out")["rate_in"] > 100)
    until(lambda: all(edge["rate"] > 100 for edge in run.edges()))
    assert [(e["upstream"], e["downstream"], e["max_queue"]) for e in run.edges()] == [
        ("numbers", "moved", 77),
        ("moved", "out", 77),
    ]
    run.terminate()


def test_prints_are_kept_for_each_node_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    def numbers() -> Iterator[int]:
        print("begun")
        yield from range(3)

    async def later(value: int) -> int:
        print("later", value)
        return value

    flow = jf.Flow("prints")
    source = flow.source("numbers", numbers)
    source.map("later", later, concurrency=2)
    source.map("threads", lambda v: print("threads", v), concurrency=2)
    source.sink("out", print)
    run = flow.run().wait(10)
    assert run.prints("numbers") == ["begun"]
    assert sorted(run.prints("later")) == ["later 0", "later 1", "later 2"]
    assert sorted(run.prints("threads")) == ["threads 0", "threads 1", "threads 2"]
    assert run.prints("out") == ["0", "1", "2"]
    assert run.prints("unknown") == []
    shown = capsys.readouterr().out.splitlines()
    assert sorted(shown) == sorted(line for node in flow.nodes for line in run.prints(node))


def test_prints_are_bounded() -> None:
    flow = jf.Flow("talkative")
    flow.source("values", range(5000)).sink("out", print)
    lines = flow.run().wait(10).prints("out")
    assert len(lines) <= 200
    assert lines


# Nothing is left, nothing grows.


def test_many_runs_leave_no_thread_and_the_real_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    async def later(value: int) -> int:
        return value

    before, stdout = threading.active_count(), sys.stdout
    for i in range(50):
        flow, numbers = endless()
        numbers.map("later", later).map("threads", lambda v: v, concurrency=2).sink("out", print)
        flow.source("list", range(10)).map("bad", lambda v: v, parallelism=2)
        run = flow.run()
        if i % 3 == 0:
            run.stop(10)
        else:
            run.terminate()
        flow = jf.Flow("failing")
        flow.source("values", [1]).map("bad", lambda v: 1 / 0, on_error="fail", concurrency=2)
        with pytest.raises(jf.FlowError):
            flow.run().wait(10)
    assert sys.stdout is stdout
    until(lambda: threading.active_count() <= before)
    capsys.readouterr()


def test_a_fast_source_waits_for_a_slow_sink() -> None:
    gate = threading.Semaphore(0)
    flow, numbers = endless()
    numbers.map("near", lambda v: v).map("far", lambda v: v, parallelism=2).sink("slow", lambda v: gate.acquire())
    run = flow.run(max_queue=50)
    until(lambda: row(run, "near")["records_out"] > 0)

    def at_rest() -> bool:
        first = row(run, "numbers")["records_out"]
        time.sleep(0.05)
        return bool(row(run, "numbers")["records_out"] == first)

    try:
        until(at_rest)
        assert row(run, "numbers")["records_out"] < 50_000
        assert max(edge["queued"] for edge in run.edges()) < 50_000
    finally:
        for _ in range(100_000):
            gate.release()
        run.terminate()


def test_back_pressure_loses_nothing() -> None:
    flow = jf.Flow("pressed")
    source = flow.source("values", range(20_000))
    left = source.map("left", lambda v: v, parallelism=2)
    right = source.map("right", lambda v: v, parallelism=3)
    flow.union("both", left, right).key_by("key", lambda v: v % 5).count("n", parallelism=2, emit="end").sink(
        "out", "collect"
    )
    run = flow.run(max_queue=1).wait(30)
    assert {record.key: record.value for record in run.records("out")} == dict.fromkeys(range(5), 8000)


def test_an_interrupted_wait_leaves_nothing_running_after_terminate() -> None:
    script = """
        import itertools, sys, threading
        import jupyterflow as jf

        flow = jf.Flow("interrupted")
        numbers = flow.source("numbers", lambda: itertools.count(), rate=1000)
        numbers.map("moved", lambda v: v, parallelism=2, concurrency=2).sink("out", "collect")
        run = flow.run()
        while not run.collect("out"):
            pass
        try:
            print("ready", flush=True)
            run.wait(30)
        except KeyboardInterrupt:
            assert run.state in ("running", "idle")
            run.terminate()
            for thread in threading.enumerate():
                if thread is not threading.main_thread():
                    thread.join(5)
            print(run.state, [t.name for t in threading.enumerate() if t.is_alive()], flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (out, err, process.returncode) == ("stopped ['MainThread']\n", "", 0)
    finally:
        process.kill()
        process.communicate()


def test_a_script_that_is_interrupted_ends_although_its_flow_runs() -> None:
    script = """
        import itertools
        import jupyterflow as jf

        flow = jf.Flow("interrupted")
        flow.source("numbers", lambda: itertools.count(), rate=1000).sink("out", "collect")
        run = flow.run()
        print("ready", flush=True)
        run.wait()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert "KeyboardInterrupt" in err
        assert "Fatal" not in err
        assert process.returncode == -signal.SIGINT
    finally:
        process.kill()
        process.communicate()
