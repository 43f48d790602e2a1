"""The program on the Embeddings page, run as a reader would run it."""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt_core.catalog import BUNDLED_FOLDER, ModelId
from gpt_core.embeddings import input_embeddings, nearest_tokens, token_similarity
from gpt_core.model import LanguageModel, wrap_network
from gpt_core.snippets.embeddings import embeddings_snippet
from gpt_core.tokenizer import tokenize_text
from gpt_core.trace import trace_tokens
from tests.conftest import make_network

TEXTS = {
    "notebook": "Agney loves to train DL models",
    "one token": "Hello",
    "quotes": 'It\'s a "small" dog\\cat,\nand </script> 👧',
}


def run_program(program: str) -> tuple[dict[str, Any], str]:
    """What the program leaves behind, and what it prints."""
    printed, names = io.StringIO(), {"__name__": "__main__"}
    with contextlib.redirect_stdout(printed):
        exec(compile(program, "snippet", "exec"), names)
    return names, printed.getvalue()


def check(lm: LanguageModel, folder: str, text: str, *, special_tokens: bool = True) -> str:
    ids = tokenize_text(lm, text, special_tokens=special_tokens).token_ids
    trace = trace_tokens(lm, ids)
    program = embeddings_snippet(lm, ids, name=folder, text=text, token_id=ids[0], k=5)
    names, printed = run_program(program)
    found = input_embeddings(lm, trace)
    assert tuple(names["encoded"][0].tolist()) == ids
    assert np.array_equal(names["wte"][0].numpy(), found.token_vectors)
    assert repr(torch.tensor(found.block_input)[None]) in printed
    assert np.abs(names["in_ip"][0].numpy() - trace.final.numpy()).max() < 1e-4
    assert float(printed.split("largest difference: ")[1].split()[0]) < 1e-5
    space = "token vectors" if found.position_vectors is None or "hook" in program else "with positions"
    assert np.abs(names["cosines"].numpy() - token_similarity(lm, trace, space=space)).max() < 1e-5
    near = nearest_tokens(lm, ids[0], k=5)
    for token_id, cosine in zip(near.token_ids, near.cosines, strict=True):
        assert f"{cosine:.4f} {token_id} " in printed
    assert printed.endswith(f"total_params : {lm.geometry.n_parameters:,}\n")
    return program


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_bundled_model(text: str, bundled: LanguageModel) -> None:
    program = check(bundled, str(BUNDLED_FOLDER), text)
    assert "model.transformer.wte(encoded)" in program
    assert "in_ip = module(in_ip)  #" in program
    assert "in_ip = model.transformer.ln_f(in_ip)" in program


def test_a_special_token_read_as_plain_text(bundled: LanguageModel) -> None:
    program = check(bundled, str(BUNDLED_FOLDER), "a<|endoftext|>b", special_tokens=False)
    assert "encoded = torch.tensor([[64, 27," in program


@pytest.mark.parametrize(
    "architecture", ["llama", "opt", "gemma2", "gpt_neox", "mistral", "bloom", "gpt_neo"]
)
def test_models_that_are_no_gpt2(architecture: str, tmp_path: Path, gpt2_tokenizer: Any) -> None:
    network = make_network(architecture)
    network.save_pretrained(tmp_path)
    gpt2_tokenizer.save_pretrained(tmp_path)
    lm = wrap_network(network, gpt2_tokenizer, model_id=ModelId("local", f"snippet-{architecture}"))
    check(lm, str(tmp_path), "The cat sat on the mat. The cat sat on the")
