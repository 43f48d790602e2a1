"""Models for the tests: the bundled one, and small random ones made here."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from gpt_core.catalog import BUNDLED_FOLDER, ModelId, bundled_model_id
from gpt_core.model import LanguageModel, load_model, wrap_network

#: Sizes of each small architecture, where they differ from the common ones.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
    "llama": {},
    "mistral": {"sliding_window": 8},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "sliding_window": 8, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    "gemma3_text": {"head_dim": 8, "sliding_window": 8},
    "gpt_neox": {"num_key_value_heads": None},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "phi": {},
    "phi3": {"pad_token_id": 0},
    "granite": {"logits_scaling": 3.0, "attention_multiplier": 0.3},
    "starcoder2": {},
}


def make_network(architecture: str, *, sharpen: float = 12.0, **options: Any) -> PreTrainedModel:
    """A random network; its q and k weights are scaled so that attention is far from uniform."""
    sizes: dict[str, Any] = {
        "vocab_size": 50257,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": 50256,
        "eos_token_id": 50256,
    }
    config = AutoConfig.for_model(architecture, **(sizes | ARCHITECTURES.get(architecture, {}) | options))
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        network = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            part = name.rsplit(".", 2)[-2] if "." in name else name
            if parameter.dim() == 2 and part in {"c_attn", "q_proj", "k_proj", "query_key_value", "qkv_proj"}:
                parameter *= sharpen
    return network


@pytest.fixture(scope="session")
def gpt2_tokenizer() -> Any:
    """GPT-2's real vocabulary and merges."""
    return AutoTokenizer.from_pretrained(BUNDLED_FOLDER, local_files_only=True)


@pytest.fixture(scope="session")
def bundled() -> LanguageModel:
    """The model that ships with the project."""
    return load_model(bundled_model_id())


@pytest.fixture(scope="session")
def tiny_lm(gpt2_tokenizer: Any) -> Callable[[str], LanguageModel]:
    """Make (once) a small random model of an architecture, with GPT-2's vocabulary."""

    @lru_cache(maxsize=None)
    def make(architecture: str) -> LanguageModel:
        return wrap_network(
            make_network(architecture), gpt2_tokenizer, model_id=ModelId("local", f"tiny-{architecture}")
        )

    return make
