"""Where do a text's vectors come from, what lies near them, and what do the blocks make of them?"""

import pandas as pd
import streamlit as st

from dashboard import cache
from dashboard.components import job, link, prompt
from dashboard.components.csv import csv_bytes
from dashboard.components.explain import show_sources
from dashboard.components.message import show_error, show_problem
from dashboard.plots import embeddings as plots
from dashboard.plots import style
from gpt_core.embeddings import SPACES, print_vectors
from gpt_core.errors import GptCoreError, UnsupportedError
from gpt_core.tasks import TraceTask, WalkTask

NOTEBOOK = """\
encoded = tokenizer.encode('Agney loves to train DL models', return_tensors='pt')
model.transformer.wte(encoded).shape                                            # torch.Size([1, 7, 768])
model.transformer.wpe(tensor([0,1,2,3,4,5,6]).reshape(1,7)).shape               # torch.Size([1, 7, 768])
in_ip = model.transformer.wte(encoded) + model.transformer.wpe(tensor([0,1,2,3,4,5,6]).reshape(1,7))
in_ip = model.transformer.drop(in_ip)

for module in model.transformer.h:
    in_ip = module(in_ip)[0]
in_ip = model.transformer.ln_f(in_ip)
(in_ip == model(encoded, output_hidden_states=True).hidden_states[-1]).all()    # tensor(True)

total_params = 0
for params in model.parameters():
    total_params += numel(params)
print(f"total_params : {total_params : ,}")                                     # total_params :  124,439,808"""

st.title("Embeddings")
st.markdown(
    "Each token of the prompt becomes a vector, and the blocks carry it from there to the last hidden state."
)
inputs = prompt.require()
facts = cache.geometry(inputs.model)
n_tokens = len(inputs.token_ids)
names = [f"{position} {label}" for position, label in enumerate(inputs.labels)]
job.run(
    TraceTask(model=inputs.model, token_ids=inputs.token_ids), slot="trace", message="Reading the prompt."
)
found = cache.input_embeddings(inputs.model, inputs.token_ids)

