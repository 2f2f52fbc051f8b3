"""The flows of the benchmarks, as a user would write them."""

from __future__ import annotations

from typing import Any

import jupyterflow as jf

RATE = 0.908


def stateless(name: str, source: str, target: str) -> jf.Flow:
    """Bids in euros, a quarter of them."""

    def euros(bid: dict[str, Any]) -> dict[str, Any]:
        return {**bid, "price": bid["price"] * RATE}

    def fourth(bid: dict[str, Any]) -> bool:
        return bid["auction"] % 4 == 0  # type: ignore[no-any-return]

    flow = jf.Flow(name)
    flow.include(__file__)
    bids = flow.source("bids", f"kafka://{source}?codec=json&until=latest")
    bids.map("euros", euros).filter("fourth", fourth).sink("out", f"kafka://{target}?codec=json")
    return flow


def words(name: str, source: str, target: str) -> jf.Flow:
    """A running count of each word."""
    flow = jf.Flow(name)
    flow.include(__file__)
    read = flow.source("words", f"kafka://{source}?codec=text&until=latest")
    read.key_by("word", lambda word: word).count("count").sink("out", f"kafka://{target}?codec=json")
    return flow
