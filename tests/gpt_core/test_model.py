"""Loading: what comes in is right, the same for all, and never changed; what cannot be right is refused."""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

from gpt_core import model as model_module
from gpt_core.catalog import BUNDLED_FOLDER, ModelId
from gpt_core.decoding import GenerationSettings
from gpt_core.errors import GptCoreError, InputError, ModelLoadError
from gpt_core.generation import generate_tokens
from gpt_core.model import LanguageModel, load_model, wrap_network
from gpt_core.trace import logits_at, trace_tokens
from tests.conftest import make_network

IDS = (464, 9429, 10163, 1398, 373)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpt2_tokenizer: Any) -> Callable[..., Path]:
    """Save a small network as a model folder that the catalogue finds; gives the folder."""
    monkeypatch.setenv("GPT_CORE_MODELS", str(tmp_path))

    def save(name: str, network: Any) -> Path:
        network.save_pretrained(tmp_path / name)
        gpt2_tokenizer.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_local_folder_gives_the_models_own_logits(folder: Callable[..., Path], architecture: str) -> None:
    network = make_network(architecture).eval()
    folder(f"own-{architecture}", network)
    lm = load_model(f"local:own-{architecture}")
    assert lm.model_id.source == "local"
    assert len(lm.model_id.revision) == 12
    with torch.inference_mode():
        expected = network(torch.tensor([IDS])).logits[0].numpy()
    ours = logits_at(lm, trace_tokens(lm, IDS), range(len(IDS)))
    assert abs(ours - expected).max() < 1e-4


def test_one_load_however_many_ask(folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder("asked-by-many", make_network("gpt2", n_layer=2))
    loads = []
    original = model_module._load_folder

    def counted(*args: Any) -> LanguageModel:
        loads.append(args)
        return original(*args)

    monkeypatch.setattr(model_module, "_load_folder", counted)
    with ThreadPoolExecutor(8) as pool:
        models = list(pool.map(load_model, ["local:asked-by-many"] * 8))
    assert len(loads) == 1
    assert all(lm is models[0] for lm in models)


def test_two_models_at_once_are_both_right(folder: Callable[..., Path]) -> None:
    networks = {
        name: make_network(name, num_hidden_layers=2).eval() for name in ("llama", "qwen2", "gpt_neox")
    }
    for name, network in networks.items():
        folder(f"two-{name}", network)
    with ThreadPoolExecutor(3) as pool:
        models = dict(
            zip(networks, pool.map(load_model, [f"local:two-{name}" for name in networks]), strict=True)
        )
    for name, network in networks.items():
        with torch.inference_mode():
            expected = network(torch.tensor([IDS])).logits[0].numpy()
        ours = logits_at(models[name], trace_tokens(models[name], IDS), range(len(IDS)))
        assert abs(ours - expected).max() < 1e-4


def test_what_continues_no_text_is_refused(folder: Callable[..., Path]) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    folder("encoder", BertForMaskedLM(BertConfig(vocab_size=50257, **small)))
    folder(
        "seq2seq",
        T5ForConditionalGeneration(
            T5Config(vocab_size=50257, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
        ),
    )
    for name in ("encoder", "seq2seq"):
        with pytest.raises(ModelLoadError, match=r"not .*causal|continues text"):
            load_model(f"local:{name}")


def damaged(file: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["transformer.h.0.mlp.c_fc.weight"]


def poison(tensors: dict[str, torch.Tensor]) -> None:
    tensors["transformer.h.1.attn.c_proj.weight"][3, 3] = float("nan")


def shrink(tensors: dict[str, torch.Tensor]) -> None:
    tensors["transformer.ln_f.weight"] = torch.ones(7)


@pytest.mark.parametrize("change", [drop, poison, shrink])
def test_damaged_weights_are_refused(folder: Callable[..., Path], change: Callable[..., None]) -> None:
    where = folder(f"damaged-{change.__name__}", make_network("gpt2"))
    damaged(where / "model.safetensors", change)
    with pytest.raises(ModelLoadError) as caught:
        load_model(f"local:{where.name}")
    assert "Traceback" not in str(caught.value)


def test_a_tokenizer_of_more_tokens_than_rows_is_refused(gpt2_tokenizer: Any) -> None:
    network = make_network("gpt2", vocab_size=1000, bos_token_id=1, eos_token_id=1)
    with pytest.raises(ModelLoadError, match=r"ids up to 50,256, but its model only 1,000 rows"):
        wrap_network(network, gpt2_tokenizer, model_id=ModelId("local", "short"))


def test_the_next_model_loads_after_a_refused_one(folder: Callable[..., Path]) -> None:
    where = folder("refused", make_network("gpt2"))
    (where / "config.json").write_text("[]")
    with pytest.raises(GptCoreError):
        load_model("local:refused")
    folder("accepted", make_network("gpt2"))
    assert load_model("local:accepted").geometry.n_layers == 3


def test_a_name_of_no_model() -> None:
    with pytest.raises(InputError, match="not on this machine"):
        load_model("local:nowhere")


def fingerprint(lm: LanguageModel) -> tuple[str, ...]:
    digest = hashlib.sha256()
    for name, tensor in sorted(lm.network.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return (
        digest.hexdigest(),
        str(lm.network.config._attn_implementation),
        lm.tokenizer.backend_tokenizer.to_str(),
        json.dumps(lm.network.generation_config.to_dict(), sort_keys=True, default=str),
        str(lm.network.training),
    )


def test_nothing_changes_a_loaded_model(bundled: LanguageModel) -> None:
    before = fingerprint(bundled)

    def use(seed: int) -> None:
        trace_tokens(bundled, [seed + 100, seed + 200])
        list(generate_tokens(bundled, IDS, GenerationSettings(max_new_tokens=3, seed=seed)))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(use, range(6)))
    assert fingerprint(bundled) == before
    assert not any(parameter.requires_grad for parameter in bundled.network.parameters())


def test_the_bundled_model_is_what_the_folder_holds(bundled: LanguageModel) -> None:
    config = json.loads((BUNDLED_FOLDER / "config.json").read_text("utf-8"))
    g = bundled.geometry
    assert (g.n_layers, g.n_heads, g.d_model, g.context_length, g.vocab_size) == (
        config["n_layer"],
        config["n_head"],
        config["n_embd"],
        config["n_positions"],
        config["vocab_size"],
    )
    assert bundled.network.dtype == torch.float32
