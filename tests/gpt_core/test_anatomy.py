"""Parts found by structure are the parts that the architecture's own code names."""

from collections.abc import Callable
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gpt_core.anatomy import find_anatomy
from gpt_core.catalog import ModelId
from gpt_core.errors import ModelLoadError
from gpt_core.model import LanguageModel, wrap_network
from tests.conftest import ARCHITECTURES, CLOSED_ARCHITECTURES, make_network

TinyLm = Callable[[str], LanguageModel]

#: Decoder, blocks, token table, position table, final norm, by their names in transformers.
_LLAMA = ("model", "model.layers", "model.embed_tokens", None, "model.norm")
_GPT2 = ("transformer", "transformer.h", "transformer.wte", "transformer.wpe", "transformer.ln_f")
_OPT = "model.decoder"
NAMES: dict[str, tuple[str, str, str, str | None, str]] = {
    **dict.fromkeys([*ARCHITECTURES, *CLOSED_ARCHITECTURES], _LLAMA),
    "gpt2": _GPT2,
    "gpt_neo": _GPT2,
    "gpt_neox": ("gpt_neox", "gpt_neox.layers", "gpt_neox.embed_in", None, "gpt_neox.final_layer_norm"),
    "opt": (
        _OPT,
        f"{_OPT}.layers",
        f"{_OPT}.embed_tokens",
        f"{_OPT}.embed_positions",
        f"{_OPT}.final_layer_norm",
    ),
    "phi": ("model", "model.layers", "model.embed_tokens", None, "model.final_layernorm"),
    "bloom": ("transformer", "transformer.h", "transformer.word_embeddings", None, "transformer.ln_f"),
    "falcon": ("transformer", "transformer.h", "transformer.word_embeddings", None, "transformer.ln_f"),
    "mamba": ("backbone", "backbone.layers", "backbone.embeddings", None, "backbone.norm_f"),
}


@pytest.mark.parametrize("architecture", NAMES)
def test_parts_are_those_that_the_architecture_names(tiny_lm: TinyLm, architecture: str) -> None:
    lm = tiny_lm(architecture)
    found = lm.anatomy
    parts = (
        found.decoder,
        found.blocks,
        found.token_embedding,
        found.position_embedding,
        found.final_norm,
    )
    for part, name in zip(parts, NAMES[architecture], strict=True):
        assert part is (attrgetter(name)(lm.network) if name else None)


def test_what_tells_positions_apart(tiny_lm: TinyLm) -> None:
    kinds = {name: tiny_lm(name).geometry.position_kind for name in NAMES}
    assert {name for name, kind in kinds.items() if kind == "learned"} == {"gpt2", "gpt_neo", "opt"}
    assert {name for name, kind in kinds.items() if kind == "other"} == {"bloom", "mamba"}
    assert tiny_lm("gemma3_text").anatomy.rotates  # one set of frequencies for each kind of layer


class Inner(torch.nn.Module):
    def __init__(self, *parts: torch.nn.Module) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList(parts)


def _network(decoder: torch.nn.Module, n_layers: int | None) -> Any:
    table = torch.nn.Embedding(7, 4)
    return SimpleNamespace(
        get_decoder=lambda: decoder,
        get_input_embeddings=lambda: table,
        config=SimpleNamespace(get_text_config=lambda: SimpleNamespace(num_hidden_layers=n_layers)),
    )


def test_experts_inside_a_block_are_not_taken_for_the_blocks() -> None:
    """Two blocks of unlike kinds, with two experts each: the experts are two of one kind."""
    attention = Inner(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    decoder = Inner(attention, torch.nn.Linear(4, 4))
    assert find_anatomy(_network(decoder, 2)).blocks is decoder.parts


def test_lists_of_other_lengths_are_not_the_blocks() -> None:
    decoder = torch.nn.Module()
    decoder.heads = torch.nn.ModuleList([torch.nn.Linear(4, 4) for _ in range(3)])
    decoder.blocks = torch.nn.ModuleList([torch.nn.Linear(4, 4) for _ in range(2)])
    assert find_anatomy(_network(decoder, 2)).blocks is decoder.blocks


@pytest.mark.parametrize("n_layers", [0, None, 3])
def test_no_blocks_is_a_sentence(n_layers: int | None) -> None:
    with pytest.raises(ModelLoadError, match=r"No stack of \d blocks was found"):
        find_anatomy(_network(Inner(torch.nn.Linear(4, 4)), n_layers))


def test_a_norm_without_gains_is_found(gpt2_tokenizer: Any) -> None:
    lm = wrap_network(make_network("olmo"), gpt2_tokenizer, model_id=ModelId("local", "tiny-olmo"))
    assert lm.anatomy.final_norm is lm.network.model.norm
    assert dict(lm.closed_views) == {}


def test_vectors_wider_than_the_token_table(gpt2_tokenizer: Any) -> None:
    """opt-350m: tokens of one width, blocks of another."""
    network = make_network("opt", word_embed_proj_dim=16, do_layer_norm_before=False)
    lm = wrap_network(network, gpt2_tokenizer, model_id=ModelId("local", "tiny-opt-350m"))
    assert lm.anatomy.token_embedding.weight.shape[1] == 16
    assert lm.geometry.d_model == 32
    # A projection follows its blocks instead of a norm, and the norms inside them come after the sum.
    assert set(lm.closed_views) == {"lens", "walk", "writers"}
