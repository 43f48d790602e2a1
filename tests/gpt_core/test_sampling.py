"""The stages are those of `generate`, in its order, and each says truly what it did."""

import dataclasses
import itertools
import math
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig
from transformers.generation.logits_process import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from gpt_core.decoding import FILTERS, STAGES, SamplingSettings
from gpt_core.errors import InputError, UnsupportedError
from gpt_core.sampling import apply_stages, draw_token, entropy_bits, filter_logits

NAN, INFINITY = math.nan, math.inf


def random_logits(vocab_size: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(vocab_size) * 3).astype(np.float32)


def filtered(logits: np.ndarray, context: list[int], shape: SamplingSettings) -> np.ndarray:
    scores = filter_logits(torch.from_numpy(logits)[None], torch.tensor([context], dtype=torch.int64), shape)
    return scores[0].numpy()


def test_top_k_may_be_the_vocabulary_but_not_more() -> None:
    logits = random_logits(40)
    assert apply_stages(logits, [1], SamplingSettings(top_k=40)).stage("top_k").n_survivors == 40
    with pytest.raises(InputError, match=r"at most 40.*Given: 41"):
        apply_stages(logits, [1], SamplingSettings(top_k=41))


# -- the order and the numbers are transformers' ------------------------------------------------------------------

SHAPES = [
    SamplingSettings(
        logit_bias=bias,
        repetition_penalty=penalty,
        no_repeat_ngram=ngram,
        presence_penalty=presence,
        frequency_penalty=presence / 2,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        typical_p=typical_p,
    )
    for bias, penalty, ngram, presence, temperature, top_k, top_p, min_p, typical_p in itertools.product(
        ((), ((3, 2.5), (19, -4.0))),
        (1.0, 1.4),
        (0, 2),
        (0.0, 0.8),
        (1.0, 0.6),
        (0, 12),
        (1.0, 0.7),
        (0.0, 0.2),
        (1.0, 0.6),
    )
]


class Counted(LogitsProcessor):
    """OpenAI's formula, as a processor that is given to `generate`."""

    def __init__(self, presence: float, frequency: float) -> None:
        self.presence, self.frequency = presence, frequency

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        for token_id, count in Counter(input_ids[0].tolist()).items():
            scores[0, token_id] -= self.presence
            scores[0, token_id] -= self.frequency * count
        return scores


@pytest.mark.parametrize(
    "shape", random.Random(0).sample(SHAPES, 120), ids=lambda shape: str(SHAPES.index(shape))
)
def test_equal_to_the_processors_that_generate_makes(shape: SamplingSettings, tiny_lm: Any) -> None:
    network = tiny_lm("gpt2").network
    config = GenerationConfig(
        do_sample=True,
        num_beams=1,
        sequence_bias={(token_id,): bias for token_id, bias in shape.logit_bias} or None,
        repetition_penalty=shape.repetition_penalty,
        no_repeat_ngram_size=shape.no_repeat_ngram,
        temperature=shape.temperature,
        top_k=shape.top_k,
        top_p=shape.top_p,
        min_p=shape.min_p,
        typical_p=shape.typical_p,
    )
    context = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 1]])
    logits = torch.from_numpy(random_logits(64, seed=7))[None]
    given = [Counted(shape.presence_penalty, shape.frequency_penalty)] if shape.presence_penalty else []
    processors = network._get_logits_processor(
        config,
        input_ids_seq_length=11,
        model_kwargs={"attention_mask": torch.ones_like(context)},
        logits_processor=LogitsProcessorList(given),
    )
    expected = processors(context, logits.clone())
    assert torch.allclose(filter_logits(logits, context, shape), expected, atol=1e-6 if given else 0, rtol=0)
    result = apply_stages(logits[0].numpy(), context[0].tolist(), shape)
    assert np.allclose(result.probs, expected.double().softmax(-1)[0].numpy(), atol=1e-6)


