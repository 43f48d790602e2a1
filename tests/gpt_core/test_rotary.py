"""Rotary angles: the model's own module, the formula, and the queries that the model really used."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from gpt_core.catalog import ModelId
from gpt_core.errors import InputError, UnsupportedError
from gpt_core.model import LanguageModel, wrap_network
from gpt_core.rotary import rotary_angles
from gpt_core.trace import trace_tokens
from tests.conftest import ARCHITECTURES, make_network

IDS = (464, 9429, 10163, 1398, 373, 845, 493, 2118, 278, 13, 314, 4499, 257, 1256, 13)
ROTARY = [name for name in ARCHITECTURES if name not in ("gpt2", "opt", "gemma3_text")]

TinyLM = Callable[[str], LanguageModel]


_numbers = itertools.count()


def stretched(gpt2_tokenizer: Any, architecture: str, **options: Any) -> LanguageModel:
    """A model of its own, under a name of its own: traces are kept by name."""
    name = f"rope-{architecture}-{next(_numbers)}"
    return wrap_network(
        make_network(architecture, **options), gpt2_tokenizer, model_id=ModelId("local", name)
    )


@pytest.mark.parametrize("architecture", ROTARY)
def test_angles_are_those_of_the_recorded_pass(architecture: str, tiny_lm: TinyLM) -> None:
    lm = tiny_lm(architecture)
    (found,) = rotary_angles(lm, len(IDS))
    cos, _ = trace_tokens(lm, IDS).block_arguments[0][1]["position_embeddings"]
    n_pairs = len(found.frequencies)
    assert cos.shape == (1, len(IDS), 2 * n_pairs)
    # Cohere turns neighbours together, the others the first half with the second.
    once = cos[0, :, ::2] if architecture == "cohere" else cos[0, :, :n_pairs]
    assert np.abs(once.numpy() - found.cosines).max() < 1e-6
    assert (found.kind, found.scaling) == ("", 1.0)


@pytest.mark.parametrize("architecture", ROTARY)
def test_frequencies_are_the_papers(architecture: str, tiny_lm: TinyLM) -> None:
    """θ_i = base^(-2i / d), the base as configured (arXiv:2104.09864, section 3.2.2)."""
    lm = tiny_lm(architecture)
    (found,) = rotary_angles(lm, 3)
    n_pairs = len(found.frequencies)
    base = lm.network.config.rope_parameters["rope_theta"]
    assert np.allclose(found.frequencies, base ** (-np.arange(n_pairs) / n_pairs), rtol=1e-5)
    assert np.allclose(found.cosines, np.cos(np.outer(np.arange(3), found.frequencies)), atol=1e-6)


@pytest.mark.parametrize(
    ("architecture", "neighbours"), [("llama", False), ("qwen2", False), ("cohere", True)]
)
def test_the_angles_turn_the_queries(architecture: str, neighbours: bool, gpt2_tokenizer: Any) -> None:
    """q before the rotation, turned by hand through these angles, is the q that the pass recorded."""
    lm = stretched(gpt2_tokenizer, architecture)
    trace = trace_tokens(lm, IDS)
    (found,) = rotary_angles(lm, len(IDS))
    block = lm.anatomy.blocks[0]
    with torch.inference_mode():
        plain = block.self_attn.q_proj(block.input_layernorm(trace.residual[0]))
    heads = plain.numpy().reshape(len(IDS), 4, 8).transpose(1, 0, 2)
    first = np.arange(4) * 2 if neighbours else np.arange(4)
    second = first + (1 if neighbours else 4)
    angles = np.outer(np.arange(len(IDS)), found.frequencies)
    turned = np.empty_like(heads)
    turned[..., first] = heads[..., first] * np.cos(angles) - heads[..., second] * np.sin(angles)
    turned[..., second] = heads[..., second] * np.cos(angles) + heads[..., first] * np.sin(angles)
    assert np.abs(turned - trace.attention[0].query.numpy()).max() < 1e-4


STRETCHED: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("llama", {"factor": 4.0}),
    "dynamic": ("llama", {"factor": 4.0}),
    "yarn": ("llama", {"factor": 4.0, "original_max_position_embeddings": 16}),
    "llama3": (
        "llama",
        {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
    "longrope": (
        "phi3",
        {
            "short_factor": [1.0, 1.5, 2.0, 2.5],
            "long_factor": [3.0] * 4,
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
}


@pytest.mark.parametrize("n_tokens", [15, 40])
@pytest.mark.parametrize("kind", STRETCHED)
def test_stretched_contexts(kind: str, n_tokens: int, gpt2_tokenizer: Any) -> None:
    """Some change their frequencies with the length: asked for, before, or after a text of another length."""
    architecture, options = STRETCHED[kind]
    rope = {"rope_type": kind, "rope_theta": 10000.0} | options
    extra = {"original_max_position_embeddings": 16} if kind == "longrope" else {}
    lm = stretched(gpt2_tokenizer, architecture, rope_parameters=rope, **extra)
    n_tokens = min(n_tokens, lm.geometry.context_length)  # of LongRoPE, what it was trained on before
    trace_tokens(lm, IDS[:9])
    before = {name: buffer.clone() for name, buffer in lm.network.named_buffers()}
    (found,) = rotary_angles(lm, n_tokens)
    for name, buffer in lm.network.named_buffers():
        assert torch.equal(buffer, before[name]), f"{name} of the shared model was changed"
    ids = [i * 777 for i in range(n_tokens)]
    cos, _ = trace_tokens(lm, ids).block_arguments[0][1]["position_embeddings"]
    assert np.abs(cos[0, :, :4].numpy() - found.cosines * found.scaling).max() < 1e-5


def test_kinds_of_layers_have_their_own(gpt2_tokenizer: Any) -> None:
    lm = stretched(
        gpt2_tokenizer,
        "gemma3_text",
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )
    found = {angles.kind: angles for angles in rotary_angles(lm, len(IDS))}
    assert set(found) == {"sliding_attention", "full_attention"}
    trace = trace_tokens(lm, IDS)
    for layer, kind in enumerate(["sliding_attention", "full_attention", "sliding_attention"]):
        cos, _ = trace.block_arguments[layer][1]["position_embeddings"]
        assert np.abs(cos[0, :, :4].numpy() - found[kind].cosines).max() < 1e-6


@pytest.mark.parametrize("architecture", ["gpt2", "opt"])
def test_a_model_with_a_table_has_none(architecture: str, tiny_lm: TinyLM) -> None:
    with pytest.raises(UnsupportedError, match="No rotary frequencies"):
        rotary_angles(tiny_lm(architecture), 5)


def test_a_rotary_module_that_is_not_used_is_not_shown(gpt2_tokenizer: Any) -> None:
    assert rotary_angles(stretched(gpt2_tokenizer, "falcon"), 5)
    with pytest.raises(UnsupportedError, match="No rotary frequencies"):
        rotary_angles(stretched(gpt2_tokenizer, "falcon", alibi=True), 5)


@pytest.mark.parametrize("n_tokens", [0, -1, 65, 2.5, "5"])
def test_positions_out_of_range_are_refused(n_tokens: Any, tiny_lm: TinyLM) -> None:
    with pytest.raises(InputError, match="from 1 to 64"):
        rotary_angles(tiny_lm("llama"), n_tokens)


def test_a_way_that_is_not_known_is_refused(gpt2_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = stretched(gpt2_tokenizer, "llama")
    rotary = type(lm.anatomy.rotary)
    original = rotary.forward
    monkeypatch.setattr(rotary, "forward", lambda self, x, position_ids: original(self, x, position_ids + 1))
    with pytest.raises(UnsupportedError, match="not known here"):
        rotary_angles(lm, 5)
    monkeypatch.setattr(rotary, "forward", lambda self: None)
    with pytest.raises(UnsupportedError, match="in its own way"):
        rotary_angles(lm, 5)
