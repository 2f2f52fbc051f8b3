"""What stands under a cell: the live graph, a node's readout; text where nothing can be live."""

from __future__ import annotations

import sys
from typing import Any

from jupyterflow.model import Flow


def show_flow(flow: Flow, run: Any) -> None:
    """The flow's graph, live while `run` (or None) is."""
    if not flow.nodes:
        print(f"flow '{flow.name}' has no nodes yet: declare one with %%flow source NAME, or see %flow --help")
        return
    from jupyterflow.views import LiveGraph

    LiveGraph(flow, run).show()


def show_node(flow: Flow, name: str) -> None:
    """The readout of a node, under its cell."""
    from IPython.display import display

    from jupyterflow.views import Readout, hub

    hub().bind(flow)
    display(Readout(hub(), name, flow.name))


def refresh(flow: Flow) -> None:
    """Open views of the flow show it as it is now."""
    if "jupyterflow.views.hub" in sys.modules:
        from jupyterflow.views import hub

        hub().bind(flow)


def watch(flow: Flow, run: Any) -> None:
    """Views of the flow, and those that come, show this run."""
    from jupyterflow.views import hub

    hub().bind(flow, run)
    for key, (graph, displays) in list(hub().frozen.items()):
        if graph.flow == flow.name:
            del hub().frozen[key]
            graph.thaw(displays)


def freeze(flow: str) -> None:
    """Live graphs of the flow of that name become pictures that stay in the saved notebook."""
    if "jupyterflow.views.hub" in sys.modules:
        from jupyterflow.views import LiveGraph, hub

        for view in hub().views:
            if isinstance(view, LiveGraph) and view.flow == flow:
                view.freeze()


def close_views() -> None:
    """Close what is shown and end the thread behind it."""
    if "jupyterflow.views.hub" in sys.modules:
        from jupyterflow.views import hub

        hub().close()
