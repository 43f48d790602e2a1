"""Two maps side by side, and their difference: another prompt, or another model."""

import dataclasses

import numpy as np
import streamlit as st

from dashboard import cache
from dashboard.components import job, link
from dashboard.components.attention_map import View, map_text, picture_config
from dashboard.components.message import show_error, show_problem
from dashboard.components.prompt import Inputs, special_tokens
from dashboard.plots import attention_map as map_plots
from gpt_core.attention import AttentionMaps, without_first
from gpt_core.catalog import list_models
from gpt_core.errors import GptCoreError
from gpt_core.tasks import LoadTask, TraceTask
from gpt_core.validation import check_text

SLOT = "attention_other"


def draw(inputs: Inputs, view: View, *, kind: str) -> None:
    """What to compare with, and the two maps with their difference. `kind` of picture: png or svg."""
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
        other = _read(model, check_text(text or ""), inputs)
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
    _draw_maps(inputs, other, view, kind)


def _read(model: str, text: str, inputs: Inputs) -> Inputs:
    tokens = cache.tokenization(model, text, special_tokens())
    ids, labels = tokens.token_ids, tokens.labels
    continued = inputs.token_ids[tokens.n_tokens :]
    if (
        model != inputs.model
        and text == inputs.text
        and continued
        and len(ids) + len(continued) == len(inputs.token_ids)
    ):
        # The generated part is compared as the text that it is.
        ids, labels = (*ids, *continued), (*labels, *inputs.labels[tokens.n_tokens :])
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


def _draw_maps(inputs: Inputs, other: Inputs, view: View, kind: str) -> None:
    rows, keys = view.rows, view.keys
    pair: list[AttentionMaps] = []
    for side in (inputs, other):
        maps = cache.attention_maps(side.model, side.token_ids, view.layer, view.head, rows.start, rows.stop)
        pair.append(without_first(maps) if view.hide_first else maps)
    one, two = (
        np.where(maps.allowed[0], maps.weights[0], np.float32(np.nan))[:, keys.start : keys.stop]
        for maps in pair
    )
    what = f"layer {view.layer}, head {view.head}"
    columns = st.columns(2)
    for column, maps, side, name in zip(columns, pair, (inputs, other), ("this", "other"), strict=True):
        with column:
            st.markdown(f"**{name.capitalize()}**")
            st.plotly_chart(
                map_plots.attention_heatmap(
                    maps, head=view.head, text=map_text(side, None, what=what), scale=view.scale, keys=keys
                ),
                key=f"attention_compare_{name}",
                config=picture_config(f"attention_{name}_layer{view.layer}_head{view.head}", kind),
                alt=f"Attention map of {name} text",
            )
    st.markdown("**The other less this**")
    # Labels of this text; where the other has another token, both.
    labels = [
        mine if mine == theirs else f"{mine} | {theirs}"
        for mine, theirs in zip(inputs.labels, other.labels, strict=True)
    ]
    text = map_text(inputs, None, what=f"difference, {what}, less {other.model}")
    st.plotly_chart(
        map_plots.map_figure(
            two - one,
            rows=rows,
            keys=keys,
            text=dataclasses.replace(text, labels=labels),
            name="difference",
            signed=True,
        ),
        key="attention_compare_difference",
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
