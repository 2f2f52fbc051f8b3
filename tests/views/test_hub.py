"""The hub: one thread, one message a tick, and nothing left behind."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jupyterflow.model import Edge, Flow, FlowError, Node
from jupyterflow.views import Hub, LiveGraph, Readout


class FakeRun:
    def __init__(self, flow: Flow) -> None:
        self.flow, self.state, self.version = flow, "running", 1
        self.polls = 0
        self.trouble: Exception | None = None

    def metrics(self) -> list[dict[str, Any]]:
        self.polls += 1
        if self.trouble:
            raise self.trouble
        return [
            {
                "node": name,
                "records_in": self.polls,
                "records_out": self.polls,
                "rate_in": self.polls,
                "rate_out": self.polls,
            }
            for name in self.flow.nodes
        ]

    def edges(self) -> list[dict[str, Any]]:
        return [{"upstream": e.upstream, "downstream": e.downstream, "rate": self.polls} for e in self.flow.edges]

    def sample(self, node: str) -> Any:
        return "x" * 1_000_000

    def prints(self, node: str) -> list[str]:
        return [f"{'y' * 1000} {i}" for i in range(1000)]


def big(nodes: int = 200) -> Flow:
    flow = Flow("big")
    flow.nodes = {f"n{i}": Node(f"n{i}", "operator" if i else "source", "map") for i in range(nodes - 1)}
    flow.nodes["out"] = Node("out", "sink", "collect")
    names = list(flow.nodes)
    flow.edges = [Edge(names[i // 2], names[i]) for i in range(1, nodes)]
    return flow


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every message that a widget sends to the browser."""
    sent: list[dict[str, Any]] = []
    from comm.base_comm import BaseComm

    def publish(self: Any, msg_type: str, data: Any = None, **rest: Any) -> None:
        sent.append({"type": msg_type, **(data or {})})

    class Recorder(BaseComm):
        publish_msg = publish

    monkeypatch.setattr("comm.create_comm", lambda *args, **kwargs: Recorder(*args, **kwargs))
    return sent


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub(interval=0.02)
    yield hub
    hub.close()
    assert not hub.alive


