"""Kafka's processes: formatting its storage, starting it detached, waiting until it serves."""

import base64
import re
import shutil
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

from jupyterflow.broker._config import cluster_id
from jupyterflow.broker._install import command, environment
from jupyterflow.broker._probe import cluster_at
from jupyterflow.model import FlowError, FlowTimeout

_START_LIMIT = 60.0
_LOGGING = "-Djava.util.logging.config.file=logging.properties"


def free_port(preferred: int | None = None) -> int:
    """A TCP port of 127.0.0.1 that nobody listens on: *preferred* if it is one, else any."""
    for port in (preferred or 0, 0):
        with socket.socket() as probe:
            if sys.platform != "win32":
                # As the broker does it: a port in TIME_WAIT after a restart is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except (OSError, OverflowError):
                continue
            return int(probe.getsockname()[1])
    raise FlowError("JF503", "no free port on 127.0.0.1")


def format_storage(folder: Path, jars: Path, jvm: tuple[str, ...]) -> str:
    """Format `data` in *folder* if that was never completed; returns the cluster's id.

    Raises `FlowError` JF505 if there is data of a cluster whose id is lost: it is not ours to erase.
    """
    if known := cluster_id(folder):
        return known
    data = folder / "data"
    if any(data.glob("*-[0-9]*/*.log")):
        raise FlowError(
            "JF505",
            f"the local broker's data is damaged: {data} has topics but no readable meta.properties"
            " - move it away, or erase it with `jupyter flow down --purge`",
        )
    shutil.rmtree(data, ignore_errors=True)
    wanted = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    tool = command(
        jars, "kafka.tools.StorageTool", "format", f"--cluster-id={wanted}", "-c", "server.properties",
        jvm=("-XX:TieredStopAtLevel=1", *jvm),
    )  # fmt: skip
    try:
        done = subprocess.run(
            tool, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=_START_LIMIT,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise FlowTimeout("JF504", f"formatting {data} took over {_START_LIMIT:.0f} s") from error
    except OSError as error:
        raise FlowError("JF504", f"Java did not start: {error}") from error
    if done.returncode or cluster_id(folder) != wanted:
        said = _meaningful(f"{done.stdout}\n{done.stderr}")
        raise FlowError("JF504", f"the local broker's storage in {data} could not be formatted: {said}")
    return wanted


def spawn(folder: Path, jars: Path, jvm: tuple[str, ...]) -> "subprocess.Popen[bytes]":
    """Start `kafka.Kafka` in *folder*, detached: it outlives this process, its terminal and its session."""
    line = command(jars, "kafka.Kafka", "server.properties", jvm=(*jvm, _LOGGING))
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
    with open(folder / "broker.out", "wb") as out:
        try:
            return subprocess.Popen(
                line, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True, close_fds=True, creationflags=flags,
            )  # fmt: skip
        except OSError as error:
            raise FlowError("JF504", f"Java did not start: {error}") from error


def await_serving(process: "subprocess.Popen[bytes]", folder: Path, address: str, cluster: str) -> None:
    """Return when the broker of *cluster* answers at *address*; raise `FlowError` JF504 if it ends or hangs."""
    deadline = time.monotonic() + _START_LIMIT
    while cluster_at(address) != cluster:
        if process.poll() is not None:
            raise FlowError("JF504", f"the local broker did not start: {last_words(folder)}")
        if time.monotonic() > deadline:
            raise FlowTimeout(
                "JF504", f"the local broker did not answer within {_START_LIMIT:.0f} s: {last_words(folder)}"
            )
        time.sleep(0.03)


def last_words(folder: Path) -> str:
    """What the broker's log in *folder* says about its end, in one line, with the log's name."""
    said = ""
    for name in ("broker.out", "broker.0.log"):
        try:
            tail = (folder / name).read_bytes()[-65536:].decode(errors="replace")
        except OSError:
            continue
        said = _meaningful(tail) or said
    return f"{said or 'it said nothing'} (see {folder / 'broker.0.log'})"


def _meaningful(text: str) -> str:
    """The line of *text* that says most: the innermost cause, else an error, else the last that is no warning."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(("\tat ", "WARNING:"))]
    for pattern in (r"Caused by: ", r"([a-z]\w*\.)+\w*(Exception|Error)\b", r".* SEVERE |Error[: ]|.*\[error\]"):
        for line in reversed(lines):
            if re.match(pattern, line):
                return line.removeprefix("Caused by: ")[:300]
    return lines[-1][:300] if lines else ""
