"""What does the model expect to come next, at each position, and how do sampling settings change it?"""

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import cache
from dashboard.components import job, link, prompt, sampling_sliders
from dashboard.components.csv import csv_bytes
from dashboard.components.explain import show_sources
from dashboard.components.message import show_problem
from dashboard.components.token_strip import token_strip
from dashboard.plots import predictions as plots
from gpt_core.catalog import load_name
from gpt_core.snippets.predictions import predictions_snippet
from gpt_core.tasks import LensTask, PositionsTask, TraceTask

NOTEBOOK = """\
response.logits.shape                         # torch.Size([1, 15, 50257])
pd.DataFrame(
    zip(tokens, tokenizer.convert_ids_to_tokens(response.logits.argmax(2)[0])),
    columns=['Sequence given', 'Next token with highest prob']
)"""

st.title("Predictions")
st.markdown(
    "After each token, the model gives every token of its vocabulary a probability of coming next. "
    "The sliders change how that distribution is read, not the model: it does not run again."
)
inputs = prompt.require()
facts = cache.geometry(inputs.model)
if "logits" in facts.closed_views:
    show_problem(facts.closed_views["logits"])
    st.stop()
n_tokens = len(inputs.token_ids)
names = [f"{position} {label}" for position, label in enumerate(inputs.labels)]
job.run(
    TraceTask(model=inputs.model, token_ids=inputs.token_ids), slot="trace", message="Reading the prompt."
)

figure_column, slider_column = st.columns([2, 1], gap="large")
with slider_column:
    settings = sampling_sliders.draw("predictions")
with figure_column:
    position = link.pick_integer(
        "After which token?",
        key="predictions_position",
        low=0,
        high=n_tokens - 1,
        default=n_tokens - 1,
        name=lambda number: names[number],
    )
    result = cache.sampling(inputs.model, inputs.token_ids, position, settings)
    shown = plots.top_ids(result, 15)
    shown_labels = cache.labels(inputs.model, tuple(int(i) for i in shown))
    st.plotly_chart(
        plots.next_token_bars(result, token_ids=shown, labels=shown_labels),
        key="predictions_bars",
        config=plots.CONFIG,
        alt="Most probable next tokens",
    )
    st.caption(
        f"The {len(shown)} most probable of {facts.vocab_size:,} tokens hold "
        f"{float(result.model_probs[shown].sum(dtype=np.float64)):.1%} of the model's probability. All probabilities "
        "are over the whole vocabulary."
    )

st.subheader("What each stage does")
st.dataframe(
    pd.DataFrame(
        {
            "stage": ["the model's own", *(stage.label for stage in result.stages)],
            "tokens left": [facts.vocab_size, *(stage.n_survivors for stage in result.stages)],
            "removed": [0, *(stage.n_removed for stage in result.stages)],
            "probability removed": [0.0, *(stage.mass_removed for stage in result.stages)],
            "entropy (bits)": [
                result.stages[0].entropy_bits_before,
                *(stage.entropy_bits for stage in result.stages),
            ],
            "most probable after it": [
                f"{probs.max():.4f} {label}"
                for probs, label in zip(
                    [result.model_probs, *(stage.probs for stage in result.stages)],
                    cache.labels(
                        inputs.model,
                        tuple(
                            int(probs.argmax())
                            for probs in [result.model_probs, *(stage.probs for stage in result.stages)]
                        ),
                    ),
                    strict=True,
                )
            ],
        }
    ),
    hide_index=True,
    key="predictions_stages",
    alt="Effect of each sampling stage",
    column_config={
        "tokens left": st.column_config.NumberColumn(format="localized"),
        "removed": st.column_config.NumberColumn(format="localized"),
        "probability removed": st.column_config.NumberColumn(
            format="%.4f", help="Share of the probability before the stage that sat on the tokens it removed."
        ),
        "entropy (bits)": st.column_config.NumberColumn(format="%.3f"),
    },
)
st.caption(
    "Top-p is not “the top p % of confidences”, as the notebook says: it keeps the smallest set of most probable "
    "tokens whose probabilities add up to at least p, which may be one token or thousands."
)
st.caption(
    "In this order, as `generate` runs them; the Generation page draws from the last row, by the same function."
)

