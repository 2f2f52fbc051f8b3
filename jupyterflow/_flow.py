"""The fluent flow: declare nodes with methods, run them here or deploy them."""

from __future__ import annotations

import inspect
import typing
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jupyterflow.model import Flow as ModelFlow
from jupyterflow.model import FlowError, Node, Role, did_you_mean
from jupyterflow.nodes.calls import check_function
from jupyterflow.nodes.catalogue import check_options, find, parse_url
from jupyterflow.nodes.connectors import ConnectorSpec
from jupyterflow.nodes.sources import source_names

if TYPE_CHECKING:
    from jupyterflow._run import Run


class Handle:
    """The output of a node: call a node method on it to read from there, twice to fan out."""

    def __init__(self, flow: Flow, name: str) -> None:
        self.flow, self.name = flow, name

    def __repr__(self) -> str:
        return f"<{self.name} of flow {self.flow.name}>"

    def map(self, name: str, fn: Callable[..., Any] | None = None, **options: Any) -> Handle:
        """One value out for each value in: what *fn(value)* returns, None included."""
        return self.flow.operator("map", name, [self], fn, **options)

    def filter(self, name: str, fn: Callable[..., Any] | None = None, **options: Any) -> Handle:
        """Keeps the records for which *fn(value)* is true."""
        return self.flow.operator("filter", name, [self], fn, **options)

    def flat_map(self, name: str, fn: Callable[..., Any] | None = None, **options: Any) -> Handle:
        """Any number of values out: each item of what *fn(value)* returns or yields."""
        return self.flow.operator("flat_map", name, [self], fn, **options)

    def key_by(self, name: str, fn: Callable[..., Any] | None = None, **options: Any) -> Handle:
        """Gives each record the key *fn(value)*: str, bytes, int, bool, None, float or a tuple of these."""
        return self.flow.operator("key_by", name, [self], fn, **options)

    def reduce(self, name: str, fn: Callable[..., Any] | None = None, **options: Any) -> Handle:
        """Folds the values of a key with *fn(accumulated, value)*; the first value is the start."""
        return self.flow.operator("reduce", name, [self], fn, **options)

    def aggregate(self, name: str, initial: Any = None, fn: Callable[..., Any] | None = None, **options: Any) -> Handle:
        """Folds the values of a key into *initial* (a value, or a function that makes it)."""
        return self.flow.operator("aggregate", name, [self], fn, initial=initial, **options)

    def count(self, name: str, **options: Any) -> Handle:
        """How many records a key has had."""
        return self.flow.operator("count", name, [self], None, **options)

    def union(self, name: str, *others: Handle | str, **options: Any) -> Handle:
        """A named merge of this and *others*."""
        return self.flow.union(name, self, *others, **options)

    def sink(self, name: str, target: Any = None, **options: Any) -> Handle:
        """Ends here: a function, `collect`, or a URL such as `kafka://totals?codec=json`."""
        return self.flow.sink(name, target, [self], **options)


