"""Under every page: how its numbers are computed, the code that gives them again, and where the page comes from."""

import importlib
import inspect
from collections.abc import Callable

import streamlit as st


def show_sources(
    page: str,
    *,
    functions: tuple[str, ...],
    snippet: Callable[[], str],
    notebook: str,
    gives: str = "gives what is on the screen",
) -> None:
    """Three expanders that cost nothing until they are opened.

    `functions`: dotted names of the core functions that the page's numbers come from; `snippet` gives transformers
    code for what is on the screen, `gives` says what else where it cannot; `notebook` the cell of the seed notebook
    that the page grew from.
    """
    with st.expander(
        "How is this computed?", key=f"{page}_how", on_change="rerun", icon=":material/function:"
    ) as box:
        if box.open:
            for name in functions:
                module, _, function = name.rpartition(".")
                st.caption(f"`{name}`")
                st.code(
                    inspect.getsource(getattr(importlib.import_module(module), function)), language="python"
                )
    with st.expander(
        "Show me the code", key=f"{page}_code", on_change="rerun", icon=":material/code:"
    ) as box:
        if box.open:
            st.caption(f"Runs on its own with transformers and {gives}.")
            st.code(snippet(), language="python")
    with st.expander(
        "The notebook cell that this grew from",
        key=f"{page}_notebook",
        on_change="rerun",
        icon=":material/history:",
    ) as box:
        if box.open:
            st.code(notebook, language="python")
