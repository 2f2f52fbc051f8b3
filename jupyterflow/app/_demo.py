"""`jupyter flow demo`: the words of Python's standard library, counted on Kafka and compared with a loop."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyterflow.app._watch import watch
from jupyterflow.magics._ending import end_slots
from jupyterflow.magics._rows import Steps

# What others have installed lies within the standard library's folder in some Pythons.
_NOT_ITS_OWN = ("site-packages", "dist-packages", "__pycache__")


def split(line: str) -> list[str]:
    """A line's words."""
    return line.split()


def itself(word: str) -> str:
    """The key of a word."""
    return word


def word_count(folder: Path, parallelism: int) -> Any:
    """The flow: the lines of all `.py` files below *folder*, a split a file; how often each word occurs."""
    import jupyterflow as jf

    flow = jf.Flow("words")
    lines = flow.source("files", f"file:{folder}/**/*.py", errors="replace", parallelism=parallelism)
    words = lines.flat_map("split", split).key_by("by_word", itself)
    words.count("count", emit="end", parallelism=parallelism).sink("counts", "collect")
    return flow


def count_independently(folder: Path) -> Counter[str]:
    """The same by a loop over the files."""
    from jupyterflow.nodes.files import expand

    counted: Counter[str] = Counter()
    for name in expand(f"{folder}/**/*.py"):
        counted.update(Path(name).read_bytes().decode("utf-8", "replace").split())
    return counted


def demo(workers: int, timeout: float) -> int:
    """Run it; 0 if both counts are equal, 1 if not. Nothing is left running, and nothing on disk but Kafka's jars."""
    import jupyterflow as jf

    with _own_home() as home:
        library = _library(home)
        with Steps(sys.stderr, live=sys.stderr.isatty()) as steps:
            cluster = jf.up(workers, progress=steps)
        with cluster:
            run = word_count(library, workers).deploy(cluster)
            watch(run, limit=timeout)
            counts = {record.key: record.value for record in run.records("counts")}
        expected = count_independently(library)
    total, distinct = sum(counts.values()), len(counts)
    if counts != expected:
        print(
            f"FAILED {total:,} words, {distinct:,} distinct; the independent count has "
            f"{expected.total():,} words, {len(expected):,} distinct"
        )
        return 1
    print(f"OK {total} words, {distinct} distinct, equal to the independent count")
    return 0


def _library(home: Path) -> Path:
    """A folder that holds the standard library and nothing else, by links."""
    folder = home / "library"
    folder.mkdir()
    for entry in Path(sysconfig.get_paths()["stdlib"]).iterdir():
        if entry.name not in _NOT_ITS_OWN and (entry.is_dir() or entry.suffix == ".py"):
            (folder / entry.name).symlink_to(entry)
    return folder


@contextmanager
def _own_home() -> Iterator[Path]:
    """A temporary `JUPYTERFLOW_DIR`; whatever was started there is ended, also after Ctrl-C or SIGTERM."""
    from jupyterflow.cluster.client import down

    # Short: the paths of IPC sockets in it are limited to 107 bytes.
    home = Path(tempfile.mkdtemp(prefix="jfdemo", dir="/tmp" if os.path.isdir("/tmp") else None)).resolve()
    before = {name: os.environ.get(name) for name in ("JUPYTERFLOW_DIR", "JUPYTERFLOW_KEY_FILE")}
    os.environ["JUPYTERFLOW_DIR"] = str(home)
    os.environ.pop("JUPYTERFLOW_KEY_FILE", None)
    terminated = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield home
    finally:
        # A second Ctrl-C must not leave half of it behind.
        interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            end_slots(home)
            down(purge=True)
        finally:
            shutil.rmtree(home, ignore_errors=True)
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})
            signal.signal(signal.SIGINT, interrupted)
            signal.signal(signal.SIGTERM, terminated)


def _terminate(*_: object) -> None:
    raise SystemExit(143)
