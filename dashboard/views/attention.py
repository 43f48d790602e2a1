"""Which earlier tokens does each token look at, and how strongly, in each head of each layer?"""

import streamlit as st

from dashboard import cache
from dashboard.components import (
    attention_bertviz,
    attention_cell,
    attention_compare,
    attention_files,
    attention_map,
    attention_measures,
    attention_summaries,
    attention_text,
    job,
    link,
    prompt,
)
from dashboard.components.explain import show_sources
from dashboard.components.head_grid import HeadChoice, download_grid, head_grid
from dashboard.components.message import show_problem
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

SECTIONS = ("One cell", "Every head", "Summaries", "Compare", "Numbers", "BertViz")

st.title("Attention")
st.markdown(
    "Each row shows how one token (the query) spreads its attention over itself and the tokens before it (the keys)."
)
inputs = prompt.require()
facts = cache.geometry(inputs.model)
if "attention" in facts.closed_views:
    show_problem(facts.closed_views["attention"])
    st.stop()

with st.container(horizontal=True, vertical_alignment="bottom"):
    layer, head = attention_map.pick_head(n_layers=facts.n_layers, n_heads=facts.n_heads)
    inputs, boundary = attention_text.extend(
        inputs, context_length=facts.context_length, closed=facts.closed_views.get("logits", "")
    )
job.run(TraceTask(model=inputs.model, token_ids=inputs.token_ids), slot="trace", message="Reading the text.")
st.subheader("All heads")
measures = attention_measures.grid_measures(inputs)
head_grid(
    inputs.model,
    inputs.token_ids,
    inputs.labels,
    key="attention_grid",
    selected=HeadChoice(
        layer=layer,
        head=head,
        query=st.session_state.get("attention_query"),
        key=st.session_state.get("attention_key"),
    ),
    select_into={name: f"attention_{name}" for name in ("layer", "head", "query", "key")},
    measures=measures,
    arranged=attention_measures.grid_arrangement(),
)

st.subheader(f"Layer {layer}, head {head}")
view = attention_map.draw(inputs, layer=layer, head=head, boundary=boundary)

st.subheader("Look closer")
section = link.pick_option("Section", SECTIONS, key="attention_section", default=SECTIONS[0])
# Drawn last: the page ends where a job is under way.
section_box = st.container()

show_sources(
    "attention",
    functions=(
        "gpt_core.attention.attention_maps",
        "gpt_core.capture.attention_scores",
        "gpt_core.attention_cell.explain_cell",
        "gpt_core.attention_measures.HeadMeter",
        "gpt_core.attention_summaries.roll_out",
    ),
    snippet=lambda: attention_snippet(
        load_name(inputs.model),
        inputs.text,
        layer=layer,
        head=head,
        special_tokens=inputs.special_tokens,
        token_ids=None if boundary is None else inputs.token_ids,
    ),
    notebook=NOTEBOOK,
)

if section != "Numbers":
    job.forget(attention_files.SLOT)  # up to 200 MB
with section_box:
    picture = st.session_state["attention_picture"]
    if section == "One cell":
        attention_cell.draw(inputs, view, d_head=facts.d_head)
    elif section == "Every head":
        attention_measures.draw(inputs, layer=layer, head=head)
    elif section == "Summaries":
        attention_summaries.draw(
            inputs,
            view,
            n_layers=facts.n_layers,
            n_heads=facts.n_heads,
            boundary=boundary,
            kind=picture,
        )
    elif section == "Compare":
        attention_compare.draw(inputs, view, boundary=boundary, kind=picture)
    elif section == "Numbers":
        attention_files.draw(inputs, view, n_layers=facts.n_layers, n_heads=facts.n_heads)
        download_grid(
            inputs.model,
            inputs.token_ids,
            inputs.labels,
            attention_text.whole_text(inputs, boundary),
            key="attention_grid_html",
            measures=measures,
        )
    else:
        attention_bertviz.draw(inputs, layer=layer, n_layers=facts.n_layers, n_heads=facts.n_heads)