def test_another_order_gives_the_processors_in_that_order() -> None:
    logits = torch.from_numpy(random_logits(64, seed=7))[None]
    context = torch.tensor([[3, 1, 4, 1, 5]])
    order = (
        "top_p",
        "temperature",
        "min_p",
        *(s for s in STAGES if s not in {"top_p", "temperature", "min_p"}),
    )
    shape = SamplingSettings(top_p=0.8, temperature=2.0, min_p=0.05, order=order)
    expected = logits
    for warper in (TopPLogitsWarper(0.8), TemperatureLogitsWarper(2.0), MinPLogitsWarper(0.05)):
        expected = warper(context, expected)
    assert torch.equal(filter_logits(logits, context, shape), expected)
    usual = filter_logits(logits, context, dataclasses.replace(shape, order=STAGES))
    assert not torch.equal(usual, expected)  # the order matters here
    result = apply_stages(logits[0].numpy(), [3, 1, 4, 1, 5], shape)
    assert tuple(stage.name for stage in result.stages) == order
    assert result.stages[0].entropy_bits_before == pytest.approx(entropy_bits(result.model_probs))


def test_a_stage_that_is_switched_off_does_not_run() -> None:
    logits = random_logits(64)
    result = apply_stages(logits, [1], SamplingSettings(top_k=3, top_p=0.9, switched_off=("top_k",)))
    assert np.array_equal(result.probs, apply_stages(logits, [1], SamplingSettings(top_p=0.9)).probs)
    assert result.stage("top_k").label == "Top-k: switched off"


# -- each stage, computed another way -----------------------------------------------------------------------------


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    logits = np.array([2.0, -2.0, 1.0, -1.0, 0.0], dtype=np.float32)
    got = filtered(logits, [0, 1, 1, 0, 4], SamplingSettings(repetition_penalty=2.0))
    assert got.tolist() == [1.0, -4.0, 1.0, -1.0, 0.0]


def test_bias_is_added() -> None:
    got = filtered(np.zeros(4, dtype=np.float32), [0], SamplingSettings(logit_bias=((1, 2.5), (3, -4.0))))
    assert got.tolist() == [0, 2.5, 0, -4]


def test_presence_counts_once_and_frequency_each_time() -> None:
    logits = np.array([2.0, -2.0, 1.0], dtype=np.float32)
    assert filtered(logits, [0, 0, 0, 2], SamplingSettings(presence_penalty=0.5)).tolist() == [1.5, -2, 0.5]
    assert filtered(logits, [0, 0, 0, 2], SamplingSettings(frequency_penalty=0.5)).tolist() == [0.5, -2, 0.5]
    assert filtered(logits, [0, 0, 0, 2], SamplingSettings(frequency_penalty=-1)).tolist() == [5, -2, 2]


def test_typical_keeps_what_is_nearest_to_the_entropy() -> None:
    # Entropy 1.75 bits; surprisals 1, 2, 3, 3: the nearest is the second token, then the first.
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.125])).astype(np.float32)
    for typical_p, kept in ((0.2, {1}), (0.3, {0, 1}), (0.9, {0, 1, 2, 3})):
        stage = apply_stages(logits, [0], SamplingSettings(typical_p=typical_p)).stage("typical_p")
        assert set(np.flatnonzero(stage.probs)) == kept


def test_a_bias_on_a_token_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match=r"`logit_bias` must name tokens from 0 to 9"):
        apply_stages(random_logits(10), [1], SamplingSettings(logit_bias=((10, 1.0),)))


def test_no_repeat_ngram_bans_what_would_complete_a_run() -> None:
    context = [5, 6, 7, 5, 6, 2, 5, 6]
    got = filtered(random_logits(10), context, SamplingSettings(no_repeat_ngram=3))
    assert set(np.flatnonzero(np.isneginf(got))) == {7, 2}
    got = filtered(random_logits(10), context, SamplingSettings(no_repeat_ngram=1))
    assert set(np.flatnonzero(np.isneginf(got))) == {5, 6, 7, 2}
    # A run longer than the text cannot be in it.
    assert not np.isneginf(filtered(random_logits(10), context, SamplingSettings(no_repeat_ngram=9))).any()


def test_top_k_keeps_ties_with_the_last() -> None:
    logits = np.array([5, 3, 3, 3, 1], dtype=np.float32)
    stage = apply_stages(logits, [0], SamplingSettings(top_k=2)).stage("top_k")
    assert (stage.n_survivors, stage.n_removed) == (4, 1)


