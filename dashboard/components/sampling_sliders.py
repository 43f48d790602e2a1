"""The sliders that shape a distribution, each with what it does. Used by every page that samples."""

from typing import Any

import streamlit as st

from dashboard.components import link
from gpt_core.decoding import SETTING_RANGES, STAGES, SamplingSettings


def draw(page: str, *, stages: tuple[str, ...] = STAGES) -> SamplingSettings:
    """A slider for each of `stages`, in the order in which they run, and a button that puts all back."""
    chosen: dict[str, Any] = {}
    for stage in stages:
        bounds = SETTING_RANGES[stage]
        low, high, step = bounds.slider
        whole = all(float(end).is_integer() for end in (low, high, step))
        chosen[stage] = link.pick_number(
            bounds.label,
            key=f"{page}_{stage}",
            low=low,
            high=high,
            step=int(step) if whole else float(step),
            default=bounds.default,
            explanation=bounds.explanation,
        )
    st.button(
        "Put all back",
        key=f"{page}_sampling_reset",
        icon=":material/restart_alt:",
        on_click=st.session_state.update,
        args=({f"{page}_{stage}": type(chosen[stage])(SETTING_RANGES[stage].default) for stage in stages},),
    )
    return SamplingSettings(**chosen)
