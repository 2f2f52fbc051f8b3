"""Colours by state and by fill. From Okabe and Ito's palette, which people with any colour vision can tell apart;
the word always stands beside the colour."""

from __future__ import annotations

#: state -> (on a light background, on a dark one)
STATES: dict[str, tuple[str, str]] = {
    "draft": ("#6b7280", "#9ca3af"),
    "changed": ("#a2487f", "#d987b5"),
    "deploying": ("#2b7fb0", "#56b4e9"),
    "running": ("#00805d", "#2fc295"),
    "idle": ("#64748b", "#94a3b8"),
    "stalled": ("#b26a00", "#f0a52c"),
    "failed": ("#c2410c", "#ff7a45"),
    "finished": ("#0b62a8", "#6aaef0"),
    "stopped": ("#4b5563", "#a3aab6"),
}
OTHER = ("#6b7280", "#9ca3af")

#: level of an edge's queue -> (light, dark): ample, filling (from 60 %), nearly full (from 85 %)
FILLS = (("#7f9f97", "#5d857b"), ("#c98a00", "#f0a52c"), ("#c2410c", "#ff7a45"))


def level(fill: float) -> int:
    """0, 1 or 2: how urgent a queue that is *fill* full (0 to 1) is."""
    return 2 if fill >= 0.85 else 1 if fill >= 0.6 else 0


def colours(state: str) -> tuple[str, str]:
    """The state's colour on light and on dark; grey for a state that is not known."""
    return STATES.get(state, OTHER)
