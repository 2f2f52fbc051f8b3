"""The plan as text: logical, physical and coded, one under the other."""

from __future__ import annotations

from jupyterflow.model import Flow
from jupyterflow.nodes.kafka import codec_name
from jupyterflow.plan.plan import Plan, Stage


def explain(flow: Flow, plan: Plan) -> str:
    """What the flow says, how it is cut into stages and tasks, and how values cross each topic."""
    lines = [f"flow {flow.name}", "", "Logical"]
    for name in flow.order():
        node = flow.nodes[name]
        ups = flow.upstreams(name)
        lines.append(f"  {name}: {node.role} {node.kind}" + (f" <- {', '.join(ups)}" if ups else ""))
    lines += ["", f"Physical ({len(plan.stages)} stages, {plan.tasks} tasks)"]
    for stage in plan.stages:
        lines.append(f"  stage {stage.id} x {stage.tasks}: {' + '.join(stage.nodes)}")
        lines.append(f"    why: {stage.why}")
        for output in stage.outputs:
            lines.append(f"    {output.node} -> {output.to}: {output.routing} over {output.partitions}")
    lines += ["", "Coded"]
    for stage in plan.stages:
        lines.append(f"  {stage.topic}: {_coding(flow, stage)}")
        for name in stage.nodes:
            node = flow.nodes[name]
            if node.role == "sink" and node.kind == "kafka":
                lines.append(f"  {node.options['topic']}: {codec_name(flow, name)}, a record a message")
            elif node.role == "sink" and node.kind == "collect":
                lines.append(f"  {plan.collect_topic(name)}: frames (pickle, signed)")
    return "\n".join(lines)


def _coding(flow: Flow, stage: Stage) -> str:
    if stage.input == "kafka":
        return f"{codec_name(flow, stage.id)}, a record a message"
    return "splits (pickle, signed)" if stage.input == "splits" else "frames (pickle, signed)"
