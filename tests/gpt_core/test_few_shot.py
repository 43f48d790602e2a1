"""The tasks are the notebook's, byte for byte, and taking examples away changes nothing else."""

import dataclasses
from typing import Any

import pytest

from gpt_core.decoding import GenerationSettings, SamplingSettings
from gpt_core.errors import InputError
from gpt_core.few_shot import (
    QUESTIONS,
    SENTIMENT,
    SUMMARY,
    TASKS,
    FewShotExample,
    FewShotTask,
    answer_settings,
    build_prompt,
    compare_shots,
    read_answer,
)
from gpt_core.generation import generate_tokens
from gpt_core.labels import label_probabilities
from gpt_core.model import LanguageModel

# Copied from the notebook's cells 72, 92 and 95.
NOTEBOOK = {
    "sentiment": """Sentiment Analysis
Text: I hate it when my phone battery dies.
Sentiment: Negative
###
Text: My day has been really great!
Sentiment: Positive
###
Text: This new music video was so bad.
Sentiment:""",
    "questions": """Question/Answering
C: Google was founded in 1998 by Larry Page and Sergey Brian while they were Ph.D students at Stanford University in California.
Q: When was Google founded?
A: 1998
###
C: Hugging Face is a company which develops social AI-run chatbot applications. It was established in 2016 by Clement\x20
Q: What does Hugging Face develop?
A: social A1—run chatbot applications
###
C: Real Madrid is a spanish profesional football club, They have won 14 Champions League Titles.
Q: How many Champions title have Real Madrid won?
A:\x20""",  # noqa: E501
    "summary": r""" Summarise:
Even computing a single attention matrix, however, can become impractical for very large inputs. We instead use sparse attention patterns, where each output position only computes weightings from a subset of input positions. When the subset is small relative to the full set of inputs (say, \(N'\) elements instead of \(N\) elements), the resulting attention computation becomes tractable even for very long sequences, with an algorithmic complexity of \(O(N \cdot N')\) instead of \(O(N^2)\).
To assess the feasibility of the approach, we first visualized the learned attention patterns for deep Transformers on images, finding that many showed interpretable and structured sparsity patterns. Each of the below images shows which input pixels (highlighted in white) are attended to by a given attention head in order to predict the next value in the image. When the input portions are focused on small subsets and show a high degree of regularity, the layer is amenable to sparsification.
TL:DR:""",  # noqa: E501
}


def prompt_of(task: FewShotTask, n_shots: int) -> str:
    return build_prompt(task, task.examples, task.query, n_shots=n_shots).text


@pytest.mark.parametrize("name", TASKS)
def test_prompt_is_the_notebooks_byte_for_byte(name: str) -> None:
    task = TASKS[name]
    assert prompt_of(task, len(task.examples)) == NOTEBOOK[name]


def test_settings_are_the_notebooks() -> None:
    assert (SENTIMENT.sampling, SENTIMENT.max_length) == (SamplingSettings(top_k=2, temperature=0.1), 55)
    assert (QUESTIONS.sampling, QUESTIONS.max_length) == (SamplingSettings(top_k=2, temperature=0.7), 250)
    assert (SUMMARY.sampling, SUMMARY.max_length) == (
        SamplingSettings(top_k=3, temperature=0.5, no_repeat_ngram=3),
        512,
    )


def test_fewer_shots_are_the_same_prompt_without_rows() -> None:
    head, *rows = (
        NOTEBOOK["sentiment"].replace("Analysis\n", "Analysis\n@").replace("\n###\n", "@").split("@")
    )
    assert prompt_of(SENTIMENT, 0) == head + rows[2]
    assert prompt_of(SENTIMENT, 1) == head + rows[0] + "\n###\n" + rows[2]


def test_spans_are_the_rows() -> None:
    prompt = build_prompt(SENTIMENT, SENTIMENT.examples, SENTIMENT.query, n_shots=2)
    assert [prompt.text[a:b] for a, b in prompt.example_spans] == [
        "Text: I hate it when my phone battery dies.\nSentiment: Negative",
        "Text: My day has been really great!\nSentiment: Positive",
    ]
    start, end = prompt.query_span
    assert prompt.text[start:end] == "Text: This new music video was so bad.\nSentiment:"
    assert end == len(prompt.text)