class Flow(ModelFlow):
    """A flow: declare sources, operators and sinks, then `run()` it here or `deploy()` it to workers."""

    def source(self, name: str, source: Any = None, *, replace: bool = False, **options: Any) -> Handle:
        """Add a source: a function, a generator function, a list, a connector or a URL (`kafka://bids`)."""
        where = self._named(name)
        if isinstance(source, str):
            node = parse_url(source, "source", where)
        elif isinstance(source, ConnectorSpec):
            find("source", source.scheme, where)
            node = source.node("source")
        elif callable(source):
            source_names(source, where)
            node = Node("", "source", "function", fn=source, code=_code(source))
        elif isinstance(source, Iterator | AsyncIterator):
            node = Node("", "source", "function", fn=lambda: source)
        elif isinstance(source, Iterable) and not isinstance(source, bytes | bytearray):
            node = Node("", "source", "list", options={"items": list(source)})
        else:
            raise FlowError(
                "JF114", f"{where}: {type(source).__name__} is no source - a function, a generator, a list or a URL"
            )
        return self._declare(name, node, [], options, replace)

    def operator(
        self, kind: str, name: str, upstreams: Sequence[Handle | str], fn: Callable[..., Any] | None = None,
        *, replace: bool = False, **options: Any,
    ) -> Handle:  # fmt: skip
        """Add an operator of a kind of the catalogue."""
        where = self._named(name)
        found = find("operator", kind, where)
        if found.positional and not callable(fn):
            raise FlowError("JF113", f"{where}: {kind} needs a function, got {type(fn).__name__} - pass one")
        return self._declare(name, Node("", "operator", kind, fn=fn, code=_code(fn)), upstreams, options, replace)

    def union(self, name: str, *upstreams: Handle | str, replace: bool = False, **options: Any) -> Handle:
        """A named merge."""
        return self.operator("union", name, upstreams, None, replace=replace, **options)

    def sink(
        self,
        name: str,
        target: Any = None,
        upstreams: Sequence[Handle | str] = (),
        *,
        replace: bool = False,
        **options: Any,
    ) -> Handle:
        """Add a sink: a function, `collect`, a connector or a URL."""
        where = self._named(name)
        if isinstance(target, str):
            node = parse_url(target, "sink", where)
        elif isinstance(target, ConnectorSpec):
            find("sink", target.scheme, where)
            node = target.node("sink")
        elif callable(target):
            node = Node("", "sink", "function", fn=target, code=_code(target))
        else:
            raise FlowError("JF114", f"{where}: {type(target).__name__} is no sink - a function, 'collect' or a URL")
        return self._declare(name, node, upstreams, options, replace)

    def node(self, name: str) -> Handle:
        """A handle on the output of a node that is there."""
        if name not in self.nodes:
            raise FlowError("JF104", f"flow '{self.name}': unknown node '{name}'{did_you_mean(name, self.nodes)}")
        return Handle(self, name)

    def _named(self, name: Any) -> str:
        """Where an error is about the node *name*. Raises FlowError where that is no name."""
        self.check_name(name)
        return self._where(name)

    def _declare(
        self, name: str, node: Node, upstreams: Sequence[Handle | str], options: dict[str, Any], replace: bool
    ) -> Handle:
        where = self._where(name)
        node.name = name
        node.options = {**node.options, **{k: v for k, v in options.items() if v is not None}}
        kind = find(node.role, node.kind, where)
        check_options(kind, node.options, where)
        check_function(node, kind, where)
        names = [up.name if isinstance(up, Handle) else up for up in upstreams]
        with self._unless_types_differ(name):
            self.add(node, names, replace=replace)
        return Handle(self, name)

    @contextmanager
    def _unless_types_differ(self, name: str) -> Iterator[None]:
        """Change the flow; where the types along the edges of *name* do not fit then, change it back."""
        nodes, edges = dict(self.nodes), self.edges
        try:
            yield
            self._check_types(self.nodes[name], self.upstreams(name), self._where(name))
            for below in self.downstreams(name):
                self._check_types(self.nodes[below], [name], self._where(below))
        except FlowError:
            self.nodes, self.edges = nodes, edges
            raise

    def _check_types(self, node: Node, upstreams: list[str], where: str) -> None:
        wanted = _hints(node.fn).get("in")
        if wanted is None or node.kind in ("reduce", "aggregate") or node.options.get("batch"):
            return
        for up in upstreams:
            given = self._output_type(up, set())
            if given is not None and not _fits(given, wanted):
                raise FlowError(
                    "JF115",
                    f"{where}: it takes {_type_name(wanted)} but '{up}' gives {_type_name(given)} - change one of the hints",
                )

    def _output_type(self, name: str, seen: set[str]) -> Any:
        """The type that a node's function says it gives; None where that is not known."""
        node = self.nodes.get(name)
        if node is None or name in seen:
            return None
        if node.kind in ("filter", "key_by", "union"):
            ups = self.upstreams(name)
            return self._output_type(ups[0], seen | {name}) if len(ups) == 1 else None
        if node.kind == "count":
            return int
        if node.kind in ("file",):
            return str
        if node.kind == "csv":
            return dict
        if node.fn is None or node.options.get("batch"):
            return None
        given = _hints(node.fn).get("out")
        if node.kind == "flat_map" or node.role == "source":
            return _item_type(given)
        return given

    def connect(self, upstream: str, downstream: str) -> None:
        """Add an edge between two nodes that are there; cycles and duplicates are refused."""
        with self._unless_types_differ(downstream):
            super().connect(upstream, downstream)

    def run(self, **options: Any) -> Run:
        """Run it in this process; returns at once."""
        from jupyterflow._run import Run

        return Run(self, **options)

    def deploy(self, cluster: Any, **options: Any) -> Any:
        """Deploy it to the workers of a cluster (`guarantee`, `commit_interval` in seconds)."""
        return cluster.deploy(self, **options)

    def explain(self, tasks: int = 1) -> str:
        """The logical, the physical and the coded plan, as text."""
        from jupyterflow.plan import explain, plan

        return explain(self, plan(self, tasks=tasks))

    def __repr__(self) -> str:
        return f"<Flow {self.name}: {len(self.nodes)} nodes>"

    def tree(self) -> str:
        """The flow as a tree of text."""
        from jupyterflow.views.tree import tree

        return tree(self)

    def include(self, *paths: str) -> None:
        """Send these modules along when the flow is deployed."""
        self.includes = [*self.includes, *paths]

    includes: list[str] = []  # noqa: RUF012 - replaced, never changed in place


