"""What travels to the browser is what the steps say, and a click is believed only as far as it is whole numbers."""

import json
from typing import Any

import pytest

from dashboard.components import branch_tree as component
from dashboard.components.branch_tree import MAGIC, DrawnBranch, pack_step, pack_tree
from gpt_core.decoding import GenerationSettings, SamplingSettings
from gpt_core.generation import generate_tokens
from gpt_core.model import LanguageModel


def test_payload(bundled: LanguageModel) -> None:
    settings = GenerationSettings(sampling=SamplingSettings(top_k=3), max_new_tokens=2, n_alternatives=5)
    steps = list(generate_tokens(bundled, (7454, 2402, 257), settings))
    hostile = "</script><img src=x>\u2028\ud800"
    packed = [pack_step(step, hostile, [f"t{i}" for i in step.alternative_ids]) for step in steps]
    branch = DrawnBranch(
        number=7,
        name=hostile,
        depth=1,
        notes=("a", "b"),
        running=True,
        shared=("…", "x"),
        first=3,
        steps=packed,
    )
    payload = pack_tree([branch, branch], colour="rank", most_bits=15.6)
    assert payload.startswith(MAGIC)
    told = json.loads(payload[len(MAGIC) :])
    assert (told["colour"], told["mostBits"], len(told["branches"])) == ("rank", 15.6, 2)
    drawn = told["branches"][0]
    assert (drawn["number"], drawn["depth"], drawn["first"], drawn["running"]) == (7, 1, 3, True)
    assert drawn["name"] == hostile.encode("utf-8", "replace").decode()
    for step, token in zip(steps, drawn["tokens"], strict=True):
        assert token[1:8] == [
            step.token_id,
            pytest.approx(step.prob, abs=1e-6),
            step.rank,
            pytest.approx(step.entropy_bits, abs=1e-4),
            pytest.approx(step.filtered_prob, abs=1e-6),
            step.n_survivors,
            0,
        ]
        assert [other[1] for other in token[8]] == step.alternative_ids.tolist()
        assert [other[2] for other in token[8]] == pytest.approx(step.alternative_probs.tolist(), abs=1e-6)
        assert [other[3] for other in token[8]] == pytest.approx(
            step.alternative_filtered_probs.tolist(), abs=1e-6
        )
        assert [other[4] for other in token[8]] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(("temperature", "vanishes"), [(0.3, False), (0.05, True)])
def test_a_token_that_no_stage_removed_is_not_said_to_be_gone(
    temperature: float, vanishes: bool, bundled: LanguageModel
) -> None:
    """At a low temperature what is left of it is too little for six decimals, or even for float32."""
    settings = GenerationSettings(
        sampling=SamplingSettings(temperature=temperature), max_new_tokens=1, n_alternatives=100
    )
    (step,) = generate_tokens(bundled, (7454, 2402, 257), settings)
    left = step.alternative_filtered_probs
    assert (left == 0).any() if vanishes else ((left > 0) & (left < 5e-7)).any()
    others = json.loads(pack_step(step, "x", ["y"] * 100))[8]
    assert [other[4] for other in others] == [0] * 100
    assert [other[3] for other in others] == pytest.approx(left.tolist(), rel=1e-5, abs=0)


@pytest.mark.parametrize(
    "settings",
    [
        GenerationSettings(sampling=SamplingSettings(top_k=3), max_new_tokens=1),
        GenerationSettings(do_sample=False, max_new_tokens=1),
    ],
)
def test_what_a_stage_removed_is_said_to_be_gone(
    settings: GenerationSettings, bundled: LanguageModel
) -> None:
    (step,) = generate_tokens(bundled, (7454, 2402, 257), settings)
    assert step.alternative_removed.sum() == 10 - step.n_survivors
    assert (step.alternative_removed == (step.alternative_filtered_probs == 0)).all()


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        ([0, 3, 50256], True),
        ([0, 3], False),
        ([0, 3, "5"], False),
        ([0, -1, 5], False),
        ([True, 3, 5], False),
        ([0, 3, 2**40], False),
        ([0, 3, 1.5], False),
        ("abc", False),
        (None, False),
        ({"a": 1}, False),
    ],
)
def test_forged_clicks(said: Any, believed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int, int]] = []
    monkeypatch.setattr(component.st, "session_state", {"k": {"taken": said}})
    component._take("k", lambda *numbers: calls.append(numbers))
    assert calls == ([tuple(said)] if believed else [])
