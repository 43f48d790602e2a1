"""Label probabilities equal those of plain transformers, whatever the labels' tokens."""

from typing import Any

import numpy as np
import pytest
import torch

from gpt_core.errors import CancelledError, ContextLengthError, InputError
from gpt_core.labels import LabelScores, label_probabilities
from gpt_core.model import LanguageModel
from tests.conftest import make_network

PROMPT = "Text: This new music video was so bad.\nSentiment:"


def brute_force(lm: LanguageModel, text: str, label: str, n_prompt: int) -> float:
    """Log-probability of what the label adds after n_prompt tokens: one plain pass over the whole, in float64."""
    ids = lm.tokenizer(text + label, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        log_probs = lm.network(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
    return float(sum(log_probs[i - 1, ids[0, i]] for i in range(n_prompt, ids.shape[1])))


def by_label(scores: LabelScores) -> dict[str, Any]:
    return {score.label: score for score in scores.labels}


@pytest.mark.parametrize("name", ["bundled", "gpt2", "llama"])
def test_equal_to_plain_transformers(name: str, bundled: LanguageModel, tiny_lm: Any) -> None:
    lm = bundled if name == "bundled" else tiny_lm(name)
    labels = ["Positive", "Negative", "antidisestablishmentarianism", "so so", "👧"]
    scores = label_probabilities(lm, PROMPT, labels)
    n_prompt = len(lm.tokenizer(PROMPT)["input_ids"])
    assert scores.boundary_kept
    assert len(scores.prompt_ids) == n_prompt
    for score in scores.labels:
        assert score.continuation == " " + score.label
        assert score.log_prob == pytest.approx(
            brute_force(lm, PROMPT, score.continuation, n_prompt), abs=1e-4
        )
        assert score.log_prob == pytest.approx(score.token_log_probs.sum())
        assert score.mean_log_prob == pytest.approx(score.log_prob / len(score.token_ids))
        assert score.prob == pytest.approx(np.exp(score.log_prob))
        assert score.share == pytest.approx(score.prob / scores.total_prob)
        assert lm.tokenizer.decode(score.token_ids) == score.continuation
    assert {len(score.token_ids) for score in scores.labels} > {1}
    assert sum(score.share for score in scores.labels) == pytest.approx(1)
    assert scores.best == max(scores.labels, key=lambda score: score.prob).label
    assert scores.best_by_mean == max(scores.labels, key=lambda score: score.mean_log_prob).label


def test_all_continuations_of_a_tiny_vocabulary_add_up_to_1(gpt2_tokenizer: Any) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from gpt_core.catalog import ModelId
    from gpt_core.model import wrap_network

    letters = {letter: i for i, letter in enumerate("abcd")}
    backend = Tokenizer(models.BPE(vocab=letters, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    network = make_network("gpt2", vocab_size=4, bos_token_id=None, eos_token_id=None)
    lm = wrap_network(network, tokenizer, model_id=ModelId("local", "four letters"))
    # Joined without a space: each label begins with the white space that keeps it from being added.
    two = [x + y for x in "abcd" for y in "abcd"]
    found = [_letters(lm, "abca", label) for label in two]
    assert sum(found) == pytest.approx(1, abs=1e-6)
    one = {x: _letters(lm, "abca", x) for x in "abcd"}
    for first in "abcd":
        assert sum(p for p, label in zip(found, two, strict=True) if label[0] == first) == pytest.approx(
            one[first]
        )


def _letters(lm: LanguageModel, prompt: str, label: str) -> float:
    return label_probabilities(lm, prompt, [label], space="").labels[0].prob


def test_a_prompt_that_ends_in_a_space_is_scored_from_before_it(bundled: LanguageModel) -> None:
    scores = label_probabilities(bundled, PROMPT + " ", ["Positive", "Negative", "unheard of"])
    plain = label_probabilities(bundled, PROMPT, ["Positive", "Negative", "unheard of"])
    assert not scores.boundary_kept
    assert plain.boundary_kept
    assert "ends in a space" in scores.notes[0]
    assert not plain.notes
    # The text is the same, so the numbers are: nothing is conditioned on a lone space token.
    assert scores.prompt_ids == plain.prompt_ids
    for with_space, without in zip(scores.labels, plain.labels, strict=True):
        assert with_space.continuation == without.continuation.lstrip()
        assert with_space.token_ids == without.token_ids
        assert with_space.log_prob == pytest.approx(without.log_prob)


def test_labels_that_merge_differently_are_conditioned_on_the_same_tokens(bundled: LanguageModel) -> None:
    # "cat" + "s" is one token, "cat" + "!" keeps the prompt's token.
    scores = label_probabilities(bundled, "I like cat", ["s", "!"], space="")
    assert not scores.boundary_kept
    n_shared = len(scores.prompt_ids)
    assert [bundled.tokenizer.decode(s.token_ids) for s in scores.labels] == [" cats", " cat!"]
    for score in scores.labels:
        expected = brute_force(bundled, "I like cat", score.label, n_shared)
        assert score.log_prob == pytest.approx(expected, abs=1e-4)


def test_nested_labels_and_equal_beginnings_are_said(bundled: LanguageModel) -> None:
    scores = label_probabilities(bundled, "I live in", ["New", "New York", "New Jersey", "Rome"])
    probs = {score.label: score.prob for score in scores.labels}
    assert probs["New"] > probs["New York"] + probs["New Jersey"]
    nested = [note for note in scores.notes if "beginning of" in note]
    assert len(nested) == 2
    assert all(note.startswith("The tokens of 'New' are the beginning of") for note in nested)
    assert any("'New York' and 'New Jersey' begin with the same token" in note for note in scores.notes)
    assert not any("Rome" in note for note in scores.notes)
    assert len(scores.labels[1].token_ids) == 2
    # Equal first tokens have equal first numbers, read from the same pass.
    assert (
        scores.labels[1].token_log_probs[0]
        == scores.labels[2].token_log_probs[0]
        == scores.labels[0].log_prob
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "1 to 20 labels. Given: 0"),
        (["x"] * 21, "1 to 20 labels. Given: 21"),
        (["a", ""], "Label 2 is empty"),
        (["  \n"], "Label 1 is empty"),
        (["a", "b", "a"], "Label 3 is there twice: 'a'"),
        (["a", " a"], "Label 2 is there twice"),
        (["x" * 201], "at most 200 characters. Given: 201"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_impossible_labels_are_refused(labels: list[str], message: str, bundled: LanguageModel) -> None:
    with pytest.raises(InputError) as error:
        label_probabilities(bundled, PROMPT, labels)
    assert message in str(error.value)


def test_labels_with_the_same_tokens_are_refused(bundled: LanguageModel) -> None:
    # Lone surrogates have no UTF-8; both become U+FFFD.
    with pytest.raises(InputError, match="are the same tokens"):
        label_probabilities(bundled, PROMPT, ["\ud800", "\ud801"])


def test_impossible_prompts_are_refused(bundled: LanguageModel) -> None:
    with pytest.raises(InputError, match="prompt is empty"):
        label_probabilities(bundled, "", ["a"])
    with pytest.raises(InputError, match="no token of its own"):
        label_probabilities(bundled, " ", ["a"])
    limit = bundled.geometry.context_length
    with pytest.raises(ContextLengthError, match=f"at most {limit}.*Given: {limit} \\+ 1"):
        label_probabilities(bundled, " the" * limit, ["Positive"])
    assert label_probabilities(bundled, " the" * (limit - 1), ["Positive"]).labels[0].prob < 1


def test_single_token_labels_take_one_pass_and_cancel_is_heard(bundled: LanguageModel) -> None:
    passes = []
    hook = bundled.anatomy.blocks[0].register_forward_hook(lambda *_: passes.append(1))

    class Control:
        looks = 10**6

        def check(self) -> None:
            self.looks -= 1
            if self.looks < 0:
                raise CancelledError("Stopped.")

        def report(self, fraction: float, message: str) -> None:
            assert 0 <= fraction < 1

    try:
        label_probabilities(bundled, "A prompt of its own, once:", ["yes", "no", "so"], control=Control())
        assert len(passes) == 1
        label_probabilities(bundled, "A prompt of its own, once:", ["yes", "no", "unheard of"])
        assert len(passes) == 2
        stop = Control()
        stop.looks = 2
        with pytest.raises(CancelledError):
            label_probabilities(bundled, "Another prompt, never read:", ["yes"], control=stop)
    finally:
        hook.remove()