def _code(fn: Callable[..., Any] | None) -> str | None:
    if fn is None:
        return None
    try:
        return inspect.getsource(fn)
    except (OSError, TypeError):
        return None


def _hints(fn: Callable[..., Any] | None) -> dict[str, Any]:
    """The types of a function's first argument (`in`) and result (`out`), where it says."""
    if fn is None:
        return {}
    try:
        hints = typing.get_type_hints(fn)
        parameters = list(inspect.signature(fn).parameters)
    except Exception:
        return {}
    out = {"out": hints["return"]} if "return" in hints else {}
    if parameters and parameters[0] in hints:
        out["in"] = hints[parameters[0]]
    return out


def _item_type(given: Any) -> Any:
    """The type of the items of what a function gives, where it says one: `int` of `list[int]`."""
    inner, outer = typing.get_args(given), typing.get_origin(given)
    if outer is tuple:
        return inner[0] if len(inner) == 2 and inner[1] is Ellipsis else None
    one = isinstance(outer, type) and issubclass(outer, Iterable | AsyncIterable) and not issubclass(outer, Mapping)
    return inner[0] if one and inner else None


def _fits(given: Any, wanted: Any) -> bool:
    """Whether a value of one type can be passed for another; in doubt, yes."""
    if Any in (given, wanted) or object is wanted or isinstance(given, typing.TypeVar):
        return True
    if given is None or given is type(None):
        given = type(None)
    outer = typing.get_origin(wanted)
    if outer is typing.Union or type(wanted).__name__ == "UnionType":
        return any(_fits(given, part) for part in typing.get_args(wanted))
    inner = typing.get_origin(given)
    if inner is typing.Union or type(given).__name__ == "UnionType":
        return any(_fits(part, wanted) for part in typing.get_args(given))
    a, b = inner or given, outer or wanted
    if not isinstance(a, type) or not isinstance(b, type):
        return True
    try:
        return issubclass(a, b) or (issubclass(a, int) and b in (float, complex)) or (a is float and b is complex)
    except TypeError:  # a protocol or a TypedDict cannot be asked
        return True


def _type_name(kind: Any) -> str:
    return getattr(kind, "__name__", None) if not typing.get_args(kind) and hasattr(kind, "__name__") else str(kind)  # type: ignore[return-value]


__all__ = ["Flow", "Handle", "Role"]
