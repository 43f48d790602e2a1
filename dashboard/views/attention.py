"""Which earlier tokens does each token look at, and how strongly, in each head of each layer?"""

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import cache
from dashboard.components import job, link, prompt
from dashboard.components.csv import csv_bytes
from dashboard.components.explain import show_sources
from dashboard.components.head_grid import HeadChoice, download_grid, head_grid
from dashboard.components.message import show_problem
from dashboard.plots import attention as plots
from dashboard.plots import bertviz
from gpt_core.catalog import load_name
from gpt_core.snippets.attention import attention_snippet
from gpt_core.tasks import TraceTask

NOTEBOOK = """\
response = model(**encoded_text, output_attentions=True, output_hidden_states=True)
response.attentions[-1][0][9]                 # attention in layer 12's 10th head
arr = response.attentions[9][0][0]
attention_df = pd.DataFrame((torch.round(arr*10**3)/(10**3)).detach()).applymap(float)
attention_df.columns = tokens
attention_df.index = tokens
model_view(response.attentions, tokens)"""

st.title("Attention")
st.markdown(
    "Each row shows how one token (the query) spreads its attention over itself and the tokens before it (the keys)."
)
inputs = prompt.require()
facts = cache.geometry(inputs.model)
if "attention" in facts.closed_views:
    show_problem(facts.closed_views["attention"])
    st.stop()
last_layer, last_head, n_tokens = facts.n_layers - 1, facts.n_heads - 1, len(inputs.token_ids)
names = [f"{position} {label}" for position, label in enumerate(inputs.labels)]

pickers = st.container(horizontal=True)
with pickers:
    layer = link.pick_integer(
        f"Layer (of 0–{last_layer})",
        key="attention_layer",
        low=0,
        high=last_layer,
        default=min(9, last_layer),
        name=lambda number: f"layer {number}",
    )
    head = link.pick_integer(
        f"Head (of 0–{last_head})",
        key="attention_head",
        low=0,
        high=last_head,
        default=0,
        name=lambda number: f"head {number}",
    )
job.run(
    TraceTask(model=inputs.model, token_ids=inputs.token_ids), slot="trace", message="Reading the prompt."
)

# Head grid: all heads of all layers. Begin.
st.subheader("All heads")
head_grid(
    inputs.model,
    inputs.token_ids,
    inputs.labels,
    key="attention_heads",
    selected=HeadChoice(
        layer=layer,
        head=head,
        query=st.session_state.get("attention_query"),
        key=st.session_state.get("attention_key"),
    ),
    select_into={name: f"attention_{name}" for name in ("layer", "head", "query", "key")},
)
download_grid(inputs.model, inputs.token_ids, inputs.labels, inputs.text, key="attention_heads_html")
# Head grid: end.

