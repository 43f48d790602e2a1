"""Texts that are being generated, or have been: drawn again and again while tokens come in."""

import streamlit as st

from dashboard import cache
from dashboard.components import job
from dashboard.components.csv import csv_bytes
from dashboard.components.message import show_error
from dashboard.components.token_strip import token_strip
from dashboard.plots import generation as plots
from gpt_core.engine import JobStatus
from gpt_core.tasks import GenerateTask

#: Seconds between looks at a running generation.
INTERVAL = 0.25


def running(slot: str) -> bool:
    """Whether something in `slot` has not ended yet."""
    status = job.look(slot)
    return status is not None and not status.finished


def draw(page: str, slot: str, task: GenerateTask, *, label: str) -> None:
    """A button that starts `task` in `slot`, one that stops it, and what the slot holds."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            label,
            key=f"{page}_start",
            type="primary",
            icon=":material/play_arrow:",
            on_click=job.start,
            args=(task,),
            kwargs={"slot": slot},
        )
        st.button(
            "Stop",
            key=f"{page}_stop",
            icon=":material/stop:",
            disabled=not running(slot),
            on_click=job.stop,
            args=(slot,),
        )
    made_by = job.task_in(slot)
    if made_by is None:
        st.caption(f"Nothing runs until you press {label}; a link never does.")
        return
    if made_by.key != task.key:
        st.caption(
            ":material/info: Made with other settings, another prompt or another model than now chosen. "
            f"Press {label} again to see the new ones."
        )
    show(slot, made_by)


def show(slot: str, task: GenerateTask) -> None:
    """What `slot` holds so far; redrawn by itself until it ends. `task` is what made it."""
    st.fragment(_show, run_every=INTERVAL if running(slot) else None)(slot, task)


def _show(slot: str, task: GenerateTask) -> None:
    status = job.look(slot)
    if status is None:
        return
    was_running = st.session_state.get(f"_was_running_{slot}", False)
    st.session_state[f"_was_running_{slot}"] = not status.finished
    if was_running and status.finished:
        st.rerun()  # the page around this fragment shows Stop or Generate
    if status.error is not None and status.state == "failed":
        show_error(status.error)
    if not status.finished and status.ahead and status.state == "queued":
        st.text(f"Waits for {status.ahead} other {'job' if status.ahead == 1 else 'jobs'}.")
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
                frame = plots.step_table(steps, labels)
                with st.expander(
                    "Every token", key=f"{slot}_table_open_{sequence}", on_change="rerun"
                ) as box:
                    if box.open:
                        st.dataframe(
                            frame,
                            hide_index=True,
                            key=f"{slot}_table_{sequence}",
                            column_config={
                                name: st.column_config.ProgressColumn(format="%.4f", min_value=0, max_value=1)
                                for name in ("probability", "after the stages")
                            }
                            | {"entropy (bits)": st.column_config.NumberColumn(format="%.3f")},
                        )
                        st.download_button(
                            "CSV",
                            data=csv_bytes(frame),
                            file_name=f"generation_{sequence}.csv",
                            mime="text/csv",
                            key=f"{slot}_csv_{sequence}",
                        )


def _summary(status: JobStatus, task: GenerateTask, sequence: int, steps: list) -> str:  # type: ignore[type-arg]
    last = steps[-1]
    seed = f"seed {task.settings.seed + sequence:,}, " if task.settings.do_sample else ""
    ended = (
        f"ended by {last.stop_reason}" if last.stop_reason else "stopped" if status.finished else "going on"
    )
    return f"{seed}{len(steps):,} token{'s' if len(steps) > 1 else ''}, {ended}; {plots.speed_note(steps)}"
