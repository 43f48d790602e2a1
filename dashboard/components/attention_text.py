"""The text that the Attention page is about: the prompt, or the prompt and how the model goes on."""

import dataclasses
from functools import partial

import streamlit as st

from dashboard import cache
from dashboard.components import job, link
from dashboard.components.message import show_error
from dashboard.components.prompt import Inputs
from gpt_core.decoding import GenerationSettings, SamplingSettings
from gpt_core.tasks import GenerateTask

SLOT = "attention_continuation"
#: Most tokens that are added here; the Generation page has no such limit.
MAX_NEW_TOKENS = 128


def extend(inputs: Inputs, *, context_length: int, closed: str = "") -> tuple[Inputs, int | None]:
    """A popover that continues the prompt; the text to look at, and where the generated part of it begins.

    `closed` says why this model cannot be asked to continue; empty where it can.
    """
    status = job.look(SLOT)
    if status is not None and not status.finished and _is_about(inputs):
        job.run(job.task_in(SLOT), slot=SLOT, message="Continuing the text.")
    room = min(MAX_NEW_TOKENS, context_length - len(inputs.token_ids))
    added = _added(inputs)
    name = f"Continued by {len(added)} tokens" if added else "Continue the text"
    with st.popover(name, icon=":material/keyboard_double_arrow_right:", key="attention_continue_box"):
        if closed:
            st.text(closed)
        elif room < 1:
            st.caption("The prompt fills the whole context: there is no room for a new token.")
        else:
            _draw(inputs, room, bool(added))
    if status is not None and status.error is not None and status.state == "failed" and _is_about(inputs):
        show_error(status.error)
    if not added:
        return inputs, None
    ids = (*inputs.token_ids, *added)
    labels = (*inputs.labels, *cache.labels(inputs.model, added))
    return dataclasses.replace(inputs, token_ids=ids, labels=labels), len(inputs.token_ids)


def whole_text(inputs: Inputs, boundary: int | None) -> str:
    """The text of all tokens: as typed where `boundary` is None, else the decoded prompt and what was generated."""
    return inputs.text if boundary is None else cache.decoded_text(inputs.model, inputs.token_ids)


def _draw(inputs: Inputs, room: int, added: bool) -> None:
    n_new = link.enter_integer(
        f"New tokens (1–{room})", key="attention_new_tokens", low=1, high=room, default=min(20, room)
    )
    how = link.pick_option("How", ("Greedy", "Draw"), key="attention_decoding", default="Greedy")
    temperature, seed = 1.0, 42
    if how == "Draw":
        temperature = link.pick_number(
            "Temperature", key="attention_temperature", low=0.05, high=2.0, step=0.05, default=1.0
        )
        seed = link.enter_integer("Seed", key="attention_seed", low=0, high=2**31, default=42)
    task = GenerateTask(
        model=inputs.model,
        token_ids=inputs.token_ids,
        settings=GenerationSettings(
            sampling=SamplingSettings(temperature=temperature),
            max_new_tokens=n_new,
            do_sample=how == "Draw",
            seed=seed,
        ),
    )
    job.start_button("Continue", key="attention_continue", begin=partial(job.start, task, slot=SLOT))
    st.button(
        "Back to the prompt alone",
        key="attention_prompt_alone",
        disabled=not added,
        on_click=job.forget,
        args=(SLOT,),
    )
    st.caption("Nothing is generated until you press Continue; a link never does.")


def _is_about(inputs: Inputs) -> bool:
    task = job.task_in(SLOT)
    return task is not None and task.model == inputs.model and task.token_ids == inputs.token_ids


def _added(inputs: Inputs) -> tuple[int, ...]:
    """The ids of the continuation, as far as it came; none while it runs, or where it is another text's."""
    status = job.look(SLOT)
    if status is None or not status.finished or not _is_about(inputs):
        return ()
    return tuple(step.token_id for _, step in status.items)
