"""JupyterFlow: build, see and run streaming systems from a notebook."""

__version__ = "0.1.0"
