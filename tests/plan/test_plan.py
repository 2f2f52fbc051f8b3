"""Where a flow is cut into stages and where not; the plan is the same everywhere; explain()."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jupyterflow as jf
from jupyterflow.plan import Plan, plan


def words() -> jf.Flow:
    flow = jf.Flow("words")
    lines = flow.source("lines", ["a b", "b"])
    keyed = lines.flat_map("split", lambda line: line.split()).key_by("word", lambda word: word)
    keyed.count("count").filter("often", lambda n: n > 1).sink("out", "collect")
    return flow


def shape(made: Plan) -> dict[str, tuple[int, str]]:
    """Tasks and nodes by stage."""
    return {stage.id: (stage.tasks, "+".join(stage.nodes)) for stage in made.stages}


def test_with_one_task_a_word_count_is_one_stage() -> None:
    assert shape(plan(words())) == {"lines": (1, "lines+split+word+count+often+out")}


def test_with_many_tasks_it_is_cut_where_all_records_of_a_key_must_meet() -> None:
    made = plan(words(), tasks=4, epoch="7")
    assert shape(made) == {"lines": (1, "lines+split+word"), "count": (4, "count+often+out")}
    (output,) = made.stage("lines").outputs
    assert (output.node, output.to, output.topic, output.partitions, output.routing) == (
        "word", "count", "jf.words.7.count.in", 4, "hash",
    )  # fmt: skip
    assert made.stage("count").upstream == (("lines", 1),)
    assert made.stage("count").changelog == "jf.words.7.count.changelog"
    assert made.topics() == {"jf.words.7.lines.splits": 1, "jf.words.7.count.in": 4}
    assert made.tasks == 5


def test_a_stateless_node_behind_two_sources_runs_in_both_their_stages() -> None:
    flow = jf.Flow("merged")
    a, b = flow.source("a", [1]), flow.source("b", [2])
    flow.union("both", a, b).map("twice", lambda v: 2 * v).sink("out", "collect")
    assert shape(plan(flow, tasks=3)) == {"a": (1, "a+both+twice+out"), "b": (1, "b+both+twice+out")}


def test_an_unkeyed_fold_is_one_task_behind_all_that_feed_it() -> None:
    flow = jf.Flow("single")
    a, b = flow.source("a", [1], parallelism=3), flow.source("b", [2])
    flow.union("both", a, b).count("n").map("more", lambda v: v).sink("out", "collect")
    made = plan(flow, tasks=4)
    assert shape(made) == {"a": (3, "a+both"), "b": (1, "b+both"), "n": (1, "n+more+out")}
    assert {output.routing for stage in made.stages for output in stage.outputs} == {"single"}
    assert made.stage("n").upstream == (("a", 3), ("b", 1))


def test_an_unkeyed_fold_behind_one_task_is_fused() -> None:
    flow = jf.Flow("single")
    flow.source("a", [1]).count("n").sink("out", "collect")
    assert shape(plan(flow, tasks=4)) == {"a": (1, "a+n+out")}


def test_a_change_of_parallelism_cuts_and_spreads() -> None:
    flow = jf.Flow("wider")
    a = flow.source("a", [1])
    a.map("slow", lambda v: v, parallelism=3).map("same", lambda v: v, parallelism=3).sink(
        "out", "collect", parallelism=1
    )
    made = plan(flow)
    assert shape(made) == {"a": (1, "a"), "slow": (3, "slow+same"), "out": (1, "out")}
    assert [output.routing for stage in made.stages for output in stage.outputs] == ["spread", "spread"]


def test_keyed_records_stay_with_their_key_where_parallelism_changes() -> None:
    flow = jf.Flow("wider")
    keyed = flow.source("a", [1]).key_by("key", lambda v: v)
    keyed.map("slow", lambda v: v, parallelism=3).count("n", parallelism=3).sink("out", "collect")
    made = plan(flow)
    assert shape(made) == {"a": (1, "a+key"), "slow": (3, "slow+n+out")}
    assert made.stage("a").outputs[0].routing == "hash"


def test_a_chain_behind_a_shuffle_is_fused_until_the_key_changes() -> None:
    def seen(value: int, state: dict[str, Any]) -> bool:
        return bool(state)

    flow = jf.Flow("chain")
    counted = flow.source("a", [1]).key_by("key", lambda v: v).count("n")
    stateful = counted.filter("some", seen).map("more", lambda v: v)
    stateful.key_by("again", lambda v: v).count("m").sink("out", "collect")
    assert shape(plan(flow, tasks=2)) == {"a": (1, "a+key"), "n": (2, "n+some+more+again"), "m": (2, "m+out")}


def test_a_user_topic_is_shuffled_again_where_a_key_matters() -> None:
    flow = jf.Flow("topic")
    flow.source("bids", "kafka://bids").key_by("auction", lambda bid: bid["auction"]).count("n").sink("out", "collect")
    made = plan(flow, tasks=2, partitions={"bids": 5})
    assert shape(made) == {"bids": (5, "bids+auction"), "n": (2, "n+out")}
    assert made.stage("bids").topic == "bids"
    assert made.topics() == {"jf.topic.0.n.in": 2}


def test_files_are_read_by_all_tasks_and_other_sources_by_one() -> None:
    flow = jf.Flow("sources")
    flow.source("files", "file:*.txt").sink("a", "collect")
    flow.source("list", [1]).sink("b", "collect")
    flow.source("made", lambda: [1], parallelism=2).sink("c", "collect")
    assert {id: tasks for id, (tasks, _) in shape(plan(flow, tasks=3)).items()} == {"files": 3, "list": 1, "made": 2}


def test_the_plan_of_a_flow_is_always_the_same() -> None:
    first, second = plan(words(), tasks=4), plan(words(), tasks=4)
    assert first == second
    assert jf.Flow.from_dict(words().to_dict()).order() == words().order()


def test_explain_shows_the_flow_the_stages_and_the_coding() -> None:
    flow = words()
    assert (
        flow.explain(tasks=4)
        == """\
