"""What a page shows of a job that several readers wait for."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from gpt_core.engine import Control, shared_engine


@dataclass(frozen=True)
class Waiting:
    """A task that waits until it is let go."""

    key: str
    gate: threading.Event
    lane: str = "look_up"
    deadline: float = 60.0

    def run(self, control: Control) -> Iterator[Any]:
        yield "first"
        while not self.gate.wait(0.01):
            control.check()
        return "the end"


def page() -> None:
    import streamlit as st

    from dashboard.components import job

    if "task" in st.session_state:
        job.start(st.session_state.pop("task"), slot="shared")
    st.button("Stop", key="stop", on_click=job.stop, args=("shared",))
    status = job.look("shared")
    st.text("nothing" if status is None else f"{status.state} {status.items} {job.left('shared')}")


@pytest.mark.parametrize("others", [0, 1])
def test_a_stop_shows_whoever_else_waits(others: int) -> None:
    gate = threading.Event()
    task = Waiting(f"shared by {others}", gate)
    engine = shared_engine()
    at = AppTest.from_function(page)
    at.session_state["task"] = task
    at.run()
    job_id = engine.submit(task, session="other") if others else ""
    while at.text[0].value != "running ('first',) False":
        at.run()
    at.button(key="stop").click().run()
    for _ in range(100):
        if at.text[0].value.startswith("cancelled"):
            break
        threading.Event().wait(0.02)
        at.run()
    assert at.text[0].value == f"cancelled ('first',) {bool(others)}"
    gate.set()
    if others:
        ended = engine.wait(job_id, 20)
        assert ended is not None
        assert ended.result == "the end"
    assert at.run().text[0].value == f"cancelled ('first',) {bool(others)}"
