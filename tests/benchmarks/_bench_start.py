"""How long a person waits: imports, cells, `up`, and the first record of a deployment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

_IMPORT = """
import time; begin = time.perf_counter()
import jupyterflow
print("took", time.perf_counter() - begin)
"""
_CELLS = """
import time
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
shell = InteractiveShell.instance()
def took(code):
    begin = time.perf_counter()
    with capture_output() as said:
        result = shell.run_cell(code)
    result.raise_error()
    print("took", time.perf_counter() - begin)
shell.run_cell("1 + 1")
took("%load_ext jupyterflow")
took("%%flow source numbers --rate 1000\\nimport random\\nwhile True:\\n    yield random.randrange(1000)")
took("%%flow map doubled --from numbers\\nvalue * 2")
"""
_LIMITS = {
    "import jupyterflow": 0.15,
    "%load_ext jupyterflow": 0.5,
    "first %%flow cell": 0.1,
    "second %%flow cell": 0.1,
    "up, installed, 2 workers": 8.0,
    "deploy to the first record": 2.0,
}


def start(times: int) -> dict[str, float]:
    """Measure all of it *times* times and print the medians, in seconds; returns them by name."""
    found: dict[str, list[float]] = {name: [] for name in _LIMITS}
    for _ in range(max(3, times)):
        found["import jupyterflow"] += _fresh(_IMPORT)
        load, first, second = _fresh(_CELLS)
        found["%load_ext jupyterflow"].append(load)
        found["first %%flow cell"].append(first)
        found["second %%flow cell"].append(second)
    with _home():
        _up()  # installs what is missing
    for _ in range(times):
        with _home():
            took, firsts = _up(deploys=3)
            found["up, installed, 2 workers"].append(took)
            found["deploy to the first record"] += firsts
    out = {name: median(seconds) for name, seconds in found.items()}
    print("start, medians")
    for name, seconds in out.items():
        values = found[name]
        print(
            f"  {name:28} {seconds * 1000:>7,.0f} ms ({min(values) * 1000:,.0f} to {max(values) * 1000:,.0f},"
            f" n={len(values)}; at most {_LIMITS[name] * 1000:,.0f})",
            flush=True,
        )
    return out


def _fresh(code: str) -> list[float]:
    with tempfile.TemporaryDirectory() as profile:
        env = {**os.environ, "IPYTHONDIR": profile}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"it failed: {done.stderr.strip().splitlines()[-1]}")
    return [float(line.removeprefix("took ")) for line in done.stdout.splitlines() if line.startswith("took ")]


@contextmanager
def _home() -> Iterator[None]:
    """A `JUPYTERFLOW_DIR` of its own; what is up in it is ended."""
    from jupyterflow.cluster import check
    from jupyterflow.cluster.client import down

    before = os.environ.get("JUPYTERFLOW_DIR")
    home = tempfile.mkdtemp(prefix="jfb", dir="/tmp" if os.path.isdir("/tmp") else None)
    os.environ["JUPYTERFLOW_DIR"] = home
    try:
        yield
    finally:
        down()
        check.close()
        shutil.rmtree(home, ignore_errors=True)
        if before is None:
            del os.environ["JUPYTERFLOW_DIR"]
        else:
            os.environ["JUPYTERFLOW_DIR"] = before


def _up(deploys: int = 0) -> tuple[float, list[float]]:
    import jupyterflow as jf

    begin = time.perf_counter()
    with jf.up(workers=2) as cluster:
        took = time.perf_counter() - begin
        return took, [first_record(cluster.bootstrap, cluster, number) for number in range(deploys)]


def first_record(bootstrap: str, cluster: object, number: int) -> float:
    """Seconds from `deploy` to when a reader that was there before gets the first record of its sink."""
    import jupyterflow as jf
    from jupyterflow.transport.kafka import Admin, KafkaConfig, TopicSpec

    topic = f"first{number}"
    with Admin(KafkaConfig(bootstrap)) as admin:
        admin.create_topics([TopicSpec(topic, 1, {})])
    flow = jf.Flow(topic)
    flow.source("numbers", range(1_000)).map("squares", lambda n: n * n).sink("out", f"kafka://{topic}?codec=json")
    listening, seen = threading.Event(), []

    def listen() -> None:
        import asyncio

        async def read() -> None:
            from aiokafka import AIOKafkaConsumer, TopicPartition

            consumer = AIOKafkaConsumer(
                bootstrap_servers=bootstrap, isolation_level="read_committed", fetch_max_wait_ms=20
            )
            await consumer.start()
            try:
                part = TopicPartition(topic, 0)
                consumer.assign([part])
                await consumer.seek_to_beginning(part)
                listening.set()
                await asyncio.wait_for(consumer.getone(), 60)
                seen.append(time.perf_counter())
            finally:
                await consumer.stop()

        asyncio.run(read())

    reader = threading.Thread(target=listen)
    reader.start()
    listening.wait(30)
    begin = time.perf_counter()
    live = flow.deploy(cluster)
    reader.join(90)
    if not seen:
        raise RuntimeError("no record came within 60 s")
    live.wait(60)
    flow_name: str = flow.name
    cluster.remove(flow_name)  # type: ignore[attr-defined]
    return seen[0] - begin
