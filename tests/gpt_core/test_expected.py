"""The seed notebook's numbers for the real gpt2, where that model can be had."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt_core.attention import attention_maps
from gpt_core.decoding import GenerationSettings
from gpt_core.embeddings import input_embeddings, walk_blocks
from gpt_core.few_shot import SENTIMENT, build_prompt
from gpt_core.generation import generate_tokens
from gpt_core.labels import label_probabilities
from gpt_core.model import LanguageModel
from gpt_core.predictions import position_table
from gpt_core.recipes import new_tokens_within
from gpt_core.tokenizer import tokenize_text
from gpt_core.trace import trace_text
from gpt_core.vocabulary import pieces_of

EXPECTED: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "expected.json").read_text("utf-8"))
GPT2 = EXPECTED["gpt2"]

pytestmark = pytest.mark.hub


def test_sizes(gpt2: LanguageModel) -> None:
    g = gpt2.geometry
    assert (g.n_parameters, g.n_layers, g.n_heads, g.d_model, g.context_length) == (
        GPT2["parameters"],
        GPT2["layers"],
        GPT2["heads"],
        GPT2["hidden_size"],
        GPT2["positions"],
    )
    assert dict(gpt2.closed_views) == {}


@pytest.mark.parametrize("key", ["input_embedding_sum", "final_hidden_state"])
def test_vectors(gpt2: LanguageModel, key: str) -> None:
    expected = GPT2[key]
    trace = trace_text(gpt2, expected["text"])
    found = (
        input_embeddings(gpt2, trace).total
        if key == "input_embedding_sum"
        else walk_blocks(gpt2, trace).hidden
    )
    assert [1, *found.shape] == GPT2["embedding_shapes"]["sum"]
    for row, values in expected["first3"].items():
        assert found[int(row), :3] == pytest.approx(values, abs=expected["tolerance"])
    for row, values in expected["last3"].items():
        assert found[int(row), -3:] == pytest.approx(values, abs=expected["tolerance"])


def test_attention(gpt2: LanguageModel) -> None:
    expected = GPT2["attention"]
    trace = trace_text(gpt2, expected["text"])
    rounded = attention_maps(trace, layer=9, heads=[0]).weights[0]
    rows = np.array(expected["layer_9_head_0_rounded_3"])
    assert np.abs(rounded[: len(rows)] - rows).max() < 6e-4
    last = attention_maps(trace, layer=11, heads=[9]).weights[0]
    for number, row in enumerate(expected["last_layer_head_9_first_rows"]):
        assert last[number, : len(row)] == pytest.approx(row, abs=1e-4)


def test_most_probable_tokens(gpt2: LanguageModel) -> None:
    expected = GPT2["logits"]
    table = position_table(gpt2, trace_text(gpt2, expected["text"]))
    best = pieces_of(gpt2, [int(i) for i in table.predicted_ids])
    assert list(best[:10]) == expected["argmax_tokens_first10"]


def test_greedy(gpt2: LanguageModel) -> None:
    expected = GPT2["greedy"]
    ids = tokenize_text(gpt2, expected["prompt"]).token_ids
    n_new = new_tokens_within(expected["max_length"], len(ids), context_length=gpt2.geometry.context_length)
    *_, last = generate_tokens(gpt2, ids, GenerationSettings(do_sample=False, max_new_tokens=n_new))
    assert expected["prompt"] + last.text == expected["text"]


def test_few_shot(gpt2: LanguageModel) -> None:
    prompt = build_prompt(SENTIMENT, SENTIMENT.examples, SENTIMENT.query, n_shots=2)
    scores = label_probabilities(gpt2, prompt.text, SENTIMENT.labels)
    assert f" {scores.best}" == GPT2["few_shot"]["answer"]