@pytest.mark.parametrize(
    ("top_p", "survivors"), [(0.01, 1), (0.49, 1), (0.5, 1), (0.51, 2), (0.75, 2), (0.8, 3), (1.0, 4)]
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(top_p: float, survivors: int) -> None:
    logits = np.log2(np.array([0.125, 0.5, 0.125, 0.25])).astype(np.float32) * np.float32(math.log(2))
    stage = apply_stages(logits, [0], SamplingSettings(top_p=top_p)).stage("top_p")
    assert stage.n_survivors == survivors


def test_top_p_reads_what_top_k_left() -> None:
    probs = np.array([0.4, 0.2, 0.2, 0.2])
    shape = SamplingSettings(top_k=1, top_p=0.5)
    assert apply_stages(np.log(probs).astype(np.float32), [0], shape).stage("top_p").n_survivors == 1
    assert (
        apply_stages(np.log(probs).astype(np.float32), [0], SamplingSettings(top_p=0.5))
        .stage("top_p")
        .n_survivors
        == 2
    )


def test_min_p_compares_with_the_most_probable() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.11, 0.09])).astype(np.float32)
    assert apply_stages(logits, [0], SamplingSettings(min_p=0.2)).stage("min_p").n_survivors == 3
    assert apply_stages(logits, [0], SamplingSettings(min_p=1.0)).stage("min_p").n_survivors == 1


def test_temperature_0_is_greedy_and_says_so() -> None:
    logits = random_logits(50)
    result = apply_stages(logits, [3], SamplingSettings(temperature=0, top_k=5, top_p=0.9))
    assert result.greedy
    assert result.probs[logits.argmax()] == 1
    assert result.probs.sum() == 1
    assert "greedy" in result.stage("temperature").label
    assert [stage.name for stage in result.stages if stage.active] == ["temperature"]
    assert result.stage("temperature").mass_removed == pytest.approx(1 - result.model_probs.max(), abs=1e-6)


def test_greedy_takes_the_first_of_equals_as_argmax_does() -> None:
    assert (
        apply_stages(np.array([1, 2, 2], dtype=np.float32), [0], SamplingSettings(temperature=0)).probs[1]
        == 1
    )


def test_greedy_still_heeds_the_repetition_penalty() -> None:
    logits = np.array([3.0, 2.9, 1.0], dtype=np.float32)
    assert apply_stages(logits, [0], SamplingSettings(temperature=0, repetition_penalty=2.0)).probs[1] == 1


# -- what a stage says ------------------------------------------------------------------------------------------

shapes = st.builds(
    SamplingSettings,
    repetition_penalty=st.floats(0.1, 10),
    no_repeat_ngram=st.integers(0, 4),
    temperature=st.one_of(st.just(0), st.floats(0.01, 100)),
    top_k=st.integers(0, 30),
    top_p=st.floats(0.001, 1),
    min_p=st.floats(0, 1),
    typical_p=st.floats(0.01, 1),
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.floats(-2, 2),
    logit_bias=st.dictionaries(st.integers(0, 29), st.floats(-5, 5), max_size=3),
    order=st.permutations(STAGES),
    switched_off=st.sets(st.sampled_from(STAGES), max_size=2),
)


