"""Choose a token of the whole vocabulary: one of a few that are offered, or any other by typing it."""

from collections.abc import Sequence

import streamlit as st

from dashboard import cache
from dashboard.components import link

NONE = "none"


def pick_token(
    label: str,
    *,
    key: str,
    model: str,
    offered: Sequence[int],
    optional: bool = False,
    explanation: str = "",
) -> int | None:
    """The chosen token's id, in the link; `offered[0]`, or none where it is `optional`, until a reader chooses.

    A reader types a token as it is written (a space in front may be left out) or as `#id`.
    """
    default = NONE if optional else f"#{int(offered[0])}"
    vocab_size = cache.geometry(model).vocab_size
    link.restore(
        key, default, lambda text: _read_link(key, text, vocab_size), allowed=f"a token id below {vocab_size}"
    )
    if not st.session_state.get(f"_chosen_{key}"):
        st.session_state[key] = default  # who has chosen nothing follows the page
    written = str(st.session_state[key] or default)
    token_id = None if written == NONE else cache.token_by_text(model, written)
    if token_id is None and written != NONE:
        link.notice(key, "No single token is written so. Type a shorter piece, or # and an id.")
        written = default
        token_id = None if optional else int(offered[0])
    chosen = NONE if token_id is None else f"#{token_id}"
    options = list(dict.fromkeys([*([NONE] if optional else []), *(f"#{int(i)}" for i in offered), chosen]))
    ids = tuple(int(option[1:]) for option in options if option != NONE)
    names = {f"#{i}": f"{name} (id {i})" for i, name in zip(ids, cache.labels(model, ids), strict=True)}
    st.session_state[key] = chosen
    st.selectbox(
        label,
        options,
        key=key,
        format_func=lambda option: names.get(option, option),
        accept_new_options=True,
        persist_state="session",
        help=explanation or "Choose a token, or type any other: its text, or # and its id.",
        on_change=_mark,
        args=(key,),
    )
    link.show_notice(key)
    link.publish(key, "none" if token_id is None else str(token_id))
    return token_id


def _read_link(key: str, text: str, vocab_size: int) -> str | None:
    st.session_state[f"_chosen_{key}"] = True
    if text == NONE:
        return NONE
    fits = text.isascii() and text.isdigit() and len(text) < 10 and int(text) < vocab_size
    return f"#{text}" if fits else None


def _mark(key: str) -> None:
    st.session_state[f"_chosen_{key}"] = True
    link.notice(key, "")


def pick_tokens(
    label: str, *, key: str, model: str, offered: Sequence[int], n_first: int, most: int
) -> tuple[int, ...]:
    """Several tokens, in the link; the first `n_first` of `offered` until a reader chooses, at most `most`."""
    vocab_size = cache.geometry(model).vocab_size
    default = [f"#{int(i)}" for i in offered[:n_first]]

    def read(text: str) -> list[str] | None:
        st.session_state[f"_chosen_{key}"] = True
        found = [_read_link(key, part, vocab_size) for part in text.split("-")]
        return [part for part in found if part] if None not in found and len(found) <= most else None

    link.restore(
        key,
        default,
        read,
        allowed=f"at most {most} token ids below {vocab_size}, as 11-262",
        instead="the most probable",
    )
    if not st.session_state.get(f"_chosen_{key}") or not st.session_state[key]:
        st.session_state[key] = default
    found = [cache.token_by_text(model, str(written)) for written in st.session_state[key]]
    if None in found:
        link.notice(key, "No single token is written so. Type a shorter piece, or # and an id.")
    ids = tuple(dict.fromkeys(i for i in found if i is not None)) or tuple(int(i) for i in offered[:n_first])
    everything = tuple(dict.fromkeys([*ids, *(int(i) for i in offered)]))
    names = {
        f"#{i}": f"{name} (id {i})"
        for i, name in zip(everything, cache.labels(model, everything), strict=True)
    }
    st.session_state[key] = [f"#{i}" for i in ids]
    st.multiselect(
        label,
        list(names),
        key=key,
        format_func=lambda option: names.get(option, option),
        accept_new_options=True,
        max_selections=most,
        persist_state="session",
        help="Choose tokens, or type any other: its text, or # and its id.",
        on_change=_mark,
        args=(key,),
    )
    link.show_notice(key)
    link.publish(key, "-".join(map(str, ids)))
    return ids