def test_header_may_be_empty() -> None:
    assert prompt_of(dataclasses.replace(SENTIMENT, header=""), 0).startswith("Text: This")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_shots": 3}, "`n_shots` must be a whole number from 0 to 2. Given: 3"),
        ({"n_shots": -1}, "`n_shots`"),
        ({"query": ("",)}, "The query is empty"),
        ({"query": (" \n",)}, "The query is empty"),
        ({"query": ("a", "b")}, "The query must have one text for each of: Text. Given: 2"),
        ({"query": ("x" * 10_001,)}, "at most 10,000 characters. Given: 10,001"),
        ({"query": (3,)}, "must be texts. Given: int"),
        ({"examples": (FewShotExample(values=("a",), answer=" "),), "n_shots": 1}, "Example 1 has no answer"),
        (
            {"examples": (FewShotExample(values=(), answer="a"),), "n_shots": 1},
            "Example 1 must have one text for each of: Text. Given: 0",
        ),
        (
            {"examples": (FewShotExample(values=("a",), answer="b"),) * 201},
            "At most 200 examples. Given: 201",
        ),
    ],
)
def test_impossible_prompts_are_refused(change: dict[str, Any], message: str) -> None:
    arguments = {"examples": SENTIMENT.examples, "query": SENTIMENT.query, "n_shots": 0} | change
    with pytest.raises(InputError) as error:
        build_prompt(SENTIMENT, arguments["examples"], arguments["query"], n_shots=arguments["n_shots"])
    assert message in str(error.value)


def test_rows_that_are_not_used_are_not_checked() -> None:
    examples = (*SENTIMENT.examples, FewShotExample(values=("unfinished",), answer=""))
    assert build_prompt(SENTIMENT, examples, SENTIMENT.query, n_shots=2).text == NOTEBOOK["sentiment"]


def test_answer_settings_count_the_prompt() -> None:
    assert answer_settings(SENTIMENT, 54, context_length=512) == GenerationSettings(
        sampling=SENTIMENT.sampling, max_new_tokens=1, stop_strings=("###",)
    )
    assert answer_settings(QUESTIONS, 136, context_length=512, stop_at_separator=False, seed=3) == (
        GenerationSettings(sampling=QUESTIONS.sampling, max_new_tokens=114, seed=3)
    )
    assert answer_settings(QUESTIONS, 136, context_length=200).max_new_tokens == 64
    assert answer_settings(SUMMARY, 600, context_length=512).max_new_tokens == 1


def test_the_answer_is_what_comes_before_the_separator() -> None:
    assert read_answer(SENTIMENT, " Negative\n###\nText: more") == "Negative"
    assert read_answer(SENTIMENT, " Negative") == "Negative"
    assert read_answer(SENTIMENT, "\n###") == ""


@pytest.mark.parametrize("name", TASKS)
def test_the_bundled_model_answers_within_the_notebooks_bound(name: str, bundled: LanguageModel) -> None:
    task = TASKS[name]
    ids = bundled.tokenizer.backend_tokenizer.encode(NOTEBOOK[name]).ids
    settings = answer_settings(task, len(ids), context_length=bundled.geometry.context_length)
    settings = dataclasses.replace(settings, max_new_tokens=min(settings.max_new_tokens, 12))
    steps = list(generate_tokens(bundled, ids, settings))
    assert len(ids) + len(steps) <= task.max_length
    assert "###" not in read_answer(task, steps[-1].text)


def test_shots_are_compared_on_the_same_query(bundled: LanguageModel) -> None:
    outcomes = compare_shots(bundled, SENTIMENT, SENTIMENT.query)
    assert [outcome.n_shots for outcome in outcomes] == [0, 1, 2]
    for outcome in outcomes:
        expected = label_probabilities(bundled, prompt_of(SENTIMENT, outcome.n_shots), SENTIMENT.labels)
        assert outcome.scores is not None
        assert [s.log_prob for s in outcome.scores.labels] == [s.log_prob for s in expected.labels]
        assert outcome.n_tokens == len(bundled.tokenizer(outcome.prompt.text)["input_ids"])
    assert outcomes[0].n_tokens < outcomes[1].n_tokens < outcomes[2].n_tokens


def test_a_comparison_keeps_what_fits(bundled: LanguageModel) -> None:
    long = FewShotExample(values=("very " * 300,), answer="Positive")
    outcomes = compare_shots(bundled, SENTIMENT, ("It was good.",), examples=(long, long), shots=(0, 1, 2))
    assert [outcome.scores is None for outcome in outcomes] == [False, False, True]
    assert "context length" in outcomes[2].problem
    assert not outcomes[0].problem


def test_a_free_answer_has_no_scores_unless_labels_are_given(bundled: LanguageModel) -> None:
    assert [o.scores for o in compare_shots(bundled, SUMMARY, SUMMARY.query)] == [None]
    (outcome,) = compare_shots(bundled, QUESTIONS, QUESTIONS.query, shots=(2,), labels=("14", "2016"))
    assert outcome.scores is not None
    # The notebook's question ends in a space, which the label's token takes in.
    assert not outcome.scores.boundary_kept
    assert [bundled.tokenizer.decode(s.token_ids) for s in outcome.scores.labels] == [" 14", " 2016"]
