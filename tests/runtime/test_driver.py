"""The compute thread goes on, whatever is thrown at it."""

from __future__ import annotations

import threading

import jupyterflow as jf
from jupyterflow.nodes.base import Operator
from jupyterflow.plan import plan
from jupyterflow.runtime.driver import Driver, TaskRun
from jupyterflow.runtime.memory import Memory, MemoryChannel
from jupyterflow.runtime.task import Task


def run(flow: jf.Flow) -> TaskRun:
    made = plan(flow)
    stage = made.stages[0]
    return TaskRun(Task(made, stage, 0, flow), MemoryChannel(Memory(), stage.topic, 0, [], lambda effects: None), 0.0)


def test_a_job_that_raises_does_not_end_the_thread() -> None:
    driver = Driver("jobs", lambda run, error: None, lambda run: None)
    driver.start()
    done = threading.Event()
    driver.call(lambda: [][0])
    driver.call(done.set)
    assert done.wait(5)
    assert driver.close()


def test_tasks_that_came_too_late_to_run_are_closed_too() -> None:
    flow = jf.Flow("late")
    flow.source("values", [1]).map("more", lambda v: v)
    late = run(flow)
    closed = threading.Event()

    class Closing(Operator):
        def close(self) -> None:
            closed.set()
            raise OSError("gone")

    step = late.task.chain.steps[1]
    step.operator = Closing(flow.nodes["more"], step.context)
    driver = Driver("late", lambda run, error: None, lambda run: None)
    driver.add([late])
    driver._closing = True
    driver.start()
    assert closed.wait(5)
    assert driver.close()
