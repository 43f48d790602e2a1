"""A beam search as it happens, and the texts that it found."""

import math

import streamlit as st

from dashboard import cache
from dashboard.components import job
from dashboard.components.message import show_error
from dashboard.components.token_strip import token_strip
from dashboard.plots import generation as plots
from gpt_core.tasks import BeamTask

SLOT = "generation_beams"
#: Seconds between looks at a running search; a figure is redrawn each time.
INTERVAL = 0.6


def running() -> bool:
    """Whether a search has not ended yet."""
    status = job.look(SLOT)
    return status is not None and not status.finished


def draw(task: BeamTask) -> None:
    """A button that starts `task`, one that stops it, and the search, redrawn by itself while it runs."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Search",
            key="generation_start",
            type="primary",
            icon=":material/play_arrow:",
            on_click=job.start,
            args=(task,),
            kwargs={"slot": SLOT},
        )
        st.button(
            "Stop",
            key="generation_stop",
            icon=":material/stop:",
            disabled=not running(),
            on_click=job.stop,
            args=(SLOT,),
        )
    made_by = job.task_in(SLOT)
    if made_by is None:
        st.caption("Nothing runs until you press Search; a link never does.")
    elif made_by.key != task.key:
        st.caption(
            ":material/info: Made with other settings, another prompt or another model than now chosen. "
            "Press Search again to see the new ones."
        )
    st.fragment(_show, run_every=INTERVAL if running() else None)()


def _show() -> None:
    status, task = job.look(SLOT), job.task_in(SLOT)
    if status is None or not isinstance(task, BeamTask):
        return
    was_running = st.session_state.get("_beams_were_running", False)
    st.session_state["_beams_were_running"] = not status.finished
    if was_running and status.finished:
        st.rerun()  # the page around this fragment shows Stop or Generate
    if status.state == "failed" and status.error is not None:
        show_error(status.error)
    if not status.finished:
        waiting = f"Takes turns with {status.ahead} other job(s). " if status.ahead else ""
        st.progress(status.fraction, text=waiting + (status.message or "Reading the prompt."))
    steps = status.items
    if steps:
        labels = [
            cache.labels(task.model, tuple(candidate.token_id for candidate in step.candidates))
            for step in steps
        ]
        st.plotly_chart(
            plots.beam_tree(steps, labels),
            key="generation_beam_tree",
            alt="Tree of the beam search: kept, finished and dropped candidates of every step",
        )
        if not status.finished:
            st.caption("The texts that go on, the most probable first:")
            for text in steps[-1].texts:
                st.text(text)
    if status.result is None:
        if status.finished and steps:
            st.caption("Stopped before the search was over.")
        return
    prompt = cache.decoded_ids(task.model, task.token_ids).text
    for number, beam in enumerate(status.result.beams):
        with st.container(border=True, key=f"generation_beam_{number}"):
            st.text(prompt + beam.text)
            token_strip(
                cache.labels(task.model, beam.token_ids),
                key=f"generation_beam_strip_{number}",
                ids=list(beam.token_ids),
                values=[math.exp(value) for value in beam.token_log_probs],
                scale="sequential",
                hover=[f"log-probability {value:.4f} nats" for value in beam.token_log_probs],
            )
            st.caption(
                f"score {beam.score:.4f} nats per token to the power {task.settings.length_penalty:g}, "
                f"log-probability {beam.log_prob:.4f} nats, {len(beam.token_ids)} tokens, "
                f"{'ended by its end token' if beam.finished else 'cut off'}"
            )
