"""One cell of a map: how its number comes about, and what it moves."""

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import cache
from dashboard.components.attention_map import View, map_text
from dashboard.components.prompt import Inputs
from dashboard.plots import attention as plots
from dashboard.plots import style
from gpt_core.attention import AttentionSteps
from gpt_core.attention_cell import CellSteps


def draw(inputs: Inputs, view: View, *, d_head: int) -> None:
    """The steps from q·k to the weight, the dimensions behind q·k, and the value that is moved."""
    cell = cache.attention_cell(inputs.model, inputs.token_ids, view.layer, view.head, view.query, view.key)
    names = [f"{position} {label}" for position, label in enumerate(inputs.labels)]
    st.text(f"Query {names[view.query]}, key {names[view.key]}")
    if view.hide_first:
        st.caption(
            "Nothing is hidden here: these are the weights with the first token, before any rescaling."
        )
    steps, dimensions, moved = st.columns([3, 3, 3], gap="large")
    with steps:
        _draw_steps(cell, d_head)
    with dimensions:
        st.markdown("**The dimensions behind q·k**")
        st.plotly_chart(
            plots.contribution_bars(cell),
            key="attention_contributions",
            config=style.CONFIG,
            alt="Largest products of q and k by dimension",
        )
        capped = "" if cell.softcap is None else " Capped afterwards, so that no score grows without bound."
        st.caption(
            f"q and k have {d_head} numbers each in this head, after any turning by position. Their products, "
            f"dimension by dimension, add up to q·k = {cell.product:.4f}.{capped}"
        )
    with moved:
        st.markdown("**What really moves**")
        st.plotly_chart(
            plots.moved_bars(cell, text=map_text(inputs, None)),
            key="attention_moved",
            config=style.CONFIG,
            alt="Weights of the row beside the share of what each key hands over",
        )
        st.caption(
            f"A weight of {cell.weight:.4f} takes that much of the key's value vector, whose length here is "
            f"{cell.lengths[cell.key]:.3g}: {cell.moved_share:.1%} of what this row takes, lengths added up "
            "(norm-based analysis, [arXiv:2004.10102](https://arxiv.org/abs/2004.10102)). "
            + (
                "The value is taken through this head's part of the output projection, v·W_O."
                if cell.projected
                else "The output projection was not found in this block, so this is the length of v itself."
            )
        )
    st.markdown(f"**The whole row of query {cell.query}**")
    row = cache.attention_steps(inputs.model, inputs.token_ids, view.layer, view.head, view.query)
    _draw_row(row, cell, names)


def _draw_steps(cell: CellSteps, d_head: int) -> None:
    root = f" = 1/√{d_head}" if abs(cell.scaling - d_head**-0.5) < 1e-6 else ""
    st.markdown("**From q·k to the weight**")
    lines = [
        ("q·k", f"{cell.product:.4f}"),
        (f"times {cell.scaling:.4g}{root}", f"{cell.product * cell.scaling:.4f}"),
    ]
    if cell.softcap is not None:
        lines.append((f"capped: {cell.softcap:g} · tanh(score / {cell.softcap:g})", f"{cell.score:.4f}"))
    lines += [
        ("mask adds", "−∞" if np.isneginf(cell.bias) else f"{cell.bias:.4g}"),
        ("ln Σ exp over the row", f"{cell.log_sum:.4f}"),
        ("softmax: exp of the difference", f"{cell.weight:.4f}"),
    ]
    st.dataframe(
        pd.DataFrame(lines, columns=["step", "value"]),
        hide_index=True,
        key="attention_cell_steps",
        alt="Steps from q·k to the weight",
        column_config={"value": st.column_config.TextColumn(width=80)},
    )
    st.markdown(
        "Each token has three vectors in this head: a **query** q (what it looks for), a **key** k (what it offers) "
        "and a **value** v (what it hands on). The products are scaled, so that the softmax does not harden as vectors "
        "get longer; what comes later is masked; the softmax makes a row positive and add up to 1. The output is "
        "the sum of all v, weighted by it ([arXiv:1706.03762](https://arxiv.org/abs/1706.03762), section 3.2)."
    )


def _draw_row(row: AttentionSteps, cell: CellSteps, names: list[str]) -> None:
    total = float(cell.moved.sum(dtype=np.float64)) or 1.0
    st.dataframe(
        pd.DataFrame(
            {
                "key": names,
                "q·k": row.products,
                "scaled": row.scores,
                "masked": ["−∞" if np.isneginf(x) else f"{x:.4f}" for x in row.masked],
                "softmax": row.weights,
                "length of v": cell.lengths,
                "share moved": cell.moved / total,
            }
        ),
        hide_index=True,
        key="attention_steps_table",
        alt="Every key of the chosen row, step by step",
        column_config={
            "q·k": st.column_config.NumberColumn(format="%.4f"),
            "scaled": st.column_config.NumberColumn(format="%.4f"),
            "softmax": st.column_config.ProgressColumn(format="%.4f", min_value=0, max_value=1),
            "length of v": st.column_config.NumberColumn(format="%.3f"),
            "share moved": st.column_config.ProgressColumn(format="%.4f", min_value=0, max_value=1),
        },
    )
