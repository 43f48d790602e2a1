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
    payload = pack_tree([branch, branch], key="k", colour="rank", most_bits=15.6)
    assert payload.startswith(MAGIC)
    told = json.loads(payload[len(MAGIC) :])
    assert (told["key"], told["colour"], told["mostBits"], len(told["branches"])) == ("k", "rank", 15.6, 2)
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
