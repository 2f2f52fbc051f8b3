"""Numbers as people read them: 1.2k, 3.4M, 0.8 ms."""

from __future__ import annotations

import math

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_MINUS = "\N{MINUS SIGN}"


def human(value: float | None) -> str:
    """*value* in at most three digits and a unit: `0`, `7.5`, `999`, `1.0k`, `3.4M`; `-` when there is none."""
    if value is None or isinstance(value, str) or not math.isfinite(value):
        return "-"
    size, sign = abs(value), _MINUS if value < 0 else ""
    if size < 0.05:
        return "0"
    if size < 10:
        text = f"{size:.1f}"
        return sign + text.removesuffix(".0")
    if size < 999.5:
        return f"{sign}{size:.0f}"
    for unit, (scale, suffix) in enumerate(_UNITS):
        if size >= scale * 0.9995:
            part = size / scale
            if part >= 999.5 and unit > 0:
                scale, suffix = _UNITS[unit - 1]
                part = size / scale
            text = f"{part:.1f}" if part < 99.95 else f"{part:.0f}"
            return sign + text + suffix
    return f"{sign}{size:.0f}"


def count(value: float | None) -> str:
    """A total: exact with thousands separators below a million, `human` from there."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{int(value):,}" if abs(value) < 1e6 else human(value)


def rate(value: float | None) -> str:
    """Records per second: `1.2k/s`."""
    text = human(value)
    return text if text == "-" else f"{text}/s"


def milliseconds(value: float | None) -> str:
    """A duration given in ms: `0.12 ms`, `3.4 ms`, `1.5 s`; empty when there is none."""
    if value is None or not math.isfinite(value) or value <= 0:
        return ""
    if value < 1:
        return f"{max(value, 0.01):.2f} ms"
    if value < 999.5:
        return f"{human(value)} ms"
    return f"{human(value / 1000)} s"


def clip(text: object, limit: int) -> str:
    """*text* as one line of at most *limit* characters, with an ellipsis where it was cut."""
    line = str(text)[: limit * 2 + 2]
    line = " ".join(line.split()) if any(c in line for c in "\r\n\t") else line
    return line if len(line) <= limit else line[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
