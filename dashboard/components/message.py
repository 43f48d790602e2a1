"""Sentences to the reader that may repeat what the reader, a link or a model wrote: always as literal text."""

import streamlit as st

from gpt_core.errors import GptCoreError


def show_error(error: GptCoreError) -> None:
    """The message of `error`, as it is."""
    show_problem(str(error))


def show_problem(sentence: str) -> None:
    """A sentence that says why something is not possible and what to do instead."""
    with st.container(border=True, horizontal=True, vertical_alignment="center", key=None):
        st.markdown(":red[:material/error:]", width="content")
        st.text(sentence, width="stretch")
