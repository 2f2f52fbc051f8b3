"""One slot: a small supervisor that launches a worker kernel and launches it again when it dies.

`python -m jupyterflow.cluster.slot --name NAME --home DIR [--detach]` reads `DIR/slots/NAME.config.json`, keeps
`NAME.json` up to date, and ends on SIGTERM, the kernel first.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_QUICK = 5.0  # s; a kernel that dies sooner than this after its start makes the next start wait
_LONGEST = 10.0  # s
_TICK = 30.0  # s between looks at the log's size and at whether the slot is still wanted
_LOG_LIMIT = 10_000_000  # bytes
_SOCKET_LIMIT = 107  # bytes in the path of a Unix socket (unix(7))


def main(argv: list[str] | None = None) -> int:
    """Run one slot until SIGTERM."""
    parser = argparse.ArgumentParser(prog="jupyterflow.cluster.slot")
    parser.add_argument("--name", required=True)
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--detach", action="store_true", help="return at once, run as nobody's child")
    options = parser.parse_args(argv)
    # A grandchild belongs to no notebook: ipykernel ends what it finds below itself, and nobody waits for a zombie.
    if options.detach and os.fork():
        os._exit(0)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # else each kernel begins with a debugger's warning
    return asyncio.run(Supervisor(options.home, options.name).run())


class Supervisor:
    """Keeps one kernel running."""

    def __init__(self, home: Path, name: str) -> None:
        self.name = name
        self.folder = home.resolve() / "slots"
        self.config_file = self.folder / f"{name}.config.json"
        self.config: dict[str, Any] = json.loads(self.config_file.read_text())
        self.state: dict[str, Any] = {
            "name": name,
            "host": os.uname().nodename,
            "pid": os.getpid(),
            "created": _created(os.getpid()),
            "kernel_pid": None,
            "kernel_created": None,
            "connection_file": None,
            "started": time.time(),
            "kernel_started": None,
            "restarts": 0,
            "state": "starting",
            "exit": None,
            "labels": self.config.get("labels", []),
            "bootstrap": self.config.get("bootstrap", ""),
            "prefix": self.config.get("prefix", ""),
        }
        self._sockets = Path()
        self._manager: Any = None

    async def run(self) -> int:
        """Supervise until SIGTERM or SIGINT; the exit code."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._publish()
        self._sockets = _short_folder()
        self.state["connection_file"] = str(self._sockets / "kernel.json")
        self._publish()
        try:
            self._manager = _manager(self._sockets / "kernel.json", self.config_file)
            await self._supervise(stop)
        finally:
            self._publish(state="stopping")
            with contextlib.suppress(Exception):
                await self._end()
            shutil.rmtree(self._sockets, ignore_errors=True)
            for suffix in ("json", "ready", "config.json"):
                (self.folder / f"{self.name}.{suffix}").unlink(missing_ok=True)
        return 0

    async def _supervise(self, stop: asyncio.Event) -> None:
        stopping = asyncio.create_task(stop.wait())
        quick = 0
        while not stop.is_set():
            begun = time.monotonic()
            code: Any = "not started"
            try:
                await self._launch()
                code = await self._watch(stopping)
            except Exception as error:
                print(f"slot {self.name}: the kernel does not start: {error}", file=sys.stderr, flush=True)
            if stop.is_set():
                break
            quick = quick + 1 if time.monotonic() - begun < _QUICK else 0
            delay = 0.0 if quick <= 1 else min(_LONGEST, 0.25 * 2 ** (quick - 2))
            print(f"slot {self.name}: kernel ended ({code}), again in {delay:g} s", file=sys.stderr, flush=True)
            self.state["restarts"] += 1
            self._publish(state="waiting" if delay else "starting", kernel_pid=None, kernel_created=None, exit=code)
            if delay:
                await asyncio.wait({stopping}, timeout=delay)
        stopping.cancel()

    async def _launch(self) -> None:
        if self.state["restarts"]:
            await self._manager.restart_kernel(now=True)
        else:
            await self._manager.start_kernel(cwd=str(self.folder))
        pid = self._manager.provisioner.pid
        self._publish(kernel_pid=pid, kernel_created=_created(pid), kernel_started=time.time(), state="running")

    async def _watch(self, stopping: asyncio.Task[Any]) -> int | None:
        """Wait until the kernel ends (noticed within 0.1 s) or the slot is to stop."""
        ended = asyncio.ensure_future(self._manager.provisioner.wait())
        try:
            while not (ended.done() or stopping.done()):
                await asyncio.wait({ended, stopping}, timeout=_TICK, return_when=asyncio.FIRST_COMPLETED)
                if not self.config_file.exists():  # its home was erased
                    os.kill(os.getpid(), signal.SIGTERM)
                    await asyncio.wait({stopping}, timeout=_TICK)
                _shorten(self.folder / f"{self.name}.log")
            if not ended.done():
                return None
            with contextlib.suppress(OSError):  # what the kernel left behind in its own process group
                os.killpg(self.state["kernel_pid"], signal.SIGKILL)
            return ended.result()  # type: ignore[no-any-return]
        finally:
            ended.cancel()

    async def _end(self) -> None:
        """Ask the kernel to finish, within the grace of the configuration; then end it."""
        manager = self._manager
        if manager is None or not manager.has_kernel:
            return
        ready = self.folder / f"{self.name}.ready"
        with contextlib.suppress(Exception):
            if int(ready.read_text()) != self.state["kernel_pid"]:
                raise RuntimeError("the worker has not started: there is nothing to finish")
            os.kill(self.state["kernel_pid"], signal.SIGINT)  # a cell that runs in an attached console
            await manager.request_shutdown()
            await asyncio.wait_for(manager.provisioner.wait(), float(self.config.get("grace", 10.0)))
        await manager.shutdown_kernel(now=True)

    def _publish(self, **changes: Any) -> None:
        self.state.update(changes)
        aside = self.folder / f".{self.name}.{os.getpid()}"
        aside.write_text(json.dumps(self.state))
        aside.replace(self.folder / f"{self.name}.json")


def _manager(connection_file: Path, config_file: Path) -> Any:
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    spec = KernelSpec(
        argv=[sys.executable, "-P", "-m", "jupyterflow.cluster._kernel", str(config_file), "-f", "{connection_file}"],
        display_name="JupyterFlow worker",
        language="python",
    )

    class Manager(AsyncKernelManager):  # type: ignore[misc]  # jupyter_client is untyped
        """Starts this interpreter, whatever kernelspecs are installed."""

        @property
        def kernel_spec(self) -> KernelSpec:
            return spec

    return Manager(transport="ipc", connection_file=str(connection_file))


def _short_folder() -> Path:
    """A private folder whose sockets' paths fit: `<folder>/kernel-ipc-1`."""
    for parent in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if parent and len(os.fsencode(parent)) + len("/jf-12345678/kernel-ipc-12345") < _SOCKET_LIMIT:
            with contextlib.suppress(OSError):
                return Path(tempfile.mkdtemp(prefix="jf-", dir=parent))
    raise OSError("no folder for temporary files has a path short enough for a socket - set TMPDIR")


def _shorten(log: Path) -> None:
    """Keep a log bounded: the old part goes aside, writers append to the emptied file."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > _LOG_LIMIT:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)


def _created(pid: int) -> float | None:
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


if __name__ == "__main__":
    sys.exit(main())
