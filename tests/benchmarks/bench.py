"""JupyterFlow beside a hand-written loop, on one broker and one core: `scripts/bench`."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))

WORKLOADS = ("stateless", "words")


def main() -> int:
    """Run what is asked for and print it; 1 if any output was wrong."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("what", nargs="?", default="all", choices=[*WORKLOADS, "start", "all"])
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("-n", "--times", type=int, default=3, help="runs of each, interleaved; the median counts")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse_args()

    from jupyterflow import broker

    os.environ.setdefault("JUPYTERFLOW_CACHE", str(broker.cache()))
    home = tempfile.mkdtemp(prefix="jfb", dir="/tmp" if Path("/tmp").is_dir() else None)
    os.environ["JUPYTERFLOW_DIR"] = home
    os.environ.pop("JUPYTERFLOW_KEY_FILE", None)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores{load}")
    right = True
    try:
        chosen = [name for name in WORKLOADS if options.what in (name, "all")]
        if chosen:
            right = throughput(chosen, options.records, options.times, options.quiet)
        if options.what in ("start", "all"):
            from _bench_start import start

            start(options.times)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return 0 if right else 1


def throughput(workloads: list[str], records: int, times: int, quiet: bool) -> bool:
    """Both sides of each workload in turn; whether every output was right."""
    from _bench_world import GUARANTEE, Result, world

    def say(text: str) -> None:
        if not quiet or text.startswith("WRONG"):
            print(f"  {text}", flush=True)

    def middle(rates: Iterable[float]) -> str:
        known = [rate for rate in rates if rate == rate]
        return f"{median(known):,.0f} /s" if known else "-"

    def line(who: str, results: list[Result]) -> None:
        rates, micros = [r.rate for r in results], [r.micros for r in results]
        steady = middle(r.steady for r in results)
        print(
            f"{who:12} {median(rates):>10,.0f} /s whole run ({min(rates):,.0f} to {max(rates):,.0f})"
            f" {steady:>12} steady {median(micros):>6.2f} us CPU a record"
            f"  {'right' if all(r.right for r in results) else 'WRONG'}",
            flush=True,
        )

    right = True
    with world(say) as here:
        for workload in workloads:
            flow: list[Result] = []
            hand: list[Result] = []
            for _ in range(times):
                hand.append(here.by_hand(workload, records))
                say(
                    f"by hand      {hand[-1].rate:,.0f} /s, {middle([hand[-1].steady])} steady, {hand[-1].micros:.2f} us"
                )
                flow.append(here.by_flow(workload, records))
                say(
                    f"JupyterFlow  {flow[-1].rate:,.0f} /s, {middle([flow[-1].steady])} steady, {flow[-1].micros:.2f} us"
                )
            print(f"{workload}, {GUARANTEE[workload]}, {records:,} records, median of {times}")
            line("by hand", hand)
            line("JupyterFlow", flow)
            rate = median(r.rate for r in flow) / median(r.rate for r in hand)
            cpu = median(r.micros for r in hand) / median(r.micros for r in flow)
            print(f"ratio        {rate:.2f} whole run, {cpu:.2f} by CPU a record", flush=True)
            right = right and all(r.right for r in [*flow, *hand])
    return right


if __name__ == "__main__":
    sys.exit(main())
