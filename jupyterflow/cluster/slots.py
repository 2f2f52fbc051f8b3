"""Worker slots of this machine: started, listed and ended; they outlive the process that starts them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from builtins import list as _list
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyterflow.model import FlowError, FlowTimeout, did_you_mean

ENTRY = "jupyterflow.cluster.worker:start"
_STALE = 60.0  # s after which a name that was taken but never used is free again


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot as its supervisor last described it; times are seconds since the epoch.

    `pid` is the supervisor's, `kernel_pid` the worker's (None while there is none); `ready` is true once the worker has
    started in that kernel; `state` is starting, running, waiting (to start again) or stopping.
    """

    name: str
    pid: int
    created: float
    kernel_pid: int | None
    kernel_created: float | None
    connection_file: str | None
    started: float
    kernel_started: float | None
    restarts: int
    state: str
    exit: int | str | None
    labels: tuple[str, ...]
    bootstrap: str
    prefix: str
    ready: bool
    log: Path


def configure(
    *,
    home: Path,
    bootstrap: str,
    prefix: str = "jf",
    labels: Sequence[str] = (),
    entry: str = ENTRY,
    settings: Mapping[str, Any] | None = None,
    grace: float = 10.0,
    name: str | None = None,
) -> str:
    """Take the lowest free name (`HOST-1`, ...), or *name*, and write its slot's configuration; the name.

    *settings* are JSON values for the worker; the file is for its owner alone. *grace* is how many seconds the
    worker has to finish. For `jupyter flow worker`, which then calls `slot.main(["--name", name, "--home", home])`.
    """
    folder = home / "slots"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    config = {
        "bootstrap": bootstrap,
        "prefix": prefix,
        "labels": [*labels],
        "entry": entry,
        "settings": dict(settings or {}),
        "grace": grace,
        "home": str(home),
    }
    stem = re.sub(r"[^A-Za-z0-9-]", "-", os.uname().nodename.split(".")[0]) or "slot"
    list(home)  # forgets the dead
    for number in range(1, 10_000):
        chosen = name or f"{stem}-{number}"
        path = folder / f"{chosen}.config.json"
        with contextlib.suppress(FileNotFoundError):
            unused = not (folder / f"{chosen}.json").exists() and time.time() - path.stat().st_mtime > _STALE
            if unused:
                path.unlink()
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            if name:
                raise FlowError("JF622", f"slot '{name}' is there already - stop it, or choose another name") from None
            continue
        with os.fdopen(descriptor, "w") as file:
            json.dump({"name": chosen, **config}, file)
        return chosen
    raise FlowError("JF622", "there is no free name for a slot - stop some")


def start(
    n: int,
    *,
    home: Path,
    bootstrap: str,
    prefix: str = "jf",
    labels: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    entry: str = ENTRY,
    settings: Mapping[str, Any] | None = None,
    grace: float = 10.0,
    timeout: float = 15.0,
) -> _list[Slot]:
    """Start *n* detached slots and return them once their supervisors run (`wait_ready` waits for the workers).

    *env* adds to the environment; secrets belong in files, not there. Raises FlowError JF621 if one does not start within
    *timeout* seconds, with the last line of its log.
    """
    if n < 1:
        raise FlowError("JF622", f"{n} slots cannot be started - ask for 1 or more")
    home = Path(home).resolve()
    names: _list[str] = []
    launched: _list[subprocess.Popen[bytes]] = []
    own = {key: value for key, value in os.environ.items() if key not in ("JPY_PARENT_PID", "JPY_SESSION_NAME")}
    try:
        for _ in range(n):
            name = configure(
                home=home,
                bootstrap=bootstrap,
                prefix=prefix,
                labels=labels,
                entry=entry,
                settings=settings,
                grace=grace,
            )
            names.append(name)
            command = [
                sys.executable,
                "-P",
                "-m",
                "jupyterflow.cluster.slot",
                "--name",
                name,
                "--home",
                str(home),
                "--detach",
            ]
            log = home / "slots" / f"{name}.log"
            log.unlink(missing_ok=True)
            with open(os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "ab") as out:
                launched.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=out,
                        cwd=home / "slots",
                        env={**own, **(env or {})},
                        start_new_session=True,
                    )
                )
        deadline = time.monotonic() + timeout
        for process in launched:
            process.wait(max(0.1, deadline - time.monotonic()))
        while True:
            found = {slot.name: slot for slot in list(home)}
            absent = [name for name in names if name not in found]
            if not absent:
                return [found[name] for name in names]
            if time.monotonic() > deadline or any(process.returncode for process in launched):
                log = home / "slots" / f"{absent[0]}.log"
                raise FlowError("JF621", f"slot '{absent[0]}' did not start: {_last_line(log)} - see {log}")
            time.sleep(0.01)
    except BaseException:  # Ctrl-C too: whoever gets no slots has none to end
        _undo(names, launched, home)
        raise