rows = range(n_tokens)
if n_tokens > plots.MAX_ROWS:
    with pickers:
        block = link.pick_integer(
            f"Rows (of {n_tokens:,}, {plots.BLOCK_ROWS} at a time)",
            key="attention_block",
            low=0,
            high=-(-n_tokens // plots.BLOCK_ROWS) - 1,
            default=0,
            name=lambda number: (
                f"{number * plots.BLOCK_ROWS} to {min(n_tokens, (number + 1) * plots.BLOCK_ROWS) - 1}"
            ),
        )
    rows = range(block * plots.BLOCK_ROWS, min(n_tokens, (block + 1) * plots.BLOCK_ROWS))
maps = cache.attention_maps(inputs.model, inputs.token_ids, layer, head, rows.start, rows.stop)
st.plotly_chart(
    plots.attention_heatmap(maps, head=head, labels=inputs.labels, token_ids=inputs.token_ids),
    key="attention_map",
    config=plots.CONFIG,
    alt=f"Attention map of layer {layer}, head {head}",
)
first_share = float(maps.weights[0][1 if rows.start == 0 and n_tokens > 1 else 0 :, 0].mean())
st.caption(
    f"On average, the rows shown after the first give {first_share:.0%} of their attention to the first token, the "
    "“attention sink” ([arXiv:2309.17453](https://arxiv.org/abs/2309.17453)): a head that has nothing to look for "
    "looks there. Empty cells are masked: a token cannot look at what comes after it."
)

st.subheader("The numbers")
table = pd.DataFrame(
    np.round(maps.weights[0], 3), columns=names, index=pd.Index([names[row] for row in rows], name="query")
)
st.caption(
    f"Layer {layer}, head {head}, rounded to 3 decimals as in the notebook. Each row adds up to 1 before rounding."
)
if n_tokens <= plots.MAX_TABLE_COLUMNS:
    st.dataframe(
        table, key="attention_table", alt="Attention weights", height="content" if n_tokens <= 20 else 400
    )
else:
    st.text(f"{len(rows)} × {n_tokens} numbers: too many to read here. The CSV file holds them all.")
st.download_button(
    "CSV",
    data=lambda: csv_bytes(table.reset_index()),
    file_name=f"attention_layer{layer}_head{head}.csv",
    mime="text/csv",
    icon=":material/download:",
    key="attention_csv",
)

with st.expander(
    "Masked self-attention, step by step, on this prompt",
    key="attention_steps",
    on_change="rerun",
    icon=":material/stairs:",
) as box:
    if box.open:
        query = link.pick_integer(
            "Query token",
            key="attention_query",
            low=0,
            high=n_tokens - 1,
            default=n_tokens - 1,
            name=lambda position: names[position],
        )
        steps = cache.attention_steps(inputs.model, inputs.token_ids, layer, head, query)
        root = f" = 1/√{facts.d_head}" if abs(steps.scaling - facts.d_head**-0.5) < 1e-6 else ""
        st.markdown(
            "Each token has three vectors in this head: a **query** q (what it looks for), a **key** k (what it "
            "offers) and a **value** v (what it hands on). (1) q of the chosen token · k of every token. (2) Scaled: "
            f"times {steps.scaling:.4g}{root}"
            ", so that the softmax does not harden as vectors get longer. (3) Masked: what comes later is set to −∞. "
            "(4) Softmax over the row: positive numbers that add up to 1. The head's output is the sum of all v, "
            "weighted by them ([arXiv:1706.03762](https://arxiv.org/abs/1706.03762), section 3.2)."
        )
        st.dataframe(
            pd.DataFrame(
                {
                    "key": names,
                    "q·k": steps.products,
                    "scaled": steps.scores,
                    "masked": ["−∞" if np.isneginf(x) else f"{x:.4f}" for x in steps.masked],
                    "softmax": steps.weights,
                }
            ),
            hide_index=True,
            key="attention_steps_table",
            column_config={
                "q·k": st.column_config.NumberColumn(format="%.4f"),
                "scaled": st.column_config.NumberColumn(format="%.4f"),
                "softmax": st.column_config.ProgressColumn(format="%.4f", min_value=0, max_value=1),
            },
        )

with st.expander("BertViz", key="attention_bertviz", on_change="rerun", icon=":material/polyline:") as box:
    if box.open:
        view = link.pick_option(
            "View", ("Head view", "Model view"), key="attention_bertviz_view", default="Model view"
        )
        layers = tuple(range(facts.n_layers)) if view == "Model view" else (layer,)
        n_bytes = bertviz.estimated_bytes(len(layers), facts.n_heads, n_tokens)
        dark = st.context.theme.type == "dark"
        st.caption(
            f"{view} of {'all layers' if view == 'Model view' else f'layer {layer}'}: up to {n_bytes / 1e6:,.1f} MB. "
            "Its size grows with the square of the number of tokens."
        )
        if n_bytes > plots.MAX_BERTVIZ_BYTES:
            show_problem(
                f"BertViz pages are drawn up to {plots.MAX_BERTVIZ_BYTES / 1e6:,.0f} MB; this one would have up to "
                f"{n_bytes / 1e6:,.0f} MB. Shorten the prompt; the maps above have no such limit."
            )
        elif n_bytes <= plots.FREE_BERTVIZ_BYTES or st.toggle(
            f"Draw up to {n_bytes / 1e6:,.1f} MB", key="attention_bertviz_large"
        ):
            page = cache.bertviz_page(inputs.model, inputs.token_ids, inputs.labels, view, layers, dark)
            st.iframe(page, alt=f"BertViz {view}")

show_sources(
    "attention",
    functions=("gpt_core.attention.attention_maps", "gpt_core.capture.attention_scores"),
    snippet=lambda: attention_snippet(
        load_name(inputs.model), inputs.text, layer=layer, head=head, special_tokens=inputs.special_tokens
    ),
    notebook=NOTEBOOK,
)