def until(condition: Callable[[], Any], what: str, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not in {seconds} s: {what}"
        threading.Event().wait(0.01)


def test_a_tick_is_one_message_however_much_is_shown(
    messages: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    monkeypatch.setattr(hub, "wake", lambda: None)
    flow = big()
    run = FakeRun(flow)
    graph = LiveGraph(flow, run, hub)
    assert graph.widget
    hub.open(graph)
    readouts = [Readout(hub, name) for name in list(flow.nodes)[-50:]]
    assert all(readout.widget for readout in readouts)
    for _ in range(3):
        messages.clear()
        hub.tick()
        assert [message["method"] for message in messages] == ["update"]
    assert run.polls == 3
    frame = hub.channel.frame["flows"]["big"]
    assert len(frame["nodes"]) == 200
    assert len(frame["nodes"]["out"]["sample"]) <= 200
    lines = hub.channel.prints["big"]["out"]
    assert (len(lines), max(map(len, lines))) == (50, 200)
    hub.close()


def test_a_tick_without_news_sends_nothing(messages: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    monkeypatch.setattr(hub, "wake", lambda: None)
    hub.bind(big(3))
    assert Readout(hub, "out").widget
    hub.tick()
    messages.clear()
    hub.tick()
    assert messages == []
    hub.close()


def test_the_thread_ends_with_the_last_view(hub: Hub) -> None:
    flow = big(3)
    run = FakeRun(flow)
    hub.bind(flow, run)
    assert not hub.alive, "nothing is shown yet"
    readout = Readout(hub, "out")
    assert readout.widget
    until(lambda: run.polls > 3, "polls")
    assert hub.alive
    readout.close()
    until(lambda: not hub.alive, "the thread to end")


def test_the_thread_ends_when_the_run_has_and_comes_back_for_the_next(hub: Hub) -> None:
    flow = big(3)
    run = FakeRun(flow)
    hub.bind(flow, run)
    assert Readout(hub, "out").widget
    until(lambda: run.polls > 1, "polls")
    run.state = "finished"
    until(lambda: not hub.alive, "the thread to end")
    assert hub.channel.frame["flows"]["big"]["state"] == "finished"
    second = FakeRun(flow)
    hub.bind(flow, second)
    until(lambda: second.polls > 1, "polls of the second run")


def test_the_end_of_a_run_is_sent_though_another_has_seen_it_first(
    messages: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    monkeypatch.setattr(hub, "wake", lambda: None)
    flow = big(3)
    run = FakeRun(flow)
    run.state = "deploying"
    hub.bind(flow, run)
    assert Readout(hub, "out").widget
    hub.tick()
    run.state = "finished"
    hub.look("big")  # as a graph that becomes a picture does
    assert hub._moves("big"), "the readouts have not got it yet"
    hub.tick()
    assert hub.channel.frame["flows"]["big"]["nodes"]["out"]["state"] == "finished"
    hub.bind(flow, FakeRun(flow))
    assert hub._moves("big"), "the new run has not been asked yet"
    hub.close()


def test_no_exception_ends_the_hub_and_each_is_said_once(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    flow = big(3)
    run = FakeRun(flow)
    run.trouble = RuntimeError("broker away")
    with caplog.at_level(logging.WARNING, "jupyterflow.views"):
        hub.bind(flow, run)
        assert Readout(hub, "out").widget
        until(lambda: run.polls > 5, "polls")
    assert [record.getMessage() for record in caplog.records] == ["run of big: RuntimeError: broker away"]
    run.trouble = None
    until(lambda: hub.models["big"].state == "running", "numbers again")


def test_a_cell_that_is_run_again_closes_the_old_readout(hub: Hub, messages: list[dict[str, Any]]) -> None:
    hub.bind(big(3))
    for _ in range(20):
        readout = Readout(hub, "out")
        assert readout.widget
    assert hub.views == [readout]
    opened = sum(message["type"] == "comm_open" for message in messages)
    closed = sum(message["type"] == "comm_close" for message in messages)
    readout.close()
    assert closed >= 19
    hub.close()
    assert sum(message["type"] == "comm_close" for message in messages) == opened


def test_a_closed_graph_leaves_no_comm(hub: Hub, messages: list[dict[str, Any]]) -> None:
    flow = big(5)
    graph = LiveGraph(flow, FakeRun(flow), hub)
    assert graph.widget
    hub.open(graph)
    flow.nodes["more"] = Node("more", "sink", "collect")
    flow.edges = [*flow.edges, Edge("n0", "more")]
    graph.set_flow(flow)
    assert len(graph.widget.graph.nodes) == 6
    graph.close()
    hub.close()
    opened = sum(message["type"] == "comm_open" for message in messages)
    assert sum(message["type"] == "comm_close" for message in messages) == opened


def test_another_flow_of_the_same_name_does_not_show_the_old_run(hub: Hub) -> None:
    flow = big(3)
    hub.bind(flow, FakeRun(flow))
    assert hub.bind(flow).run is not None
    assert hub.bind(big(3)).run is None


def test_a_readout_of_what_is_not_there_says_so_in_one_line(hub: Hub) -> None:
    with pytest.raises(FlowError, match=r"JF701 .*bind the flow first"):
        Readout(hub, "out")
    hub.bind(big(3))
    with pytest.raises(FlowError, match="JF702 flow 'big': no node 'ouz' to show - did you mean 'out'"):
        Readout(hub, "ouz")


def test_a_readout_is_a_line_of_text_where_there_are_no_widgets(hub: Hub) -> None:
    flow = big(3)
    model = hub.bind(flow, FakeRun(flow))
    model.poll()
    assert repr(Readout(hub, "n1")) == "n1 · running · v1 · 1 → 1/s"
    assert Readout(hub, "n1")._repr_mimebundle_() == {"text/plain": "n1 · running · v1 · 1 → 1/s"}


def test_without_its_driver_a_graph_gets_one_style_a_tick(
    messages: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    monkeypatch.setattr(hub, "wake", lambda: None)
    flow = big(20)
    graph = LiveGraph(flow, FakeRun(flow), hub)
    assert graph.widget
    hub.open(graph)
    graph._heard(None, {"hooked": False}, [])
    hub.tick()
    messages.clear()
    hub.tick()
    assert len(messages) == 2
    style = {rule["selector"]: rule["style"] for rule in graph.widget.cytoscape_style}
    assert "2 → 2/s" in style["#n1_1"]["label"]
    assert style["#e1_0"]["label"] == "2/s"
    hub.close()


def test_what_the_browser_says_is_checked(hub: Hub) -> None:
    flow = big(3)
    graph = LiveGraph(flow, None, hub)
    assert graph.widget
    for content in (
        None,
        [],
        {"moved": 3},
        {"moved": {"out": "x"}},
        {"moved": {"gone": [1, 2]}},
        {"moved": {"out": [7, 8]}},
    ):
        graph._heard(None, content, [])
    assert flow.nodes["out"].position == (7.0, 8.0)
    graph.close()
