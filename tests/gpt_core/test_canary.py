"""The canary closes what does not agree, and leaves the rest open and right."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gpt_core import canary, capture
from gpt_core.canary import TOLERANCE
from gpt_core.catalog import ModelId
from gpt_core.model import LanguageModel, wrap_network
from gpt_core.trace import logits_at, trace_tokens
from tests.conftest import ARCHITECTURES, CLOSED_ARCHITECTURES, make_network

IDS = (5, 50, 500, 5000, 50000)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_agrees_is_open(tiny_lm: Callable[[str], LanguageModel], architecture: str) -> None:
    lm = tiny_lm(architecture)
    assert dict(lm.closed_views) == {}
    assert lm.canary.attention_difference <= TOLERANCE
    assert lm.canary.logits_difference <= TOLERANCE
    assert lm.canary.norm_difference <= TOLERANCE
    assert lm.network.config._attn_implementation == capture.ATTENTION_NAME


@pytest.mark.parametrize("architecture", CLOSED_ARCHITECTURES)
def test_what_cannot_be_recorded_is_closed_and_its_logits_are_right(
    tiny_lm: Callable[[str], LanguageModel], architecture: str
) -> None:
    lm = tiny_lm(architecture)
    assert set(lm.closed_views) == {"attention"}
    assert "no map is shown" in lm.closed_views["attention"]
    with torch.inference_mode():
        expected = make_network(architecture).eval()(torch.tensor([IDS])).logits[0].numpy()
    ours = logits_at(lm, trace_tokens(lm, IDS), range(len(IDS)))
    assert abs(ours - expected).max() <= 1e-4 * max(1.0, abs(expected).max())


def test_a_wrong_map_is_never_shown(monkeypatch: pytest.MonkeyPatch, gpt2_tokenizer: Any) -> None:
    original = capture.attention_scores

    def wrong_scale(record: Any, **options: Any) -> torch.Tensor:
        return original(record, **options) * 1.1

    monkeypatch.setattr(canary, "attention_scores", wrong_scale)
    network = make_network("gpt2").eval()
    with torch.inference_mode():
        expected = network(torch.tensor([IDS])).logits[0].numpy()
    lm = wrap_network(network, gpt2_tokenizer, model_id=ModelId("local", "wrong-scale"))
    assert "differ from its own by" in lm.closed_views["attention"]
    assert lm.network.config._attn_implementation == "eager"
    ours = logits_at(lm, trace_tokens(lm, IDS), range(len(IDS)))
    assert abs(ours - expected).max() < 1e-4
    assert trace_tokens(lm, IDS).attention == ()


def test_a_head_that_cannot_be_rebuilt_is_closed(
    monkeypatch: pytest.MonkeyPatch, gpt2_tokenizer: Any
) -> None:
    original = canary.apply_head
    monkeypatch.setattr(canary, "apply_head", lambda network, hidden: original(network, hidden) + 1.0)
    lm = wrap_network(make_network("gpt2"), gpt2_tokenizer, model_id=ModelId("local", "wrong-head"))
    assert "predictions" in lm.closed_views["logits"].lower()
