"""The clean process behind `check`: it has loaded dill and nothing of the notebook, and forks for each question.

Frames on stdin and stdout: four bytes of length, then a pickle; a question is (package, seconds), an answer a list of
lines. It ends with its stdin, and by itself after a quarter of an hour without a question.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import pickle
import select
import signal
import struct
import sys
import sysconfig
from pathlib import Path
from types import FunctionType

import dill  # noqa: F401  # warm: a fork has it at once

from jupyterflow.cluster import _modules, _names, payload
from jupyterflow.model import FlowError

_IDLE = 900.0  # s


def main() -> None:
    """Answer until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Code that is looked at may print: the channel is a copy, what it believes to be stdout goes to stderr's place.
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    questions = os.fdopen(os.dup(0), "rb", buffering=0)
    os.dup2(nothing, 0)
    while select.select([questions], [], [], _IDLE)[0]:
        head = _read(questions.fileno(), 4)
        body = _read(questions.fileno(), struct.unpack(">I", head)[0]) if len(head) == 4 else b""
        if not body:
            return
        package, timeout = pickle.loads(body)
        lines = _forked(package, timeout)
        data = pickle.dumps(lines)
        answers.write(struct.pack(">I", len(data)) + data)
        answers.flush()
        if not lines:
            _preload(package)


def _read(descriptor: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            return b""
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _forked(package: payload.Package, timeout: float) -> list[str]:
    """`problems` in a child that is thrown away, so that one look leaves nothing for the next."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            os.close(reader)
            with os.fdopen(writer, "wb") as out:
                out.write(json.dumps(problems(package)).encode())
        os._exit(0)
    os.close(writer)
    data = b""
    with os.fdopen(reader, "rb", buffering=0) as answer:
        while True:
            if not select.select([answer], [], [], timeout)[0]:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return [f"loading the functions takes longer than {timeout:g} s - do less when modules are imported"]
            part = answer.read(1 << 16)
            if not part:
                break
            data += part
    _, status = os.waitpid(child, 0)
    try:
        return [str(line) for line in json.loads(data)]
    except ValueError:
        code = os.waitstatus_to_exitcode(status)
        return [f"loading the functions ends the process (exit code {code}) - look at the modules they import"]


def problems(package: payload.Package) -> list[str]:
    """What would go wrong in a worker on this machine, a line each."""
    sys.path += package.folders
    found: dict[str, None] = {}
    absent: set[str] = set()
    included = {name.split("/")[0].removesuffix(".py") for name in package.includes}
    for module in package.modules:
        if module not in included and not _there(module):
            absent.add(module)
            found[_modules.missing(module)] = None
    for node in package.nodes:
        try:
            function = payload.load(package, [node])[node]
        except FlowError as error:
            if not any(f"module '{name}'" in error.message for name in absent):
                found[error.message] = None
            continue
        if isinstance(function, FunctionType):
            for name in _names.of_code(function.__code__).loads:
                known = name in function.__globals__ or _names.is_builtin(name) or name in _names.OWN
                if not known and name not in _names.of_code(function.__code__).stores:
                    found[
                        f"node '{node}': the name '{name}' is not defined in a worker - define it in the notebook"
                    ] = None
    return list(found)


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _preload(package: payload.Package) -> None:
    """Import what the flow needs of installed packages: the next look is fast. The user's own files are never kept."""
    roots = [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")]
    for module in package.modules:
        with contextlib.suppress(BaseException):
            spec = importlib.util.find_spec(module)
            if spec and spec.origin and any(Path(spec.origin).is_relative_to(root) for root in roots):
                importlib.import_module(module)


if __name__ == "__main__":
    main()
