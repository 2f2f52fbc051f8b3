"""Counters summed over tasks, and what is derived from them: rates, queues, latencies."""

from jupyterflow.telemetry.meter import Meter, percentile

__all__ = ["Meter", "percentile"]
