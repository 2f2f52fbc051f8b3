"""file:, csv: and json: sources: a split a file, resumed from where it was."""

from __future__ import annotations

import csv
import glob
import gzip
import io
import itertools
import os
from typing import Any

import orjson

from jupyterflow.model import Batch, FlowError, Node
from jupyterflow.nodes.base import Kind, NodeContext, Option, now_ms
from jupyterflow.nodes.calls import resume
from jupyterflow.nodes.sources import SOURCE_OPTIONS

_BYTES_A_RECORD = 100  # what a read guesses, to turn a number of records into a number of bytes


def expand(path: str) -> list[str]:
    """The files that a path or glob names (`**` goes through folders), sorted, as absolute paths."""
    path = os.path.expanduser(path)
    found = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else [path]
    return [os.path.abspath(name) for name in found if os.path.isfile(name)]


class FileSplits:
    """Files of lines, CSV rows or JSON Lines."""

    bounded = True

    def splits(self, node: Node, tasks: int) -> list[list[dict[str, Any]]]:
        path = node.options["path"]
        names = expand(path)
        if not names:
            raise FlowError("JF303", f"node '{node.name}': no file at '{path}' - check the path (from {os.getcwd()})")
        if tasks == 1:
            return [[{"path": name} for name in names]]
        out: list[list[dict[str, Any]]] = [[] for _ in range(tasks)]
        sizes = [0] * tasks
        # The largest first, each to the task that has the least to read: all end at about the same time.
        for size, name in sorted((-os.path.getsize(name), name) for name in names):
            least = sizes.index(min(sizes))
            out[least].append({"path": name})
            sizes[least] += 1 - size
        return out

    def open(self, node: Node, split: dict[str, Any], position: Any, context: NodeContext) -> FileReader:
        options = node.options
        kind = {"file": FileReader, "json": JSONReader, "csv": CSVReader}[node.kind]
        return kind(
            split["path"],
            position or (0, 0),
            options.get("encoding") or "utf-8",
            options.get("errors") or "strict",
            context,
        )


class FileReader:
    """Lines of a file, without their ends. Its position is the number of (decompressed) bytes and of lines read."""

    def __init__(self, path: str, position: tuple[int, int], encoding: str, errors: str, context: NodeContext) -> None:
        self.path, self.encoding, self.errors, self.context = path, encoding, errors, context
        self.position: Any = position
        self.done = False
        self.rows: list[int] | None = None
        try:
            self.file: Any = gzip.open(path) if path.endswith(".gz") else open(path, "rb")  # noqa: SIM115
            if position[0]:
                self.file.seek(position[0])
        except OSError as error:
            raise FlowError(
                "JF403", f"node '{context.node}': cannot read '{path}': {error.strerror or error}"
            ) from error

    @property
    def count(self) -> int:
        return int(self.position[1])

    def lines(self, limit: int) -> list[str]:
        """The next lines, about *limit* of them; `rows` says which they are where some could not be decoded."""
        self.rows = None
        raw = self.file.readlines(limit * _BYTES_A_RECORD)
        if not raw:
            self.done = True
            return []
        data = b"".join(raw)
        self.position = (self.position[0] + len(data), self.position[1] + len(raw))
        self.context.counters.bytes_in += len(data)
        try:
            text = data.decode(self.encoding, self.errors)
        except UnicodeDecodeError:
            batch = Batch(list(raw))
            texts = map(bytes.decode, raw, itertools.repeat(self.encoding), itertools.repeat(self.errors))
            good, self.rows = resume(texts, len(raw), lambda row, error: self.context.fail(batch, row, error))
            return [line.rstrip("\r\n") for line in good]
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()
        if "\r" in text:
            lines = [line.rstrip("\r") for line in lines]
        return lines

    def _keep(self, rows: list[int]) -> None:
        before = self.rows
        self.rows = rows if before is None else [before[row] for row in rows]

    def read(self, limit: int) -> Batch | None:
        lines = self.lines(limit)
        return Batch(lines, None, now_ms()) if lines else None

    def close(self) -> None:
        self.file.close()


class JSONReader(FileReader):
    """JSON Lines: a value a line; blank lines are passed over."""

    def read(self, limit: int) -> Batch | None:
        lines = self.lines(limit)
        if not all(map(str.strip, lines)):
            self._keep([row for row, line in enumerate(lines) if line.strip()])
            lines = [line for line in lines if line.strip()]
        if not lines:
            return None
        batch = Batch(lines, None, now_ms())
        values, good = resume(
            map(orjson.loads, lines), len(lines), lambda row, error: self.context.fail(batch, row, error)
        )
        if good is not None:
            self._keep(good)
        return Batch(values, None, batch.timestamps)


class CSVReader(FileReader):
    """CSV rows as dicts, named by the first row. Going on counts rows, not bytes: a row may span lines."""

    def __init__(self, path: str, position: tuple[int, int], encoding: str, errors: str, context: NodeContext) -> None:
        super().__init__(path, (0, 0), encoding, errors, context)
        # A bad byte must cost its own row, not the file: it is let through, and found below.
        lenient = "surrogateescape" if errors == "strict" else errors
        self.table = csv.DictReader(io.TextIOWrapper(self.file, encoding, lenient, newline=""))
        self.position = position
        for _ in itertools.islice(self.table, position[1]):
            pass

    def read(self, limit: int) -> Batch | None:
        values: list[Any] = list(itertools.islice(self.table, limit))
        self.position = (0, self.position[1] + len(values))
        self.done = len(values) < limit
        self.rows = None
        if not values:
            return None
        batch = Batch(values, None, now_ms())
        read = self.file.tell()
        self.context.counters.bytes_in += read - self._read
        self._read = read
        if self.errors == "strict":
            texts = map(_text, values)
            _, self.rows = resume(texts, len(values), lambda row, error: self.context.fail(batch, row, error))
        return batch if self.rows is None else batch.take(self.rows)

    _read = 0


def _text(row: dict[Any, Any]) -> bytes:
    """The row's text as UTF-8. Raises UnicodeEncodeError where it had a byte that is none of its encoding."""
    return "".join(map(str, row.values())).encode()


_OPTIONS = {
    **SOURCE_OPTIONS,
    "path": Option(str, None, "a file or a glob; .gz is decompressed"),
    "encoding": Option(str, "utf-8", "the text's encoding"),
    "errors": Option(
        str,
        "strict",
        "what a bad byte does",
        choices=("strict", "replace", "ignore", "surrogateescape", "backslashreplace"),
    ),
}
KINDS = [
    Kind("file", "source", "the lines of files", _OPTIONS, 0, connector=FileSplits()),
    Kind("csv", "source", "the rows of CSV files, as dicts", _OPTIONS, 0, connector=FileSplits()),
    Kind("json", "source", "the values of JSON Lines files", _OPTIONS, 0, connector=FileSplits()),
]
