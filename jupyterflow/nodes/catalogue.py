"""The catalogue of node kinds, ours and plugins', and the URLs that name connectors."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

from jupyterflow.model import FlowError, Node, Role, did_you_mean
from jupyterflow.nodes.base import Kind, option_error


@cache
def _kinds() -> dict[tuple[Role, str], Kind]:
    from importlib.metadata import entry_points

    from jupyterflow.nodes import files, folds, kafka, sinks, sources, stateless

    kinds: list[Kind] = []
    for module in (stateless, folds, sources, files, kafka, sinks):
        kinds += module.KINDS
    for point in entry_points(group="jupyterflow.nodes"):
        loaded = point.load()
        kinds += [loaded] if isinstance(loaded, Kind) else list(loaded)
    return {(kind.role, kind.name): kind for kind in kinds}


def kinds(role: Role | None = None) -> list[Kind]:
    """All kinds, or those of a role."""
    return [kind for kind in _kinds().values() if role is None or kind.role == role]


def find(role: Role, name: str, where: str) -> Kind:
    """The kind of that role and name. Raises FlowError where there is none."""
    kind = _kinds().get((role, name))
    if kind is None:
        known = [k.name for k in kinds(role)]
        what = "kind of operator" if role == "operator" else f"scheme of a {role}"
        raise FlowError(
            "JF108", f"{where}: unknown {what} '{name}'{did_you_mean(name, known) or ' - one of ' + ', '.join(known)}"
        )
    return kind


def check_options(kind: Kind, options: dict[str, Any], where: str) -> None:
    """Raise FlowError for an option that the kind does not have or that does not fit."""
    for name, value in options.items():
        if name not in kind.options:
            hint = did_you_mean(name, kind.options) or f" - it has {', '.join(kind.options) or 'none'}"
            raise FlowError("JF110", f"{where}: {kind.name} has no option '{name}'{hint}")
        if problem := option_error(kind.name, name, value, kind.options[name]):
            raise FlowError("JF111", f"{where}: {problem}")
    if "codec" in options and options["codec"] is not None:
        from jupyterflow.codecs import get as get_codec

        try:
            get_codec(options["codec"])
        except FlowError as error:
            raise FlowError("JF109", f"{where}: {error.message}") from None
    if "topic" in kind.options and not options.get("topic"):
        raise FlowError("JF111", f"{where}: no topic - write kafka://TOPIC")
    if "path" in kind.options and not options.get("path"):
        raise FlowError("JF111", f"{where}: no path - write {kind.name}:PATH")


def validate(flow: Any) -> None:
    """Check every node of a flow against the catalogue. Raises FlowError for the first that does not fit."""
    for node in flow.nodes.values():
        where = f"flow '{flow.name}', node '{node.name}'"
        kind = find(node.role, node.kind, where)
        check_options(kind, node.options, where)
        if node.fn is None and kind.positional != 0:
            raise FlowError("JF113", f"{where}: its function is missing - run its cell again")


def parse_url(url: str, role: Role, where: str) -> Node:
    """The unnamed node that a URL such as `kafka://bids?codec=json` or `csv:data/*.csv` stands for."""
    scheme, colon, rest = url.partition(":")
    if not colon:
        rest = ""
    find(role, scheme, where)
    path, _, query = rest.partition("?") if "?" in rest and "=" in rest.rpartition("?")[2] else (rest, "", "")
    if path.startswith("//"):
        path = path[2:]
    raw = dict(parse_qsl(query, keep_blank_values=True))
    kind = find(role, scheme, where)
    options: dict[str, Any] = {}
    for name, text in raw.items():
        option = kind.options.get(name)
        options[name] = _typed(text, option.type if option else str)
    if "topic" in kind.options:
        options["topic"] = path.rstrip("/")
    elif "path" in kind.options:
        options["path"] = path
    elif path:
        raise FlowError("JF111", f"{where}: {scheme} takes no path, got '{path}' - write {scheme}")
    return Node("", role, scheme, options=options)


def _typed(text: str, wanted: Any) -> Any:
    types: Iterable[type] = wanted if isinstance(wanted, tuple) else (wanted,)
    for kind in types:
        try:
            if kind is bool:
                return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
            return kind(text)
        except (ValueError, KeyError, TypeError):
            continue
    return text
