"""Two maps side by side, and their difference: another prompt, or another model."""

import dataclasses
from functools import partial

import numpy as np
import streamlit as st

from dashboard import cache
from dashboard.components import job, link
from dashboard.components.attention_map import View, map_text, origin_lines, picture_config, take_cell
from dashboard.components.attention_text import whole_text
from dashboard.components.message import show_error, show_problem
from dashboard.components.prompt import Inputs, special_tokens
from dashboard.plots import attention_map as map_plots
from dashboard.plots import style
from gpt_core.attention import AttentionMaps, without_first
from gpt_core.catalog import list_models
from gpt_core.errors import GptCoreError, InputError
from gpt_core.tasks import LoadTask, TraceTask
from gpt_core.validation import check_text

SLOT = "attention_other"
#: Letters of a prompt in the small print of a picture.
MAX_PROMPT = 60


def draw(inputs: Inputs, view: View, *, boundary: int | None, kind: str) -> None:
    """What to compare with, and the two maps with their difference.

    `boundary`: position of the first generated token of `inputs`, None where all is prompt. `kind` of picture: png or
    svg.
    """
    what = link.pick_option(
        "Compare with", ("another prompt", "another model"), key="attention_compare", default="another prompt"
    )
    model, text = inputs.model, inputs.text
    if what == "another prompt":
        link.restore("attention_other_prompt", inputs.text, lambda written: written, allowed="any text")
        text = st.text_area(
            "The other prompt (Ctrl/⌘+Enter submits)",
            key="attention_other_prompt",
            height=80,
            persist_state="session",
        )
        link.publish("attention_other_prompt", text)
    else:
        entries = {
            str(entry.model_id): entry.title for entry in list_models() if str(entry.model_id) != inputs.model
        }
        if not entries:
            st.caption("There is no other model here. The sidebar says how to add one.")
            return
        link.restore(
            "attention_other_model",
            next(iter(entries)),
            lambda written: written if written in entries else None,
            allowed="a model that is here",
        )
        if st.session_state["attention_other_model"] not in entries:
            st.session_state["attention_other_model"] = next(iter(entries))
        link.show_notice("attention_other_model")
        model = st.selectbox(
            "The other model",
            list(entries),
            key="attention_other_model",
            format_func=entries.__getitem__,
            persist_state="session",
        )
        link.publish("attention_other_model", model)
    task = LoadTask(model=model)
    wanted = (model, text)
    st.button(
        "Compare",
        key="attention_compare_start",
        type="primary",
        icon=":material/compare:",
        on_click=st.session_state.update,
        args=({"_attention_compared": wanted},),
    )
    if st.session_state.get("_attention_compared") != wanted:
        st.caption("Nothing runs until you press Compare; a link never does.")
        return
    if model != inputs.model:
        job.run(task, slot=SLOT, message="Loading the other model.")
    try:
        other = _read(model, check_text(text or ""), inputs, boundary)
    except GptCoreError as error:
        show_error(error)
        return
    problem = _problem(inputs, other, view)
    if problem:
        show_problem(problem)
        return
    job.run(
        TraceTask(model=other.model, token_ids=other.token_ids),
        slot=SLOT + "_trace",
        message="Reading the other text.",
    )
    _draw_maps(inputs, other, view, boundary, kind)


def _read(model: str, text: str, inputs: Inputs, boundary: int | None) -> Inputs:
    """The other text; another model reads what was generated, too. Raises InputError where it cannot."""
    tokens = cache.tokenization(model, text, special_tokens())
    ids, labels = tokens.token_ids, tokens.labels
    if model != inputs.model and boundary is not None:
        generated, written = inputs.token_ids[boundary:], inputs.labels[boundary:]
        try:
            means_the_same = cache.labels(model, generated) == written
        except InputError:  # an id that the other vocabulary has not
            means_the_same = False
        if not means_the_same:
            raise InputError(
                "The generated tokens are other tokens in the other model, so that the two texts do not align. Go back "
                "to the prompt alone to compare it."
            )
        ids, labels = (*ids, *generated), (*labels, *written)
    return Inputs(model=model, text=text, special_tokens=special_tokens(), token_ids=ids, labels=labels)


