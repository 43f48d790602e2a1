"""Work that may take a while, as a page sees it: a result, or progress with a Stop button.

A page calls `run`. Fast work comes back at once. For slow work the page ends there, shows how far it is, and is
drawn again when there is something new.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import streamlit as st

from dashboard.components.message import show_error
from gpt_core.engine import JobStatus, Task, shared_engine
from gpt_core.errors import CancelledError

#: Seconds that a page waits before it shows progress instead.
PATIENCE = 0.8
#: Seconds between looks at a running job.
INTERVAL = 0.3


@dataclass(kw_only=True)
class _Slot:
    task: Task
    job_id: str
    session: str
    status: JobStatus | None = None
    left: bool = False
    """Whether this reader stopped it while others go on waiting for it."""


def session_id() -> str:
    """The name of this reader's session."""
    context = st.runtime.scriptrunner.get_script_run_ctx()
    return "" if context is None else context.session_id


def alive_check() -> Any:
    """A function that says whether this reader's page is still connected."""
    own = session_id()

    def alive() -> bool:
        if not st.runtime.exists():
            return True
        return st.runtime.get_instance().is_active_session(own)

    return alive


def start(task: Task, *, slot: str, beside: bool = False) -> None:
    """Start `task` in this page's `slot` (again, if it ran before).

    A task `beside` the page's others does not take their place in the engine, and they do not take its.
    """
    session = f"{session_id()}/{slot}" if beside else session_id()
    job_id = shared_engine().submit(task, session=session, alive=alive_check())
    st.session_state[f"_job_{slot}"] = _Slot(task=task, job_id=job_id, session=session)


def forget(slot: str) -> None:
    """Let go of what `slot` holds, stopping it if it runs."""
    held: _Slot | None = st.session_state.pop(f"_job_{slot}", None)
    if held is not None:
        shared_engine().cancel(held.job_id, session=held.session)


def stop(slot: str) -> None:
    """Stop what runs in `slot`; what it has yielded stays."""
    held: _Slot | None = st.session_state.get(f"_job_{slot}")
    if held is None or held.status is not None:
        return
    if not shared_engine().cancel(held.job_id, session=held.session):
        # For this reader it has ended here, whatever others still get of it.
        status = shared_engine().poll(held.job_id)
        assert status is not None
        held.left = not status.finished
        held.status = (
            replace(status, state="cancelled", error=CancelledError("Stopped.")) if held.left else status
        )


def left(slot: str) -> bool:
    """Whether this reader stopped what `slot` holds while it goes on for others."""
    held: _Slot | None = st.session_state.get(f"_job_{slot}")
    return held is not None and held.left


def look(slot: str, *, since: int = 0) -> JobStatus | None:
    """How the job in `slot` stands; None where there is none. A finished one is remembered whole."""
    held: _Slot | None = st.session_state.get(f"_job_{slot}")
    if held is None:
        return None
    if held.status is not None:
        return held.status
    status = shared_engine().poll(held.job_id, since=since)
    if status is not None and status.finished:
        held.status = shared_engine().poll(held.job_id)
    return status


def wait(slot: str, seconds: float) -> None:
    """Wait at most `seconds` for the job in `slot` to end."""
    held: _Slot | None = st.session_state.get(f"_job_{slot}")
    if held is not None and held.status is None:
        shared_engine().wait(held.job_id, seconds)


def running(slot: str) -> bool:
    """Whether something in `slot` has not ended yet."""
    status = look(slot)
    return status is not None and not status.finished


def task_in(slot: str) -> Any:
    """The task that `slot` holds, running or finished; None where there is none."""
    held: _Slot | None = st.session_state.get(f"_job_{slot}")
    return None if held is None else held.task


def holds(slot: str, task: Task) -> bool:
    """Whether `slot` holds exactly this task, running or finished."""
    held: _Slot | None = st.session_state.get(f"_job_{slot}")
    return held is not None and held.task.key == task.key


def start_button(label: str, *, key: str, begin: Callable[[], None]) -> None:
    """The button that a reader presses for something to run."""
    st.button(label, key=key, type="primary", icon=":material/play_arrow:", on_click=begin)


def stop_button(slot: str, *, key: str) -> None:
    """The button that stops what runs in `slot`."""
    st.button(
        "Stop", key=key, icon=":material/stop:", disabled=not running(slot), on_click=stop, args=(slot,)
    )


def draw_buttons(page: str, task: Task, *, slot: str, label: str) -> None:
    """A button that starts `task` in `slot`, one that stops it, and a word where the slot holds another task's."""
    with st.container(horizontal=True, vertical_alignment="center"):
        start_button(label, key=f"{page}_start", begin=partial(start, task, slot=slot))
        stop_button(slot, key=f"{page}_stop")
    made_by = task_in(slot)
    if made_by is None:
        st.caption(f"Nothing runs until you press {label}; a link never does.")
    elif made_by.key != task.key:
        st.caption(
            ":material/info: Made with other settings, another prompt or another model than now chosen. "
            f"Press {label} again to see the new ones."
        )


def redraw_page_at_end(slot: str, status: JobStatus) -> None:
    """Draw the page around a fragment anew when what the fragment shows has ended: its buttons are others now."""
    key = f"_was_running_{slot}"
    was_running = st.session_state.get(key, False)
    st.session_state[key] = not status.finished
    if was_running and status.finished:
        st.rerun()


def waiting_note(status: JobStatus) -> str:
    """What a reader is told while other readers' jobs hold up theirs; empty where none does."""
    if status.finished or not status.ahead:
        return ""
    others = f"{status.ahead} other {'job' if status.ahead == 1 else 'jobs'}"
    if status.state == "queued":
        return f"Waits for {others}. "
    return f"Takes turns with {others}, and is slower for it. "


def run(task: Task, *, slot: str, message: str) -> Any:
    """The result of `task`. Ends the page where it is not there yet, or where it failed or was stopped."""
    if not holds(slot, task):
        start(task, slot=slot)
    held: _Slot = st.session_state[f"_job_{slot}"]
    status = held.status or shared_engine().wait(held.job_id, PATIENCE)
    if status is None:  # forgotten by the engine: it was finished long ago, without anyone looking
        start(task, slot=slot)
        held = st.session_state[f"_job_{slot}"]
        status = shared_engine().wait(held.job_id, PATIENCE)
    assert status is not None
    if status.finished:
        held.status = status
    if status.state == "done":
        return status.result
    if status.state == "failed":
        assert status.error is not None
        show_error(status.error)
        st.button("Try again", key=f"_retry_{slot}", on_click=forget, args=(slot,))
        st.stop()
    if status.state == "cancelled":
        st.info("Stopped.")
        st.button("Run again", key=f"_again_{slot}", on_click=forget, args=(slot,), type="primary")
        st.stop()
    _progress(slot, message)
    st.stop()
    return None


@st.fragment(run_every=INTERVAL)
def _progress(slot: str, message: str) -> None:
    status = look(slot)
    if status is None or status.finished:
        st.rerun()
        return
    with st.container(key="job_progress"):
        st.progress(status.fraction, text=f"{message} {waiting_note(status)}{status.message}".strip())
        st.button("Stop this", key=f"_stop_{slot}", on_click=stop, args=(slot,), icon=":material/stop:")
