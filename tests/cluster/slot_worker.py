"""Stand-ins for a worker, named by a slot's `entry`."""

import os
import signal
from pathlib import Path
from typing import Any


class Worker:
    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def stop(self) -> None:
        Path(self.config["settings"]["file"]).write_text("stopped")


def start(config: dict[str, Any]) -> Worker:
    return Worker(config)


class Stubborn(Worker):
    def stop(self) -> None:
        while True:
            signal.pause()


def start_stubborn(config: dict[str, Any]) -> Worker:
    return Stubborn(config)


def fail(config: dict[str, Any]) -> None:
    raise ValueError("no Kafka at nowhere:1")


def environment(config: dict[str, Any]) -> dict[str, str]:
    Path(config["settings"]["file"]).write_text(os.environ.get("JF_TEST", ""))
    return dict(os.environ)