def _problem(inputs: Inputs, other: Inputs, view: View) -> str:
    """Why the two cannot be laid over each other; empty where they can."""
    facts = cache.geometry(other.model)
    n, n_other = len(inputs.token_ids), len(other.token_ids)
    if n != n_other:
        return (
            f"The two texts must have the same number of tokens, so that each position means the same in both. Given: "
            f"{n:,} and {n_other:,}. Make them equally long."
        )
    if n_other > facts.context_length:
        return f"The other model reads at most {facts.context_length:,} tokens. Given: {n_other:,}. Shorten the text."
    if "attention" in facts.closed_views:
        return facts.closed_views["attention"]
    if view.layer >= facts.n_layers or view.head >= facts.n_heads:
        return (
            f"The other model has layers 0–{facts.n_layers - 1} and heads 0–{facts.n_heads - 1}. Chosen: layer "
            f"{view.layer}, head {view.head}. Choose one that both have."
        )
    return ""


def _draw_maps(inputs: Inputs, other: Inputs, view: View, boundary: int | None, kind: str) -> None:
    rows, keys = view.rows, view.keys
    pair: list[AttentionMaps] = []
    for side in (inputs, other):
        maps = cache.attention_maps(side.model, side.token_ids, view.layer, view.head, rows.start, rows.stop)
        pair.append(without_first(maps) if view.hide_first else maps)
    one, two = (maps.cells[0][:, keys.start : keys.stop] for maps in pair)
    what = f"layer {view.layer}, head {view.head}"
    # Another prompt is typed whole; what another model reads ends with the same generated part.
    boundaries = boundary, None if other.model == inputs.model else boundary
    columns = st.columns(2)
    for column, maps, side, name, begin in zip(
        columns, pair, (inputs, other), ("this", "other"), boundaries, strict=True
    ):
        key = f"attention_compare_{name}"
        with column:
            st.markdown(f"**{name.capitalize()}**")
            st.plotly_chart(
                map_plots.attention_heatmap(
                    maps,
                    head=view.head,
                    text=map_text(side, begin, what=what),
                    scale=view.scale,
                    keys=keys,
                    chosen=(view.query, view.key),
                ),
                key=key,
                on_select=partial(take_cell, key),
                selection_mode="points",
                config=picture_config(f"attention_{name}_layer{view.layer}_head{view.head}", kind),
                alt=f"Attention map of {name} text",
            )
    st.markdown("**The other less this**")
    # Labels of this text; where the other has another token, both.
    labels = [
        mine if mine == theirs else f"{mine} | {theirs}"
        for mine, theirs in zip(inputs.labels, other.labels, strict=True)
    ]
    text = map_text(inputs, boundary)
    note = (
        f"difference, {what}: the other less this",
        f"the other: {_name(other, inputs, boundaries[1])}",
        f"this: {_name(inputs, other, boundary)}",
        origin_lines(inputs.model)[1],
    )
    st.plotly_chart(
        map_plots.map_figure(
            two - one,
            rows=rows,
            keys=keys,
            text=dataclasses.replace(text, labels=labels, note=note),
            chosen=(view.query, view.key),
            name="difference",
            signed=True,
        ),
        key="attention_compare_difference",
        on_select=partial(take_cell, "attention_compare_difference"),
        selection_mode="points",
        config=picture_config(f"attention_difference_layer{view.layer}_head{view.head}", kind),
        alt="Difference of the two maps",
    )
    shared = np.isfinite(one) & np.isfinite(two)
    largest = float(np.abs((two - one)[shared]).max()) if shared.any() else 0.0
    st.caption(
        f"Blue: the other pays more. Red: this pays more. Aligned by position. Largest difference {largest:.4f}, mean "
        f"absolute difference {float(np.abs((two - one)[shared]).mean()) if shared.any() else 0.0:.4f}. Cells that "
        "only one of the two may look at are empty."
    )


def _name(side: Inputs, beside: Inputs, boundary: int | None) -> str:
    """What a picture says of one side: its model, and its text where the other's differs."""
    model = origin_lines(side.model)[0]
    text = whole_text(side, boundary)
    return model if side.text == beside.text else f"“{style.shorten(text, MAX_PROMPT)}”, {model}"
