"""Beam search is transformers' own, and what is said of each beam adds up."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from gpt_core.beams import beam_search
from gpt_core.decoding import BeamSettings
from gpt_core.errors import CancelledError, ContextLengthError, InputError, MemoryLimitError, UnsupportedError
from gpt_core.model import LanguageModel

PROMPT = (464, 9429, 10163, 1398, 373, 845, 493, 2118, 278, 13)


class Watch:
    def __init__(self, looks: int = 10**6) -> None:
        self.looks = looks
        self.fractions: list[float] = []

    def check(self) -> None:
        self.looks -= 1
        if self.looks < 0:
            raise CancelledError("Stopped.")

    def report(self, fraction: float, message: str) -> None:
        self.fractions.append(fraction)


@pytest.mark.parametrize("name", ["bundled", "gpt2", "llama"])
@pytest.mark.parametrize(
    "settings",
    [
        BeamSettings(n_beams=3, n_return=3, max_new_tokens=8),
        BeamSettings(n_beams=4, n_return=2, max_new_tokens=8, length_penalty=-1.0, early_stopping=True),
        BeamSettings(n_beams=2, n_return=1, max_new_tokens=8, length_penalty=0.0, early_stopping="never"),
        BeamSettings(n_beams=3, n_return=2, max_new_tokens=8, repetition_penalty=1.5, no_repeat_ngram=2),
    ],
    ids=["plain", "short", "canonical", "no repeats"],
)
def test_equal_to_generate(name: str, settings: BeamSettings, bundled: LanguageModel, tiny_lm: Any) -> None:
    lm = bundled if name == "bundled" else tiny_lm(name)
    network: Any = lm.network
    prompt = torch.tensor([PROMPT])
    expected = network.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=8,
        do_sample=False,
        num_beams=settings.n_beams,
        num_return_sequences=settings.n_return,
        length_penalty=settings.length_penalty,
        early_stopping=settings.early_stopping,
        repetition_penalty=settings.repetition_penalty,
        no_repeat_ngram_size=settings.no_repeat_ngram,
    )
    result = beam_search(lm, PROMPT, settings)
    assert len(result.beams) == settings.n_return
    for beam, row in zip(result.beams, expected[:, len(PROMPT) :].tolist(), strict=True):
        assert list(beam.token_ids) == row[: len(beam.token_ids)]
        assert set(row[len(beam.token_ids) :]) <= {50256}
        assert beam.text == lm.tokenizer.decode(beam.token_ids, skip_special_tokens=True)
        assert beam.log_prob / len(beam.token_ids) ** settings.length_penalty == pytest.approx(
            beam.score, rel=1e-4
        )
    scores = [beam.score for beam in result.beams]
    assert scores == sorted(scores, reverse=True)


def test_log_probs_are_the_models(bundled: LanguageModel) -> None:
    beam = beam_search(bundled, PROMPT, BeamSettings(max_new_tokens=6)).beams[0]
    ids = torch.tensor([PROMPT + beam.token_ids])
    with torch.inference_mode():
        log_probs = bundled.network(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
    expected = [log_probs[len(PROMPT) - 1 + i, token] for i, token in enumerate(beam.token_ids)]
    assert np.allclose(beam.token_log_probs, expected, atol=1e-4)


def test_a_beam_that_ends_early_is_cut_at_its_end(bundled: LanguageModel) -> None:
    import copy

    greedy = beam_search(bundled, PROMPT, BeamSettings(n_beams=2, n_return=2, max_new_tokens=6))
    network: Any = copy.copy(bundled.network)
    network.generation_config = copy.deepcopy(network.generation_config)
    network.generation_config.eos_token_id = greedy.beams[0].token_ids[1]
    lm = dataclasses.replace(bundled, network=network)
    result = beam_search(lm, PROMPT, BeamSettings(n_beams=2, n_return=2, max_new_tokens=6, length_penalty=0))
    ended = [beam for beam in result.beams if beam.finished]
    assert ended
    for beam in ended:
        assert beam.token_ids[-1] == network.generation_config.eos_token_id
        assert network.generation_config.eos_token_id not in beam.token_ids[:-1]
    for beam in result.beams:
        assert beam.score == pytest.approx(beam.log_prob, rel=1e-4)


def test_more_beams_find_nothing_less_probable_here(bundled: LanguageModel) -> None:
    few, many = (
        beam_search(bundled, PROMPT, BeamSettings(n_beams=n, n_return=1, max_new_tokens=6)).beams[0].log_prob
        for n in (2, 8)
    )
    assert many >= few - 1e-4


def test_progress_and_cancel(bundled: LanguageModel) -> None:
    watch = Watch()
    result = beam_search(bundled, PROMPT, BeamSettings(max_new_tokens=5), control=watch)
    assert watch.fractions == [pytest.approx((i + 1) / 5) for i in range(result.n_steps)]
    with pytest.raises(CancelledError):
        beam_search(bundled, PROMPT, BeamSettings(max_new_tokens=5), control=Watch(looks=10))
    assert not torch.is_inference_mode_enabled()


def test_a_model_that_cannot_is_a_sentence(bundled: LanguageModel) -> None:
    class Unordered:
        generation_config = bundled.network.generation_config

        def generate(self, **call: Any) -> None:
            raise ValueError("the cache cannot be reordered")

    network: Any = Unordered()
    with pytest.raises(UnsupportedError, match=r"cannot be reordered\. Sample instead"):
        beam_search(dataclasses.replace(bundled, network=network), PROMPT, BeamSettings())


def test_limits(bundled: LanguageModel) -> None:
    with pytest.raises(ContextLengthError, match="together must be at most 512"):
        beam_search(bundled, [262] * 500, BeamSettings(max_new_tokens=13))
    with pytest.raises(MemoryLimitError, match=r"1,024 MiB.*fewer beams"):
        beam_search(bundled, PROMPT, BeamSettings(n_beams=16, n_return=1, max_new_tokens=400))
    with pytest.raises(InputError, match="empty"):
        beam_search(bundled, [], BeamSettings())