flow words

Logical
  lines: source list
  split: operator flat_map <- lines
  word: operator key_by <- split
  count: operator count <- word
  often: operator filter <- count
  out: sink collect <- often

Physical (2 stages, 5 tasks)
  stage lines x 1: lines + split + word
    why: a bounded source
    word -> count: hash over 4
  stage count x 4: count + often + out
    why: 'count' needs all records of a key in one task

Coded
  jf.words.0.lines.splits: splits (pickle, signed)
  jf.words.0.count.in: frames (pickle, signed)
  jf.words.0.out.collect: frames (pickle, signed)"""
    )
    assert flow.run().wait(10).explain().startswith("flow words\n")


# Any small flow gives the same records however many tasks run it.

OPERATORS: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
    ("map", lambda v: v + 1, {}),
    ("map", lambda v: 3 * v, {"parallelism": 2}),
    ("filter", lambda v: v % 3, {}),
    ("filter", lambda values: [v % 2 for v in values], {"batch": True}),
    ("flat_map", lambda v: [v, -v], {"concurrency": 2}),
    ("flat_map", lambda v: range(v % 3), {"parallelism": 3}),
    ("key_by", lambda v: v % 4, {}),
    ("key_by", lambda v: str(v), {"parallelism": 2}),
]


@st.composite
def flows(draw: st.DrawFn) -> jf.Flow:
    flow = jf.Flow("random")
    for i in range(draw(st.integers(1, 2))):
        values = draw(st.lists(st.integers(-20, 20), max_size=30))
        flow.source(f"source{i}", values, parallelism=draw(st.sampled_from([None, 2])))
    for i in range(draw(st.integers(1, 6))):
        above = draw(st.lists(st.sampled_from(sorted(flow.nodes)), min_size=1, max_size=2, unique=True))
        kind, fn, options = draw(st.sampled_from(OPERATORS))
        flow.operator(kind, f"node{i}", above, fn, **options)
    for name in list(flow.nodes):
        flow.sink(f"out_{name}", "collect", [name])
    flow.operator("key_by", "by", ["node0"], lambda v: v % 5)
    flow.operator("count", "counted", ["by"], emit="end")
    flow.sink("out_counted", "collect", ["counted"])
    return flow


def reference(flow: jf.Flow) -> dict[str, Counter[Any]]:
    """The records of each node, by a loop over whole lists."""
    out: dict[str, list[tuple[Any, Any]]] = {}
    for name in flow.order():
        node, fn = flow.nodes[name], flow.nodes[name].fn
        given = [record for up in flow.upstreams(name) for record in out[up]]
        call: Any = (lambda v, fn=fn: fn([v])[0]) if node.options.get("batch") and fn else fn
        match node.kind:
            case "list":
                out[name] = [(v, None) for v in node.options["items"]]
            case "map":
                out[name] = [(call(v), key) for v, key in given]
            case "filter":
                out[name] = [(v, key) for v, key in given if call(v)]
            case "flat_map":
                out[name] = [(item, key) for v, key in given for item in call(v)]
            case "key_by":
                out[name] = [(v, call(v)) for v, _ in given]
            case "count":
                out[name] = [(n, key) for key, n in Counter(key for _, key in given).items()]
            case _:
                out[name] = given
    return {name: Counter(records) for name, records in out.items() if flow.nodes[name].role == "sink"}


@pytest.mark.parametrize("tasks", [1, 3])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(flow=flows())
def test_any_flow_gives_the_same_records_however_many_tasks_run_it(tasks: int, flow: jf.Flow) -> None:
    run = flow.run(tasks=tasks).wait(20)
    assert run.dead_letters() == []
    expected = reference(flow)
    assert {sink: Counter((r.value, r.key) for r in run.records(sink)) for sink in expected} == expected
