"""BertViz, offline."""

import streamlit as st

from dashboard import cache
from dashboard.components import link
from dashboard.components.message import show_error, show_problem
from dashboard.components.prompt import Inputs
from dashboard.plots import bertviz
from gpt_core.errors import GptCoreError


def draw(inputs: Inputs, *, layer: int, n_layers: int, n_heads: int) -> None:
    """Its model view or head view: at once where it is small, after a click that names its size where it is not."""
    n_tokens = len(inputs.token_ids)
    view = link.pick_option(
        "View", ("Head view", "Model view"), key="attention_bertviz_view", default="Model view"
    )
    layers = tuple(range(n_layers))
    n_bytes = bertviz.estimated_bytes(n_layers, n_heads, n_tokens)
    shown = "all layers"
    if view == "Head view" and n_bytes > bertviz.FREE_BYTES:
        shown = f"layer {layer} alone, because all layers would take up to {n_bytes / 1e6:,.1f} MB"
        layers, n_bytes = (layer,), bertviz.estimated_bytes(1, n_heads, n_tokens)
    st.caption(
        f"{view} of {shown}: up to {n_bytes / 1e6:,.1f} MB. Its size grows with the square of the number of tokens."
    )
    if n_bytes > bertviz.MAX_BYTES:
        show_problem(
            f"BertViz pages are drawn up to {bertviz.MAX_BYTES / 1e6:,.0f} MB; this one would have up to "
            f"{n_bytes / 1e6:,.0f} MB. Shorten the prompt; the maps above have no such limit."
        )
    elif n_bytes <= bertviz.FREE_BYTES or st.toggle(
        f"Draw up to {n_bytes / 1e6:,.1f} MB", key="attention_bertviz_large"
    ):
        first = layer if view == "Head view" else None
        dark = st.context.theme.type == "dark"
        try:
            page = cache.bertviz_page(inputs.model, inputs.token_ids, inputs.labels, layers, first, dark)
        except GptCoreError as error:
            show_error(error)
            return
        st.iframe(page, alt=f"BertViz {view}")
