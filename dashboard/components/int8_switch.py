"""The switch for int8, and what it costs in exactness."""

import streamlit as st

from dashboard import cache
from dashboard.components import growing, job
from dashboard.components.message import show_problem
from gpt_core.tasks import Int8ShiftTask


def pick(model: str) -> bool:
    """A switch for int8, and how far it shifts the probabilities, measured when first asked for. Not in the link."""
    missing = cache.int8_machine_problem()
    wanted = st.toggle(
        "int8 (faster, approximate)",
        key="generation_int8",
        persist_state="session",
        disabled=bool(missing),
        help="Weights and activations of single tokens rounded to whole numbers. Only this page uses it, and only "
        "where you ask for it.",
    )
    if missing:
        st.text(missing)
    if missing or not wanted:
        return False
    why_not = cache.int8_problem(model)
    if why_not:
        show_problem(f"{why_not} The text is computed in float32.")
        return False
    if job.running(growing.SLOT):
        return True
    shift = job.run(
        Int8ShiftTask(model=model),
        slot="generation_int8",
        message="Measuring what int8 does to the probabilities.",
    )
    st.caption(
        f"Measured on this model, over {shift.n_positions} tokens of a reference text: probabilities shift by "
        f"{shift.total_variation:.2%} on average and {shift.largest_total_variation:.1%} at most (total variation), "
        f"{shift.kl_bits:.4f} bits of divergence a token; the most probable token is the same for "
        f"{shift.same_favourite:.0%} of them. The prompt itself is read in float32."
    )
    return True