@given(
    logits=st.lists(st.floats(-100, 100, width=32), min_size=30, max_size=30),
    context=st.lists(st.integers(0, 29), min_size=1, max_size=12),
    shape=shapes,
)
@settings(max_examples=150, deadline=None)
def test_laws_of_every_stage(logits: list[float], context: list[int], shape: SamplingSettings) -> None:
    array = np.array(logits, dtype=np.float32)
    try:
        result = apply_stages(array, context, shape)
    except InputError as error:
        assert "bans every token that is left" in str(error)  # noqa: PT017 - only that may happen
        return
    assert tuple(stage.name for stage in result.stages) == shape.run_order
    before, survivors, gone = result.model_probs, 30, np.zeros(30, dtype=bool)
    for stage in result.stages:
        index = STAGES.index(stage.name)
        assert stage.active == shape.is_active(stage.name)
        assert stage.probs.dtype == np.float32
        assert stage.probs.sum(dtype=np.float64) == pytest.approx(1, abs=1e-5)
        removed = result.removed_by == index
        assert stage.n_removed == removed.sum()
        assert survivors - stage.n_removed == stage.n_survivors >= 1
        assert stage.mass_removed == pytest.approx(before[removed].sum(dtype=np.float64), abs=1e-6)
        assert (stage.probs[removed] == 0).all()
        assert stage.entropy_bits_before == pytest.approx(entropy_bits(before))
        assert 0 <= stage.entropy_bits <= math.log2(stage.n_survivors) + 1e-5
        if not stage.active:
            assert stage.probs is before or np.array_equal(stage.probs, before)
            assert (stage.n_removed, stage.mass_removed) == (0, 0.0)
        elif stage.name in FILTERS:
            # Filters keep the proportions of what they keep.
            kept = before * ~(gone | removed)
            assert np.allclose(stage.probs, kept / kept.sum(), atol=1e-5)
        gone |= removed
        assert np.array_equal(np.isneginf(stage.logits), gone)
        before, survivors = stage.probs, stage.n_survivors
    assert np.array_equal(result.probs, before)


def test_entropy() -> None:
    assert entropy_bits(np.full(8, 0.125, dtype=np.float32)) == pytest.approx(3)
    assert entropy_bits(np.array([0, 1, 0], dtype=np.float32)) == 0


def test_results_are_read_only() -> None:
    result = apply_stages(random_logits(10), [1], SamplingSettings(top_k=3))
    for array in (result.probs, result.model_probs, result.removed_by, result.stages[0].probs):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_the_logits_are_left_alone() -> None:
    logits = random_logits(20)
    copy = logits.copy()
    apply_stages(logits, [1, 2, 1], SHAPES[-1])
    assert np.array_equal(logits, copy)


@pytest.mark.parametrize("bad", [NAN, INFINITY])
def test_logits_that_are_no_numbers_are_refused(bad: float) -> None:
    logits = random_logits(10)
    logits[4] = bad
    with pytest.raises(UnsupportedError, match="not all numbers"):
        apply_stages(logits, [1], SamplingSettings())


def test_minus_infinity_is_a_token_that_the_model_rules_out() -> None:
    logits = random_logits(10)
    logits[4] = -INFINITY
    stage = apply_stages(logits, [1], SamplingSettings()).stages[0]
    assert (stage.n_survivors, stage.n_removed, stage.probs[4]) == (9, 0, 0)


def test_banning_the_whole_vocabulary_is_refused() -> None:
    with pytest.raises(InputError, match=r"`no_repeat_ngram` = 1 bans every token"):
        apply_stages(random_logits(3), [0, 1, 2], SamplingSettings(no_repeat_ngram=1))


@pytest.mark.parametrize("temperature", [0.01, 100])
def test_extreme_temperatures_stay_finite(temperature: float) -> None:
    logits = random_logits(100) * 1000
    assert np.isfinite(apply_stages(logits, [1], SamplingSettings(temperature=temperature)).probs).all()


# -- the draw ---------------------------------------------------------------------------------------------------


def test_draw_is_the_one_that_the_global_generator_would_make_and_leaves_it_alone() -> None:
    probs = torch.from_numpy(random_logits(1000)).softmax(0)
    with torch.random.fork_rng():
        torch.manual_seed(5)  # the generator that ours is compared with
        expected = [int(torch.multinomial(probs[None], 1)) for _ in range(50)]
    state = torch.random.get_rng_state()
    generator = torch.Generator().manual_seed(5)
    assert [draw_token(probs, generator) for _ in range(50)] == expected
    assert torch.equal(torch.random.get_rng_state(), state)


def test_draws_follow_the_probabilities() -> None:
    probs = torch.tensor([0.5, 0.0, 0.3, 0.2])
    generator = torch.Generator().manual_seed(0)
    counts = np.bincount([draw_token(probs, generator) for _ in range(4000)], minlength=4)
    assert counts[1] == 0
    # Four standard deviations of a binomial count.
    assert np.all(np.abs(counts / 4000 - probs.numpy()) < 4 * np.sqrt(0.25 / 4000))
