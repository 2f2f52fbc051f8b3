"""`jupyter flow ...`: the Python API from the shell."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `jupyter flow ARGV`; the exit code: 0 done, 1 failed, 2 usage, 124 timed out, 130 interrupted."""
    from jupyterflow.app._app import run

    return run(argv)
