"""The numbers of a map to read and to take away."""

from typing import Literal

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import cache
from dashboard.components import job, link
from dashboard.components.attention_map import View
from dashboard.components.csv import csv_bytes
from dashboard.components.message import show_error
from dashboard.components.prompt import Inputs
from dashboard.components.size import size_text
from gpt_core.attention_export import check_file, estimated_file_bytes, origin_of
from gpt_core.errors import GptCoreError
from gpt_core.tasks import MapsFileTask

SLOT = "attention_file"
#: Rows of the table: a longer text is in the files whole.
TABLE_ROWS = 64
#: Columns that a table can still show.
MAX_TABLE_COLUMNS = 128
WHAT = ("this head", "this layer", "all layers")


def draw(inputs: Inputs, view: View, *, n_layers: int, n_heads: int) -> None:
    """A table of the chosen head, and files of a head, a layer or all."""
    n_tokens = len(inputs.token_ids)
    st.markdown("**The numbers**")
    start = max(0, min(view.query - TABLE_ROWS // 2, n_tokens - TABLE_ROWS))
    rows = range(start, min(n_tokens, start + TABLE_ROWS))
    if n_tokens <= MAX_TABLE_COLUMNS:
        maps = cache.attention_maps(
            inputs.model, inputs.token_ids, view.layer, view.head, rows.start, rows.stop
        )
        names = [f"{position} {label}" for position, label in enumerate(inputs.labels)]
        table = pd.DataFrame(
            np.round(maps.weights[0], 3),
            columns=names,
            index=pd.Index([names[row] for row in rows], name="query"),
        )
        st.caption(
            f"Layer {view.layer}, head {view.head}, rounded to 3 decimals as in the notebook"
            + (f", queries {rows.start} to {rows.stop - 1}" if len(rows) < n_tokens else "")
            + ". Each row adds up to 1 before rounding; the first token is never hidden here."
        )
        st.dataframe(
            table, key="attention_table", alt="Attention weights", height="content" if n_tokens <= 20 else 400
        )
        st.download_button(
            "This table as CSV",
            data=lambda: csv_bytes(table.reset_index(), notes=origin_of(inputs.model).lines()),
            file_name=f"attention_layer{view.layer}_head{view.head}.csv",
            mime="text/csv",
            icon=":material/download:",
            key="attention_csv",
        )
    else:
        st.text(f"{n_tokens:,} × {n_tokens:,} numbers: too many to read here. The files hold them all.")
    st.markdown("**Files with every number**")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        what = link.pick_option("Maps of", WHAT, key="attention_file_what", default=WHAT[0])
        chosen = link.pick_option(
            "As", ("npz", "csv"), key="attention_file_kind", default="npz", name=str.upper
        )
    kind: Literal["npz", "csv"] = "npz" if chosen == "npz" else "csv"
    layers = tuple(range(n_layers)) if what == "all layers" else (view.layer,)
    heads = (view.head,) if what == "this head" else None
    n_maps = len(layers) * (1 if heads else n_heads)
    size = estimated_file_bytes(n_maps, n_tokens, kind=kind)
    st.caption(
        f"{n_maps:,} map{'s' if n_maps > 1 else ''} of {n_tokens:,} × {n_tokens:,}, float32, up to "
        f"{size_text(size)}, with the model, its revision, dtype and versions inside. "
        + (
            "NPZ: one array for each layer, (heads, queries, keys), for numpy.load."
            if kind == "npz"
            else "CSV: a row for each cell: layer, head, query, key, weight."
        )
    )
    try:
        check_file(n_maps, n_tokens, kind=kind)
    except GptCoreError as error:
        show_error(error)
        return
    task = MapsFileTask(
        model=inputs.model,
        token_ids=inputs.token_ids,
        labels=inputs.labels,
        layers=layers,
        heads=heads,
        kind=kind,
    )
    if not job.holds(SLOT, task):
        st.button(
            "Make the file",
            key="attention_file_make",
            icon=":material/file_save:",
            on_click=job.start,
            args=(task,),
            kwargs={"slot": SLOT},
        )
        return
    data: bytes = job.run(task, slot=SLOT, message="Writing the file.")
    name = "all" if what == "all layers" else f"layer{view.layer}" + (f"_head{view.head}" if heads else "")
    st.download_button(
        f"Save {size_text(len(data))}",
        data=data,
        file_name=f"attention_{origin_of(inputs.model).revision}_{name}.{kind}",
        mime="text/csv" if kind == "csv" else "application/zip",
        icon=":material/download:",
        key="attention_file_save",
        on_click="ignore",
    )
