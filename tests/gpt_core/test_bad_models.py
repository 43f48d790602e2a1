"""A model folder made to do harm, or simply broken: refused in one sentence, or loaded without the harm."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from gpt_core import tokenizer_probe
from gpt_core.catalog import MODEL_FOLDERS_VARIABLE
from gpt_core.errors import GptCoreError, ModelLoadError
from gpt_core.model import load_model
from tests.conftest import make_network

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, gpt2_tokenizer: Any) -> Path:
    folder = tmp_path_factory.mktemp("published")
    make_network("gpt2").save_pretrained(folder)
    gpt2_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a good model, to be spoilt; called as the test is, so that no other test's is found for it."""
    made = tmp_path / tmp_path.name / "model"
    shutil.copytree(published, made)
    monkeypatch.setenv(MODEL_FOLDERS_VARIABLE, str(made.parent))
    monkeypatch.setattr(tokenizer_probe, "SECONDS", 4.0)
    return made


def config(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def tokenizer(edit: Callable[[dict[str, Any]], Any]) -> Change:
    def change(folder: Path) -> None:
        file = folder / "tokenizer.json"
        content = json.loads(file.read_text())
        edit(content)
        file.write_text(json.dumps(content))

    return change


def weights(edit: Callable[[dict[str, Any]], Any]) -> Change:
    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def put(name: str, content: bytes, *, remove: str = "") -> Change:
    def change(folder: Path) -> None:
        if remove:
            (folder / remove).unlink()
        (folder / name).write_bytes(content)

    return change


def split_by(pattern: str) -> Callable[[dict[str, Any]], None]:
    part = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return lambda content: content.update(pre_tokenizer=part)


def many_tokens(content: dict[str, Any]) -> None:
    kind = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    content["added_tokens"] += [{"id": 50257 + i, "content": f"<x{i}>", **kind} for i in range(1_000_000)]


REFUSED: dict[str, tuple[Change, str]] = {
    "heads that do not divide": (config(n_head=5), "cannot be loaded: `n_head`"),
    "ten to the sixth layers": (config(n_layer=1_000_000), "claims 1000000 layers (`n_layer`)"),
    "fewer rows than tokens": (config(vocab_size=50000), "cannot be loaded: `vocab_size`"),
    "code of its own": (config(auto_map={"AutoModel": "evil.Model"}), "which is never run"),
    "an encoder": (config(architectures=["GPT2ForSequenceClassification"]), "not as a causal language model"),
    "no weights but a pickle": (
        put("pytorch_model.bin", b"cos\nsystem\n(S'touch canary'\ntR.", remove="model.safetensors"),
        "can run code when it is opened",
    ),
    "random bytes as GGUF": (
        put("model.gguf", b"GGUF" + b"\xff" * 39, remove="model.safetensors"),
        "found: none",
    ),
    "a weight missing": (weights(lambda t: t.pop("transformer.h.1.attn.c_attn.weight")), "lacks 1 weights"),
    "a weight of another shape": (
        weights(lambda t: t.update({"transformer.wpe.weight": t["transformer.wpe.weight"][:5].clone()})),
        "cannot be loaded",
    ),
    "infinite weights": (weights(lambda t: t["transformer.ln_f.weight"].fill_(float("inf"))), "finite"),
    "a pattern that runs for ever": (tokenizer(split_by("(a+)+$")), "cannot be read"),
    "a million tokens more": (tokenizer(many_tokens), "at most 100 MB"),
    "a million tokens beside": (
        put("added_tokens.json", json.dumps({f"<x{i}>": 50257 + i for i in range(1_000_000)}).encode()),
        "added_tokens.json of model must be at most 5 MB",
    ),
    "a million tokens in its settings": (
        put(
            "tokenizer_config.json",
            json.dumps(
                {"added_tokens_decoder": {i: {"content": f"<x{i}>"} for i in range(1_000_000)}}
            ).encode(),
        ),
        "tokenizer_config.json of model must be at most 5 MB",
    ),
    "ids above the rows": (
        tokenizer(lambda c: c["model"]["vocab"].update({"zzzzzz": 60_000})),
        "do not belong together",
    ),
    "merges that are missing": (tokenizer(lambda c: c["model"].pop("merges")), "cannot be read"),
    "no JSON": (put("tokenizer.json", b"{"), "cannot be read"),
    "a huge tokenizer": (put("tokenizer.json", b" " * 100_000_001), "at most 100 MB"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_a_sentence(folder: Path, case: str) -> None:
    change, said = REFUSED[case]
    change(folder)
    began = time.monotonic()
    with pytest.raises(GptCoreError) as e:
        load_model("local:model")
    assert said in str(e.value)
    assert "Traceback" not in str(e.value)
    assert str(folder.parent) not in str(e.value)
    assert len(str(e.value)) < 500
    assert time.monotonic() - began < 30
    assert not Path("canary").exists()


@pytest.mark.parametrize(
    "change",
    [
        config(_attn_implementation_internal="evil/kernel"),
        config(_attn_implementation="evil/kernel"),
        put("adapter_config.json", b'{"base_model_name_or_path": "evil/base", "peft_type": "LORA"}'),
        config(use_cache=False, output_attentions=True),
    ],
    ids=["kernel", "implementation", "adapter", "defaults"],
)
def test_loaded_without_the_harm(folder: Path, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a configuration asks for, our own attention is used and nobody is asked for anything."""
    import socket

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("somebody was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    change(folder)
    lm = load_model("local:model")
    assert lm.network.config._attn_implementation == "gpt_core_capture"
    assert lm.geometry.n_layers == 3


def test_ids_with_holes_are_no_fault(folder: Path) -> None:
    """A vocabulary may leave ids out (rows that no text uses), as long as the model has rows for the rest."""
    tokenizer(
        lambda c: (
            (c["model"]["vocab"].pop("Ġgazed"), c["model"]["merges"].remove(["Ġg", "azed"]))
            if ["Ġg", "azed"] in c["model"]["merges"]
            else None
        )
    )(folder)
    assert load_model("local:model").geometry.vocab_size == 50257


def test_the_bundled_models_tokenizer_passes_the_probe(published: Path) -> None:
    tokenizer_probe.probe_tokenizer(published)


def test_a_tokenizer_that_does_not_end_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_probe, "SECONDS", 0.3)
    monkeypatch.setattr(tokenizer_probe, "_PROGRAM", "while True: pass")
    with pytest.raises(ModelLoadError, match="may be made to run for ever"):
        load_model("local:model")
