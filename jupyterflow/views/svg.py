"""Pictures without a browser's help: an SVG that follows the reader's light or dark theme, and Mermaid text."""

from __future__ import annotations

from html import escape

from jupyterflow.views import _numbers as n
from jupyterflow.views._layout import HEIGHT, WIDTH
from jupyterflow.views._palette import FILLS, OTHER, STATES
from jupyterflow.views.graph import Face, GraphModel, Wire

_MARGIN, _HEAD = 20, 32
_LIFE_SIZE = 820
_FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"


def _clean(text: str) -> str:
    """*text* without the characters that XML cannot hold."""
    return "".join(c for c in text if c in "\t\n\r" or (c >= " " and not "\ud800" <= c <= "\udfff" and c < "\ufffe"))


def _text(text: str) -> str:
    return escape(_clean(text))


def _styles() -> str:
    def theme(dark: int) -> str:
        card, line, ink, soft, paper = (
            ("#ffffff", "#d5dae1", "#1b2430", "#5f6b7a", "#fafbfc"),
            ("#20262e", "#3a434f", "#e8ecf1", "#a2adba", "#14181d"),
        )[dark]
        words = {**STATES, "other": OTHER}
        states = "".join(
            f".s-{s} .bar,.s-{s} .dot{{fill:{c[dark]}}}.s-{s} .word{{fill:{c[dark]}}}" for s, c in words.items()
        )
        wires = "".join(f".l{i} path{{stroke:{c[dark]}}}.l{i} polygon{{fill:{c[dark]}}}" for i, c in enumerate(FILLS))
        return (
            f".paper{{fill:{paper}}}.card{{fill:{card};stroke:{line}}}.ink{{fill:{ink}}}.soft{{fill:{soft}}}"
            f".bad{{fill:{STATES['failed'][dark]}}}.halo{{stroke:{paper}}}{states}{wires}"
        )

    return (
        f"text{{font-family:{_FONT};font-size:12.5px}}.name{{font-size:15px;font-weight:600}}"
        ".head{font-size:13px}.num{font-size:12.5px;font-variant-numeric:tabular-nums}.word,.bad{font-weight:600}"
        "path{fill:none;stroke-width:1.8}.halo{stroke-width:5;stroke-linejoin:round;paint-order:stroke}"
        f"{theme(0)}@media (prefers-color-scheme:dark){{{theme(1)}}}"
    )


def svg(model: GraphModel) -> str:
    """The graph as a static SVG document: cards with state, numbers, latency and errors; edges with their rates.

    All text is escaped; colours follow `prefers-color-scheme`. Life-size up to 820 pixels, wider ones shrink to the
    page: notebooks show an SVG as an image, which only does so when it names no size of its own.
    """
    faces = list(model.faces.values())
    left = min((f.x for f in faces), default=0.0) - WIDTH / 2 - _MARGIN
    top = min((f.y for f in faces), default=0.0) - HEIGHT / 2 - _MARGIN - _HEAD
    right = max((f.x for f in faces), default=0.0) + WIDTH / 2 + _MARGIN
    bottom = max((f.y for f in faces), default=0.0) + HEIGHT / 2 + _MARGIN
    width, height = right - left, bottom - top
    size = f'width="{width:g}" height="{height:g}" ' if width <= _LIFE_SIZE else ""
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left:g} {top:g} {width:g} {height:g}" {size}role="img" '
        f'aria-label="{_text(model.headline)}">',
        f"<style>{_styles()}</style>",
        f'<rect class="paper" x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="10"/>',
        f'<text class="head soft" x="{left + _MARGIN:g}" y="{top + 30:g}">{_text(model.headline)}</text>',
    ]
    out += [_wire(wire, model) for wire in model.wires.values()]
    out += [_card(face) for face in faces]
    out += [_wire_label(wire, model) for wire in model.wires.values() if wire.label]
    return "\n".join([*out, "</svg>"])


