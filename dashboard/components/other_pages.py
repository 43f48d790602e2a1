"""Buttons that open other pages on a text that was generated."""

from collections.abc import Sequence

import streamlit as st

from dashboard import cache
from dashboard.components import prompt

#: Where a text can be looked at further: title, icon, the page's file, and what its list of views is put to.
_PAGES = {
    "attention": ("Attention", ":material/grid_on:", "attention", None),
    "lens": ("Logit lens", ":material/layers:", "predictions", "Logit lens"),
    "predictions": ("Surprisal", ":material/bar_chart:", "predictions", "Every position"),
    "embeddings": ("Embeddings", ":material/scatter_plot:", "embeddings", None),
    "tokenizer": ("Tokenizer", ":material/segment:", "tokenizer", None),
}
_ASKED = "_generation_open"


def go_where_asked() -> None:
    """Leave for the page that a button of this module named."""
    page = st.session_state.pop(_ASKED, None)
    if page is not None:
        st.switch_page(f"views/{page}.py")


def draw(
    key: str,
    *,
    model: str,
    text: str,
    token_ids: tuple[int, ...],
    names: Sequence[str] = tuple(_PAGES),
) -> None:
    """A button for each of `names`, and a word where `text`, read again, is not `token_ids`, which made it."""
    with st.container(horizontal=True, vertical_alignment="center", key=f"{key}_pages"):
        st.caption("Look into this text:", width="content")
        for name in names:
            title, icon, *_ = _PAGES[name]
            st.button(title, key=f"{key}_to_{name}", icon=icon, on_click=_open, args=(name, text))
    read = cache.tokenization(model, text, prompt.special_tokens()).token_ids if text else ()
    if read != token_ids:
        st.caption(
            ":material/info: Read again as a text, these are not the same tokens "
            f"({len(read):,} instead of {len(token_ids):,}): the other pages show what the text is read as."
        )


def _open(name: str, text: str) -> None:
    prompt.replace(text)
    _, _, page, view = _PAGES[name]
    if view is not None:
        st.session_state[f"{page}_view"] = view
    st.session_state[_ASKED] = page
