"""What a notebook has at hand: its flows, the cluster, and what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jupyterflow.model import FlowError, did_you_mean

if TYPE_CHECKING:
    from jupyterflow._flow import Flow


class Session:
    """The flows of a notebook by name, the one that cells add to, the cluster, and each flow's latest run."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        self.flows: dict[str, Flow] = {}
        self.current = "flow"
        self.cluster: Any = None
        self.runs: dict[str, Any] = {}
        self.local: set[str] = set()

    @property
    def flow(self) -> Flow:
        """The flow that cells add to; made when first asked for."""
        if self.current not in self.flows:
            self.new(self.current)
        return self.flows[self.current]

    def new(self, name: str) -> Flow:
        """A new empty flow that cells add to from now on; where one of that name is there, that one."""
        import jupyterflow as jf

        if name not in self.flows:
            self.flows[name] = jf.Flow(name)
        self.current = name
        return self.flows[name]

    def use(self, name: str) -> Flow:
        """Make *name* the flow that cells add to."""
        flow = self.named(name)
        self.current = name
        return flow

    def named(self, name: str | None) -> Flow:
        """The flow of that name, or the one in use. Raises FlowError where there is none."""
        if name is None:
            return self.flow
        if name not in self.flows:
            hint = did_you_mean(name, self.flows) or f" - %flow new {name} makes it"
            raise FlowError("JF715", f"there is no flow '{name}'{hint}")
        return self.flows[name]

    def run(self, name: str | None = None) -> Any:
        """The latest run of a flow, in process or deployed. Raises FlowError where it has none."""
        name = name or self.current
        if name not in self.runs:
            raise FlowError("JF716", f"flow '{name}' does not run{self._elsewhere(name)}")
        return self.runs[name]

    def started(self, name: str, run: Any, *, local: bool) -> Any:
        """Keep a run as the latest of its flow."""
        from jupyterflow.magics._show import watch

        self.runs[name] = run
        watch(self.flows[name], run)
        (self.local.add if local else self.local.discard)(name)
        return run

    def end_local(self, name: str) -> None:
        """Terminate the flow's run in this process, if it has one; a deployed one is left alone."""
        if name in self.local:
            self.local.discard(name)
            self.runs[name].terminate()

    def attach(self, name: str) -> Any:
        """Take up a deployed flow: it becomes the one in use, with its declaration and its run."""
        if self.cluster is None:
            import jupyterflow as jf

            self.cluster = jf.connect()
        run = self.cluster.attach(name)
        self.end_local(name)
        self.flows[name] = run.flow
        self.current = name
        return self.started(name, run, local=False)

    def remove(self, name: str) -> None:
        """Forget a flow, and delete its deployment with its topics and state."""
        deployed = self.cluster is not None and name in [d["name"] for d in self.cluster.deployments]
        if name not in self.flows and not deployed:
            known = [*(self.flows[self.current].nodes if self.current in self.flows else ()), *self.flows]
            raise FlowError("JF715", f"there is no flow or node '{name}'{did_you_mean(name, known)}")
        self.end_local(name)
        if deployed:
            self.cluster.remove(name)
        self.flows.pop(name, None)
        self.runs.pop(name, None)

    def forget_cluster(self) -> None:
        """The cluster is gone, and with it what ran there."""
        self.cluster = None
        self.runs = {name: run for name, run in self.runs.items() if name in self.local}

    def status(self, name: str) -> dict[str, Any]:
        """What there is to say of a flow in one row."""
        run = self.runs.get(name)
        if run is None and name not in self.flows:
            self.run(name)
        return {
            "flow": name,
            "state": run.state if run is not None else "draft",
            "version": run.version if run is not None else None,
            "where": "-" if run is None else "this process" if name in self.local else "workers",
            "nodes": len(self.flows[name].nodes) if name in self.flows else None,
            "workers": len(self.cluster.workers) if self.cluster is not None else 0,
            "kafka": self.cluster.bootstrap if self.cluster is not None else None,
        }

    def known_node(self, name: str) -> str:
        """The name, if the flow in use has such a node. Raises FlowError JF104."""
        if name not in self.flow.nodes:
            raise FlowError(
                "JF104", f"flow '{self.current}': unknown node '{name}'{did_you_mean(name, self.flow.nodes)}"
            )
        return name

    def load(self, file: str) -> Flow:
        """Take up the flow of a JSON file; nodes get their functions from the source text in it."""
        import json
        from pathlib import Path

        from jupyterflow.magics._declare import restore_functions

        try:
            data = json.loads(Path(file).expanduser().read_text(encoding="utf-8"))
            name = data["name"]
            if name in self.flows and self.flows[name].nodes:
                raise FlowError("JF715", f"flow '{name}' is there already - %flow rm {name} first")
            flow = self.new(name)
        except OSError as error:
            raise FlowError("JF718", f"cannot read '{file}': {error.strerror or error} - check the path") from None
        except (ValueError, KeyError, TypeError):
            raise FlowError("JF718", f"'{file}' holds no flow - %flow export FILE writes one") from None
        taken = type(flow).from_dict(data)
        restore_functions(taken, self.namespace)
        self.flows[taken.name] = taken  # type: ignore[assignment]
        return self.flows[taken.name]

    def needs_cluster(self) -> Any:
        """The cluster. Raises FlowError where there is none yet."""
        if self.cluster is None:
            raise FlowError("JF717", "no cluster yet - %flow up starts one here, %flow connect finds one that is up")
        return self.cluster

    def close(self) -> None:
        """End what runs in this process; deployed flows and the cluster go on."""
        for name in list(self.local):
            self.end_local(name)
        if self.cluster is not None:
            self.cluster.close()

    def _elsewhere(self, name: str) -> str:
        hint = did_you_mean(name, self.runs)
        return hint or f" - %flow run starts it here, %flow deploy on workers, %flow attach {name} finds it there"
