"""The benchmarks in small: what they measure must be right. Speed is `scripts/bench`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _bench_data import Expected, bids, expected_bids, expected_words
from _bench_world import World

from jupyterflow.cluster.client import Cluster

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def world(cluster: Cluster) -> Iterator[World]:
    said: list[str] = []
    yield World(cluster, said.append, pinned=False)
    assert [line for line in said if line.startswith("WRONG")] == []


def test_the_oracles_count_what_must_come_out() -> None:
    assert expected_bids(0) == Expected(0, 0)
    assert 0.2 < expected_bids(20_000).records / 20_000 < 0.3
    assert expected_words(1_000).records == 1_000
    assert 130 < sum(len(data) for _, data in bids(1_000)) / 1_000 < 170


@pytest.mark.parametrize("workload", ["stateless", "words"])
def test_a_deployed_flow_gives_what_the_oracle_says(world: World, workload: str) -> None:
    assert world.by_flow(workload, 30_000).right


@pytest.mark.parametrize("workload", ["stateless", "words"])
def test_the_loop_that_it_is_measured_against_gives_the_same(world: World, workload: str) -> None:
    assert world.by_hand(workload, 30_000).right
