"""Beam search ends with the ids and scores of transformers' own, and what is said of each step adds up."""

import copy
import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from gpt_core import beams
from gpt_core.beams import BeamCandidate, BeamResult, BeamStep, beam_search, beam_steps
from gpt_core.decoding import GENERATION_RANGES, BeamSettings
from gpt_core.errors import CancelledError, ContextLengthError, InputError, MemoryLimitError
from gpt_core.model import LanguageModel
from gpt_core.recipes import generate_call

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


def test_limits(bundled: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ContextLengthError, match="together must be at most 512"):
        beam_search(bundled, [262] * 500, BeamSettings(max_new_tokens=13))
    monkeypatch.setattr(beams, "MAX_BEAM_BYTES", 2**20)
    with pytest.raises(MemoryLimitError, match=r"at most 1 MiB.*Needed: \d+ MiB.*fewer beams"):
        beam_steps(bundled, PROMPT, BeamSettings(n_beams=16, n_return=1, max_new_tokens=400))
    with pytest.raises(InputError, match="empty"):
        beam_search(bundled, [], BeamSettings())


# -- as it happens --------------------------------------------------------------------------------------------------


def run_steps(lm: LanguageModel, prompt: Any, settings: BeamSettings) -> tuple[list[BeamStep], BeamResult]:
    steps, found = beam_steps(lm, prompt, settings), []
    while True:
        try:
            found.append(next(steps))
        except StopIteration as stop:
            return found, stop.value


def ending_early(lm: LanguageModel, *ids: int) -> LanguageModel:
    """A copy of the model whose texts end at the given ids."""
    network: Any = copy.copy(lm.network)
    network.generation_config = copy.deepcopy(network.generation_config)
    network.generation_config.eos_token_id = list(ids)
    return dataclasses.replace(lm, network=network)


def path(steps: list[BeamStep], last: BeamCandidate, index: int) -> list[int]:
    """The tokens from the prompt to a candidate of step `index`, following its parents."""
    ids = [last.token_id]
    place = last.parent
    for step in reversed(steps[:index]):
        before = next(c for c in step.candidates if c.place == place)
        ids.append(before.token_id)
        place = before.parent
    return ids[::-1]


def test_every_text_that_is_returned_can_be_followed_through_the_tree(bundled: LanguageModel) -> None:
    first = beam_search(bundled, PROMPT, BeamSettings(max_new_tokens=6)).beams
    lm = ending_early(bundled, first[0].token_ids[2], first[1].token_ids[3])
    settings = BeamSettings(n_beams=4, n_return=4, max_new_tokens=6, length_penalty=0.5)
    steps, result = run_steps(lm, PROMPT, settings)
    assert [step.index for step in steps] == list(range(result.n_steps))
    finished = {}
    for step in steps:
        for candidate in step.candidates:
            if candidate.score is not None:
                finished[tuple(path(steps, candidate, step.index))] = candidate
    assert {c.state for c in finished.values()} >= {"ended", "cut off"}
    for beam in result.beams:
        candidate = finished[beam.token_ids]
        assert candidate.state == ("ended" if beam.finished else "cut off")
        assert candidate.score == pytest.approx(beam.score, rel=1e-6)
        assert candidate.log_prob == pytest.approx(beam.log_prob, rel=1e-5)
    best = sorted((c.score for c in finished.values() if c.score is not None), reverse=True)
    assert [beam.score for beam in result.beams] == pytest.approx(best[:4])


