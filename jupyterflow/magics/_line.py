"""The line of a `%%flow` cell: `KIND NAME [URL] [--from A B ...] [options]`, typed by the catalogue."""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import dataclass, field
from typing import Any

from jupyterflow.model import FlowError, Role, did_you_mean

_CELL_MAGIC = re.compile(r"%%(jupyter)?flow(\s|$)")


@dataclass(frozen=True, slots=True)
class Line:
    """What a `%%flow` line says. `upstreams` is None where it has no `--from`; option values are still texts."""

    kind: str
    name: str
    url: str | None = None
    upstreams: list[str] | None = None
    options: dict[str, list[str]] = field(default_factory=dict)

    @property
    def role(self) -> Role:
        """The role of the node."""
        return "source" if self.kind == "source" else "sink" if self.kind == "sink" else "operator"


def cell_kinds() -> list[str]:
    """What may stand behind `%%flow`: source, the catalogue's operators, sink."""
    from jupyterflow.nodes.catalogue import kinds

    return ["source", *(kind.name for kind in kinds("operator")), "sink"]


def split(text: str) -> list[str]:
    """Words of a line as a shell would see them. Raises FlowError for an open quote."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise FlowError("JF713", f"%flow {text.strip()}: {str(error).lower()} - close it") from None


def command_words(text: str) -> list[str]:
    """Words of a `%flow COMMAND` line, without a comment behind them. Raises FlowError for an open quote."""
    quote = ""
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == "#" and not text[i - 1 : i].strip():  # not the one in `out#1.json`
            return split(text[:i])
    return split(text)


def magic_row(lines: list[str]) -> int | None:
    """The index of a cell's `%%flow` line, where only comments and blank lines stand above it; None without one."""
    for i, line in enumerate(lines):
        if _CELL_MAGIC.match(line):
            return i
        if line.strip() and not line.lstrip().startswith("#"):
            break
    return None


def parse_line(text: str) -> Line:
    """Read a `%%flow` line. Raises FlowError JF713, or JF108 for a kind that is not there."""
    words = split(text)
    positional: list[str] = []
    options: dict[str, list[str]] = {}
    taking: list[str] = positional
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            if name in options:
                raise FlowError("JF713", f"%%flow {text.strip()}: --{name.replace('_', '-')} stands there twice")
            taking = options[name] = [value] if equals else []
        else:
            taking.append(word)
    where = f"%%flow {text.strip()}"
    if len(positional) < 2:
        raise FlowError(
            "JF713", f"{where}: write %%flow KIND NAME --from UPSTREAM, KIND one of {', '.join(cell_kinds())}"
        )
    kind, name, *more = positional
    known = cell_kinds()
    if kind not in known:
        raise FlowError(
            "JF108", f"{where}: unknown kind '{kind}'{did_you_mean(kind, known) or ' - one of ' + ', '.join(known)}"
        )
    if len(more) > 1 or (more and kind not in ("source", "sink")):
        raise FlowError("JF713", f"{where}: what is '{more[-1]}'? Upstreams stand behind --from, options behind --NAME")
    upstreams = options.pop("from", None)
    if upstreams == []:
        raise FlowError("JF713", f"{where}: --from names no node - write --from UPSTREAM")
    return Line(kind, name, more[0] if more else None, upstreams, options)


def typed(name: str, words: list[str], wanted: Any, namespace: dict[str, Any]) -> Any:
    """The value of an option: as its type in the catalogue, else int, float, bool or text.

    An option without a value is True. Where any object is allowed the text is a literal or a name of
    `namespace` (`--initial dict`).
    """
    if not words:
        return True
    text = " ".join(words)
    types = wanted if isinstance(wanted, tuple) else (wanted,)
    if object in types:
        import builtins

        return namespace.get(text, getattr(builtins, text, _literal(text)))
    value = _literal(text)
    if str in types and not any(isinstance(value, t) for t in types if t is not str):
        return text
    if float in types and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if int not in types else value
    return value


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def kind_help(kind: str) -> str:
    """What `%%flow KIND -h` says: each kind behind the word, with its options."""
    from jupyterflow.nodes.catalogue import kinds

    if kind in ("source", "sink"):
        found = kinds("source" if kind == "source" else "sink")
        usage = f"%%flow {kind} NAME" + (" --from A ..." if kind == "sink" else "")
        lines = [f"{usage} [options], its code below, or %flow {kind} NAME URL"]
    else:
        found = [k for k in kinds("operator") if k.name == kind]
        lines = [f"%%flow {kind} NAME --from A ... [options]"]
    for each in found:
        lines += ["", f"{each.name}: {each.help}"]
        for name, option in each.options.items():
            default = "" if option.default is None else f" (default: {option.default})"
            lines.append(f"  --{name.replace('_', '-'):<14} {option.help}{default}")
    return "\n".join(lines)
