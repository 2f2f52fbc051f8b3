"""flow -> plan."""

from jupyterflow.plan.explain import explain
from jupyterflow.plan.plan import Output, Plan, Stage, keyed_nodes, needs_key, plan

__all__ = ["Output", "Plan", "Stage", "explain", "keyed_nodes", "needs_key", "plan"]
