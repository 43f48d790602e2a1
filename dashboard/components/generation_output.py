"""Texts that are being generated, or have been: drawn again and again while tokens come in."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from dashboard import cache
from dashboard.components import job
from dashboard.components.csv import csv_bytes
from dashboard.components.message import show_error
from dashboard.components.token_strip import token_strip
from dashboard.plots import generation as plots
from gpt_core.engine import JobStatus
from gpt_core.tasks import GenerateTask

if TYPE_CHECKING:
    from gpt_core.generation import GenerationStep

#: Seconds between looks at a running generation.
INTERVAL = 0.25


def draw(page: str, slot: str, task: GenerateTask, *, label: str) -> None:
    """A button that starts `task` in `slot`, one that stops it, and what the slot holds."""
    job.draw_buttons(page, task, slot=slot, label=label)
    made_by = job.task_in(slot)
    if made_by is not None:
        show(slot, made_by)


def show(slot: str, task: GenerateTask) -> None:
    """What `slot` holds so far; redrawn by itself until it ends. `task` is what made it."""
    st.fragment(_show, run_every=INTERVAL if job.running(slot) else None)(slot, task)


def _show(slot: str, task: GenerateTask) -> None:
    status = job.look(slot)
    if status is None:
        return
    job.redraw_page_at_end(slot, status)
    if status.error is not None and status.state == "failed":
        show_error(status.error)
    waiting = job.waiting_note(status)
    if waiting:
        st.text(waiting)
    _show_steps(slot, status, task)


def _show_steps(slot: str, status: JobStatus, task: GenerateTask) -> None:
    sequences: dict[int, list] = {}  # type: ignore[type-arg]
    for sequence, step in status.items:
        sequences.setdefault(sequence, []).append(step)
    if not sequences and not status.finished:
        st.text("Reading the prompt.")
    prompt = cache.decoded_ids(task.model, task.token_ids).text
    for sequence, steps in sequences.items():
        labels = cache.labels(task.model, tuple(step.token_id for step in steps))
        alternatives = [
            cache.labels(task.model, tuple(int(i) for i in step.alternative_ids)) for step in steps
        ]
        with st.container(border=True, key=f"{slot}_sequence_{sequence}"):
            st.text(prompt + steps[-1].text)
            token_strip(
                labels,
                key=f"{slot}_strip_{sequence}",
                ids=[step.token_id for step in steps],
                values=[step.prob for step in steps],
                scale="sequential",
                hover=plots.step_notes(steps, alternatives),
            )
            st.caption(_summary(status, task, sequence, steps))
            if status.finished:
                show_token_table(
                    steps, labels, key=f"{slot}_{sequence}", file_name=f"generation_{sequence}.csv"
                )


def show_token_table(
    steps: "Sequence[GenerationStep]", labels: Sequence[str], *, key: str, file_name: str
) -> None:
    """A table of the tokens that were generated, closed until it is asked for, with a file to take away."""
    with st.expander("Every token", key=f"{key}_table_open", on_change="rerun") as box:
        if not box.open:
            return
        frame = plots.step_table(steps, labels)
        st.dataframe(
            frame,
            hide_index=True,
            key=f"{key}_table",
            column_config={
                name: st.column_config.ProgressColumn(format="%.4f", min_value=0, max_value=1)
                for name in ("probability", "after the stages")
            }
            | {"entropy (bits)": st.column_config.NumberColumn(format="%.3f")},
        )
        st.download_button(
            "CSV", data=csv_bytes(frame), file_name=file_name, mime="text/csv", key=f"{key}_csv"
        )


def _summary(status: JobStatus, task: GenerateTask, sequence: int, steps: list) -> str:  # type: ignore[type-arg]
    last = steps[-1]
    seed = f"seed {task.settings.seed + sequence:,}, " if task.settings.do_sample else ""
    ended = (
        f"ended by {last.stop_reason}" if last.stop_reason else "stopped" if status.finished else "going on"
    )
    return f"{seed}{len(steps):,} token{'s' if len(steps) > 1 else ''}, {ended}; {plots.speed_note(steps)}"
