"""Settings that are tried beside the chosen ones, on the same prompt and seed. In the link."""

import json

import streamlit as st

from dashboard.components import link
from gpt_core.decoding import GenerationSettings
from gpt_core.errors import GptCoreError
from gpt_core.recipes import describe_settings, read_settings, write_settings

#: Most settings side by side, the chosen ones among them.
MAX_SETTINGS = 4
KEY = "generation_beside"


def pick(current: GenerationSettings) -> tuple[GenerationSettings, ...]:
    """A list of settings that the reader has put beside `current`, and a button that adds `current` to it."""
    link.restore(KEY, "", lambda text: text if _read(text, current) is not None else None, allowed="a list")
    kept = _read(st.session_state[KEY], current) or ()
    for place, settings in enumerate(kept):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.text(f"{'BCD'[place]}: {describe_settings(settings)}", width="stretch")
            st.button(
                ":material/close:",
                key=f"{KEY}_remove_{place}",
                help="Take these settings out",
                on_click=_keep,
                args=(kept[:place] + kept[place + 1 :],),
            )
    st.button(
        "Put these settings beside",
        key=f"{KEY}_add",
        icon=":material/splitscreen_vertical_add:",
        on_click=_keep,
        args=((*kept, current),),
        disabled=len(kept) >= MAX_SETTINGS - 1,
        help="Keeps a copy of the settings as they are now. Change them then: Generate runs all of them on the same "
        f"prompt and seed, at most {MAX_SETTINGS} side by side.",
    )
    link.show_notice(KEY)
    link.publish(KEY, st.session_state[KEY] or None)
    return kept


def _keep(settings: tuple[GenerationSettings, ...]) -> None:
    written = [write_settings(one) for one in settings[: MAX_SETTINGS - 1]]
    st.session_state[KEY] = json.dumps(written, separators=(",", ":")) if written else ""


def _read(text: str, current: GenerationSettings) -> tuple[GenerationSettings, ...] | None:
    if not text:
        return ()
    try:
        written = json.loads(text)
        if not isinstance(written, list) or len(written) > MAX_SETTINGS - 1:
            return None
        return tuple(read_settings(one, current) for one in written)
    except (GptCoreError, ValueError, TypeError, RecursionError):
        return None
