"""Parameters by part against arithmetic on the configuration; real sizes on the meta device, without a weight."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, OpenAIGPTConfig

from gpt_core.anatomy import find_anatomy
from gpt_core.catalog import ModelId
from gpt_core.model import LanguageModel, wrap_network
from gpt_core.parameters import FAMILY, PARTS, compare_family, count_parameters, count_parts, module_tree
from tests.conftest import ARCHITECTURES, make_network

TinyLM = Callable[[str], LanguageModel]


def meta_network(config: Any) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def meta_counts(architecture: str, **options: Any) -> dict[str, int]:
    network = meta_network(AutoConfig.for_model(architecture, **options))
    return {part.part: part.n_parameters for part in count_parts(network, find_anatomy(network))}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parts_add_up(architecture: str, tiny_lm: TinyLM) -> None:
    lm = tiny_lm(architecture)
    parts = count_parameters(lm)
    total = sum(parameter.numel() for parameter in lm.network.parameters())
    assert sum(part.n_parameters for part in parts) == total == lm.geometry.n_parameters
    found = [part.part for part in parts]
    assert found == [part for part in PARTS if part in found]
    assert "other" not in found
    by_part = {part.part: part for part in parts}
    assert by_part["token embedding"].n_parameters == 50257 * 32
    tied = lm.network.get_output_embeddings().weight is lm.network.get_input_embeddings().weight
    assert by_part["head"].shared_with == ("token embedding" if tied else "")
    assert (by_part["head"].n_parameters == 0) == tied
    assert ("position embedding" in by_part) == (architecture in ("gpt2", "opt"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parts_name_modules_that_hold_their_parameters(architecture: str, tiny_lm: TinyLM) -> None:
    lm = tiny_lm(architecture)
    counted: set[int] = set()
    for part in count_parameters(lm):
        found = 0
        assert part.modules
        for name in part.modules:
            first, star, rest = name.partition(".*")
            module = lm.network.get_submodule(first)
            owners = [block.get_submodule(rest.lstrip(".")) for block in module] if star else [module]
            for parameter in (p for owner in owners for p in owner.parameters()):
                if id(parameter) not in counted:
                    counted.add(id(parameter))
                    found += parameter.numel()
        assert found == part.n_parameters


def test_gpt2_part_by_part() -> None:
    d, n_layers = 768, 12
    assert meta_counts("gpt2") == {
        "token embedding": 50257 * d,
        "position embedding": 1024 * d,
        "attention": n_layers * (3 * d * d + 3 * d + d * d + d),
        "MLP": n_layers * (4 * d * d + 4 * d + 4 * d * d + d),
        "norms": (2 * n_layers + 1) * 2 * d,
        "head": 0,
    }
    assert sum(meta_counts("gpt2").values()) == 124_439_808


def test_llama_part_by_part() -> None:
    """TinyLlama 1.1B: grouped key heads, gated MLP, no bias, norms without bias, a head of its own."""
    d, hidden, n_layers, kv = 2048, 5632, 22, 256
    counts = meta_counts(
        "llama",
        vocab_size=32000,
        hidden_size=d,
        intermediate_size=hidden,
        num_hidden_layers=n_layers,
        num_attention_heads=32,
        num_key_value_heads=4,
    )
    assert counts == {
        "token embedding": 32000 * d,
        "attention": n_layers * (2 * d * d + 2 * d * kv),
        "MLP": n_layers * 3 * d * hidden,
        "norms": (2 * n_layers + 1) * d,
        "head": 32000 * d,
    }
    assert sum(counts.values()) == 1_100_048_384


def test_opt_part_by_part() -> None:
    """opt-125m: two extra rows of positions, MLP as fc1 and fc2, norms named after what they follow."""
    d, n_layers = 768, 12
    counts = meta_counts("opt")
    assert counts == {
        "token embedding": 50272 * d,
        "position embedding": 2050 * d,
        "attention": n_layers * 4 * (d * d + d),
        "MLP": n_layers * (8 * d * d + 5 * d),
        "norms": (2 * n_layers + 1) * 2 * d,
        "head": 0,
    }
    assert sum(counts.values()) == 125_239_296


def test_gpt_neox_part_by_part() -> None:
    """pythia-160m: untied head, no position table."""
    d, n_layers, vocab = 768, 12, 50304
    counts = meta_counts(
        "gpt_neox",
        vocab_size=vocab,
        hidden_size=d,
        intermediate_size=4 * d,
        num_hidden_layers=n_layers,
        num_attention_heads=12,
    )
    assert counts == {
        "token embedding": vocab * d,
        "attention": n_layers * 4 * (d * d + d),
        "MLP": n_layers * (8 * d * d + 5 * d),
        "norms": (2 * n_layers + 1) * 2 * d,
        "head": vocab * d,
    }
    assert sum(counts.values()) == 162_322_944


def test_phi_part_by_part() -> None:
    """phi-1.5: one norm a block, and a head with bias."""
    d, n_layers, vocab = 2048, 24, 51200
    counts = meta_counts(
        "phi",
        vocab_size=vocab,
        hidden_size=d,
        intermediate_size=4 * d,
        num_hidden_layers=n_layers,
        num_attention_heads=32,
    )
    assert counts == {
        "token embedding": vocab * d,
        "attention": n_layers * 4 * (d * d + d),
        "MLP": n_layers * (8 * d * d + 5 * d),
        "norms": (n_layers + 1) * 2 * d,
        "head": vocab * d + vocab,
    }
    assert sum(counts.values()) == 1_418_270_720


def test_gemma_part_by_part() -> None:
    """gemma-2b: one key head, heads wider than d_model / n_heads, tied head."""
    d, hidden, n_layers, vocab = 2048, 16384, 18, 256000
    counts = meta_counts(
        "gemma",
        vocab_size=vocab,
        hidden_size=d,
        intermediate_size=hidden,
        num_hidden_layers=n_layers,
        num_attention_heads=8,
        num_key_value_heads=1,
        head_dim=256,
    )
    assert counts == {
        "token embedding": vocab * d,
        "attention": n_layers * (2 * d * 2048 + 2 * d * 256),
        "MLP": n_layers * 3 * d * hidden,
        "norms": (2 * n_layers + 1) * d,
        "head": 0,
    }
    assert sum(counts.values()) == 2_506_172_416


def test_experts_are_mlp() -> None:
    counts = meta_counts("mixtral", num_hidden_layers=2, hidden_size=64, intermediate_size=96)
    assert "other" not in counts
    assert counts["MLP"] == 2 * 8 * (3 * 64 * 96 + 64)  # eight experts, and the router's row for each


def test_what_a_block_owns_by_itself_is_counted(gpt2_tokenizer: Any) -> None:
    network = make_network("gpt2")
    network.transformer.h[1].gate = torch.nn.Parameter(torch.ones(5))
    network.transformer.h[2].adapter = torch.nn.Linear(3, 2)
    network.extra = torch.nn.Parameter(torch.ones(7))
    lm = wrap_network(network, gpt2_tokenizer, model_id=ModelId("local", "tiny-extra"))
    parts = {part.part: part for part in count_parameters(lm)}
    assert parts["other"].n_parameters == 5 + 8 + 7
    assert sum(part.n_parameters for part in parts.values()) == lm.geometry.n_parameters


def test_an_untied_gpt2_counts_its_head() -> None:
    counts = meta_counts("gpt2", tie_word_embeddings=False)
    assert counts["head"] == counts["token embedding"] == 50257 * 768


FAMILY_CONFIGS = {
    "GPT-1": OpenAIGPTConfig(),
    "distilgpt2": GPT2Config(n_layer=6),
    "gpt2": GPT2Config(),
    "gpt2-medium": GPT2Config(n_embd=1024, n_layer=24, n_head=16),
    "gpt2-large": GPT2Config(n_embd=1280, n_layer=36, n_head=20),
    "gpt2-xl": GPT2Config(n_embd=1600, n_layer=48, n_head=25),
    "GPT-3": GPT2Config(n_embd=12288, n_layer=96, n_head=96, n_positions=2048),
}


@pytest.mark.parametrize("member", FAMILY, ids=[member.name for member in FAMILY])
def test_the_familys_counts(member: Any) -> None:
    config = FAMILY_CONFIGS[member.name]
    network = meta_network(config)
    assert sum(parameter.numel() for parameter in network.parameters()) == member.n_parameters
    parts = count_parts(network, find_anatomy(network))
    assert sum(part.n_parameters for part in parts) == member.n_parameters
    sizes = (member.n_layers, member.n_heads, member.d_model, member.context_length)
    assert sizes == (config.n_layer, config.n_head, config.n_embd, config.n_positions)


def test_the_present_model_stands_in_the_family(bundled: LanguageModel) -> None:
    rows = compare_family(bundled)
    assert len(rows) == len(FAMILY) + 1
    assert [row.n_parameters for row in rows] == sorted(row.n_parameters for row in rows)
    (own,) = [row for row in rows if row.present]
    assert (own.name, own.n_parameters) == ("small-gpt2", bundled.geometry.n_parameters)
    assert (own.n_layers, own.n_heads, own.d_model, own.context_length) == (6, 6, 192, 512)


def test_a_member_of_the_family_is_marked_in_place(bundled: LanguageModel) -> None:
    gpt2 = dataclasses.replace(
        bundled,
        geometry=dataclasses.replace(
            bundled.geometry,
            n_layers=12,
            n_heads=12,
            d_model=768,
            context_length=1024,
            n_parameters=124_439_808,
        ),
    )
    rows = compare_family(gpt2)
    assert [row.name for row in rows] == [
        member.name for member in sorted(FAMILY, key=lambda m: m.n_parameters)
    ]
    assert [row.name for row in rows if row.present] == ["gpt2"]


def test_the_tree_folds_equal_blocks(bundled: LanguageModel) -> None:
    tree = module_tree(bundled)
    assert "(0-5): 6 x GPT2Block(" in tree
    assert "(wte): Embedding(50257, 192)" in tree
    assert "(wpe): Embedding(512, 192)" in tree
