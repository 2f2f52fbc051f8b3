"""GraphModel: what every view shows, as plain data."""

from __future__ import annotations

import json
import random
from itertools import pairwise

import pytest

from jupyterflow.model import Edge, Flow, Node
from jupyterflow.views import GraphModel
from jupyterflow.views._layout import HEIGHT, WIDTH, layout


def flow_of(*pairs: tuple[str, str]) -> Flow:
    flow = Flow("f")
    names = dict.fromkeys(name for pair in pairs for name in pair)
    ups, downs = {up for up, _ in pairs}, {down for _, down in pairs}
    for name in names:
        role = "source" if name not in downs else "sink" if name not in ups else "operator"
        flow.nodes[name] = Node(name, role, "map")  # type: ignore[arg-type]
    flow.edges = [Edge(*pair) for pair in pairs]
    return flow


def row(node: str, **numbers: float) -> dict[str, object]:
    return {
        "node": node,
        "records_in": 0,
        "records_out": 0,
        "errors": 0,
        "rate_in": 0.0,
        "rate_out": 0.0,
        "lag": 0,
        **numbers,
    }


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_nodes_stand_left_to_right_and_never_on_each_other() -> None:
    rng = random.Random(7)
    names = [f"n{i}" for i in range(200)]
    pairs = sorted({tuple(sorted(rng.sample(range(200), 2))) for _ in range(300)})
    places = layout(names, [(f"n{a}", f"n{b}") for a, b in pairs])
    for a, b in pairs:
        assert places[f"n{a}"][0] < places[f"n{b}"][0]
    cells = sorted(places.values())
    for (x1, y1), (x2, y2) in pairwise(cells):
        assert x2 - x1 >= WIDTH or y2 - y1 >= HEIGHT
    assert places == layout(names, [(f"n{a}", f"n{b}") for a, b in pairs])


def test_a_chain_is_a_straight_line() -> None:
    model = GraphModel(flow_of(("a", "b"), ("b", "c")))
    assert len({face.y for face in model.faces.values()}) == 1


def test_two_chains_do_not_cross() -> None:
    model = GraphModel(flow_of(("a", "d"), ("b", "c"), ("d", "e"), ("c", "g")))
    y = {name: face.y for name, face in model.faces.items()}
    assert (y["a"] < y["b"]) == (y["d"] < y["c"]) == (y["e"] < y["g"])


def test_a_place_that_someone_chose_wins_and_is_kept_in_the_flow() -> None:
    flow = flow_of(("a", "b"))
    model = GraphModel(flow)
    model.move("b", 33.33, -7)
    assert flow.nodes["b"].position == (33.3, -7.0)
    again = GraphModel(flow)
    assert (again.faces["b"].x, again.faces["b"].y) == (33.3, -7.0)
    model.move("nobody", 1, 1)


def test_without_a_run_everything_is_a_draft() -> None:
    model = GraphModel(flow_of(("a", "b")))
    model.poll()
    assert {face.state for face in model.faces.values()} == {"draft"}
    assert model.faces["a"].label == "a\ndraft"


def test_faces_and_wires_say_what_the_run_says() -> None:
    model = GraphModel(flow_of(("a", "b"), ("b", "c")))
    model.update(
        [
            row("a", rate_out=1234, records_out=9),
            row("b", rate_in=1234, rate_out=2468, records_in=9, p95_ms=3.21, errors=2),
            row("gone"),
        ],
        [
            {"upstream": "a", "downstream": "b", "rate": 1234, "queued": 700, "max_queue": 1000},
            {"upstream": "x", "downstream": "b"},
        ],
        "running",
        4,
    )
    assert model.faces["a"].numbers == "→ 1.2k/s"
    assert model.faces["b"].label == "b\nrunning · 1.2k → 2.5k/s · 3.2 ms · 2 errors"
    assert model.faces["c"].state == "idle"
    wire = model.wires["a", "b"]
    assert (wire.label, wire.level, wire.fill) == ("1.2k/s\n700 queued", 1, 0.7)
    assert model.headline == "f · v4 · running · 1.2k/s in · 0/s out · 2 errors"


@pytest.mark.parametrize(("queued", "level"), [(599, 0), (600, 1), (849, 1), (850, 2), (5000, 2)])
def test_an_edge_turns_yellow_from_60_and_red_from_85_percent(queued: int, level: int) -> None:
    model = GraphModel(flow_of(("a", "b")))
    model.update([], [{"upstream": "a", "downstream": "b", "queued": queued, "max_queue": 1000}], "running")
    assert model.wires["a", "b"].level == level
    assert model.wires["a", "b"].fill <= 1