def test_steps_keep_the_most_probable_and_drop_the_rest(bundled: LanguageModel) -> None:
    steps, _ = run_steps(bundled, PROMPT, BeamSettings(n_beams=3, n_return=1, max_new_tokens=5))
    for step in steps:
        sums = [c.log_prob for c in step.candidates]
        assert sums == sorted(sums, reverse=True)
        kept = [c for c in step.candidates if c.state == "kept"]
        if step.index < 4:
            assert [c.place for c in kept] == [0, 1, 2]
            assert len(step.texts) == 3
            assert min(c.log_prob for c in kept) >= max(
                c.log_prob for c in step.candidates if c.state == "dropped"
            )
        else:
            assert Counter(c.state for c in step.candidates) == {"cut off": 3, "dropped": 3}
        before = (
            {0: 0.0}
            if step.index == 0
            else {c.place: c.log_prob for c in steps[step.index - 1].candidates if c.place is not None}
        )
        for c in step.candidates:
            assert c.log_prob == pytest.approx(before[c.parent] + c.token_log_prob, abs=1e-4)


def test_a_step_against_all_continuations_by_hand(bundled: LanguageModel) -> None:
    """The first two steps, from the log-probabilities of every continuation of two tokens that could win."""
    steps, _ = run_steps(bundled, PROMPT, BeamSettings(n_beams=3, n_return=1, max_new_tokens=3))
    with torch.inference_mode():
        first = bundled.network(input_ids=torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1).topk(3)
        seconds = (
            bundled.network(input_ids=torch.tensor([[*PROMPT, int(i)] for i in first.indices]))
            .logits[:, -1]
            .log_softmax(-1)
            + first.values[:, None]
        )
    top = seconds.flatten().topk(6)
    found = steps[1].candidates
    assert [c.parent * 50257 + c.token_id for c in found] == top.indices.tolist()
    assert np.allclose([c.log_prob for c in found], top.values, atol=1e-4)


def test_a_state_that_cannot_be_reordered_is_read_again(tiny_lm: Any) -> None:
    settings = BeamSettings(n_beams=2, n_return=2, max_new_tokens=4)
    lm = tiny_lm("mamba")
    found = beam_search(lm, PROMPT, settings).beams
    ids = torch.tensor([[*PROMPT, *found[0].token_ids]])
    with torch.inference_mode():
        log_probs = lm.network(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    expected = [log_probs[len(PROMPT) - 1 + i, token] for i, token in enumerate(found[0].token_ids)]
    assert np.allclose(found[0].token_log_probs, expected, atol=1e-4)


def offered_penalties() -> list[float]:
    low, high, step = GENERATION_RANGES["length_penalty"].slider
    return [round(low + step * i, 6) for i in range(round((high - low) / step) + 1)]


@pytest.mark.slow
def test_equal_to_generate_over_random_prompts_and_every_penalty(tiny_lm: Any) -> None:
    rng = np.random.RandomState(0)
    lm: Any = tiny_lm("gpt2")
    n_ended = 0
    for number in range(100):
        prompt = torch.from_numpy(rng.randint(0, 50257, size=(1, rng.randint(1, 12))))
        with torch.inference_mode():
            likely = lm.network(input_ids=prompt).logits[0, -1].topk(40).indices
        # Some of its likely tokens end a text, so that short and long ones compete.
        ending = ending_early(lm, *likely[rng.permutation(40)[: rng.randint(1, 4)]].tolist())
        network: Any = ending.network
        early_stopping: Any = (False, True, "never")[number % 3]
        for penalty in offered_penalties():
            settings = BeamSettings(
                n_beams=3, n_return=3, max_new_tokens=5, length_penalty=penalty, early_stopping=early_stopping
            )
            expected = network.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                return_dict_in_generate=True,
                output_scores=True,
                pad_token_id=1,
                **generate_call(settings),
            )
            ours = beam_search(ending, prompt[0].tolist(), settings).beams
            assert [beam.score for beam in ours] == pytest.approx(
                expected.sequences_scores.tolist(), rel=1e-5
            )
            for beam, row in zip(ours, expected.sequences[:, prompt.shape[1] :].tolist(), strict=True):
                assert list(beam.token_ids) == row[: len(beam.token_ids)]
                assert set(row[len(beam.token_ids) :]) <= {1}
            n_ended += sum(beam.finished for beam in ours)
    assert n_ended > 100
