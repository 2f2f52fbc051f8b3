"""Rows of plain data that show themselves as a table, and steps that show how far something is."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Self, TextIO


class Rows(list[dict[str, Any]]):
    """A list of dicts; its text is a table, with a line in place of one that would be empty."""

    def __init__(self, rows: Iterable[dict[str, Any]], empty: str = "nothing") -> None:
        super().__init__(rows)
        self.empty = empty

    def __repr__(self) -> str:
        return table(self) or self.empty


class DeadLetters(Rows):
    """Dead letters, whole; the table leaves out the traceback and shows the time as this machine's clock does."""

    def __repr__(self) -> str:
        return table([_letter(row) for row in self]) or self.empty


def _letter(letter: dict[str, Any]) -> dict[str, Any]:
    row = {name: value for name, value in letter.items() if name != "traceback"}
    stamp = row.get("timestamp")
    if isinstance(stamp, int) and "timestamp" in row:  # ms; 0: it has none
        row["timestamp"] = datetime.fromtimestamp(stamp / 1000).isoformat(" ", "seconds") if stamp > 0 else None
    return row


_WORKER = ("name", "host", "pid", "labels", "tasks", "version", "python", "cpu", "memory", "seen")


def workers(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What there is to see of workers: some columns, in this order; memory in MB."""
    seen = [{name: row[name] for name in _WORKER if name in row} for row in rows]
    return [row | {"memory": f"{row['memory'] / 1e6:,.0f} MB"} if "memory" in row else row for row in seen]


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
    """Shows the steps of what takes long: in one line that is written over where `live`, else a line for each kind.

    With `keep` the last one stays: a notebook's output does not lose a line that is empty again.
    """

    def __init__(self, out: TextIO, *, live: bool, keep: bool = False) -> None:
        self.out, self.live, self.keep = out, live, keep
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
            self.out.write("\n" if self.keep else "\r" + " " * len(self._last) + "\r")
            self.out.flush()
