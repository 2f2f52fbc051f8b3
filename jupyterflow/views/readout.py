"""Readout: the live strip of one node, under the cell that declares it."""

from __future__ import annotations

from typing import Any

from jupyterflow.model import FlowError, did_you_mean
from jupyterflow.views.hub import Hub


class Readout:
    """State, version, rates, p95, errors and latest sample of *node*; for a sink also what it printed.

    Showing it again, or making another for the same node, closes the old view. `flow` is the name of a flow that
    the hub is bound to; left out, the one bound last. As text it is one line.
    """

    def __init__(self, hub: Hub, node: str, flow: str | None = None) -> None:
        name = flow if flow is not None else next(reversed(hub.models), None)
        if name is None or name not in hub.models:
            raise FlowError("JF701", f"readout of '{node}': no flow '{name}' is bound - bind the flow first")
        if node not in hub.models[name].faces:
            hint = did_you_mean(node, hub.models[name].faces) or " - declare it first"
            raise FlowError("JF702", f"flow '{name}': no node '{node}' to show{hint}")
        self.hub, self.flow = hub, name
        self.node: str | None = node
        self.key: str | None = f"readout/{name}/{node}"
        self._widget: Any = None

    def __repr__(self) -> str:
        model = self.hub.models.get(self.flow)
        face = model.faces.get(self.node or "") if model else None
        if face is None:
            return f"{self.node} · gone"
        version = f"v{face.version}" if face.version else ""
        parts = (face.name, face.state, version, face.numbers, face.latency, face.trouble)
        return " · ".join(part for part in parts if part)

    @property
    def widget(self) -> Any:
        """The widget; made and opened when first asked for."""
        if self._widget is None:
            from jupyterflow.views._widgets import ReadoutWidget, reference

            face = self.hub.models[self.flow].faces[self.node or ""]
            self.hub.open(self)
            self._widget = ReadoutWidget(
                channel=reference(self.hub.channel), flow=self.flow, node=face.name, role=face.role
            )
        return self._widget

    def _repr_mimebundle_(self, **_: Any) -> Any:
        data = {"text/plain": repr(self)}
        if in_notebook():
            bundle = self.widget._repr_mimebundle_()
            found, *metadata = bundle if isinstance(bundle, tuple) else (bundle or {},)
            return ({**found, **data}, *metadata) if metadata else {**found, **data}
        return data

    def refresh(self) -> None:
        """Its data come through the channel: nothing to do."""

    def close(self) -> None:
        """Close the view; what stands in the saved notebook is its last text."""
        self.hub.drop(self)
        widget, self._widget = self._widget, None
        if widget is not None:
            from jupyterflow.views._widgets import dispose

            dispose(widget)


def in_notebook() -> bool:
    """Whether this process is a kernel, whose front end can show widgets."""
    from sys import modules

    if "IPython" not in modules:
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None
