"""Ends what runs on this machine: when asked, and what was started before Ctrl-C came."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psutil import Process

_PATIENCE = 15.0  # seconds for a worker to finish


def take_down(*, purge: bool, cluster: Any = None) -> str:
    """End the workers and the local Kafka of this user, whoever started them; *cluster* is a connection to close.

    The result is one line for people. Raises FlowError.
    """
    from jupyterflow import broker
    from jupyterflow.cluster import slots
    from jupyterflow.cluster.client import down

    was_up = broker.find() is not None or bool(slots.list(broker.home()))
    if cluster is not None:
        cluster.down(purge=purge)
    else:
        down(purge=purge)
    if was_up:
        return f"workers and Kafka are down; their data {'are erased' if purge else 'stay'}"
    return f"no workers or Kafka were up here{'; their data are erased' if purge else ''}"


def end_slots(home: Path, keep: Container[str] = ()) -> None:
    """End the worker slots of *home* except those named in *keep*.

    Found by their command lines: a supervisor that was launched a moment ago has not written itself down yet.
    """
    import psutil

    from jupyterflow.cluster import slots

    while found := list(_supervisors(home, keep)):  # again: one may have been about to detach
        for process in found:
            with suppress(psutil.Error):
                process.terminate()
        for process in psutil.wait_procs(found, _PATIENCE)[1]:
            with suppress(psutil.Error):
                process.kill()
    slots.list(home)  # buries the dead, with kernels that they left


@contextmanager
def undone_if_interrupted() -> Iterator[None]:
    """If Ctrl-C comes in here, end the slots and the broker that were not there before."""
    from jupyterflow import broker
    from jupyterflow.cluster import slots

    home = broker.home().resolve()
    was_up, before = broker.find(), {slot.name for slot in slots.list(home)}
    try:
        yield
    except KeyboardInterrupt:
        end_slots(home, before)
        if was_up is None and (started := broker.find()):
            started.stop()
        raise


def _supervisors(home: Path, keep: Container[str]) -> Iterator[Process]:
    import psutil

    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if "jupyterflow.cluster.slot" not in words or process.status() == psutil.STATUS_ZOMBIE:
                continue
            given = dict(pairwise(words))
            if given.get("--home") == str(home) and given.get("--name") not in keep:
                yield process
        except psutil.Error:
            continue
