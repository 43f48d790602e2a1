"""Models for the tests: the bundled one, and small random ones made here."""

import os
from collections.abc import Callable
from functools import cache
from typing import Any

# Before torch, which reads it once: tests that run side by side have a thread each.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from huggingface_hub import constants as hub_constants
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from gpt_core.catalog import BUNDLED_FOLDER, ModelId, bundled_model_id, list_models
from gpt_core.model import LanguageModel, load_model, wrap_network

#: Sizes of each small architecture, where they differ from the common ones.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
    "llama": {},
    "mistral": {"sliding_window": 8},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gemma": {"head_dim": 8},
    "gemma2": {
        "head_dim": 8,
        "sliding_window": 8,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
    },
    "gemma3_text": {
        "head_dim": 8,
        "sliding_window": 8,
        "query_pre_attn_scalar": 16,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "gpt_neox": {"num_key_value_heads": None},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "phi": {},
    "phi3": {"pad_token_id": 0},
    "granite": {"logits_scaling": 3.0, "attention_multiplier": 0.3},
    "starcoder2": {},
    "cohere": {"logit_scale": 0.3},
    "olmo2": {},
    "mixtral": {"num_local_experts": 4},
}

#: Those that compute attention in their own way, so that it cannot be recorded.
CLOSED_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "stablelm": {},
    "gpt_neo": {
        "num_layers": 2,
        "num_hidden_layers": 2,
        "num_heads": 4,
        "window_size": 8,
        "attention_types": [[["global", "local"], 1]],
    },
    "bloom": {"n_layer": 3, "n_head": 4},
    "falcon": {},
    "mamba": {},
}

#: Weights of q and k, alone or together with v, by the names that the architectures give them.
_SHARPENED = {"c_attn", "q_proj", "k_proj", "query_key_value", "qkv_proj"}
_SHARPEN = {"opt": 48.0}


def make_network(architecture: str, *, sharpen: float | None = None, **options: Any) -> PreTrainedModel:
    """A random network, always the same for the same arguments.

    Its q and k are scaled so that attention is far from uniform, and its gains and biases are not left at 1 and 0, so
    that a norm applied twice or a bias forgotten shows.
    """
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
    own = ARCHITECTURES.get(architecture) or CLOSED_ARCHITECTURES.get(architecture, {})
    factor = _SHARPEN.get(architecture, 24.0) if sharpen is None else sharpen
    config = AutoConfig.for_model(architecture, **(sizes | own | options))
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        network = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                part = name.rsplit(".", 2)[-2] if "." in name else name
                if part in _SHARPENED and parameter.dim() == 2:
                    parameter.mul_(factor)
                elif parameter.dim() == 1:
                    parameter.add_(torch.randn_like(parameter), alpha=0.2)
                    if part in {"q_norm", "k_norm"}:  # they undo the scaling before them
                        parameter.add_(1.5)
    return network


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Side by side run the files of tests, each whole; those that drive a browser, with one server, are one of them."""
    from xdist.scheduler import LoadScopeScheduling

    class FileScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return "browser" if path.startswith("tests/e2e/") else path

    return FileScheduling(config, log)


REAL_HUB_FOLDER = hub_constants.HF_HUB_CACHE


@pytest.fixture(autouse=True)
def empty_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what was downloaded to this machine, nor leaves anything there."""
    made = tmp_path_factory.mktemp("caches")
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(made / "hub"))
    monkeypatch.setenv("GPT_CORE_CACHE", str(made / "own"))


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

    @cache
    def make(architecture: str) -> LanguageModel:
        return wrap_network(
            make_network(architecture), gpt2_tokenizer, model_id=ModelId("local", f"tiny-{architecture}")
        )

    return make


@pytest.fixture(scope="session")
def gpt2() -> LanguageModel:
    """The real gpt2: a folder of that name among the model folders, or the hub's cache."""
    for entry in list_models():
        if entry.model_id.source == "local" and entry.model_id.name == "gpt2":
            return load_model(str(entry.model_id))
    try:
        kept: dict[str, Any] = {"local_files_only": True, "cache_dir": REAL_HUB_FOLDER}
        network = AutoModelForCausalLM.from_pretrained(
            "openai-community/gpt2", attn_implementation="eager", dtype=torch.float32, **kept
        )
        tokenizer = AutoTokenizer.from_pretrained("openai-community/gpt2", **kept)
    except OSError as error:
        pytest.skip(f"gpt2 is neither in the hub's cache nor in a model folder here ({type(error).__name__})")
    return wrap_network(network, tokenizer, model_id=ModelId("local", "gpt2"))
