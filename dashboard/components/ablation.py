"""Switch parts of the model off, or let them give something else, and see what becomes of the prediction."""

import dataclasses
from typing import cast

import streamlit as st

from dashboard import cache
from dashboard.components import job, link
from dashboard.components.message import show_error, show_problem
from dashboard.components.prompt import Inputs
from dashboard.components.token_strip import token_strip
from dashboard.plots import predictions as plots
from dashboard.plots import style
from gpt_core.errors import GptCoreError, InputError
from gpt_core.interventions import (
    KINDS,
    REFERENCE_NAME,
    REFERENCE_TEXT,
    Interventions,
    Kind,
    parse_parts,
)
from gpt_core.tasks import AblateTask, ContinueTask
from gpt_core.validation import check_text

KIND_NAMES = {
    "zero": "nothing",
    "mean": "their mean over a reference text",
    "patch": "what they give in a second prompt",
}


def draw(page: str, inputs: Inputs, *, position: int) -> None:
    """The parts, what they give instead, and the comparison with the model as it is."""
    facts = cache.geometry(inputs.model)
    if "writers" in facts.closed_views:
        show_problem(facts.closed_views["writers"])
        return
    st.caption(
        "Choose heads and MLPs, and what they are to give instead of what they would. The model itself stays as it "
        "is: the change belongs to your look alone. A head is replaced before its output projection."
    )
    interventions = _choose(page, inputs, facts)
    if interventions is None:
        return
    task = AblateTask(
        model=inputs.model, token_ids=inputs.token_ids, interventions=interventions, position=position
    )
    held = job.task_in("ablate")
    # Another position of what was run already: nothing has to run again.
    if held is None or dataclasses.replace(held, position=position) != task:
        st.button(
            "Run with these parts replaced",
            key=f"{page}_ablate",
            type="primary",
            on_click=job.start,
            args=(task,),
            kwargs={"slot": "ablate"},
        )
        return
    found = job.run(task, slot="ablate", message="Running with parts replaced.")
    st.plotly_chart(
        plots.change_bars(found, labels=cache.labels(inputs.model, tuple(int(i) for i in found.token_ids))),
        key=f"{page}_change",
        config=style.CONFIG,
        alt="Next-token probabilities with and without the parts",
    )
    st.text(
        f"KL divergence from the model as it is, after position {position}: {found.kl_bits[position]:.4f} bits. "
        "0 would mean that nothing changed."
    )
    largest = float(found.kl_bits.max())
    st.caption(
        "The same after every token, the stronger the colour the more the prediction changed "
        f"(largest: {largest:.3f} bits). Click a token to look there."
    )
    token_strip(
        inputs.labels,
        key=f"{page}_change_strip",
        ids=inputs.token_ids,
        values=found.kl_bits / max(largest, 1e-9),
        scale="sequential",
        hover=[f"the prediction after it changed by {bits:.4f} bits (KL)" for bits in found.kl_bits],
        selected=position,
        select_into=f"{page}_position",
        name="The prompt, coloured by how much the prediction changed",
    )
    _continue(page, inputs, interventions)


def _choose(page: str, inputs: Inputs, facts: cache.ModelFacts) -> Interventions | None:
    """What the widgets say; None where nothing is chosen or it does not fit, which is said."""
    key = f"{page}_parts"

    def read(text: str) -> list[str] | None:
        words = text.replace("_", " ")
        try:
            parse_parts(words, n_layers=facts.n_layers, n_heads=facts.n_heads)
        except InputError:
            return None
        return words.split()

    nothing: list[str] = []
    link.restore(key, nothing, read, allowed="parts such as 3.1_4.mlp", instead="no part")
    options = [
        *(f"{layer}.{head}" for layer in range(facts.n_layers) for head in range(facts.n_heads)),
        *(f"{layer}.*" for layer in range(facts.n_layers)),
        *(f"{layer}.mlp" for layer in range(facts.n_layers)),
    ]
    kept = [part for part in st.session_state[key] if part in options]
    if kept != st.session_state[key]:
        link.notice(key, "Some of the parts are not in this model, and were taken out.")
        st.session_state[key] = kept
    parts = st.multiselect(
        "Parts to replace",
        options,
        key=key,
        format_func=_name,
        placeholder="Type a layer, a head or MLP",
        persist_state="session",
        help="Layers and heads are counted from 0.",
    )
    link.show_notice(key)
    link.publish(key, "_".join(parts) or None)
    kind = link.pick_option(
        "They give", KINDS, key=f"{page}_kind", default="zero", name=lambda name: KIND_NAMES[name]
    )
    source_ids: tuple[int, ...] = ()
    if kind == "mean":
        st.caption(
            f"The reference text, “{REFERENCE_NAME}”, the same for every part; the mean is over all its positions: "
            f"{REFERENCE_TEXT}"
        )
    elif kind == "patch":
        source_key = f"{page}_source"
        link.restore(source_key, "", lambda text: text, allowed="any text")
        source = st.text_input("Second prompt", key=source_key, persist_state="session")
        link.publish(source_key, source or None)
        try:
            source_ids = cache.tokenization(inputs.model, check_text(source), inputs.special_tokens).token_ids
        except GptCoreError as error:
            show_error(error)
            return None
        if len(source_ids) != len(inputs.token_ids):
            st.caption(
                f":material/info: The second prompt has {len(source_ids):,} tokens and must have "
                f"{len(inputs.token_ids):,}, as many as the first, so that each position has its counterpart."
            )
            return None
    if not parts:
        st.caption("Nothing is chosen yet.")
        return None
    heads, mlps = parse_parts(" ".join(parts), n_layers=facts.n_layers, n_heads=facts.n_heads)
    return Interventions(kind=cast(Kind, kind), heads=heads, mlps=mlps, source_ids=source_ids)


def _name(part: str) -> str:
    layer, _, rest = part.partition(".")
    return f"layer {layer} " + {"mlp": "MLP", "*": "all heads"}.get(rest, f"head {rest}")


def _continue(page: str, inputs: Inputs, interventions: Interventions) -> None:
    """Both greedy continuations, on a click."""
    task = ContinueTask(model=inputs.model, token_ids=inputs.token_ids, interventions=interventions)
    if not job.holds("ablate_continue", task):
        st.button(
            f"Continue the prompt by {task.max_new_tokens} tokens, with and without",
            key=f"{page}_ablate_continue",
            on_click=job.start,
            args=(task,),
            kwargs={"slot": "ablate_continue"},
        )
        return
    both = job.run(task, slot="ablate_continue", message="Continuing.")
    for name, token_ids in zip(("The model as it is", "With parts replaced"), both, strict=True):
        st.caption(f"{name}, always the most probable token:")
        st.text(cache.decoded_text(inputs.model, token_ids) if token_ids else "The context is full.")
    if interventions.kind == "patch":
        st.caption(
            "The parts were patched at the prompt's positions; at the new ones they give what they would."
        )