def _wire(wire: Wire, model: GraphModel) -> str:
    a, b = model.faces[wire.upstream], model.faces[wire.downstream]
    x1, x2 = a.x + WIDTH / 2, b.x - WIDTH / 2 - 7
    bend = max(abs(x2 - x1) / 2, 30)
    return (
        f'<g class="l{wire.level}"><path d="M{x1:g} {a.y:g}C{x1 + bend:g} {a.y:g} {x2 - bend:g} {b.y:g} {x2:g} {b.y:g}"/>'
        f'<polygon points="{x2 + 7:g},{b.y:g} {x2 - 2:g},{b.y - 4.5:g} {x2 - 2:g},{b.y + 4.5:g}"/></g>'
    )


def _wire_label(wire: Wire, model: GraphModel) -> str:
    a, b = model.faces[wire.upstream], model.faces[wire.downstream]
    x, y = (a.x + b.x) / 2, (a.y + b.y) / 2
    lines = wire.label.split("\n")
    return "".join(
        f'<text class="num soft halo" text-anchor="middle" x="{x:g}" y="{at:g}">{_text(line)}</text>'
        for line, at in zip(lines, (y - 6, y + 15) if len(lines) > 1 else (y - 6,), strict=True)
    )


def _card(face: Face) -> str:
    x, y = face.x - WIDTH / 2, face.y - HEIGHT / 2
    state = face.state if face.state in STATES else "other"
    right = x + WIDTH - 12
    rows = [
        f'<g class="s-{state}"><title>{_text(face.name[:300])} ({_text(n.clip(face.what, 40))})</title>',
        f'<rect class="card" x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="9"/>',
        f'<rect class="bar" x="{x + 1:g}" y="{y + 10:g}" width="4" height="{HEIGHT - 20}" rx="2"/>',
        f'<text class="name ink" x="{x + 16:g}" y="{y + 25:g}">{_text(face.title)}</text>',
        f'<circle class="dot" cx="{x + 20:g}" cy="{y + 40.5:g}" r="3.5"/>',
        f'<text x="{x + 28:g}" y="{y + 45:g}"><tspan class="word">{_text(face.state)}</tspan>'
        + ("" if face.trouble else f'<tspan class="soft"> · {_text(n.clip(face.what, 14))}</tspan>')
        + "</text>",
    ]
    if face.trouble:
        rows.append(f'<text class="bad" text-anchor="end" x="{right:g}" y="{y + 45:g}">{_text(face.trouble)}</text>')
    if face.numbers:
        rows.append(f'<text class="num ink" x="{x + 16:g}" y="{y + 65:g}">{_text(face.numbers)}</text>')
    if face.latency:
        rows.append(
            f'<text class="num soft" text-anchor="end" x="{right:g}" y="{y + 65:g}">{_text(face.latency)}</text>'
        )
    return "".join([*rows, "</g>"])


def mermaid(model: GraphModel) -> str:
    """The graph as a Mermaid flowchart, left to right, with what the faces and edges say."""
    ids = {name: f"n{i}" for i, name in enumerate(model.faces)}
    out = ["flowchart LR"]
    for face in model.faces.values():
        left, right = {"source": ("([", "])"), "sink": ("[[", "]]")}.get(face.role, ("[", "]"))
        out.append(f"  {ids[face.name]}{left}{_quoted(face.label)}{right}:::{_class(face.state)}")
    for wire in model.wires.values():
        label = f"|{_quoted(wire.label)}|" if wire.label else ""
        out.append(f"  {ids[wire.upstream]} -->{label} {ids[wire.downstream]}")
    for state in dict.fromkeys(_class(face.state) for face in model.faces.values()):
        out.append(f"  classDef {state} stroke:{STATES.get(state, OTHER)[0]},stroke-width:2px")
    return "\n".join(out)


def _class(state: str) -> str:
    return state if state in STATES else "other"


def _quoted(text: str) -> str:
    codes = {'"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "#": "#35;", "`": "#96;", "\n": "<br>"}
    return '"' + "".join(codes.get(c, c) for c in _clean(text)) + '"'
