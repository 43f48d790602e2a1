"""What does the model expect to come next, at each position, and how do sampling settings change it?"""

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import cache
from dashboard.components import ablation, job, link, prompt, sampling_sliders
from dashboard.components.csv import csv_bytes
from dashboard.components.explain import show_sources
from dashboard.components.message import show_error, show_problem
from dashboard.components.stage_row import stage_row
from dashboard.components.token_picker import pick_token, pick_tokens
from dashboard.components.token_strip import token_strip
from dashboard.plots import predictions as plots
from dashboard.plots import style
from gpt_core.catalog import load_name
from gpt_core.decoding import FILTERS, NOT_IN_GENERATE, STAGE_LABELS, STAGES
from gpt_core.errors import GptCoreError
from gpt_core.predictions import score_text
from gpt_core.snippets.predictions import predictions_snippet
from gpt_core.tasks import LensTask, PositionsTask, SaliencyTask, TraceTask

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
    settings = sampling_sliders.draw("predictions", model=inputs.model, arranged=True)
with figure_column:
    position = link.pick_integer(
        "After which token?",
        key="predictions_position",
        low=0,
        high=n_tokens - 1,
        default=n_tokens - 1,
        name=lambda number: names[number],
    )
    try:
        result = cache.sampling(inputs.model, inputs.token_ids, position, settings)
    except GptCoreError as error:
        show_error(error)
        st.stop()
    shown = plots.top_ids(result, 15)
    offered = [int(i) for i in shown]
    lifted = plots.lifted_ids(result, shown)
    listed = np.concatenate([shown, lifted])
    st.plotly_chart(
        plots.next_token_bars(
            result, token_ids=listed, labels=cache.labels(inputs.model, tuple(int(i) for i in listed))
        ),
        key="predictions_bars",
        config=style.CONFIG,
        alt="Most probable next tokens",
    )
    st.caption(
        f"The {len(shown)} most probable of {facts.vocab_size:,} tokens hold "
        f"{float(result.model_probs[shown].sum(dtype=np.float64)):.1%} of the model's probability. All probabilities "
        "are over the whole vocabulary."
        + (" Below them, what the stages lifted beside them." if len(lifted) else "")
    )

st.subheader("What each stage does")
st.caption(
    "From the model's own distribution to the one that is drawn from, by the function that generates: grey before the "
    "stage, blue after it. ◀ and ▶ change the order. The curve adds up probability, token by token in the order in "
    "which the stage keeps them; the dashed line is where it cuts. Top-p is not “the top p % of confidences”, as the "
    "notebook says: it keeps the smallest set of most probable tokens whose probabilities add up to at least p."
)
st.caption(
    "In the order of `generate`."
    if settings.in_default_order
    else ":material/swap_horiz: **Not the order of `generate`**: it would run "
    + ", ".join(STAGE_LABELS[name].lower() for name in STAGES if name not in NOT_IN_GENERATE)
    + "; presence and frequency penalty, which it has not, stand before its temperature here. “Put all back” restores "
    "it."
)
in_cards = np.concatenate([shown[:8], plots.lifted_ids(result, shown[:8])])
stage_row(
    result,
    key="predictions_stages",
    token_ids=in_cards,
    labels=cache.labels(inputs.model, tuple(int(i) for i in in_cards)),
    curves={
        stage.name: cache.sampling_curve(inputs.model, inputs.token_ids, position, settings, stage.name)
        for stage in result.stages
        if stage.active and stage.name in FILTERS
    },
    on_ask=lambda stage_name, action: sampling_sliders.arrange("predictions", stage_name, action),
)
asked_column, answer_column = st.columns([1, 2], gap="large", vertical_alignment="bottom")
with asked_column:
    asked = pick_token("Why is this token gone?", key="predictions_fate", model=inputs.model, offered=offered)
with answer_column:
    assert asked is not None
    fate = cache.token_fate(inputs.model, inputs.token_ids, position, settings, asked)
    st.text(f"Rank {fate.rank:,} for the model, probability {fate.model_prob:.3g}. {fate.sentence}")

VIEWS = ("Every position", "Logit lens", "Who said so?", "Ablate and see", "Which words mattered?")
view = link.pick_option("Look closer", VIEWS, key="predictions_view", default=VIEWS[0])

