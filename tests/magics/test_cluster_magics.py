"""The magics with a Kafka and a worker."""

import os
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import pytest

from jupyterflow.cluster import check

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]


@pytest.fixture
def own_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="jfm", dir="/tmp" if os.path.isdir("/tmp") else None) as folder:
        monkeypatch.setenv("JUPYTERFLOW_DIR", folder)
        yield
        from jupyterflow.cluster.client import down

        down(purge=True)
        check.close()


@pytest.fixture(autouse=True)
def unloaded_first(own_home: None, shell: Any) -> None:
    """The shell's connection is closed before its Kafka is taken down."""


def run(shell: Any, cell: str) -> Any:
    result = shell.run_cell(cell, store_history=True)
    result.raise_error()
    return result.result


def session(shell: Any) -> Any:
    return shell.magics_manager.registry["FlowMagics"].session


def test_a_flows_life_in_cells(shell: Any, capsys: Any) -> None:
    run(shell, "%flow new life")
    run(shell, "%%flow source numbers --rate 500\nimport itertools\nyield from itertools.count(position or 0)")
    run(shell, "%%flow map factors --from numbers\ndef factors(n: int) -> list[int]:\n    return [n, n + 1]")
    run(shell, "%%flow sink show --from factors\nprint('pair', value)")
    run(shell, "%flow sink seen collect --from factors")
    assert len(run(shell, "%flow up --workers 1").workers) == 1
    live = run(shell, "%flow deploy")
    limit = time.monotonic() + 60
    while not (live.collect("seen") and live.prints("show") and live.sample("factors")):
        assert time.monotonic() < limit, "nothing came"
        time.sleep(0.1)
    assert live.prints("show")[0].startswith("pair [")
    assert run(shell, "%flow status")[0]["where"] == "workers"
    assert {row["node"] for row in run(shell, "%flow metrics")} == {"numbers", "factors", "show", "seen"}
    assert run(shell, "%flow tap factors") is not None
    assert len(run(shell, "%flow workers")) == 1
    code = session(shell).flow.nodes["factors"].code

    # Another kernel: nothing of this session is left.
    run(shell, "%reload_ext jupyterflow.magics")
    assert session(shell).flows == {}
    run(shell, "%flow connect")
    assert [row["flow"] for row in run(shell, "%flow ls")] == ["life"]
    capsys.readouterr()
    run(shell, "%flow attach life")
    attached = session(shell).runs["life"]
    assert attached.state in ("running", "idle")
    assert session(shell).flow.nodes["factors"].code == code
    run(shell, "%flow tree")
    assert "factors" in capsys.readouterr().out
    run(shell, "%%flow sink show --from factors\nprint('two', value)")
    run(shell, "%flow stop")
    assert attached.state == "stopped"
    seen = attached.collect("seen")
    assert seen == [[n, n + 1] for n in range(len(seen))]
    run(shell, "%flow rm --flow life")
    assert run(shell, "%flow ls") == []
    run(shell, "%flow down --purge")
    assert session(shell).cluster is None
