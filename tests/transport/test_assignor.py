"""Tasks are dealt out evenly, stay where they are if they can, and co-partitioned ones stay together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jupyterflow.transport.kafka._assignor import Member, StickyAssignor, balance

Assignment = dict[str, dict[str, list[int]]]


def members(topics: list[str], had: Assignment, *, together: dict[str, str] | None = None) -> dict[str, Member]:
    return {
        name: Member(frozenset(topics), generation=1, had=before, together=together or {})
        for name, before in had.items()
    }


def load(assigned: Assignment) -> dict[str, int]:
    return {name: sum(map(len, topics.values())) for name, topics in assigned.items()}


def test_every_task_has_one_worker_and_workers_have_equally_many() -> None:
    assigned = balance(members(["a", "b"], {"x": {}, "y": {}, "z": {}}), {"a": 4, "b": 5})
    assert sorted(p for topics in assigned.values() for p in topics.get("a", [])) == [0, 1, 2, 3]
    assert sorted(p for topics in assigned.values() for p in topics.get("b", [])) == [0, 1, 2, 3, 4]
    assert sorted(load(assigned).values()) == [3, 3, 3]


def test_nothing_moves_when_nothing_changed() -> None:
    before = balance(members(["a", "b"], {"x": {}, "y": {}}), {"a": 5, "b": 3})
    assert balance(members(["a", "b"], before), {"a": 5, "b": 3}) == before


def test_a_joining_worker_takes_only_its_share() -> None:
    before = balance(members(["a"], {"x": {}, "y": {}}), {"a": 6})
    after = balance(members(["a"], {**before, "z": {}}), {"a": 6})
    assert load(after) == {"x": 2, "y": 2, "z": 2}
    assert all(set(after[name]["a"]) < set(before[name]["a"]) for name in "xy")


def test_many_small_stages_are_spread_over_a_joining_worker_too() -> None:
    topics = [f"s{i}" for i in range(6)]
    before = balance(members(topics, {"x": {}}), dict.fromkeys(topics, 1))
    assert load(balance(members(topics, {**before, "y": {}}), dict.fromkeys(topics, 1))) == {"x": 3, "y": 3}


def test_the_tasks_of_a_lost_worker_go_to_the_others() -> None:
    before = balance(members(["a"], {"x": {}, "y": {}, "z": {}}), {"a": 6})
    del before["z"]
    after = balance(members(["a"], before), {"a": 6})
    assert load(after) == {"x": 3, "y": 3}
    assert all(set(before[name]["a"]) < set(after[name]["a"]) for name in "xy")


def test_copartitioned_topics_have_equal_partitions_on_one_worker() -> None:
    together = {"left": "join", "right": "join"}
    assigned = balance(
        members(["left", "right", "c"], {"x": {}, "y": {}}, together=together), {"left": 4, "right": 4, "c": 3}
    )
    for topics in assigned.values():
        assert topics["left"] == topics["right"]
    assert abs(load(assigned)["x"] - load(assigned)["y"]) <= 1


def test_a_topic_goes_only_to_workers_that_read_it() -> None:
    known = {"gpu": Member(frozenset({"a", "train"})), "cpu": Member(frozenset({"a"}))}
    assigned = balance(known, {"a": 4, "train": 2})
    assert assigned["gpu"]["train"] == [0, 1]
    assert "train" not in assigned["cpu"]
    assert load(assigned) == {"gpu": 3, "cpu": 3}


def test_of_two_claims_the_later_generation_is_believed() -> None:
    known = {
        "sleeper": Member(frozenset({"a"}), generation=3, had={"a": [0, 1]}),
        "owner": Member(frozenset({"a"}), generation=4, had={"a": [0, 1, 2, 3]}),
    }
    assigned = balance(known, {"a": 4})
    assert load(assigned) == {"sleeper": 2, "owner": 2}
    assert assigned["owner"]["a"] == [0, 1]


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 7), min_size=1),
    st.dictionaries(
        st.sampled_from("uvwxyz"),
        st.tuples(
            st.sets(st.sampled_from("abcd")), st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 9)))
        ),
        min_size=1,
    ),
    st.booleans(),
)
def test_any_group_gets_each_readable_task_exactly_once(
    partitions: dict[str, int], group: dict[str, Any], joined: bool
) -> None:
    together = {"a": "j", "b": "j"} if joined else {}
    known = {
        name: Member(frozenset(topics & partitions.keys()), generation=1, had=had, together=together)
        for name, (topics, had) in group.items()
    }
    assigned = balance(known, partitions)
    for topic, count in partitions.items():
        readers = {name for name, member in known.items() if topic in member.topics}
        dealt = [(p, name) for name, topics in assigned.items() for p in topics.get(topic, [])]
        assert sorted(p for p, _ in dealt) == (list(range(count)) if readers else [])
        assert {name for _, name in dealt} <= readers


def test_user_data_that_cannot_be_read_is_no_reason_to_fail() -> None:
    cluster = SimpleNamespace(partitions_for_topic=lambda topic: {0, 1} if topic == "a" else None)
    alien = SimpleNamespace(subscription=["a", "gone"], user_data=b"\xff not json")
    assignor = StickyAssignor({"gpu": True})
    assigned = assignor.assign(cluster, {"m1": alien, "m2": assignor.metadata({"a"})})
    assert sorted(at.partition for part in assigned.values() for at in part.partitions()) == [0, 1]
