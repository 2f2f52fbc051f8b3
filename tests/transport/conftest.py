"""A corner of the broker for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _transport_kafka import Kafka


@pytest.fixture
def kafka(bootstrap: str) -> Iterator[Kafka]:
    corner = Kafka(bootstrap)
    try:
        yield corner
    finally:
        corner.close()