with st.container(horizontal=True, gap="medium"):
    dimensions = link.pick_range(
        "Dimensions shown", key="embeddings_dimensions", low=0, high=facts.d_model - 1
    )
    rows = range(n_tokens)
    if n_tokens > plots.MAX_ROWS:
        block = link.pick_integer(
            f"Tokens shown (of {n_tokens:,}, {plots.MAX_ROWS} at a time)",
            key="embeddings_block",
            low=0,
            high=-(-n_tokens // plots.MAX_ROWS) - 1,
            default=0,
            name=lambda number: (
                f"{number * plots.MAX_ROWS} to {min(n_tokens, (number + 1) * plots.MAX_ROWS) - 1}"
            ),
        )
        rows = range(block * plots.MAX_ROWS, min(n_tokens, (block + 1) * plots.MAX_ROWS))
st.plotly_chart(
    plots.embedding_maps(
        found, labels=inputs.labels, token_ids=inputs.token_ids, rows=rows, dimensions=dimensions
    ),
    key="embeddings_maps",
    config=style.CONFIG,
    alt="Vectors of the tokens as heatmaps",
)
st.caption(
    f"Blue is positive, red negative. The colours end at ±{plots.vector_maps(found)[0].limit:.3g}: 1 % of the values "
    "are larger. Hover for the exact value; drag to zoom, double-click to zoom out."
)
shape = f"torch.Size([1, {n_tokens}, {facts.d_model}])"
wte_column, wpe_column = st.columns([2, 3], gap="large")
with wte_column:
    st.markdown(
        f"**wte**, the token table, has {facts.vocab_size:,} learned rows: a token has the same one wherever it stands."
    )
    if found.scale != found.scale:
        st.markdown(
            f"What enters block 0 is no multiple of these vectors: it differs from them by up to "
            f"{found.difference:.3g}. This model norms them first, or adds positions by a formula."
        )
    elif found.scale != 1:
        st.markdown(f"Before block 0, this model multiplies its vectors by {found.scale:.4f}.")
with wpe_column:
    if found.position_vectors is not None:
        st.markdown(
            "**wpe**, the position table, has a row for each position, the same whatever token stands there. The "
            "notebook says that it is not learnable. In GPT-2 it is: a table of weights, learned in training like all "
            "others (as in GPT-1, Radford et al. 2018, section 4.1). What is fixed is the sinusoidal table of the "
            "original Transformer ([arXiv:1706.03762](https://arxiv.org/abs/1706.03762), section 3.5)."
        )
    else:
        st.markdown(
            "There is **no position table** in this model"
            + (": nothing is added to the token vectors." if found.scale == found.scale else ".")
        )
shapes = [
    f"wte.shape    {shape}",
    *([f"wpe.shape    {shape}"] if found.position_vectors is not None else []),
    f"in_ip.shape  {shape}",
]
st.code("\n".join([*shapes, "in_ip", print_vectors(found.block_input)]), language=None)

if found.position_vectors is None:
    st.subheader("Positions without a table")
    n_positions = min(facts.context_length, max(n_tokens, plots.MAX_POSITIONS))
    try:
        turned = cache.rotary_angles(inputs.model, n_positions)
        st.markdown(
            "Instead, the layers turn their queries and keys. A pair of dimensions of q and k at position p is turned "
            "by the angle p · θ, each pair with a frequency θ of its own: the first turn fast, the last hardly at all. "
            "The product q·k then depends on how far apart two tokens are, not on where they stand "
            "([arXiv:2104.09864](https://arxiv.org/abs/2104.09864))."
        )
        for number, angles in enumerate(turned):
            if angles.kind:
                st.text(f"Layers of the kind {angles.kind}:")
            st.plotly_chart(
                plots.rotary_figure(angles, n_tokens=n_tokens),
                key=f"embeddings_rotary_{number}",
                config=style.CONFIG,
                alt="Rotary frequencies, and cosine of the angle by position and pair",
            )
            if angles.scaling != 1:
                st.caption(f"Cosine and sine are also multiplied by {angles.scaling:.4f}.")
        if n_tokens < n_positions:
            st.caption("The dashed line is the end of the prompt.")
    except UnsupportedError as error:
        show_problem(str(error))

st.subheader("Which tokens of the prompt are alike?")
space = link.pick_option(
    "Compare the",
    [name for name in SPACES if name != "with positions" or found.position_vectors is not None],
    key="embeddings_space",
    default=SPACES[0],
)
map_column, text_column = st.columns([3, 2], gap="large")
with map_column:
    st.plotly_chart(
        plots.similarity_heatmap(
            cache.token_similarity(inputs.model, inputs.token_ids, space),
            labels=inputs.labels,
            token_ids=inputs.token_ids,
            rows=rows,
        ),
        key="embeddings_similarity",
        config=style.CONFIG,
        alt="Cosine similarity of the prompt's tokens",
    )
with text_column:
    st.markdown(
        "The cosine of the angle between two vectors: 1 is the same direction, 0 a right angle, −1 the opposite. A "
        "token that occurs twice has the same **token vector** both times; its position, and in the **last hidden "
        "state** all that stands before it, tell the two apart."
    )

st.subheader("Nearest neighbours in the whole vocabulary")
position = link.pick_integer(
    "Token",
    key="embeddings_token",
    low=0,
    high=n_tokens - 1,
    default=min(3, n_tokens - 1),
    name=lambda number: names[number],
)
try:
    near = cache.nearest_tokens(inputs.model, inputs.token_ids[position], 20)
    near_labels = cache.labels(inputs.model, tuple(int(token_id) for token_id in near.token_ids))
    bar_column, table_column = st.columns([3, 2], gap="large")
    with bar_column:
        st.plotly_chart(
            plots.neighbour_bars(near, labels=near_labels),
            key="embeddings_neighbours",
            config=style.CONFIG,
            alt="Nearest tokens by cosine",
        )
        st.caption(
            f"By the token table, without position or context, among {near.n_compared:,} tokens. "
            f"The dashed line is their mean cosine, {near.mean_cosine:.3f}."
        )
    with table_column:
        neighbours = pd.DataFrame({"token": near_labels, "id": near.token_ids, "cosine": near.cosines})
        st.dataframe(
            neighbours,
            hide_index=True,
            key="embeddings_neighbours_table",
            alt="Nearest tokens",
            height=460,
            column_config={"cosine": st.column_config.NumberColumn(format="%.4f")},
        )
        st.download_button(
            "CSV",
            data=lambda: csv_bytes(neighbours),
            file_name="neighbours.csv",
            mime="text/csv",
            icon=":material/download:",
            key="embeddings_csv",
        )
except GptCoreError as error:
    show_error(error)

st.subheader("The walk through the blocks")
st.markdown(
    f"The last hidden state, made by hand: what enters block 0 goes through the {facts.n_layers} blocks one by one, "
    "then through the final norm, and is compared with what the model itself arrives at."
)
old_column, new_column = st.columns(2, gap="large")
with old_column:
    st.caption("The notebook, with the transformers of its time")
    st.code(
        "for module in model.transformer.h:\n    in_ip = module(in_ip)[0]\nin_ip = model.transformer.ln_f(in_ip)",
        language="python",
    )
with new_column:
    st.caption("With today's transformers")
    st.code(
        "for module in model.transformer.h:\n    in_ip = module(in_ip)\nin_ip = model.transformer.ln_f(in_ip)",
        language="python",
    )
st.caption(
    "A block of GPT-2 used to return a tuple, whose first item was the hidden state. Now it returns the hidden state "
    "itself, of shape (1, tokens, dimensions): [0] would take the text out of its batch, and the second block stops "
    "with an IndexError. A block that is called by hand gets no mask; transformers' default attention (SDPA) is then "
    "causal by itself, while `eager` would let each token see those that follow it."
)
walk_box = st.container()

st.subheader("What the model is made of")
parts = cache.parameter_parts(inputs.model)
st.metric("Parameters", f"{facts.n_parameters:,}")
bar_column, table_column = st.columns([2, 3], gap="large")
with bar_column:
    st.plotly_chart(
        plots.parameter_bars(parts),
        key="embeddings_parameters",
        config=style.CONFIG,
        alt="Parameters by part",
    )
with table_column:
    st.dataframe(
        pd.DataFrame(
            {
                "part": [*(part.part for part in parts), "total"],
                "parameters": [
                    *(part.n_parameters for part in parts),
                    sum(part.n_parameters for part in parts),
                ],
                "in the module tree": [*(", ".join(part.modules) for part in parts), ""],
            }
        ),
        hide_index=True,
        key="embeddings_parameters_table",
        alt="Parameters by part",
        column_config={"parameters": st.column_config.NumberColumn(format="localized")},
    )
if any(part.shared_with for part in parts):
    st.caption(
        "The head has no matrix of its own: it multiplies by the token table, the other way round "
        "([arXiv:1608.05859](https://arxiv.org/abs/1608.05859)). It is counted once."
    )
with st.expander(
    "Module tree", key="embeddings_tree", on_change="rerun", icon=":material/account_tree:"
) as box:
    if box.open:
        st.code(cache.module_tree(inputs.model), language=None)

st.subheader("The GPT family")
family = cache.family(inputs.model)
st.dataframe(
    pd.DataFrame(
        {
            "shown": ["▶" if member.present else "" for member in family],
            "model": [member.name for member in family],
            "year": ["" if member.year is None else str(member.year) for member in family],
            "layers": [member.n_layers for member in family],
            "heads": [member.n_heads for member in family],
            "d_model": [member.d_model for member in family],
            "context": [member.context_length for member in family],
            "parameters": [member.n_parameters for member in family],
            "as stated": [member.stated for member in family],
            "source": [member.source for member in family],
        }
    ),
    hide_index=True,
    key="embeddings_family",
    alt="The GPT family",
    column_config={
        "shown": st.column_config.TextColumn(width=60, help="The model on the screen."),
        "parameters": st.column_config.NumberColumn(format="localized"),
    },
)
st.caption(
    "Parameters are counted from the architecture, shared matrices once. GPT-2's report states them too low, as its "
    "authors later said; GPT-3's weights are not public, so its count is that of GPT-2's layout at its sizes. The "
    "notebook's 1.5B is gpt2-xl."
)

show_sources(
    "embeddings",
    functions=(
        "gpt_core.embeddings.input_embeddings",
        "gpt_core.embeddings.cosine_similarity",
        "gpt_core.embeddings.nearest_tokens",
        "gpt_core.embeddings.walk_blocks",
        "gpt_core.rotary.rotary_angles",
        "gpt_core.parameters.count_parts",
    ),
    snippet=lambda: cache.embeddings_snippet(
        inputs.model, inputs.text, inputs.token_ids, inputs.token_ids[position]
    ),
    notebook=NOTEBOOK,
)

# Last, because the page ends where a job is under way.
with walk_box:
    walk_task = WalkTask(model=inputs.model, token_ids=inputs.token_ids)
    if "walk" in facts.closed_views:
        show_problem(facts.closed_views["walk"])
    elif not job.holds("walk", walk_task):
        st.button(
            f"Walk through the {facts.n_layers} blocks",
            key="embeddings_walk",
            icon=":material/directions_walk:",
            on_click=job.start,
            args=(walk_task,),
            kwargs={"slot": "walk"},
        )
    else:
        walk = job.run(walk_task, slot="walk", message="Walking.")
        st.metric("Largest difference after the final norm", f"{walk.difference:.3g}")
        st.caption(
            f"All {walk.hidden.size:,} numbers are equal: the notebook's `(in_ip == hidden_states[-1]).all()` is True."
            if walk.equal
            else "Not every number is the same to the last bit: the same sums, rounded in another order."
        )
        st.plotly_chart(
            plots.walk_figure(walk),
            key="embeddings_walk_figure",
            config=style.CONFIG,
            alt="Length of the vectors, and difference of the walk, block by block",
        )