st.subheader("Every position")
table = job.run(
    PositionsTask(model=inputs.model, token_ids=inputs.token_ids),
    slot="positions",
    message="Reading every position.",
)
predicted_labels = cache.labels(inputs.model, tuple(int(i) for i in table.predicted_ids))
st.caption(
    "The text, coloured by surprisal (bits): how unexpected each token was, −log₂ of the probability that the model "
    "gave it. The stronger the colour, the more surprising; the first token was not predicted. Click a token to see "
    "above what comes after it."
)
token_strip(
    inputs.labels,
    key="predictions_strip",
    ids=inputs.token_ids,
    values=np.clip(table.surprisals / plots.MOST_SURPRISAL, 0, 1),
    scale="sequential",
    hover=plots.position_notes(table, predicted_labels),
    selected=position,
    select_into="predictions_position",
    name="The prompt, coloured by surprisal",
)
if n_tokens > 1:
    st.text(
        f"Mean surprisal {table.mean_surprisal:.3f} bits per token, perplexity {2.0**table.mean_surprisal:,.2f}, "
        f"over the {n_tokens - 1:,} tokens that were predicted"
    )
frame = pd.DataFrame(
    {
        "position": range(n_tokens),
        "token": inputs.labels,
        "surprisal (bits)": table.surprisals,
        "rank": [None if rank == 0 else int(rank) for rank in table.ranks],
        "most probable next token": predicted_labels,
        "its probability": table.predicted_probs,
        "entropy (bits)": table.entropies,
    }
)
st.dataframe(
    frame,
    hide_index=True,
    key="predictions_table",
    alt="Prediction at every position",
    column_config={
        "surprisal (bits)": st.column_config.NumberColumn(
            format="%.3f", help="Of this token, before it came."
        ),
        "rank": st.column_config.NumberColumn(
            help="Of this token among all, before it came; 1 is the most probable."
        ),
        "its probability": st.column_config.ProgressColumn(format="%.4f", min_value=0, max_value=1),
        "entropy (bits)": st.column_config.NumberColumn(
            format="%.3f", help="Of the distribution after this token."
        ),
    },
)
st.download_button(
    "CSV",
    data=lambda: csv_bytes(frame),
    file_name="predictions.csv",
    mime="text/csv",
    icon=":material/download:",
    key="predictions_csv",
)

st.subheader("Logit lens")
st.caption(
    "What the model would predict if its final norm and head read the text after each layer. The top row is the "
    "model's own prediction. An intermediate row is a reading, not something that the model ever says "
    "([nostalgebraist 2020](https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens))."
)
if "lens" in facts.closed_views:
    show_problem(facts.closed_views["lens"])
else:
    start = min(max(0, position - plots.MAX_LENS_COLUMNS + 1), max(0, n_tokens - plots.MAX_LENS_COLUMNS))
    stop = min(n_tokens, start + plots.MAX_LENS_COLUMNS)
    colour = link.pick_option(
        "Colour", ("probability", "entropy", "rank"), key="predictions_lens_colour", default="probability"
    )
    lens = job.run(
        LensTask(model=inputs.model, token_ids=inputs.token_ids, start=start, stop=stop),
        slot="lens",
        message="Reading every depth.",
    )
    st.plotly_chart(
        plots.lens_heatmap(
            lens,
            labels=inputs.labels[start:stop],
            predicted=[cache.labels(inputs.model, tuple(int(i) for i in row)) for row in lens.token_ids],
            colour=colour,
        ),
        key="predictions_lens",
        config=plots.CONFIG,
        alt="Logit lens",
    )
    if stop - start < n_tokens:
        st.caption(f"Positions {start} to {stop - 1} of 0–{n_tokens - 1}, around the chosen one.")

show_sources(
    "predictions",
    functions=(
        "gpt_core.sampling.apply_stages",
        "gpt_core.predictions.position_table",
        "gpt_core.predictions.logit_lens",
    ),
    snippet=lambda: predictions_snippet(
        load_name(inputs.model), inputs.text, position=position, k=15, special_tokens=inputs.special_tokens
    ),
    notebook=NOTEBOOK,
)