if view == "Every position":
    table = job.run(
        PositionsTask(model=inputs.model, token_ids=inputs.token_ids),
        slot="positions",
        message="Reading every position.",
    )
    predicted_labels = cache.labels(inputs.model, tuple(int(i) for i in table.predicted_ids))
    colour = link.pick_option("Colour", plots.POSITION_COLOURS, key="predictions_colour", default="surprisal")
    st.caption(plots.COLOUR_NOTES[colour] + " Click a token to see above what comes after it.")
    token_strip(
        inputs.labels,
        key="predictions_strip",
        ids=inputs.token_ids,
        values=plots.position_values(table, colour, facts.vocab_size),
        scale="sequential",
        hover=plots.position_notes(table, predicted_labels),
        selected=position,
        select_into="predictions_position",
        name=f"The prompt, coloured by {colour}",
    )
    score = score_text(table, cache.tokenization(inputs.model, inputs.text, inputs.special_tokens))
    if score.n_tokens:
        st.text(
            f"Perplexity {score.perplexity:,.2f}, {score.bits_per_token:.3f} bits per token, "
            f"{score.bits_per_byte:.3f} bits per byte"
        )
        st.caption(
            f"Over {score.n_tokens:,} tokens that spell {score.n_bytes:,} bytes of UTF-8: all but the first, which "
            "nothing predicted, and special tokens, which stand for no text. Bits per byte compare models that cut "
            "texts differently."
        )
    frame = pd.DataFrame(
        {
            "position": range(n_tokens),
            "token": inputs.labels,
            "probability": table.probs,
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
            "probability": st.column_config.NumberColumn(
                format="%.5f", help="Of this token, before it came."
            ),
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
elif view == "Logit lens":
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
            "Colour", plots.LENS_COLOURS, key="predictions_lens_colour", default="probability"
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
            config=style.CONFIG,
            alt="Logit lens",
        )
        if colour == "KL":
            st.caption(
                "KL: the bits lost by expecting what a depth does instead of what the model does, "
                "Σ p·log₂(p / q) with p the top row's distribution and q the depth's."
            )
        if stop - start < n_tokens:
            st.caption(f"Positions {start} to {stop - 1} of 0–{n_tokens - 1}, the chosen one among them.")
        st.markdown(f"**How tokens rise and fall on the way to the prediction after position {position}**")
        followed = pick_tokens(
            "Tokens to follow",
            key="predictions_followed",
            model=inputs.model,
            offered=offered,
            n_first=4,
            most=8,
        )
        st.plotly_chart(
            plots.trajectory_lines(
                cache.rank_trajectories(inputs.model, inputs.token_ids, position, followed),
                labels=cache.labels(inputs.model, followed),
            ),
            key="predictions_trajectories",
            config=style.CONFIG,
            alt="Rank of chosen tokens by depth",
        )
elif view == "Who said so?":
    st.caption(
        "The vector that the head reads is a sum of what every part wrote. With the scale of the final norm held at "
        "its value in this pass, the token's logit is a sum as well, of what each head, each MLP and the embedding "
        "add to it directly ([Elhage et al. 2021](https://transformer-circuits.pub/2021/framework/index.html)). What "
        "a part does through later parts is not in its cell."
    )
    with st.container(horizontal=True):
        token_id = pick_token("Logit of", key="predictions_said", model=inputs.model, offered=offered)
        versus_id = pick_token(
            "less that of", key="predictions_versus", model=inputs.model, offered=offered, optional=True
        )
    assert token_id is not None
    try:
        found = cache.contributions(inputs.model, inputs.token_ids, position, token_id, versus_id)
    except GptCoreError as error:
        show_error(error)
    else:
        st.plotly_chart(
            plots.contribution_heatmap(found),
            key="predictions_contributions",
            config=style.CONFIG,
            alt="What each head and MLP adds to the logit",
        )
        st.text(
            f"Heads {found.heads.sum():+.4f}, MLPs {found.mlps.sum():+.4f}, token embedding "
            f"{found.token_embedding:+.4f}, "
            + (f"position embedding {found.position_embedding:+.4f}, " if found.position_embedding else "")
            + f"biases {found.rest:+.4f}: together {found.total:.4f}. The model's own number: {found.logit:.4f}."
        )
        if found.cap is not None:
            st.caption(
                f"The sum is the logit before this model's cap: it gives {found.cap:g} · tanh(logit / {found.cap:g})."
            )
        st.text("Most in favour: " + plots.strongest(found, 5, sign=1))
        st.text("Most against: " + plots.strongest(found, 5, sign=-1))
elif view == "Ablate and see":
    ablation.draw("predictions", inputs, position=position)
else:
    st.caption(
        "How much each token of the text up to here did for the log-probability of one next token. Gradient × input "
        "is a first-order guess ([Denil et al. 2014](https://arxiv.org/abs/1412.6815)); leave-one-out reads the text "
        "again without each token, the later ones moved up ([Li et al. 2016](https://arxiv.org/abs/1612.08220)). "
        "They may disagree: neither is the truth about the model."
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        token_id = pick_token("Next token", key="predictions_target", model=inputs.model, offered=offered)
        method = link.pick_option(
            "Method", ("gradient", "leave one out"), key="predictions_method", default="gradient"
        )
    assert token_id is not None
    task = SaliencyTask(
        model=inputs.model,
        token_ids=inputs.token_ids[: position + 1],
        position=position,
        token_id=token_id,
        method=method,
    )
    if not job.holds("saliency", task):
        st.button(
            "Measure",
            key="predictions_measure",
            type="primary",
            on_click=job.start,
            args=(task,),
            kwargs={"slot": "saliency"},
        )
    else:
        mattered = job.run(task, slot="saliency", message="Measuring.")
        if np.isnan(mattered.scores).all():
            st.caption(
                "Without its only token, no text is left to read. Choose a later position, or the gradient."
            )
        st.plotly_chart(
            plots.saliency_bars(mattered, labels=inputs.labels, token_ids=inputs.token_ids),
            key="predictions_saliency",
            config=style.CONFIG,
            alt="What each token did for the chosen one",
        )
        st.text(
            f"Log-probability of {cache.labels(inputs.model, (token_id,))[0]} after position {position}: "
            f"{mattered.log_prob:.4f} nats (probability {np.exp(mattered.log_prob):.4g})."
        )

show_sources(
    "predictions",
    functions=(
        "gpt_core.sampling.apply_stages",
        "gpt_core.sampling.filter_logits",
        "gpt_core.removal.explain_token",
        "gpt_core.predictions.position_table",
        "gpt_core.predictions.logit_lens",
        "gpt_core.attribution.direct_contributions",
        "gpt_core.interventions.compare_predictions",
        "gpt_core.saliency.gradient_times_input",
        "gpt_core.saliency.leave_one_out",
    ),
    snippet=lambda: predictions_snippet(
        load_name(inputs.model),
        inputs.text,
        position=position,
        k=15,
        special_tokens=inputs.special_tokens,
        settings=settings,
    ),
    notebook=NOTEBOOK,
)
