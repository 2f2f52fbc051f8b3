"""At least once, without a broker: what is written in which order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jupyterflow.transport.kafka import _producers


def test_state_never_gets_ahead_of_the_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[Any] = []

    async def write(producer: Any, writes: Any) -> None:
        order.extend(writes)
        if ("broken", 0) in writes:
            raise OSError("gone")

    class Shared:
        async def get(self) -> object:
            return self

        async def replace(self, failed: object) -> None:
            pass

    class Consumer:
        async def commit(self, offsets: dict[str, int]) -> None:
            order.append(offsets)

    monkeypatch.setattr(_producers, "write", write)

    async def commit(topic: str) -> None:
        writer = _producers.PlainWriter(Shared(), "input", Consumer, "changelog")  # type: ignore[arg-type]
        await writer.start()
        await writer.commit({("changelog", 0): [], (topic, 0): [], ("dead", 0): []}, 5)

    asyncio.run(commit("out"))
    assert order == [("out", 0), ("dead", 0), ("changelog", 0), {"input": 5}]
    order.clear()
    with pytest.raises(OSError, match="gone"):
        asyncio.run(commit("broken"))
    assert order == [("broken", 0), ("dead", 0)]
