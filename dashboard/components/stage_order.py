"""The order in which the sampling stages run, with a way to move each and to switch it off."""

import streamlit as st

from dashboard.components import sampling_sliders
from gpt_core.decoding import STAGE_LABELS, SamplingSettings


def draw(page: str, settings: SamplingSettings) -> None:
    """An expander with a line a stage; its buttons move the stage or switch it off and on."""
    note = "" if settings.in_default_order else " (not `generate`'s)"
    with st.expander(f"Order of the stages{note}", key=f"{page}_order_open", on_change="rerun") as box:
        if not box.open:
            return
        for place, stage in enumerate(settings.order):
            off = stage in settings.switched_off
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                st.text(f"{place + 1}. {STAGE_LABELS[stage]}{' (off)' if off else ''}", width="stretch")
                for action, icon, label, disabled in (
                    ("earlier", "arrow_upward", "Earlier", place == 0),
                    ("later", "arrow_downward", "Later", place == len(settings.order) - 1),
                    (
                        "switch",
                        "toggle_off" if off else "toggle_on",
                        "Switch on" if off else "Switch off",
                        False,
                    ),
                ):
                    st.button(
                        f":material/{icon}:",
                        key=f"{page}_{action}_{stage}",
                        help=f"{label}: {STAGE_LABELS[stage]}",
                        disabled=disabled,
                        on_click=sampling_sliders.arrange,
                        args=(page, stage, action),
                    )
