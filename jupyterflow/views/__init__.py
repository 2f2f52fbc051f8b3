"""What one sees of a flow: text, tables, pictures, and in a notebook the live graph and readouts.

Importing this room is light: a widget library is loaded by what makes the first widget.
"""

from jupyterflow.views.graph import Face, GraphModel, Wire
from jupyterflow.views.hub import Hub, hub
from jupyterflow.views.live import LiveGraph
from jupyterflow.views.readout import Readout
from jupyterflow.views.svg import mermaid, svg
from jupyterflow.views.table import table
from jupyterflow.views.tree import tree

__all__ = ["Face", "GraphModel", "Hub", "LiveGraph", "Readout", "Wire", "hub", "mermaid", "svg", "table", "tree"]
