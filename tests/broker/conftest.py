import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jupyterflow import broker as kafka

Starter = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def own_home(tmp_path: Path) -> Iterator[Path]:
    """A home for a broker of this test alone; what runs there is ended after the test."""
    home = tmp_path / "a home, with = commas & ünïcode"
    yield home
    if running := kafka.find(home):
        running.stop(timeout=5)


@pytest.fixture
def python(own_home: Path) -> Iterator[Starter]:
    """Run code in another Python, where `home` is `own_home`; it is killed after the test."""
    processes = []

    def run(code: str) -> "subprocess.Popen[str]":
        prelude = f"from pathlib import Path\nfrom jupyterflow import broker\nhome = Path({str(own_home)!r})\n"
        process = subprocess.Popen(
            [sys.executable, "-c", prelude + code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        with suppress(OSError):
            process.kill()
        process.communicate()
