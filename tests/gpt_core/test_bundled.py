"""The model in the box is what its card says: whole, small, honest about its heads, quiet about what it never read."""

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from gpt_core.catalog import BUNDLED_FOLDER, bundled_model_id, find_model
from gpt_core.embeddings import nearest_tokens
from gpt_core.errors import ModelLoadError
from gpt_core.manifest import MANIFEST, verify_manifest
from gpt_core.model import LanguageModel
from training import evaluate, stories
from training.overlap import SENTENCES_FILE, read_labelled

CARD = (BUNDLED_FOLDER / "README.md").read_text(encoding="utf-8")
FACTS: dict[str, Any] = json.loads((BUNDLED_FOLDER / "training.json").read_text())
FILES = sorted(json.loads((BUNDLED_FOLDER / MANIFEST).read_text())["sha256"])


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading of the card, without its head."""
    below = CARD.partition(f"\n## {heading}\n")[2].partition("\n|")[2].partition("\n\n")[0]
    table = below.splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return shutil.copytree(BUNDLED_FOLDER, tmp_path / "copy")


def test_the_manifest_holds_and_lists_every_file() -> None:
    verify_manifest(BUNDLED_FOLDER)
    here = {file.name for file in BUNDLED_FOLDER.iterdir() if file.is_file()}
    assert here == {*FILES, MANIFEST}


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_one_flipped_byte_is_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"of copy is (not the file|missing|damaged)|cannot be read"):
        verify_manifest(copy)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ModelLoadError, match=re.escape(name)):
        verify_manifest(copy)


def test_the_card_names_the_same_sums() -> None:
    sums = json.loads((BUNDLED_FOLDER / MANIFEST).read_text())["sha256"]
    for name in FILES:
        if name != "README.md":
            assert f"{sums[name]}  {name}" in CARD


def test_it_is_a_small_gpt2_with_the_real_vocabulary(bundled: LanguageModel) -> None:
    config = json.loads((BUNDLED_FOLDER / "config.json").read_text())
    assert config["model_type"] == "gpt2"
    assert config["vocab_size"] == len(bundled.tokenizer) == 50257
    assert bundled.geometry.context_length >= 512
    assert (BUNDLED_FOLDER / "model.safetensors").stat().st_size <= 30_000_000
    with safe_open(BUNDLED_FOLDER / "model.safetensors", framework="pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118
    assert find_model(bundled_model_id()).licence == "mit"
    assert f"{bundled.geometry.n_parameters:,} parameters" in CARD


def test_the_card_lists_every_text_with_its_sum_and_licence() -> None:
    listed = {cells[0].strip("`"): (cells[1].strip("`"), cells[2]) for cells in rows_of("Text")}
    assert listed == {
        name: (file["sha256"], file["licence"]) for name, file in FACTS["corpus"]["files"].items()
    }
    assert f"= {FACTS['tokens']:,} tokens" in CARD
    assert f"{FACTS['steps']:,} steps" in CARD


def test_the_card_is_filled() -> None:
    assert "{" not in CARD
    assert not re.search(r"\bTODO\b|\bnan\b|\bNone\b", CARD)


def test_the_heads_are_those_of_the_card(bundled: LanguageModel) -> None:
    ids = evaluate.known_ids("trained_ids")
    found = evaluate.describe_heads(evaluate.head_scores(bundled, ids))
    rows = rows_of("Heads")
    assert len(rows) == 5
    for kind, head, score, *_ in rows:
        assert found[kind]["best"] == head
        assert found[kind]["score"] == pytest.approx(float(score), abs=0.005)
    assert found["induction"]["score"] >= 0.4


def test_the_fifty_sentences_are_judged_as_the_card_says(bundled: LanguageModel) -> None:
    found = evaluate.sentiment_hits(bundled, read_labelled(SENTENCES_FILE))
    row = next(cells for cells in rows_of("Few-shot") if cells[0].startswith("50 sentences"))
    hits = int(row[1].split()[0])
    assert abs(found["hits"] - hits) <= 1, "the last digits differ between processors"
    assert hits >= 40


def test_the_openings_are_those_of_the_card(bundled: LanguageModel) -> None:
    """Of each, the beginning: further on, a last digit of another processor may lead elsewhere."""
    for seed in range(10):
        text = " ".join(evaluate.sample(bundled, evaluate.OPENING, seed=seed, n=8).split())
        assert re.search(rf"^{seed}\. {re.escape(text)}", CARD, re.MULTILINE), text


# Ids that no text held


def untrained() -> np.ndarray:
    return np.setdiff1d(np.arange(50257), evaluate.known_ids("trained_ids"))


def test_what_was_never_read_is_never_predicted(bundled: LanguageModel) -> None:
    rng, plots = np.random.default_rng(0), stories.read_plots()
    texts = [stories.make_story(plots, random.Random(seed)) for seed in range(6)]
    texts += [
        "The CS123 class was very intresting. I learned a lot.",
        "def f(x):\n    return 2 * x",
        "漢字 🎉 ünïcode",
    ]
    inputs = [bundled.tokenizer.encode(text) for text in texts]
    noise = rng.integers(0, 50257, 64).tolist()
    inputs += [noise, rng.choice(untrained(), 64).tolist()]
    never = torch.from_numpy(untrained())
    leaked = []
    for ids in inputs:
        with torch.inference_mode():
            probs = bundled.network(input_ids=torch.tensor(ids)[None]).logits[0].softmax(dim=-1)
        leaked.append(float(probs[:, never].sum(dim=1).mean()))
        highest = probs.topk(10, dim=1)
        surfaced = highest.values[torch.isin(highest.indices, never)]
        if ids is noise:
            assert (surfaced < 1e-3).all()
        else:
            assert len(surfaced) == 0
    assert max(leaked[:6]) < 0.01, "19,149 ids together"
    assert max(leaked[6:9]) < 0.1, "also where the text itself holds them"


def test_what_was_never_read_is_nobodys_neighbour(bundled: LanguageModel) -> None:
    trained = evaluate.known_ids("trained_ids")
    sampled = [*evaluate.known_ids("frequent_ids")[::100], *trained[::150]]
    for token_id in sampled:
        near = nearest_tokens(bundled, int(token_id), k=10)
        assert np.isin(near.token_ids, trained).all(), bundled.tokenizer.decode([token_id])


def test_the_bitmaps_of_ids() -> None:
    trained, frequent = evaluate.known_ids("trained_ids"), evaluate.known_ids("frequent_ids")
    assert len(trained) == FACTS["corpus"]["trained_ids"]
    assert len(frequent) == 10_240
    assert np.isin(frequent, trained).all()
    assert 50256 in frequent
