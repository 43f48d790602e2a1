"""Settings outside what is possible are refused by a sentence; the bounds that are shown are those that hold."""

import math
from typing import Any

import pytest

from gpt_core.decoding import (
    GENERATION_RANGES,
    SETTING_RANGES,
    STAGE_LABELS,
    STAGES,
    BeamSettings,
    GenerationSettings,
    SamplingSettings,
)
from gpt_core.errors import InputError

NAN, INFINITY = math.nan, math.inf


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("temperature", v) for v in (1e-9, 0.009, 1e9, NAN, INFINITY, -1, -INFINITY, "1", None, True)),
        *(("top_k", v) for v in (-1, 10**9, "5", 2.5, NAN, None, True)),
        *(("top_p", v) for v in (0, -0.1, 1.0001, NAN, INFINITY, "0.9")),
        *(("min_p", v) for v in (-0.1, 1.0001, NAN, INFINITY)),
        *(("repetition_penalty", v) for v in (0, 100, -1, NAN, INFINITY)),
        *(("no_repeat_ngram", v) for v in (-1, 2.5, 101, NAN)),
        *(("presence_penalty", v) for v in (-11, 10.5, NAN, INFINITY, "1")),
        *(("frequency_penalty", v) for v in (-11, 10.5, NAN, INFINITY, True)),
        *(("typical_p", v) for v in (0, -0.1, 1.0001, NAN)),
        *(("logit_bias", v) for v in ("12", 5, [3], [(1, 2, 3)], {-1: 1.0}, {1: 101}, {1: NAN}, {2.5: 1})),
        *(("logit_bias", v) for v in ([(1, 2.0), (1, 3.0)], dict.fromkeys(range(301), 1.0), ["ab"])),
        *(("order", v) for v in ((), STAGES[1:], (*STAGES[1:], STAGES[1]), "top_k", (*STAGES, "top_k"), 3)),
        *(("switched_off", v) for v in ("top_k", ("top_q",), 3, (None,))),
    ],
)
def test_impossible_setting_is_refused_with_name_and_value(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"`{name}`|`token id`") as error:
        SamplingSettings(**{name: value})
    assert "Given" in str(error.value)


def test_defaults_do_nothing_and_every_setting_is_a_stage() -> None:
    assert ("logit_bias", *SETTING_RANGES) == STAGES == tuple(STAGE_LABELS)
    assert not any(SamplingSettings().is_active(stage) for stage in STAGES)
    assert {name: getattr(SamplingSettings(), name) for name in SETTING_RANGES} == {
        name: bounds.default for name, bounds in SETTING_RANGES.items()
    }


def test_biases_are_kept_by_id_and_zero_is_none() -> None:
    shape = SamplingSettings(logit_bias={9: 1, 3: -2.5, 4: 0})  # type: ignore[arg-type]
    assert shape.logit_bias == ((3, -2.5), (9, 1.0))
    assert shape == SamplingSettings(logit_bias=[(9, 1.0), (3, -2.5)])  # type: ignore[arg-type]
    assert hash(shape) == hash(SamplingSettings(logit_bias=((9, 1.0), (3, -2.5))))
    assert shape.is_active("logit_bias")
    assert not SamplingSettings(logit_bias=((4, 0.0),)).is_active("logit_bias")


def test_a_stage_that_is_switched_off_keeps_its_value_and_does_nothing() -> None:
    shape = SamplingSettings(top_k=5, temperature=0, switched_off=("temperature", "top_k"))
    assert (shape.top_k, shape.greedy) == (5, False)
    assert not any(shape.is_active(stage) for stage in STAGES)
    assert shape.switched_off == ("temperature", "top_k")
    greedy = GenerationSettings(sampling=shape, do_sample=False).effective_sampling
    assert greedy.greedy
    assert greedy.switched_off == ("top_k",)


def test_greedy_chooses_after_all_penalties_whatever_the_order() -> None:
    order = ("top_p", "temperature", *(s for s in STAGES if s not in {"top_p", "temperature"}))
    assert not SamplingSettings(order=order).in_default_order
    assert SamplingSettings(order=order).run_order == order
    greedy = SamplingSettings(order=order, temperature=0).run_order
    assert greedy == (*STAGES[:5], "temperature", "top_p", "top_k", "min_p", "typical_p")
    assert SamplingSettings(temperature=0).run_order == STAGES


@pytest.mark.parametrize("name", SETTING_RANGES)
def test_bounds_that_are_shown_are_those_that_are_checked(name: str) -> None:
    bounds = SETTING_RANGES[name]
    whole = name in {"no_repeat_ngram", "top_k"}
    step: float = 1 if whole else 0.001
    cast = int if whole else float
    SamplingSettings(**{name: cast(bounds.high)})
    low = cast(bounds.low + step) if bounds.low_open else cast(bounds.low)
    SamplingSettings(**{name: low})
    for value in (
        cast(bounds.high + step),
        cast(bounds.low - step),
        *([bounds.low] if bounds.low_open else []),
    ):
        with pytest.raises(InputError):
            SamplingSettings(**{name: value})
    smallest, largest, _ = bounds.slider
    for value in (smallest, largest):
        SamplingSettings(**{name: cast(value)})


@pytest.mark.parametrize(
    "bad",
    [
        *({"max_new_tokens": v} for v in (0, -5, 10**9, 2.5, "3", None, True)),
        *({"seed": v} for v in (-1, 2**63, "abc", 1.5, None)),
        *({"stop_strings": v} for v in (("",), ("a",) * 1000, "###", (1,), ("x" * 201,), None, ("\ud800",))),
        {"n_alternatives": 0},
        {"n_alternatives": 101},
        {"do_sample": "yes"},
        {"sampling": None},
    ],
    ids=lambda bad: repr(bad)[:40],
)
def test_impossible_generation_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"Given: |valid Unicode"):
        GenerationSettings(**bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"n_beams": 1},
        {"n_beams": 10**6},
        {"n_return": 5, "n_beams": 4},
        {"max_new_tokens": 0},
        {"length_penalty": float("nan")},
        {"early_stopping": "soon"},
        {"repetition_penalty": 0},
        {"no_repeat_ngram": -1},
    ],
    ids=str,
)
def test_impossible_beam_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"`{next(iter(bad))}`"):
        BeamSettings(**bad)


def test_defaults_that_are_shown_are_those_that_hold() -> None:
    for settings in (GenerationSettings(), BeamSettings()):
        for name, bounds in GENERATION_RANGES.items():
            if hasattr(settings, name):
                assert getattr(settings, name) == bounds.default
                assert bounds.low <= bounds.slider[0] <= bounds.slider[1] <= bounds.high


def test_numbers_are_stored_as_plain_ones() -> None:
    import numpy as np

    shape = SamplingSettings(temperature=1, top_k=np.int64(5), top_p=np.float32(0.5))
    assert [type(value) for value in (shape.temperature, shape.top_k, shape.top_p)] == [float, int, float]
    assert shape == SamplingSettings(top_k=5, top_p=0.5)
    assert hash(shape) == hash(SamplingSettings(top_k=5, top_p=0.5))


def test_settings_as_they_run() -> None:
    settings = GenerationSettings(sampling=SamplingSettings(temperature=0.7, top_k=3), do_sample=False)
    assert settings.effective_sampling == SamplingSettings(temperature=0, top_k=3)
    assert settings.effective_sampling.greedy
    assert GenerationSettings().effective_sampling == SamplingSettings()
