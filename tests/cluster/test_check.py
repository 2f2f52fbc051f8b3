"""Before anything is deployed, each function is loaded in a clean process, and told what is missing."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyterflow.cluster import check, payload


@pytest.fixture(scope="module", autouse=True)
def ended() -> Iterator[None]:
    yield
    server = check._server
    check.close()
    assert server is None or server.poll() is not None


def space(cell: str) -> dict[str, Any]:
    made: dict[str, Any] = {"__name__": "__main__", "_ih": [cell]}
    exec(compile(cell, "<ipython-input-1-abc>", "exec", dont_inherit=True), made)
    return made


def test_what_loads_has_no_problems_and_a_warm_check_is_quick() -> None:
    cell = "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef n(v):\n    print('x')\n    return P(v)\n"
    package = payload.pack({"n": space(cell)["n"], "builtin": len})
    assert check.check(package) == []
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        assert payload.check(package) == []
        times.append(time.perf_counter() - begun)
    assert min(times) < 0.05


def test_a_missing_module_is_one_line_with_the_fix() -> None:
    package = payload.pack({"n": space("def n(v):\n    import jf_absent.deep\n    return jf_absent\n")["n"]})
    assert check.check(package) == [
        "module 'jf_absent' is not there - install it for the workers, or `flow.include(\"jf_absent.py\")` if it is yours"
    ]


def test_an_import_that_the_code_can_do_without_is_no_problem(tmp_path: Path) -> None:
    file = tmp_path / "cell.py"
    file.write_text(
        "def n(v):\n    try:\n        import jf_absent\n    except ImportError:\n        jf_absent = None\n    return v\n"
    )
    made: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(file.read_text(), str(file), "exec"), made)
    assert check.check(payload.pack({"n": made["n"]})) == []


def test_a_module_beside_the_notebook_is_found_here_and_read_anew_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jf_near.py").write_text("def clean(v):\n    return v\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    made = space("from jf_near import clean\ndef n(v):\n    return clean(v)\n")
    package = payload.pack({"n": made["n"]}, modules_dir=tmp_path)
    sys.modules.pop("jf_near", None)
    assert check.check(package) == []
    (tmp_path / "jf_near.py").write_text("def other_name(v):\n    return v\n")
    (line,) = check.check(package)
    assert line.startswith("node 'n': does not load here: AttributeError")


def test_code_that_hangs_or_ends_the_process_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "jf_slow.py"
    module.write_text("def f(): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    made = space("from jf_slow import f\ndef n(v):\n    return f()\n")
    package = payload.pack({"n": made["n"]}, modules_dir=tmp_path)
    sys.modules.pop("jf_slow", None)
    module.write_text("import signal\nsignal.pause()\n")
    assert "takes longer than 0.3 s" in check.check(package, timeout=0.3)[0]
    module.write_text("import os\nos._exit(7)\n")
    assert "ends the process (exit code 7)" in check.check(package)[0]
    assert check.check(payload.pack({"n": len})) == []


def test_it_comes_back_when_its_process_was_killed() -> None:
    package = payload.pack({"n": len})
    assert check.check(package) == []
    assert check._server is not None
    check._server.kill()
    check._server.wait()
    assert check.check(package) == []


def test_it_ends_with_the_notebook() -> None:
    program = (
        "import os\nfrom jupyterflow.cluster import check, payload\n"
        "assert check.check(payload.pack({'n': len})) == []\nprint(check._server.pid, flush=True)\nos._exit(1)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert os.getpid() != pid
