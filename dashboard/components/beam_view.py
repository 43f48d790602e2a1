"""A beam search as it happens, and the texts that it found."""

import math

import streamlit as st

from dashboard import cache
from dashboard.components import job, other_pages
from dashboard.components.message import show_error
from dashboard.components.token_strip import token_strip
from dashboard.plots import generation as plots
from dashboard.plots import style
from gpt_core.decoding import BeamSettings
from gpt_core.tasks import BeamTask

SLOT = "generation_beams"
#: Seconds between looks at a running search; a figure is redrawn each time.
INTERVAL = 0.6


def draw(task: BeamTask) -> None:
    """A button that starts `task`, one that stops it, and the search, redrawn by itself while it runs."""
    job.draw_buttons("generation", task, slot=SLOT, label="Search")
    st.fragment(_show, run_every=INTERVAL if job.running(SLOT) else None)()
    _show_texts()


def on_screen(task: BeamTask) -> BeamSettings:
    """What "Show me the code" is about: the search that is shown, where it is of the same prompt; else `task`."""
    shown = job.task_in(SLOT)
    same = isinstance(shown, BeamTask) and (shown.model, shown.token_ids) == (task.model, task.token_ids)
    found: BeamSettings = shown.settings if same else task.settings
    return found


def _show() -> None:
    status, task = job.look(SLOT), job.task_in(SLOT)
    if status is None or not isinstance(task, BeamTask):
        return
    job.redraw_page_at_end(SLOT, status)
    if status.state == "failed" and status.error is not None:
        show_error(status.error)
    if not status.finished:
        said = job.waiting_note(status) + (status.message or "Reading the prompt.")
        st.progress(status.fraction, text=said)
    steps = status.items
    if steps:
        labels = [
            cache.labels(task.model, tuple(candidate.token_id for candidate in step.candidates))
            for step in steps
        ]
        st.plotly_chart(
            plots.beam_tree(steps, labels),
            key="generation_beam_tree",
            config=style.CONFIG,
            alt="Tree of the beam search: kept, finished and dropped candidates of every step",
        )
        if not status.finished:
            st.caption("The texts that go on, the most probable first:")
            for text in steps[-1].texts:
                st.text(text)
    if status.result is None and status.finished and steps:
        st.caption("Stopped before the search was over.")


def _show_texts() -> None:
    """The texts of a search that has ended; outside the fragment, because their buttons leave the page."""
    status, task = job.look(SLOT), job.task_in(SLOT)
    if status is None or status.result is None or not isinstance(task, BeamTask):
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
            other_pages.draw(
                f"generation_beam_{number}",
                model=task.model,
                text=prompt + beam.text,
                token_ids=(*task.token_ids, *beam.token_ids),
                names=("attention", "lens", "predictions"),
            )
