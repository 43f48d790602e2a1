"""The sampling stages as a row of cards over one list of tokens, drawn in the browser: before, after, what went.

Each card can be switched off and moved; what the reader asks for comes back as (stage, action) and is checked here.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from dashboard.components import assets
from gpt_core.decoding import STAGE_LABELS, STAGES
from gpt_core.sampling import CumulativeCurve, SamplingResult

ACTIONS = ("earlier", "later", "switch")

_HERE = Path(__file__).parent
_row = st.components.v2.component(
    "stage_row",
    js=assets.script(_HERE / "stage_row.js"),
    css=(_HERE / "stage_row.css").read_text(encoding="utf-8"),
)


def stage_row(
    result: SamplingResult,
    *,
    key: str,
    token_ids: Sequence[int] | np.ndarray,
    labels: Sequence[str],
    curves: dict[str, CumulativeCurve],
    on_ask: Callable[[str, str], None],
) -> None:
    """Draw the stages of `result` in their order; `on_ask(stage, action)` is called with one of ACTIONS.

    `token_ids` and `labels` `(n_shown,)`: the tokens in every card. `curves`: of the stages that remove tokens.
    """
    with st.container(key=f"{key}_box"):
        _row(
            key=key,
            data=row_payload(result, token_ids=token_ids, labels=labels, curves=curves),
            on_asked_change=partial(_take, key, on_ask),
        )


def row_payload(
    result: SamplingResult,
    *,
    token_ids: Sequence[int] | np.ndarray,
    labels: Sequence[str],
    curves: dict[str, CumulativeCurve],
) -> dict[str, Any]:
    """What the browser draws: plain numbers and strings, which it shows as text and never as HTML."""
    shown = np.asarray(token_ids, dtype=np.int64)
    cards = []
    for stage in result.stages:
        curve = curves.get(stage.name)
        before_logits, before = result.input_of(stage.name)
        cards.append(
            {
                "name": stage.name,
                "title": STAGE_LABELS[stage.name],
                "label": stage.label,
                "active": stage.active,
                "off": stage.name in result.settings.switched_off,
                "before": [round(float(p), 6) for p in before[shown]],
                "after": [round(float(p), 6) for p in stage.probs[shown]],
                "gone": [bool(gone) for gone in np.isneginf(stage.logits[shown])],
                "n_before": int((before_logits > -np.inf).sum()),
                "n_after": stage.n_survivors,
                "mass": stage.mass_removed,
                "entropy_before": stage.entropy_bits_before,
                "entropy": stage.entropy_bits,
                "curve": None
                if curve is None
                else {
                    "ranks": curve.ranks.tolist(),
                    "cumulative": [round(float(c), 5) for c in curve.cumulative],
                    "cut": curve.cut,
                    "kept": curve.kept,
                },
            }
        )
    return {"tokens": list(labels), "cards": cards}


def check_ask(value: object) -> tuple[str, str] | None:
    """`value` as (stage, action) if it is one, else None: anyone can send anything as a click."""
    if not isinstance(value, dict):
        return None
    stage, action = value.get("stage"), value.get("action")
    return (stage, action) if stage in STAGES and action in ACTIONS else None


def _take(key: str, on_ask: Callable[[str, str], None]) -> None:
    asked = check_ask(st.session_state[key].get("asked"))
    if asked is not None:
        on_ask(*asked)
