"""A local Apache Kafka: one node on 127.0.0.1 that outlives whoever started it."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyterflow.broker import paths
from jupyterflow.broker._aot import archive, jvm_options
from jupyterflow.broker._config import cluster_id, write_atomically, write_config
from jupyterflow.broker._install import KAFKA_VERSION, Progress, install
from jupyterflow.broker._launch import await_serving, format_storage, free_port, last_words, spawn
from jupyterflow.broker._lock import locked
from jupyterflow.broker._probe import cluster_at
from jupyterflow.model import FlowError

if TYPE_CHECKING:
    import psutil

_ANSWER_LIMIT = 60.0
_PORT_TRIES = 3


@dataclass(frozen=True, slots=True)
class LocalBroker:
    """A broker of this machine: `bootstrap` is `127.0.0.1:PORT`, `home` the folder that it belongs to."""

    home: Path
    bootstrap: str
    pid: int

    @property
    def running(self) -> bool:
        """Whether its process is alive (it may not answer yet)."""
        return _process(self.home, self.pid) is not None

    @property
    def log(self) -> Path:
        """Its log since its last start."""
        return _folder(self.home) / "broker.0.log"

    def answers(self, timeout: float = 2.0) -> bool:
        """Whether it serves clients now; False after about *timeout* seconds."""
        return cluster_at(self.bootstrap, timeout) == cluster_id(_folder(self.home)) is not None

    def disk_use(self) -> int:
        """Bytes of disk that its data occupies (Kafka's sparse index files count what they really take)."""
        total = 0
        for path in _folder(self.home).rglob("*"):
            with suppress(OSError):  # Kafka deletes files while we look
                status = path.lstat()
                total += status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size
        return total

    def stop(self, timeout: float = 15.0) -> None:
        """End it: asked first, killed after *timeout* seconds. Its data stays. Nothing if it has ended already."""
        with _starting(self.home):
            if (process := _process(self.home, self.pid)) is not None:
                _end(process, timeout)
            _record(self.home, self.bootstrap, None)


def start(progress: Progress | None = None, home: Path | None = None) -> LocalBroker:
    """The local broker of *home* (default: `paths.home()`), started if it is not running.

    The first time, Kafka's jars are fetched (45 MB); *progress* is told one line per step. Returns when
    the broker answers, on the port that it had before if that is free. Two processes that start at
    once get the same broker. Raises `FlowError`: JF502 no jars, JF504 it did not start, JF505 its data
    is damaged.
    """
    home = _home(home)
    tell = progress or (lambda text: None)
    with _starting(home):
        if running := find(home):
            return _await_answer(running)
        jars = install(progress)
        cache = archive(jars, tell)
        tell(f"starting Apache Kafka {KAFKA_VERSION}")
        return _launch(home, jars, (*jvm_options(cache), _marker(home)))


def find(home: Path | None = None) -> LocalBroker | None:
    """The running broker of *home* (default: `paths.home()`), or None. Never starts one, never raises."""
    home = _home(home)
    recorded = _recorded(home)
    pid, bootstrap = recorded.get("pid"), recorded.get("bootstrap")
    if isinstance(pid, int) and isinstance(bootstrap, str) and _process(home, pid) is not None:
        return LocalBroker(home, bootstrap, pid)
    return None


def purge(home: Path | None = None) -> None:
    """Erase the broker of *home*: data, log and address. Raises `FlowError` JF506 while it is running."""
    home = _home(home)
    if not home.exists():
        return
    with _starting(home):
        if running := find(home):
            raise FlowError(
                "JF506", f"the local broker is running (pid {running.pid}) - end it first: `jupyter flow down`"
            )
        (home / "broker.json").unlink(missing_ok=True)
        folder = _folder(home)
        if folder.exists():
            try:
                shutil.rmtree(folder)
            except OSError as error:
                raise FlowError("JF506", f"the local broker's data could not be erased: {error}") from error


def _launch(home: Path, jars: Path, jvm: tuple[str, ...]) -> LocalBroker:
    folder = _folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    preferred = _recorded_port(home)
    for tries_left in reversed(range(_PORT_TRIES)):
        port = free_port(preferred)
        address = f"127.0.0.1:{port}"
        write_config(folder, port, free_port())
        cluster = format_storage(folder, jars, jvm)
        process = spawn(folder, jars, jvm)
        try:
            # Recorded before it serves: if we are killed now, the next start finds it and waits.
            _record(home, address, process.pid)
            await_serving(process, folder, address, cluster)
        except BaseException as error:
            process.kill()
            process.wait()
            _record(home, address, None)
            # Somebody took the port between our look and the broker's.
            if tries_left and "BindException" in str(error):
                preferred = None
                continue
            raise
        return LocalBroker(home, address, process.pid)
    raise AssertionError("unreachable")


def _await_answer(broker: LocalBroker) -> LocalBroker:
    deadline = time.monotonic() + _ANSWER_LIMIT
    while not broker.answers():
        if not broker.running:
            raise FlowError("JF504", f"the local broker has just ended: {last_words(_folder(broker.home))}")
        if time.monotonic() > deadline:
            raise FlowError(
                "JF504",
                f"the local broker (pid {broker.pid}) is alive but does not answer at {broker.bootstrap}"
                " - end it with `jupyter flow down` and start again",
            )
        time.sleep(0.05)
    return broker


def _end(process: "psutil.Process", timeout: float) -> None:
    import psutil

    with suppress(psutil.NoSuchProcess):
        process.terminate()
        try:
            process.wait(timeout)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(10)


def _process(home: Path, pid: int) -> "psutil.Process | None":
    """The process *pid* if it is the broker of *home*.

    By a mark on its command line and not by its start time, which moves with the machine's clock:
    a second broker on the same data would be worse than any reused pid.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        return process if _marker(home) in process.cmdline() else None
    except (psutil.Error, ValueError, OverflowError):
        return None


def _marker(home: Path) -> str:
    return f"-Djupyterflow.home={home}"


def _home(home: Path | None) -> Path:
    return (home or paths.home()).expanduser().resolve()


def _folder(home: Path) -> Path:
    return home / "broker"


@contextmanager
def _starting(home: Path) -> Iterator[None]:
    try:
        with locked(home / "broker.lock", timeout=180, what="starting or ending the local broker"):
            yield
    except OSError as error:
        if isinstance(error, FlowError):
            raise
        raise FlowError("JF504", f"the local broker's folder {home}: {error}") from error


def _recorded(home: Path) -> dict[str, Any]:
    """What `broker.json` says, or nothing where it is missing, half written or something else."""
    try:
        recorded = json.loads((home / "broker.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return recorded if isinstance(recorded, dict) else {}


def _recorded_port(home: Path) -> int | None:
    port = str(_recorded(home).get("bootstrap")).rpartition(":")[2]
    return int(port) if port.isdecimal() and 1024 <= int(port) < 65536 else None


def _record(home: Path, bootstrap: str, pid: int | None) -> None:
    text = json.dumps({"bootstrap": bootstrap, "pid": pid, "kafka": KAFKA_VERSION, "time": time.time()})
    write_atomically(home / "broker.json", text + "\n")
