"""Many heads in one map."""

import streamlit as st

from dashboard.components import job, link
from dashboard.components.attention_map import View, map_text, picture_config, take_cell
from dashboard.components.message import show_error
from dashboard.components.prompt import Inputs
from dashboard.plots import attention_map as map_plots
from gpt_core.attention_export import origin_of
from gpt_core.attention_summaries import AttentionSummary, parse_heads
from gpt_core.errors import InputError
from gpt_core.tasks import SummariseHeadsTask

KINDS = {
    "mean": "The mean of the chosen heads, cell by cell. A plain average, from no paper.",
    "maximum": "The largest weight among the chosen heads, cell by cell, so that its rows do not add up to 1. From no "
    "paper either.",
    "rollout": "How much of each token's first vector reaches each token's last one if attention alone moved "
    "anything: the product of all layers, each half its mean attention and half the token itself (attention rollout, "
    "Abnar & Zuidema 2020, [arXiv:2005.00928](https://arxiv.org/abs/2005.00928)).",
    "value-weighted rollout": "Rollout with, in the place of a layer's mean attention, the length of what its heads "
    "together hand from key to query, weights times values through the output projection, each row scaled to add up "
    "to 1 (lengths after Kobayashi et al. 2020, [arXiv:2004.10102](https://arxiv.org/abs/2004.10102); product after "
    "[arXiv:2005.00928](https://arxiv.org/abs/2005.00928)). No flow is solved for, and MLPs are left out.",
}


def draw(inputs: Inputs, view: View, *, n_layers: int, n_heads: int, boundary: int | None, kind: str) -> None:
    """A selector, the heads that go in, and the map. `kind` of picture: png or svg."""
    chosen = link.pick_option(
        "Summary", tuple(KINDS), key="attention_summary", default="mean", name=str.capitalize
    )
    st.markdown(KINDS[chosen])
    heads: tuple[tuple[int, int], ...] = ()
    if chosen in ("mean", "maximum"):
        link.restore("attention_heads", "all", lambda text: text, allowed="heads")
        typed = st.text_input(
            "Heads",
            key="attention_heads",
            max_chars=500,
            help="all; 5 is layer 5; 0-2 are layers 0 to 2; 5.4 is layer 5, head 4; 5.0-3 are its heads 0 to 3; *.4 "
            "is head 4 of every layer. Several with commas between.",
            persist_state="session",
        )
        link.publish("attention_heads", typed)
        try:
            heads = parse_heads(typed or "", n_layers=n_layers, n_heads=n_heads)
        except InputError as error:
            show_error(error)
            return
    found: AttentionSummary = job.run(
        SummariseHeadsTask(model=inputs.model, token_ids=inputs.token_ids, kind=chosen, heads=heads),
        slot="attention_summary",
        message="Adding up the heads.",
    )
    rows, keys = view.rows, view.keys
    st.plotly_chart(
        map_plots.map_figure(
            found.cells[rows.start : rows.stop, keys.start : keys.stop],
            rows=rows,
            keys=keys,
            text=map_text(inputs, boundary, what=f"{chosen} of {found.n_heads_used} heads"),
            scale=view.scale,
            chosen=(view.query, view.key),
            name=chosen,
        ),
        key="attention_summary_map",
        on_select=lambda: take_cell("attention_summary_map"),
        selection_mode="points",
        config=picture_config(
            f"attention_{origin_of(inputs.model).revision}_{chosen.replace(' ', '_')}", kind
        ),
        alt=f"{chosen} of the chosen heads",
    )
    plural = "s" if found.n_heads_used > 1 else ""
    said = f"{found.n_heads_used:,} head{plural}; scale, queries and keys as chosen above, where a click chooses."
    if view.hide_first:
        said += " The first token is not hidden here."
    if not found.projected:
        said += (
            " The output projection was not found in some block: there, the values' own lengths are taken."
        )
    st.caption(said)
