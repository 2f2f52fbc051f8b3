"""The kernel of a slot: an IPython kernel that starts a worker and keeps its main thread free for a console.

`python -P -m jupyterflow.cluster._kernel CONFIG -f CONNECTION_FILE`; CONFIG is the slot's file, whose `entry`
(`module:function`) is called with its content. What it returns is `worker` in the kernel's namespace; its `stop()`, if
it has one, is called when the kernel is asked to end.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any


def _die_with_parent() -> None:
    """End at once when the supervisor ends, however it ends; where the system lacks that, ipykernel polls (1 s)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    parent = os.environ.get("JPY_PARENT_PID", "")
    if parent.isdigit() and os.getppid() != int(parent):  # it ended before the line above
        os._exit(1)


def main(argv: list[str]) -> None:
    """Run the kernel until it is asked to end; exit code 3 if its worker does not start."""
    _die_with_parent()
    file = Path(argv[0])
    config = json.loads(file.read_text())
    ready = file.with_name(f"{config['name']}.ready")

    from ipykernel.kernelapp import IPKernelApp

    class WorkerKernel(IPKernelApp):  # type: ignore[misc]  # ipykernel is untyped
        worker: Any = None

        def init_code(self) -> None:
            """Start the worker, in place of the profile's start-up files: those are the notebook user's."""
            module, _, name = config["entry"].partition(":")
            try:
                self.worker = getattr(importlib.import_module(module), name)(config)
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
                sys.__stderr__.flush()  # type: ignore[union-attr]  # a slot has a log
                os._exit(3)
            self.shell.user_ns["worker"] = self.worker
            aside = ready.with_suffix(f".{os.getpid()}")
            aside.write_text(str(os.getpid()))
            aside.replace(ready)

    quiet = ["--HistoryManager.enabled=False", "--IPKernelApp.capture_fd_output=False"]
    app = WorkerKernel.instance()
    app.initialize([*argv[1:], *quiet, "--IPKernelApp.quiet=False"])
    try:
        app.start()
    finally:
        stop = getattr(app.worker, "stop", None)
        if callable(stop):
            stop()


if __name__ == "__main__":
    main(sys.argv[1:])
