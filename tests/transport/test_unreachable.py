"""A Kafka that is not there is one line, soon."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from jupyterflow.model import FlowError
from jupyterflow.transport.kafka import Admin, Engine, InputTopic, IOThread, KafkaConfig


@pytest.fixture
def io() -> Iterator[IOThread]:
    thread = IOThread()
    yield thread
    thread.close()


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def refused() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{server.getsockname()[1]}"


def engine(io: IOThread, address: str) -> Engine:
    return Engine(
        io,
        KafkaConfig(address),
        group="g",
        instance_id=None,
        inputs=[InputTopic("in")],
        on_open=lambda port, state: None,
    )


def test_an_engine_says_in_one_line_that_nothing_answers(io: IOThread, refused: str) -> None:
    with pytest.raises(FlowError) as caught:
        engine(io, refused).start()
    assert caught.value.code == "JF521"
    assert refused in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_admin_says_it_too(io: IOThread, refused: str) -> None:
    admin = Admin(KafkaConfig(refused), io)
    with pytest.raises(FlowError, match="JF521"):
        admin.ping()
    admin.close()


def test_an_address_that_never_answers_is_given_up_in_time(io: IOThread, silent: str) -> None:
    began = time.monotonic()
    with pytest.raises(FlowError, match=r"JF52[12]"):
        engine(io, silent).start(timeout=1.0)
    admin = Admin(KafkaConfig(silent), io, timeout=1.0)
    with pytest.raises(FlowError, match=r"JF52[12]"):
        admin.topics()
    admin.close()
    assert time.monotonic() - began < 15


def test_nothing_is_printed_meanwhile(io: IOThread, refused: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FlowError):
        engine(io, refused).start()
    assert capfd.readouterr() == ("", "")
