"""The sliders that shape a distribution, each with what it does. Used by every page that samples."""

from typing import Any

import streamlit as st

from dashboard.components import link
from gpt_core.decoding import (
    MAX_STOP_STRING_CHARACTERS,
    MAX_STOP_STRINGS,
    SETTING_RANGES,
    SamplingSettings,
)
from gpt_core.recipes import Preset, presets


def draw(page: str, *, stages: tuple[str, ...] = tuple(SETTING_RANGES)) -> SamplingSettings:
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


def pick_preset(page: str, *, n_prompt_tokens: int, context_length: int) -> None:
    """A list of ready-made settings; choosing one moves the page's widgets."""
    ready = {preset.name: preset for preset in presets(n_prompt_tokens, context_length=context_length)}
    st.selectbox(
        "Preset",
        list(ready),
        index=None,
        key=f"{page}_preset",
        placeholder="Choose ready-made settings",
        persist_state="session",
        on_change=_take_preset,
        args=(page, ready),
    )
    chosen = st.session_state.get(f"{page}_preset")
    if chosen in ready:
        st.caption(ready[chosen].note)


def _take_preset(page: str, ready: dict[str, Preset]) -> None:
    chosen = st.session_state[f"{page}_preset"]
    if chosen not in ready:
        return
    settings = ready[chosen].settings
    st.session_state[f"{page}_mode"] = "Draw" if settings.do_sample else "Greedy"
    st.session_state[f"{page}_max_new_tokens"] = settings.max_new_tokens
    st.session_state[f"{page}_seed"] = settings.seed
    for stage in SETTING_RANGES:
        value = getattr(settings.sampling, stage)
        st.session_state[f"{page}_{stage}"] = value


def enter_stop_strings(page: str) -> tuple[str, ...]:
    """A field with a stop string a line; `\\n` in it stands for a line break. In the link."""
    key = f"{page}_stop_strings"
    link.restore(key, "", lambda text: text, allowed="any text")
    typed = st.text_area(
        f"Stop strings, one a line (at most {MAX_STOP_STRINGS})",
        key=key,
        height=80,
        max_chars=MAX_STOP_STRINGS * (MAX_STOP_STRING_CHARACTERS + 1),
        help="The text ends with the token that completes one of them. Write \\n for a line break.",
        persist_state="session",
    )
    link.publish(key, typed or None)
    return tuple(line.replace("\\n", "\n") for line in (typed or "").splitlines() if line)
