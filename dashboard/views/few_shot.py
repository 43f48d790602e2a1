"""Can examples in the prompt tell the model what to do, without any training?"""

import dataclasses

import pandas as pd
import streamlit as st

from dashboard import cache
from dashboard.components import example_table, generation_output, job, link, model_picker
from dashboard.components.explain import show_sources
from dashboard.components.message import show_error, show_problem
from dashboard.plots import few_shot as plots
from dashboard.plots import style
from gpt_core.errors import GptCoreError
from gpt_core.few_shot import TASKS, answer_settings, build_prompt
from gpt_core.tasks import GenerateTask, ShotsTask

NOTEBOOK = '''\
print(generator("""Sentiment Analysis
Text: I hate it when my phone battery dies.
Sentiment: Negative
###
Text: My day has been really great!
Sentiment: Positive
###
Text: This new music video was so bad.
Sentiment:""", top_k=2, temperature=0.1, max_length=55)[0]['generated_text'])

print(generator("""Question/Answering
C: Google was founded in 1998 ...
A: """, top_k=2, max_length=250, temperature=0.7)[0]['generated_text'])

print(generator(f""" Summarise:\\n{to_summarise}\\nTL:DR:""",
                max_length=512, top_k=3, temperature=0.5, no_repeat_ngram_size=3)[0]['generated_text'])'''

st.title("Few-Shot")
st.markdown(
    "A few worked examples in the prompt show the model a task; nothing is trained. This page makes its own prompt "
    "from the table below."
)
model = model_picker.current()
facts = cache.geometry(model)
if "logits" in facts.closed_views:
    show_problem(facts.closed_views["logits"])
    st.stop()

name = link.pick_option(
    "Task",
    tuple(TASKS),
    key="few_shot_task",
    default="sentiment",
    name=lambda task_name: TASKS[task_name].title,
)
task = TASKS[name]
ask_column, answer_column = st.columns([1, 1], gap="large")
with ask_column:
    examples = example_table.edit_examples(task)
    query = example_table.edit_query(task)
    labels = example_table.edit_labels(task)
    task = dataclasses.replace(task, labels=labels)
    n_shots = (
        0
        if not examples
        else int(
            link.pick_number(
                "Examples in the prompt",
                key=f"few_shot_{name}_shots",
                low=0,
                high=len(examples),
                step=1,
                default=len(examples),
                explanation="The first so many rows of the table: 0 is zero-shot, 1 one-shot.",
            )
        )
    )
    chat = (
        facts.has_chat_template
        and link.pick_option(
            "As a chat turn",
            ("off", "on"),
            key="few_shot_chat",
            default="off",
            explanation="On: the prompt is put as a user's turn by this model's own template.",
        )
        == "on"
    )

with answer_column:
    try:
        built = build_prompt(task, examples, query, n_shots=n_shots)
        turn = cache.chat_turn(model, built.text) if chat else None
        prompt_ids = turn.token_ids if turn else cache.continuable_ids(model, built.text)
        if len(prompt_ids) >= facts.context_length:
            show_problem(
                f"The prompt must be at most {facts.context_length - 1:,} tokens, one less than this model's context "
                f"length. Given: {len(prompt_ids):,}. Use fewer examples or shorter texts."
            )
            st.stop()
        settings = answer_settings(task, len(prompt_ids), context_length=facts.context_length)
    except GptCoreError as error:
        show_error(error)
        st.stop()

with ask_column:
    st.subheader("The prompt")
    st.progress(
        len(prompt_ids) / facts.context_length,
        text=f"{len(prompt_ids):,} of {facts.context_length:,} tokens, {plots.shot_name(n_shots)}",
    )
    st.code(turn.text if turn else built.text, language=None, wrap_lines=True)
    if turn:
        st.text(
            f"The template adds ids {list(turn.ids_before)} before the prompt and {list(turn.ids_after)} after it."
        )

with answer_column:
    if labels:
        st.subheader("How probable is each label?")
        outcomes = job.run(
            ShotsTask(
                model=model,
                task=task,
                examples=examples,
                query=query,
                shots=tuple(sorted({0, min(1, n_shots), n_shots})),
                chat=chat,
            ),
            slot="few_shot_labels",
            message="Scoring the labels.",
        )
        for problem in {outcome.problem for outcome in outcomes if outcome.problem}:
            show_problem(problem)
        scored = [outcome for outcome in outcomes if outcome.scores]
        if scored:
            st.plotly_chart(
                plots.label_bars(outcomes),
                key="few_shot_bars",
                config=style.CONFIG,
                alt="Label probabilities",
            )
            st.dataframe(
                pd.DataFrame(
                    [
                        {
                            "examples": plots.shot_name(outcome.n_shots),
                            "label": label.label,
                            "probability": label.prob,
                            "share among labels": label.share,
                            "nats per token": label.mean_log_prob,
                            "tokens": len(label.token_ids),
                        }
                        for outcome in scored
                        for label in outcome.scores.labels
                    ]
                ),
                hide_index=True,
                key="few_shot_table",
                alt="Label probabilities",
                column_config={
                    "probability": st.column_config.NumberColumn(format="%.5f"),
                    "share among labels": st.column_config.ProgressColumn(
                        format="%.4f", min_value=0, max_value=1
                    ),
                    "nats per token": st.column_config.NumberColumn(
                        format="%.3f",
                        help="Mean log-probability. A label of more tokens has less probability for that alone.",
                    ),
                },
            )
            for note in dict.fromkeys(note for outcome in scored for note in outcome.scores.notes):
                st.text(note)

    st.subheader("What does it answer?")
    answer = GenerateTask(model=model, token_ids=prompt_ids, settings=settings)
    st.caption(
        f"With the notebook's settings: top-k {settings.sampling.top_k}, temperature "
        f"{settings.sampling.temperature:g}, "
        f"seed {settings.seed}; at most {settings.max_new_tokens} new tokens, since its max_length {task.max_length} "
        f"counts the prompt's {len(prompt_ids)}. It stops at the separator."
    )
    generation_output.draw("few_shot", "few_shot_answer", answer, label="Answer")

show_sources(
    "few_shot",
    functions=("gpt_core.few_shot.build_prompt", "gpt_core.labels.label_probabilities"),
    snippet=lambda: (
        cache.generation_snippet(model, turn.text if turn else built.text, settings, True)
        if turn is None or cache.continuable_ids(model, turn.text) == turn.token_ids
        else "# The template's ids cannot be had by tokenising its text again: use apply_chat_template(tokenize=True)."
    ),
    notebook=NOTEBOOK,
)
