"""A strip of tokens, drawn in the browser: colour, hover, keyboard, clicks.

The tokens travel as one binary payload: `TKS1`, the length of the JSON and the number of values (two uint32), the JSON
in UTF-8, zeros up to a multiple of four, and the values (float32); all numbers little-endian. The browser shows the
payload's CRC-32 in `data-checksum`. Which token is selected is not in the payload but in a small message of its own,
so that a click sends no token again.
"""

import json
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import streamlit as st

from dashboard.components import assets, link
from gpt_core.visible import show_graphemes

#: Most tokens that are drawn: the browser stays quick. No model here reads more at once.
MAX_TOKENS = 10_000
MAGIC = b"TKS1"

_HERE = Path(__file__).parent
_strip = st.components.v2.component(
    "token_strip",
    js=assets.script(_HERE / "token_strip.js"),
    css=assets.style(_HERE / "token_strip.css"),
)
_selection = st.components.v2.component(
    "token_strip_selection", js=(_HERE / "selection.js").read_text(encoding="utf-8")
)


def token_strip(
    labels: Sequence[str],
    *,
    key: str,
    ids: Sequence[int] | None = None,
    groups: Sequence[int] | None = None,
    graphemes: Sequence[str] | None = None,
    values: npt.ArrayLike | None = None,
    scale: Literal["categorical", "sequential"] = "categorical",
    hover: Sequence[str] | None = None,
    selected: int | None = None,
    select_into: str | None = None,
    on_select: Callable[[], None] | None = None,
    name: str = "Tokens",
) -> int | None:
    """Draw tokens; the position of the one that was clicked in this run, else None.

    labels: visible text of each token; one with ⏎ ends its line. ids: shown on hover.
    groups: group number of each token, non-decreasing; neighbours of one group are drawn joined, with the group's
    entry of `graphemes` in front of them.
    scale: `categorical` gives neighbouring groups different hues; `sequential` colours by `values`, 0 (the page's
    background) to 1, NaN for no value. hover: plain text, its lines separated by newlines.
    selected: the position that is marked. select_into: key of the session state that a click sets to its position
    before the page runs, such as the key of a number input. on_select: called after that. name: for screen readers.
    """
    n_tokens = len(labels)
    payload = pack_tokens(
        labels[:MAX_TOKENS],
        key=key,
        ids=None if ids is None else ids[:MAX_TOKENS],
        groups=None if groups is None else groups[:MAX_TOKENS],
        graphemes=graphemes,
        values=None if values is None else np.asarray(values)[:MAX_TOKENS],
        scale=scale,
        hover=None if hover is None else hover[:MAX_TOKENS],
        selectable=selected is not None or select_into is not None or on_select is not None,
        name=name,
    )
    with st.container(key=f"{key}_box", gap=None):
        result = _strip(
            key=key,
            data=payload,
            on_clicked_change=partial(_take_click, key, n_tokens, select_into, on_select),
        )
        if selected is not None:
            _selection(key=f"{key}_selection", data={"strip": key, "selected": int(selected)}, height=1)
    if n_tokens > MAX_TOKENS:
        st.caption(f"The first {MAX_TOKENS:,} of {n_tokens:,} tokens are drawn.")
    return check_position(result.get("clicked"), n_tokens)


def pack_tokens(
    labels: Sequence[str],
    *,
    key: str,
    ids: Sequence[int] | None = None,
    groups: Sequence[int] | None = None,
    graphemes: Sequence[str] | None = None,
    values: npt.ArrayLike | None = None,
    scale: Literal["categorical", "sequential"] = "categorical",
    hover: Sequence[str] | None = None,
    selectable: bool = True,
    name: str = "Tokens",
) -> bytes:
    """The payload; see the head of this module and `token_strip`."""
    members = Counter(groups or ())
    numbers = np.asarray([] if values is None else values, dtype="<f4")
    assert scale in {"categorical", "sequential"}
    assert all(part is None or len(part) == len(labels) for part in (ids, groups, hover))
    assert values is None or numbers.shape == (len(labels),)
    text = json.dumps(
        {
            "key": key,
            "name": name,
            "scale": scale,
            "selectable": selectable,
            "labels": list(labels),
            "ids": None if ids is None else [int(i) for i in ids],
            "groups": None if groups is None else [int(group) for group in groups],
            # Only a group of several tokens needs to be told what it is together.
            "graphemes": {
                group: show_graphemes(graphemes[group])
                for group, n_members in members.items()
                if graphemes is not None and n_members > 1
            },
            "hover": None if hover is None else list(hover),
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode("utf-8", errors="replace")
    padding = bytes(-len(text) % 4)
    return MAGIC + struct.pack("<II", len(text), numbers.size) + text + padding + numbers.tobytes()


def check_position(value: object, n_tokens: int) -> int | None:
    """`value` if it is the position of one of `n_tokens` tokens, else None: anyone can send anything as a click."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < n_tokens:
        return value
    return None


def _take_click(
    key: str, n_tokens: int, select_into: str | None, on_select: Callable[[], None] | None
) -> None:
    position = check_position(st.session_state[key].get("clicked"), n_tokens)
    if position is None:
        return
    if select_into is not None:
        link.choose(select_into, position)
    if on_select is not None:
        on_select()
