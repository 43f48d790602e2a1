"""The parts that write between the blocks are found on every architecture whose attention is open."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gpt_core.catalog import ModelId
from gpt_core.errors import UnsupportedError
from gpt_core.model import LanguageModel, wrap_network
from gpt_core.writers import find_writers, freeze_norm
from tests.conftest import ARCHITECTURES, CLOSED_ARCHITECTURES, make_network

TinyLm = Callable[[str], LanguageModel]

#: Names of the parts inside a block, where they are not Llama's: output projection, norm after it, MLP.
NAMES = {
    "gpt2": ("attn.c_proj", None, "mlp"),
    "gemma2": ("self_attn.o_proj", "post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3_text": ("self_attn.o_proj", "post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo2": ("self_attn.o_proj", "post_attention_layernorm", "post_feedforward_layernorm"),
    "gpt_neox": ("attention.dense", None, "post_mlp_dropout"),
    "opt": ("self_attn.out_proj", None, "fc2"),
    "phi": ("self_attn.dense", None, "mlp"),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parts_are_those_that_the_architecture_has(tiny_lm: TinyLm, architecture: str) -> None:
    lm = tiny_lm(architecture)
    projection, norm, mlp = NAMES.get(architecture, ("self_attn.o_proj", None, "mlp"))
    assert len(lm.writers) == 3
    for block, writers in zip(lm.anatomy.blocks, lm.writers, strict=True):
        assert writers.projection is block.get_submodule(projection)
        assert writers.post_norm is (None if norm is None else block.get_submodule(norm))
        assert writers.mlp is block.get_submodule(mlp)
        assert writers.factor == 1


def test_a_factor_on_what_is_added(gpt2_tokenizer: Any) -> None:
    lm = wrap_network(
        make_network("granite", residual_multiplier=0.22), gpt2_tokenizer, model_id=ModelId("local", "scaled")
    )
    assert [layer.factor for layer in lm.writers] == pytest.approx([0.22] * 3, abs=1e-5)


@pytest.mark.parametrize("architecture", CLOSED_ARCHITECTURES)
def test_closed_by_a_sentence(tiny_lm: TinyLm, architecture: str) -> None:
    lm = tiny_lm(architecture)
    assert lm.writers == ()
    assert "computes attention in its own way" in lm.closed_views["writers"]


def test_norms_that_come_after_the_sum_are_closed(gpt2_tokenizer: Any) -> None:
    """OPT-350m norms the stream itself: what a block adds is no sum of what its parts wrote."""
    network = make_network("opt", do_layer_norm_before=False)
    lm = wrap_network(network, gpt2_tokenizer, model_id=ModelId("local", "post-norm"))
    assert "adds something else than its attention and its MLP" in lm.closed_views["writers"]


def test_no_hook_is_left(tiny_lm: TinyLm) -> None:
    lm = tiny_lm("llama")
    before = [len(module._forward_hooks) for module in lm.network.modules()]
    assert len(find_writers(lm.network, lm.anatomy)) == 3
    assert [len(module._forward_hooks) for module in lm.network.modules()] == before


@pytest.mark.parametrize(
    "norm",
    [
        torch.nn.LayerNorm(7),
        torch.nn.LayerNorm(7, elementwise_affine=False),
        torch.nn.LayerNorm(7, bias=False),
        torch.nn.RMSNorm(7, eps=0.1),
        torch.nn.Identity(),
    ],
    ids=str,
)
def test_a_frozen_norm_is_the_norm_at_its_vector_and_linear_elsewhere(norm: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in norm.parameters():
        parameter.data = torch.randn(7, generator=generator)
    one, other = torch.randn(2, 7, generator=generator).double() * 3
    norm = norm.double()
    frozen = freeze_norm(norm, one)
    assert frozen.centred == isinstance(norm, torch.nn.LayerNorm)
    torch.testing.assert_close(
        frozen.apply(one) + frozen.bias, norm(one).detach().double(), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        frozen.apply(one + other), frozen.apply(one) + frozen.apply(other), atol=1e-9, rtol=0
    )
    if not isinstance(norm, torch.nn.Identity):
        assert not torch.allclose(frozen.apply(other) + frozen.bias, norm(other).detach().double(), atol=1e-3)


def test_what_is_no_norm_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="Tanh is no norm"):
        freeze_norm(torch.nn.Tanh(), torch.randn(8, generator=torch.Generator().manual_seed(0)))
