"""What a shared link restores: values that live in the session and, written out in full, in the address.

Streamlit's own binding leaves out values that equal a default, writes titles instead of values, and drops a value
that is out of range without a word. Here every value is in the link, and a bad one is said.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote_plus

import streamlit as st

T = TypeVar("T")

#: Bytes of one encoded value that an address may carry; browsers and proxies cut longer ones.
MAX_LINK_BYTES = 8_192
_PLAIN = re.compile(r"-?[\w.]{1,20}")


def restore(
    key: str, default: T, read: Callable[[str], T | None], *, allowed: str, instead: str = ""
) -> None:
    """Put the link's value of `key` into the session when it is first met, else `default`.

    `read` gives None for a text that is no possible value; `allowed` says in words what is, and `instead` what
    `default` is where it does not say so itself.
    """
    if key in st.session_state:
        return
    written = st.query_params.get_all(key)
    value = read(written[-1]) if written else default
    if value is None:
        notice(
            key,
            f"The link asks for {_quote(written[-1])} here. Possible: {allowed}. "
            f"Shown instead: {instead or default}.",
        )
        value = default
    st.session_state[key] = value


def publish(key: str, text: str | None) -> bool:
    """Write `text` to the address under `key`; nothing where it is None or too long. Whether it is there."""
    fits = text is not None and len(quote_plus(text, errors="replace")) <= MAX_LINK_BYTES
    if fits and text is not None:
        text = text.encode("utf-8", "replace").decode()
        if st.query_params.get_all(key) != [text]:
            st.query_params[key] = text
    elif key in st.query_params:
        del st.query_params[key]
    return fits


def notice(key: str, sentence: str) -> None:
    """Keep a sentence about `key` for `show_notice`."""
    st.session_state[f"_notice_{key}"] = sentence


def show_notice(key: str) -> None:
    """Show what there is to say about `key`, until the reader changes its widget."""
    sentence = st.session_state.get(f"_notice_{key}")
    if sentence:
        st.caption(f":material/info: {sentence}")


def choose(key: str, value: object) -> None:
    """Set what `key` holds to what the reader chose elsewhere, before its widget is drawn."""
    st.session_state[key] = value
    _clear_notice(key)


def _clear_notice(key: str) -> None:
    st.session_state.pop(f"_notice_{key}", None)


def _quote(text: str) -> str:
    # What a link carries is a stranger's text: only what cannot be markup is repeated.
    return text if _PLAIN.fullmatch(text) else "something else"


def pick_integer(
    label: str,
    *,
    key: str,
    low: int,
    high: int,
    default: int,
    name: Callable[[int], str] = str,
    explanation: str = "",
) -> int:
    """A list of whole numbers low..high; `name` says what a reader sees of each. The chosen one, in the link."""

    def read(text: str) -> int | None:
        return int(text) if re.fullmatch(r"\d{1,6}", text) and low <= int(text) <= high else None

    restore(key, default, read, allowed=f"{low} to {high}")
    if not isinstance(st.session_state[key], int):
        # A browser says its choice by name, and may not have heard yet that the names are others now.
        st.session_state[key] = st.session_state.get(f"_chosen_{key}", default)
    if not low <= st.session_state[key] <= high:
        notice(
            key, f"{label} {st.session_state[key]} is not among {low} to {high}. Shown instead: {default}."
        )
        st.session_state[key] = default
    chosen = st.selectbox(
        label,
        range(low, high + 1),
        key=key,
        format_func=name,
        help=explanation or None,
        persist_state="session",
        on_change=_clear_notice,
        args=(key,),
    )
    show_notice(key)
    publish(key, str(chosen))
    assert isinstance(chosen, int)
    st.session_state[f"_chosen_{key}"] = chosen
    return chosen


def pick_option(
    label: str,
    options: Sequence[str],
    *,
    key: str,
    default: str,
    name: Callable[[str], str] = str,
    explanation: str = "",
) -> str:
    """A row of few options, one of them chosen and in the link."""
    restore(key, default, lambda text: text if text in options else None, allowed=", ".join(options))
    if st.session_state[key] not in options:
        st.session_state[key] = default
    chosen = st.segmented_control(
        label,
        options,
        key=key,
        format_func=name,
        required=True,
        help=explanation or None,
        persist_state="session",
        on_change=_clear_notice,
        args=(key,),
    )
    show_notice(key)
    publish(key, chosen)
    assert chosen is not None
    return chosen


def pick_number(
    label: str,
    *,
    key: str,
    low: float,
    high: float,
    step: float,
    default: float,
    explanation: str = "",
) -> float:
    """A slider, its value in the link. Over whole numbers where `step` is an int, else over floats."""
    kind = type(step)

    def read(text: str) -> float | None:
        try:
            value = kind(text)
        except ValueError:
            return None
        return value if low <= value <= high else None

    restore(key, kind(default), read, allowed=f"{low:g} to {high:g}")
    if not low <= st.session_state[key] <= high:
        nearest = kind(min(max(st.session_state[key], low), high))
        notice(
            key, f"{st.session_state[key]:g} is not among {low:g} to {high:g}. Shown instead: {nearest:g}."
        )
        st.session_state[key] = nearest
    chosen: float = st.slider(
        label,
        min_value=kind(low),
        max_value=kind(high),
        step=step,
        key=key,
        help=explanation or None,
        persist_state="session",
        on_change=_clear_notice,
        args=(key,),
    )
    show_notice(key)
    publish(key, f"{chosen:.10g}")
    return chosen


def pick_range(label: str, *, key: str, low: int, high: int, explanation: str = "") -> range:
    """A slider with two handles over low..high; the chosen numbers, both ends among them, as `3-17` in the link.

    At first all of them, and again when the bounds change under a choice of all or one that is no longer inside.
    """
    whole = (low, high)

    def read(text: str) -> tuple[int, int] | None:
        ends = re.fullmatch(r"(\d{1,6})-(\d{1,6})", text)
        chosen = (int(ends[1]), int(ends[2])) if ends else None
        return chosen if chosen and low <= chosen[0] <= chosen[1] <= high else None

    restore(key, whole, read, allowed=f"two whole numbers, {low}-{high}")
    former, (first, last) = st.session_state.get(f"_bounds_{key}", whole), st.session_state[key]
    if former != whole and ((first, last) == former or not low <= first <= last <= high):
        if (first, last) != former:
            notice(key, f"{label} {first} to {last} are not all among {low} to {high}. Shown instead: all.")
        st.session_state[key] = whole
    st.session_state[f"_bounds_{key}"] = whole
    chosen: Any = st.slider(  # two handles, because the value in the session is a pair
        label,
        min_value=low,
        max_value=high,
        key=key,
        help=explanation or None,
        persist_state="session",
        on_change=_clear_notice,
        args=(key,),
    )
    show_notice(key)
    publish(key, f"{chosen[0]}-{chosen[1]}")
    return range(chosen[0], chosen[1] + 1)


def enter_integer(
    label: str, *, key: str, low: int, high: int, default: int, bound: str = "", explanation: str = ""
) -> int:
    """A field for a whole number, its value in the link. `bound` says in words where `high` comes from."""
    allowed = f"{low:,} to {high:,}" + (f" ({bound})" if bound else "")

    def read(text: str) -> int | None:
        return int(text) if re.fullmatch(r"\d{1,16}", text) and low <= int(text) <= high else None

    restore(key, default, read, allowed=allowed)
    if not low <= st.session_state[key] <= high:
        notice(key, f"{st.session_state[key]:,} is not among {allowed}. Shown instead: {high:,}.")
        st.session_state[key] = high
    chosen = st.number_input(
        label,
        min_value=low,
        max_value=high,
        step=1,
        key=key,
        help=explanation or None,
        persist_state="session",
        on_change=_clear_notice,
        args=(key,),
    )
    show_notice(key)
    publish(key, str(chosen))
    return int(chosen)
