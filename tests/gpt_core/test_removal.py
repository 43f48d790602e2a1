"""Why a token is gone: the number that is told decides again what the stage decided."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_core.decoding import FILTERS, STAGES, SamplingSettings
from gpt_core.errors import InputError
from gpt_core.removal import explain_token
from gpt_core.sampling import apply_stages, cumulative_curve

LOGITS = np.log(np.array([0.4, 0.3, 0.2, 0.1])).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "removed", "value", "threshold"),
    [
        (SamplingSettings(top_k=2), 2, math.log(0.2), math.log(0.3)),
        (SamplingSettings(top_p=0.65), 2, 0.7, 0.65),
        (SamplingSettings(min_p=0.6), 2, 0.2, 0.24),
        (SamplingSettings(temperature=0), 1, math.log(0.3), math.log(0.4)),
        (SamplingSettings(no_repeat_ngram=2), 3, 1, 2),
    ],
    ids=str,
)
def test_numbers(shape: SamplingSettings, removed: int, value: float, threshold: float) -> None:
    context = [0, 2, 3, 1, 2]
    fate = explain_token(apply_stages(LOGITS, context, shape), removed, context)
    (stage,) = (stage for stage in STAGES if shape.is_active(stage))
    assert fate.removed_by == stage
    assert fate.value == pytest.approx(value, abs=1e-6)
    assert fate.threshold == pytest.approx(threshold, abs=1e-6)
    assert fate.prob == 0
    assert fate.rank == removed + 1
    assert fate.model_prob == pytest.approx(math.exp(LOGITS[removed]))


def test_typical_says_how_far_the_surprisal_is_from_the_entropy() -> None:
    probs = np.array([0.5, 0.25, 0.125, 0.125])
    result = apply_stages(np.log(probs).astype(np.float32), [0], SamplingSettings(typical_p=0.3))
    fate = explain_token(result, 3, [0])
    assert fate.removed_by == "typical_p"
    assert fate.value == pytest.approx(0.75)
    assert "1.25 bits away" in fate.sentence  # 3 bits, entropy 1.75


def test_a_token_that_stayed_and_one_that_the_model_rules_out() -> None:
    logits = LOGITS.copy()
    logits[3] = -math.inf
    result = apply_stages(logits, [0], SamplingSettings(top_k=2, temperature=0.5))
    kept, ruled_out = explain_token(result, 0, [0]), explain_token(result, 3, [0])
    assert kept.removed_by is None
    assert math.isnan(kept.value)
    assert kept.prob == result.probs[0]
    assert [step.stage for step in kept.steps] == ["temperature", "top_k"]
    assert kept.steps[0].logit == pytest.approx(2 * kept.steps[0].logit_before)
    assert kept.steps[0].prob == kept.steps[1].prob_before
    assert ruled_out.removed_by == "model"
    with pytest.raises(InputError, match="Given: 4"):
        explain_token(result, 4, [0])


shapes = st.builds(
    SamplingSettings,
    temperature=st.one_of(st.just(0), st.floats(0.3, 3)),
    top_k=st.integers(0, 30),
    top_p=st.floats(0.05, 1),
    min_p=st.floats(0, 1),
    typical_p=st.floats(0.05, 1),
    no_repeat_ngram=st.integers(0, 3),
    order=st.permutations(STAGES),
)


@given(seed=st.integers(0, 10_000), shape=shapes)
@settings(max_examples=100, deadline=None)
def test_value_and_threshold_decide_as_the_stage_did(seed: int, shape: SamplingSettings) -> None:
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal(30) * 3).astype(np.float32)
    context = rng.integers(0, 30, size=12).tolist()
    try:
        result = apply_stages(logits, context, shape)
    except InputError:
        return
    for token_id in range(30):
        fate = explain_token(result, token_id, context)
        name = fate.removed_by
        place = int(result.removed_by[token_id])
        assert name == (None if place < 0 else STAGES[place])
        if name in {"top_k", "temperature", "min_p"}:
            assert fate.value < fate.threshold
        elif name in {"top_p", "typical_p"}:
            assert fate.value >= fate.threshold - 1e-5
        elif name == "no_repeat_ngram":
            start, n = int(fate.value), shape.no_repeat_ngram
            assert context[start : start + n] == [*context[len(context) - n + 1 :][: n - 1], token_id]
        else:
            assert fate.prob > 0


@given(seed=st.integers(0, 10_000), shape=shapes)
@settings(max_examples=60, deadline=None)
def test_the_curve_ends_at_one_and_is_cut_where_the_stage_cut(seed: int, shape: SamplingSettings) -> None:
    logits = (np.random.default_rng(seed).standard_normal(200) * 3).astype(np.float32)
    result = apply_stages(logits, [1, 2], shape)
    for stage in result.stages:
        curve = cumulative_curve(result, stage.name, n_points=20)
        assert len(curve.ranks) <= 20
        assert (np.diff(curve.ranks) > 0).all()
        assert (np.diff(curve.cumulative) >= 0).all()
        assert curve.cumulative[-1] == pytest.approx(1, abs=1e-4)
        assert curve.ranks[-1] == stage.n_survivors + stage.n_removed
        assert curve.cut == stage.n_survivors
        assert curve.kept == pytest.approx(1 - stage.mass_removed, abs=1e-4)
        assert curve.cut in curve.ranks
        if stage.name == "top_p" and stage.active:
            assert curve.kept >= shape.top_p - 1e-5
        if stage.name in FILTERS and not stage.active:
            assert curve.kept == pytest.approx(1, abs=1e-5)
