"""Java's AOT cache (JEP 483, 514): Kafka's classes loaded and linked ahead of time; a start takes 1 s, not 3."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from jupyterflow.broker._config import write_config
from jupyterflow.broker._install import Progress, java_release
from jupyterflow.broker._launch import await_serving, format_storage, free_port, spawn
from jupyterflow.broker._lock import locked
from jupyterflow.model import FlowError

_TRAINING_LIMIT = 60.0


def jvm_options(cache: Path | None) -> tuple[str, ...]:
    """The broker's JVM options, with the AOT *cache* if there is one (Java ignores one that does not fit)."""
    options = ("-Xmx512m", "-XX:+UseG1GC", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true")
    return (*options, f"-XX:AOTCache={cache}", "-Xlog:aot*=off") if cache else options


def archive(jars: Path, progress: Progress) -> Path | None:
    """The AOT cache for Kafka's *jars* and this JRE, made on first use by one start of a scratch broker.

    None where this Java has none or the training failed: the broker then starts more slowly, that is all.
    """
    release = java_release()
    if not release or int(release.split(".")[0]) < 25:
        return None
    cache, failed = jars / f"java-{release}.aot", jars / f"java-{release}.no-aot"
    if cache.exists():
        return cache
    if failed.exists():
        return None
    try:
        with locked(jars / "aot.lock", timeout=180, what="preparing Apache Kafka"):
            if not cache.exists() and not failed.exists():
                progress("preparing Apache Kafka for fast starts (once)")
                _train(jars, cache, failed)
    except (OSError, FlowError):
        return None
    return cache if cache.exists() else None


def _train(jars: Path, cache: Path, failed: Path) -> None:
    _clear_remains(jars)
    with tempfile.TemporaryDirectory(prefix="train-", dir=jars.parent, ignore_cleanup_errors=True) as aside:
        folder, output = Path(aside), Path(aside) / "kafka.aot"
        port = free_port()
        write_config(folder, port, free_port())
        try:
            cluster = format_storage(folder, jars, ())
            process = spawn(folder, jars, (*jvm_options(None), _mark(jars), f"-XX:AOTCacheOutput={output}"))
            try:
                await_serving(process, folder, f"127.0.0.1:{port}", cluster)
                process.terminate()  # the cache is written on the way out
                process.wait(_TRAINING_LIMIT)
            finally:
                process.kill()
                process.wait()
            os.replace(output, cache)
        except Exception:
            failed.touch()  # never again for this Java: each start would pay for it


def _clear_remains(jars: Path) -> None:
    """End and erase what a training left whose starter was killed: under the lock, nobody else trains."""
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if _mark(jars) in process.cmdline():
                process.kill()
                process.wait(10)
    for folder in jars.parent.glob("train-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _mark(jars: Path) -> str:
    return f"-Djupyterflow.training={jars}"