def test_a_finished_run_shows_exact_totals() -> None:
    model = GraphModel(flow_of(("a", "b"), ("b", "c")))
    model.update(
        [row("a", records_out=1000), row("b", records_in=1000, records_out=7069), row("c", records_in=7069)],
        [],
        "finished",
    )
    assert [face.numbers for face in model.faces.values()] == ["→ 1,000", "1,000 → 7,069", "7,069 →"]


def test_no_input_is_idle_and_input_without_progress_is_stalled() -> None:
    clock = Clock()
    model = GraphModel(flow_of(("a", "b"), ("b", "c")), clock=clock)
    wires = [{"upstream": "a", "downstream": "b", "queued": 10, "max_queue": 1000}]

    def tick(done: int) -> list[str]:
        model.update([row("a"), row("b", records_in=done), row("c")], wires, "running")
        clock.now += 1
        return [face.state for face in model.faces.values()]

    assert tick(5) == ["idle", "running", "idle"]
    assert tick(6) == ["idle", "running", "idle"]
    assert [tick(6)[1] for _ in range(3)] == ["running", "running", "stalled"]
    assert tick(7)[1] == "running"
    wires.clear()
    assert tick(7)[1] == "idle"


def test_a_change_of_the_flow_keeps_what_is_known_of_the_rest() -> None:
    flow = flow_of(("a", "b"))
    model = GraphModel(flow)
    model.update([row("a", records_out=5)], [], "running")
    flow.nodes["c"] = Node("c", "sink", "collect")
    flow.edges = [*flow.edges, Edge("b", "c")]
    model.set_flow(flow)
    assert model.faces["a"].records_out == 5
    assert list(model.wires) == [("a", "b"), ("b", "c")]


class EndedRun:
    state, version = "running", 2

    def metrics(self) -> list[dict[str, object]]:
        return [row("a", records_out=5, rate_out=3), row("b", records_in=5, rate_in=3)]

    def edges(self) -> list[dict[str, object]]:
        return []


def test_what_is_declared_after_a_run_began_is_a_draft_or_changed() -> None:
    flow = flow_of(("a", "b"))
    run = EndedRun()
    model = GraphModel(flow, run)
    model.poll()
    flow.nodes["c"] = Node("c", "sink", "collect")
    flow.edges = [*flow.edges, Edge("a", "c")]
    flow.nodes["a"] = Node("a", "source", "map")  # its cell was run again, as it was
    flow.nodes["b"] = Node("b", "sink", "map", code="value + 1")
    for state in ("running", "deploying", "finished"):
        run.state = state
        model.set_flow(flow)
        model.poll()
        faces = model.faces
        assert (faces["c"].state, faces["c"].version, faces["c"].numbers) == ("draft", None, "")
        assert (faces["b"].state, faces["b"].version) == ("changed", 2)
        assert faces["a"].state == state
    assert model.faces["b"].numbers == "5 →"
    model.set_run(EndedRun())
    model.poll()
    assert {face.state for face in model.faces.values()} == {"running", "idle"}
    run.version = 3
    model.set_run(None)
    model.poll()
    assert {(face.state, face.numbers) for face in model.faces.values()} == {("draft", "")}


def test_a_deployment_by_a_call_in_python_is_what_runs_from_then_on() -> None:
    flow = flow_of(("a", "b"))
    run = EndedRun()
    model = GraphModel(flow, run)
    model.poll()
    flow.nodes["b"] = Node("b", "sink", "map", code="value + 1")
    model.set_flow(flow)
    assert model.faces["b"].state == "changed"
    run.version = 3
    model.poll()
    assert model.faces["b"].state == "running"


def test_a_card_says_source_or_sink_rather_than_function() -> None:
    flow = Flow("f")
    flow.nodes = {
        "a": Node("a", "source", "function"),
        "b": Node("b", "operator", "map"),
        "c": Node("c", "sink", "function"),
        "d": Node("d", "sink", "kafka"),
    }
    assert [face.what for face in GraphModel(flow).faces.values()] == ["source", "map", "sink", "kafka"]


def test_what_views_get_is_plain_json() -> None:
    model = GraphModel(flow_of(("a", "b")))
    model.update([row("a", rate_out=3)], [], "running", 1)
    assert json.loads(json.dumps(model.snapshot()))["nodes"][0]["name"] == "a"
    assert json.loads(json.dumps(model.frame()))["nodes"]["a"]["numbers"] == "→ 3/s"
