"""The canary closes what does not agree, and leaves the rest open and right."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AttentionInterface

from gpt_core import canary, capture
from gpt_core.canary import TOLERANCE
from gpt_core.catalog import ModelId
from gpt_core.errors import ContextLengthError, ModelLoadError
from gpt_core.model import LanguageModel, wrap_network
from gpt_core.trace import logits_at, trace_tokens
from tests.conftest import ARCHITECTURES, CLOSED_ARCHITECTURES, make_network
from tests.laws import TEXT, check_logits, plain_reference

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
    assert set(lm.closed_views) == {"attention", "writers"}
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


def test_a_window_that_is_lost_is_seen(monkeypatch: pytest.MonkeyPatch, gpt2_tokenizer: Any) -> None:
    """Without the registration of the mask under the same name: the text is longer than the window, so it shows."""
    original = capture._capturing_attention

    def unmasked(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        return original(module, query, key, value, None, **options)

    AttentionInterface.register(capture.ATTENTION_NAME, unmasked)
    try:
        lm = wrap_network(make_network("mistral"), gpt2_tokenizer, model_id=ModelId("local", "no-window"))
    finally:
        AttentionInterface.register(capture.ATTENTION_NAME, original)
    assert "differ from its own by" in lm.closed_views["attention"]
    assert "logits" not in lm.closed_views  # by its own attention, they are right again
    assert lm.canary.n_tokens == 16


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_what_reads_ahead_is_refused(gpt2_tokenizer: Any, architecture: str) -> None:
    with pytest.raises(
        ModelLoadError, match=r"reads what comes after a token.*Choose one that continues text"
    ):
        wrap_network(make_network(architecture), gpt2_tokenizer, model_id=ModelId("local", architecture))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_number_that_is_not_finite_is_refused(gpt2_tokenizer: Any, value: float) -> None:
    """Even in the row of a token that no short text has."""
    network = make_network("llama")
    with torch.no_grad():
        network.model.embed_tokens.weight[31415, 3] = value
    with pytest.raises(ModelLoadError, match=r"weight model.embed_tokens.weight .* not finite"):
        wrap_network(network, gpt2_tokenizer, model_id=ModelId("local", "damaged"))


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 32,
}


def test_texts_stay_below_the_length_that_changes_a_shared_part(gpt2_tokenizer: Any) -> None:
    """Two texts at once, one beyond that length, would get each other's rotary frequencies."""
    network = make_network("phi3", rope_parameters=LONGROPE, original_max_position_embeddings=32)
    lm = wrap_network(network, gpt2_tokenizer, model_id=ModelId("local", "longrope"))
    assert lm.geometry.context_length == lm.canary.longest == 32
    frequencies = lm.network.model.rotary_emb.inv_freq.clone()
    trace_tokens(lm, range(32))
    assert torch.equal(lm.network.model.rotary_emb.inv_freq, frequencies)
    with pytest.raises(ContextLengthError, match="at most 32 tokens"):
        trace_tokens(lm, range(33))


def test_windows_too_wide_to_prove_bound_the_text(gpt2_tokenizer: Any) -> None:
    network = make_network("mistral", sliding_window=4096, max_position_embeddings=8192)
    lm = wrap_network(network, gpt2_tokenizer, model_id=ModelId("local", "wide-window"))
    assert lm.canary.n_tokens == 24
    assert lm.geometry.context_length == 4096


@pytest.mark.parametrize(
    "options", [{"return_dict": False}, {"output_hidden_states": True}, {"use_cache": False}]
)
def test_what_a_configuration_asks_for_changes_nothing(gpt2_tokenizer: Any, options: dict[str, bool]) -> None:
    network = make_network("gpt2")
    for name, value in options.items():
        setattr(network.config, name, value)
    lm = wrap_network(network, gpt2_tokenizer, model_id=ModelId("local", f"asks-{next(iter(options))}"))
    assert dict(lm.closed_views) == {}
    check_logits(lm, trace_tokens(lm, TEXT), plain_reference("gpt2"))
