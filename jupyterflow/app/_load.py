"""A flow from a `.py` file or a notebook."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyterflow.model import FlowError, did_you_mean

if TYPE_CHECKING:
    from jupyterflow._flow import Flow


def load_flow(file: str, name: str = "") -> Flow:
    """The flow that *file* defines; *name* says which where there are several.

    A `.py` file is executed, not as `__main__`, and the `Flow`s among its globals are taken. What is taken of a
    notebook is in `_notebook.flows_of`. Raises FlowError JF722 (no such file), JF723 (it raised) or JF724
    (no flow in it).
    """
    path = Path(file).expanduser()
    if path.suffix not in (".py", ".ipynb"):
        raise FlowError("JF722", f"'{file}' is neither a .py file nor a notebook (.ipynb)")
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob(f"*{path.suffix}")])
        raise FlowError("JF722", f"there is no file '{file}'{near or ' - check the path'}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if path.suffix == ".py":
        flows = _of_script(path)
    else:
        from jupyterflow.app._notebook import flows_of

        flows = flows_of(path, _execute)
    if name:
        if name not in flows:
            raise FlowError("JF724", f"'{file}' defines no flow '{name}'{did_you_mean(name, flows) or _among(flows)}")
        return flows[name]
    if not flows:
        raise FlowError("JF724", f"'{file}' defines no flow - it needs a global `flow = jf.Flow(...)`, or %%flow cells")
    if len(flows) > 1:
        raise FlowError("JF724", f"'{file}' defines several flows: say which with --flow{_among(flows)}")
    return next(iter(flows.values()))


def _among(flows: dict[str, Flow]) -> str:
    return f" - it has {', '.join(flows)}" if flows else " - it has none"


def _of_script(path: Path) -> dict[str, Flow]:
    from jupyterflow._flow import Flow, Handle

    name = path.stem if path.stem not in sys.modules else f"{path.stem}_flow"
    namespace: dict[str, Any] = {"__name__": name, "__file__": str(path.resolve())}
    filename, text = str(path.resolve()), path.read_text(encoding="utf-8")
    _execute(lambda: exec(compile(text, filename, "exec", dont_inherit=True), namespace), filename, path.name)
    found: dict[str, Flow] = {}
    for value in namespace.values():
        flow = value.flow if isinstance(value, Handle) else value
        if isinstance(flow, Flow):
            found.setdefault(flow.name, flow)
    return found


def _execute(call: Callable[[], None], filename: str, where: str) -> None:
    """Call it; whatever it raises is one line that says where."""
    try:
        call()
    except FlowError as error:
        raise FlowError(error.code, f"{where}: {error.message}") from error
    except SyntaxError as error:
        raise FlowError("JF723", f"{where}, line {error.lineno}: {error.msg}") from None
    except Exception as error:
        raise _raised(error, where, filename) from error


def _raised(error: Exception, where: str, filename: str) -> FlowError:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == filename]
    line = f", line {frames[-1].lineno}" if frames else ""
    reason = " ".join(str(error).split())
    return FlowError("JF723", f"{where}{line}: {type(error).__name__}: {reason}"[:500])
