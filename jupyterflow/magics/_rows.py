"""Rows of plain data that show themselves as a table, and steps that show how far something is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self, TextIO


class Rows(list[dict[str, Any]]):
    """A list of dicts; its text is a table, with a line in place of one that would be empty."""

    def __init__(self, rows: Iterable[dict[str, Any]], empty: str = "nothing") -> None:
        super().__init__(rows)
        self.empty = empty

    def __repr__(self) -> str:
        return table(self) or self.empty


WORKER = ("name", "host", "pid", "labels", "tasks", "version", "python", "cpu", "memory", "seen")


def only(rows: Iterable[dict[str, Any]], names: Iterable[str]) -> list[dict[str, Any]]:
    """Rows with these columns alone, those that they have, in this order."""
    names = list(names)
    return [{name: row[name] for name in names if name in row} for row in rows]


def table(rows: list[dict[str, Any]], widest: int = 60) -> str:
    """Rows as aligned text columns, numbers to the right; cells are cut at *widest* characters."""
    if not rows:
        return ""
    names = list(rows[0])
    numeric = {n for n in names if all(isinstance(row.get(n), int | float) for row in rows)}
    cells = [[_cell(name, row.get(name), widest) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]

    def line(texts: list[str]) -> str:
        padded = (t.rjust(w) if n in numeric else t.ljust(w) for t, w, n in zip(texts, widths, names, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([line(names), *map(line, cells)])


def _cell(name: str, value: Any, widest: int) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, int) and not isinstance(value, bool) and name != "pid":
        return f"{value:,}"
    if isinstance(value, dict):
        value = ",".join(f"{k}={v}" for k, v in value.items())
    if isinstance(value, list | tuple | set):
        value = ",".join(map(str, value))
    text = " ".join(str(value).split())
    return text if len(text) <= widest else text[: widest - 1] + "…"


class Steps:
    """Shows the steps of what takes long: in one line that is written over where `live`, else a line for each kind."""

    def __init__(self, out: TextIO, *, live: bool) -> None:
        self.out, self.live = out, live
        self._last = ""

    def __call__(self, text: str) -> None:
        if self.live:
            self.out.write("\r" + text.ljust(len(self._last)))
            self._last = text
        elif (kind := text.partition(":")[0]) != self._last:
            self.out.write(text + "\n")
            self._last = kind
        self.out.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.live and self._last:
            self.out.write("\r" + " " * len(self._last) + "\r")
            self.out.flush()
