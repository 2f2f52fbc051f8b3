"""One hub per kernel: a thread that asks the runs twice a second and sends one message for all that is shown."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from jupyterflow.model import Flow
from jupyterflow.views import _numbers as n
from jupyterflow.views.graph import GraphModel

if TYPE_CHECKING:
    from jupyterflow.views._widgets import Channel

log = logging.getLogger("jupyterflow.views")

SAMPLE_LIMIT, PRINT_LINES, LINE_LIMIT = 200, 50, 200
_ENDED = frozenset({"finished", "failed", "stopped"})
_LINGER = 2.0  # seconds for which a run that has ended is asked: its last prints may come after its end
_QUIET = 60.0  # seconds between two reports of the same trouble
_KEEP: Any = object()


class View(Protocol):
    """What the hub serves: a live graph (`node` is None) or the readout of a node."""

    flow: str
    node: str | None
    key: str | None

    def refresh(self) -> None:
        """The flow's nodes may have changed, or a tick has passed."""

    def close(self) -> None:
        """Let go of widgets and comms; the hub has forgotten the view already or is about to."""


class Hub:
    """Keeps every open view of this kernel up to date.

    `bind(flow, run)` says what to watch; views open themselves. While a view is open and its run alive, a daemon
    thread polls each run once per `interval` seconds and sends one comm message, whatever the number of views.
    """

    def __init__(self, interval: float = 0.5) -> None:
        self.interval = interval
        self.models: dict[str, GraphModel] = {}
        self.frozen: dict[Any, tuple[Any, list[str]]] = {}  # graphs that became pictures, by cell: they may run again
        self._views: list[View] = []
        self._channel: Channel | None = None
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._lock = threading.RLock()  # the registries; never held while a run is asked
        self._sending = threading.Lock()  # one tick at a time
        self._said: dict[str, float] = {}
        self._ends: dict[str, tuple[Any, float]] = {}  # by flow: the run whose end has been sent, and when

    def bind(self, flow: Flow, run: Any = _KEEP) -> GraphModel:
        """Watch *flow* and *run* (None: none; left out: the one it has). Open views follow at once.

        Flows are known by name: binding another flow of the same name replaces it.
        """
        with self._lock:
            model = self.models.get(flow.name)
            if model is None:
                model = self.models[flow.name] = GraphModel(flow, None if run is _KEEP else run)
            else:
                other = model.flow is not flow
                model.set_flow(flow)
                if run is not _KEEP:
                    model.set_run(run)
                elif other:
                    model.set_run(None)  # another flow of that name: the old run is not its run
            views = [view for view in self._views if view.flow == flow.name]
        for view in views:
            self._guard(f"view of {flow.name}", view.refresh)
        self.wake()
        return model

    def forget(self, flow: str) -> None:
        """Close all views of the flow of that name and watch it no longer."""
        for view in [view for view in self.views if view.flow == flow]:
            view.close()
        with self._lock:
            self.models.pop(flow, None)

    @property
    def views(self) -> list[View]:
        """The open views."""
        with self._lock:
            return list(self._views)

    @property
    def channel(self) -> Channel:
        """The one model whose messages carry the data of all views."""
        from jupyterflow.views._widgets import Channel

        with self._lock:
            if self._channel is None:
                self._channel = Channel()
            return self._channel

    def open(self, view: View) -> None:
        """Serve *view*; one with the same key (the node's old readout, the cell's old graph) is closed."""
        old = [v for v in self.views if view.key is not None and v.key == view.key and v is not view]
        for other in old:
            other.close()
        with self._lock:
            if view not in self._views:
                self._views.append(view)
        self.wake()

    def drop(self, view: View) -> None:
        """Serve *view* no longer; with the last one the thread ends."""
        with self._lock:
            self._views = [v for v in self._views if v is not view]
            empty = not self._views
        if empty:
            self._wake.set()

    def wake(self) -> None:
        """Tick now, and go on ticking if something is shown that moves."""
        with self._lock:
            if not self._views:
                return
            self._wake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="jupyterflow-hub", daemon=True)
                self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread is not None

    def _loop(self) -> None:
        while True:
            self._wake.clear()
            self._guard("tick", self.tick)
            if not self._wake.is_set():
                with self._lock:
                    moving = any(self._moves(view.flow) for view in self._views)
                    if not moving and not self._wake.is_set():
                        self._thread = None
                        return
            self._wake.wait(self.interval)

    def _moves(self, flow: str) -> bool:
        """Whether something may still change: until the end of its run has been sent, and a little longer."""
        model = self.models.get(flow)
        if model is None or model.run is None:
            return False
        run, since = self._ends.get(flow, (None, 0.0))
        return run is not model.run or time.monotonic() - since < _LINGER

    def look(self, flow: str) -> None:
        """Ask the run of that flow once, now; trouble is logged and what was known stays."""
        model = self.models.get(flow)
        if model is not None:
            self._guard(f"run of {flow}", model.poll)
            self.wake()

    def tick(self) -> None:
        """Ask each run that is shown once, and send what changed: at most one message."""
        with self._sending:
            views = self.views
            if not views:
                return
            frames: dict[str, Any] = {}
            prints: dict[str, dict[str, list[str]]] = {}
            for name in dict.fromkeys(view.flow for view in views):
                model = self.models.get(name)
                if model is None:
                    continue
                self._guard(f"run of {name}", model.poll)
                frames[name] = model.frame()
                for view in views:
                    if view.flow == name and view.node is not None and view.node in model.faces:
                        self._guard(
                            f"readout of {name}/{view.node}", self._read, model, view.node, frames[name], prints
                        )
            channel = self.channel
            with channel.hold_sync():
                channel.frame = {"flows": frames}
                channel.prints = prints
            for name, frame in frames.items():
                model = self.models.get(name)
                if model is None or frame["state"] not in _ENDED:
                    self._ends.pop(name, None)
                elif self._ends.get(name, (None,))[0] is not model.asked:
                    self._ends[name] = (model.asked, time.monotonic())
        for view in views:
            if view.node is None:
                self._guard(f"graph of {view.flow}", view.refresh)

    def _read(
        self, model: GraphModel, node: str, frame: dict[str, Any], prints: dict[str, dict[str, list[str]]]
    ) -> None:
        run = model.run
        if run is None:
            return
        sample = run.sample(node)
        if sample is not None:
            frame["nodes"][node]["sample"] = _short(sample)
        if model.faces[node].role == "sink":
            lines = run.prints(node)[-PRINT_LINES:]
            if lines:
                prints.setdefault(model.name, {})[node] = [
                    n.clip(str(line).rstrip("\r\n"), LINE_LIMIT) for line in lines
                ]

    def _guard(self, what: str, do: Any, *args: Any) -> None:
        """Nothing that a run or a view raises ends the hub; the same trouble is said once a minute."""
        try:
            do(*args)
        except Exception as error:
            now = time.monotonic()
            if now - self._said.get(what, -_QUIET) >= _QUIET:
                self._said[what] = now
                log.warning("%s: %s: %s", what, type(error).__name__, n.clip(error, LINE_LIMIT))

    def close(self) -> None:
        """Close all views and the channel and end the thread: for unloading the extension."""
        for view in self.views:
            self._guard("close", view.close)
        thread = self._thread
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(2)
        with self._lock:
            self.models.clear()
            self._ends.clear()
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()


def _short(sample: Any) -> str:
    """A value as one bounded line; huge values are cut before they are shown whole."""
    from reprlib import Repr

    brief = Repr()
    brief.maxstring = brief.maxother = SAMPLE_LIMIT
    brief.maxlong = 60
    brief.maxlist = brief.maxtuple = brief.maxdict = brief.maxset = 12
    brief.maxlevel = 4
    try:
        return n.clip(brief.repr(sample), SAMPLE_LIMIT)
    except Exception:
        return f"<{type(sample).__name__}>"


_hub: Hub | None = None


def hub() -> Hub:
    """This kernel's hub."""
    global _hub
    if _hub is None:
        _hub = Hub()
    return _hub
