"""`%flow` and `%%flow`. `%load_ext jupyterflow` comes here; nothing heavy is imported before it is used."""

from __future__ import annotations

from typing import Any

__all__ = ["load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext jupyterflow`."""
    from jupyterflow.magics.flow import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext jupyterflow`: threads end, flows in this process too; deployed ones go on."""
    from jupyterflow.magics.flow import unload

    unload(shell)