def list(home: Path) -> _list[Slot]:
    """The slots of this machine whose supervisors run, by name; what dead ones left is removed."""
    folder = Path(home) / "slots"
    found: _list[Slot] = []
    for path in sorted(folder.glob("*.json"), key=_natural):
        if path.name.endswith(".config.json"):
            continue
        try:
            state = json.loads(path.read_text())
            slot = _slot(state, folder)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if state.get("host") != os.uname().nodename:
            continue  # a home on a shared disk: another machine's
        if _alive(slot.pid, slot.created):
            found.append(slot)
        else:
            _bury(slot, folder)
    return found


def _undo(names: _list[str], launched: _list[subprocess.Popen[bytes]], home: Path, timeout: float = 5.0) -> None:
    """End the slots that were launched a moment ago: each first has to write itself down."""
    deadline = time.monotonic() + timeout
    for process in launched:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
    coming = {name for name, process in zip(names, launched, strict=False) if not process.returncode}
    while not coming <= {slot.name for slot in list(home)} and time.monotonic() < deadline:
        time.sleep(0.01)
    there = [slot.name for slot in list(home) if slot.name in names]
    with contextlib.suppress(FlowError):
        stop(there, home=home, timeout=2.0)
    _forget(home / "slots", names)


def wait_ready(home: Path, names: Iterable[str], timeout: float = 30.0) -> _list[Slot]:
    """The slots *names* once their workers have started.

    Raises FlowTimeout JF623 after *timeout* seconds, with the last line of the first log.
    """
    wanted = _list(names)
    deadline = time.monotonic() + timeout
    while True:
        found = {slot.name: slot for slot in list(home) if slot.ready}
        late = [name for name in wanted if name not in found]
        if not late:
            return [found[name] for name in wanted]
        if time.monotonic() > deadline:
            log = Path(home) / "slots" / f"{late[0]}.log"
            raise FlowTimeout(
                "JF623", f"worker '{late[0]}' is not ready after {timeout:g} s: {_last_line(log)} - see {log}"
            )
        time.sleep(0.02)


def stop(names: Iterable[str] | None = None, *, home: Path, timeout: float = 15.0) -> _list[str]:
    """End the slots *names* (all by default): their workers finish, within *timeout* seconds, else they are killed.

    Returns the names that were ended. Raises FlowError JF622 for a name that is not there.
    """
    running = {slot.name: slot for slot in list(home)}
    chosen = _list(running) if names is None else _list(names)
    for name in chosen:
        if name not in running:
            hint = did_you_mean(name, running) or " - `jupyter flow workers` lists them"
            raise FlowError("JF622", f"there is no slot '{name}' on this machine{hint}")
    for name in chosen:
        _signal(running[name].pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    left = chosen
    while left and time.monotonic() < deadline:
        left = [name for name in left if _alive(running[name].pid, running[name].created)]
        if left:
            time.sleep(0.02)
    folder = Path(home) / "slots"
    latest = {slot.name: slot for slot in list(home)}
    for name in left:
        slot = latest.get(name, running[name])
        _signal(slot.pid, signal.SIGKILL)
        _bury(slot, folder)
    return chosen


def _slot(state: Mapping[str, Any], folder: Path) -> Slot:
    name = state["name"]
    try:
        ready = int((folder / f"{name}.ready").read_text()) == state["kernel_pid"]
    except (OSError, ValueError):
        ready = False
    fields = {key: state[key] for key in Slot.__slots__ if key not in ("ready", "log", "labels")}
    return Slot(**fields, labels=tuple(state["labels"]), ready=ready, log=folder / f"{name}.log")


def _natural(path: Path) -> tuple[Any, ...]:
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name))


def _alive(pid: int | None, created: float | None) -> bool:
    """Whether that very process runs: the pid alone may belong to another by now."""
    import psutil

    if pid is None or created is None:
        return False
    try:
        process = psutil.Process(pid)
        return bool(abs(process.create_time() - created) < 1.0 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _bury(slot: Slot, folder: Path) -> None:
    """Remove what a supervisor that was killed could not."""
    if slot.kernel_pid is not None and _alive(slot.kernel_pid, slot.kernel_created):
        _signal(slot.kernel_pid, signal.SIGKILL)
    sockets = Path(slot.connection_file).parent if slot.connection_file else None
    if sockets is not None and sockets.name.startswith("jf-"):
        for _ in range(50):  # a kernel that is just ending may still write there
            shutil.rmtree(sockets, ignore_errors=True)
            if not sockets.exists() and not _alive(slot.kernel_pid, slot.kernel_created):
                break
            time.sleep(0.01)
    _forget(folder, [slot.name])


def _forget(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        for suffix in ("json", "ready", "config.json"):
            (folder / f"{name}.{suffix}").unlink(missing_ok=True)


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:300] if lines else "it said nothing"
