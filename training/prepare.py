"""Texts -> one stream of GPT-2 ids per source, for training and held out, and the manifest of what they are made of.

usage: python -m training.prepare [--corpus ../shared/corpus] [--out build/training/data]

The third-party texts are not part of the project: `--corpus` names the folder that holds them. The made texts come
from stories.py and fewshot.py. A document that shares five words or tokens in a row with one of the fifty test
sentences is left out; so are the labelled rows that are kept for testing.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import lzma
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from training import fewshot, stories
from training.overlap import LABELLED_FILES, SENTENCES_FILE, Overlap, read_labelled, split_labelled
from training.vocabulary import END_OF_TEXT, VOCABULARY, load_tokenizer

ROOT = Path(__file__).parent.parent
#: Tokens of each source that are kept for the measurement.
N_HELD_OUT = 16 * 1024

#: The third-party texts and on what terms they may be used.
TEXTS = {
    "gutenberg_children": "public domain in the US; Standard Ebooks files CC0",
    "storybooks_ccby": "CC BY, credits in the corpus's storybooks_ccby.ATTRIBUTION.txt",
    "tinyfabulist_permissive": "MIT; fables by models under Apache-2.0 and MIT",
    "fairytaleqa_stories": "Apache-2.0 over public-domain tales",
}
LABELLED_LICENCES = {
    "sentiment_amazon_snippets": "MIT; C.J. Hutto, ICWSM 2014",
    "sentiment_movie_sentences": "CC BY 4.0; Bo Pang and Lillian Lee, 2005",
}
N_STORIES = 16_000
N_FEWSHOT = 34_000
N_FIRST = 2_500
#: Made texts are held out by another seed, so many for each one to train on.
HELD_OUT_SEED = 1
HELD_OUT_SHARE = 0.02


def read_documents(corpus: Path, name: str) -> list[str]:
    """The documents of one of the corpus's files."""
    with lzma.open(corpus / f"{name}.txt.xz", "rt", encoding="utf-8") as file:
        text = file.read()
    return [document.strip() for document in text.split("\n<|endoftext|>\n") if document.strip()]


def make_first(corpus: Path, seed: int, count: int) -> tuple[list[str], list[str]]:
    """Stories and few-shot documents of the corpus's own generator, which the first model was trained on."""
    spec = importlib.util.spec_from_file_location("gen_stories", corpus / "gen_stories.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    generator.R.seed(seed)
    return [generator.story() for _ in range(count)], [generator.fewshot() for _ in range(count)]


def shuffled_documents(corpus: Path, name: str) -> list[str]:
    """The documents of a third-party text in the order by seed 0; the first of them are held out."""
    documents = read_documents(corpus, name)
    random.Random(0).shuffle(documents)
    return documents


def make_documents(
    corpus: Path, seed: int, share: float, rows: Sequence[tuple[str, bool]] = ()
) -> dict[str, list[str]]:
    """The made texts by source: to train on by seed 0, to hold out by seed 1."""
    rng = random.Random(seed)
    plots = stories.read_plots()
    told = [stories.make_story(plots, rng) for _ in range(int(N_STORIES * share))]
    shown = fewshot.make_documents(int(N_FEWSHOT * share), rng, rows)
    first_told, first_shown = make_first(corpus, seed + 1, int(N_FIRST * max(share, 0.1)))
    return {"stories": told, "fewshot": shown, "first_stories": first_told, "first_fewshot": first_shown}


def encode_all(tokenizer: Tokenizer, documents: Sequence[str]) -> list[list[int]]:
    """The ids of each document, with the end-of-text token."""
    ids = []
    for start in range(0, len(documents), 1000):
        batch = tokenizer.encode_batch_fast(list(documents[start : start + 1000]), add_special_tokens=False)
        ids += [[*encoding.ids, END_OF_TEXT] for encoding in batch]
    return ids


def to_stream(documents: Sequence[Sequence[int]]) -> np.ndarray:
    """`(n_tokens,)`: uint16, one document after the other."""
    return np.concatenate([np.array(ids, dtype=np.uint16) for ids in documents])


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def held_out_streams(corpus: Path, tokenizer: Tokenizer) -> dict[str, np.ndarray]:
    """The ids that are held out, by source: `(N_HELD_OUT,)` each, or fewer of a small source."""
    streams = {}
    for name in TEXTS:
        held: list[list[int]] = []
        for document in shuffled_documents(corpus, name):
            if sum(map(len, held)) >= N_HELD_OUT:
                break
            held += encode_all(tokenizer, [document])
        streams[name] = to_stream(held)
    for name, documents in make_documents(corpus, HELD_OUT_SEED, HELD_OUT_SHARE).items():
        streams[name] = to_stream(encode_all(tokenizer, documents))
    return {name: stream[:N_HELD_OUT] for name, stream in streams.items()}


def unread_stream(corpus: Path, tokenizer: Tokenizer) -> np.ndarray:
    """`(n,)`: short English sentences of Tatoeba, twenty a document, which are in no training text of any stretch."""
    lines = (corpus / "fewshot" / "translation_en_fr.jsonl").read_text(encoding="utf-8").splitlines()
    sentences = [json.loads(line)["en"] for line in lines]
    documents = [" ".join(sentences[start : start + 20]) for start in range(0, len(sentences), 20)]
    return to_stream(encode_all(tokenizer, documents))


def split_rows(corpus: Path, encode: Callable[[str], list[int]]) -> tuple[list[tuple[str, bool]], int]:
    """The labelled rows to train on, and how many were left out because they resemble a row kept for testing."""
    rows: list[tuple[str, bool]] = []
    tests: list[str] = []
    for name in LABELLED_FILES:
        test, others = split_labelled(corpus / "fewshot" / f"{name}.jsonl")
        tests += [text for text, _ in test]
        rows += others
    overlap = Overlap(tests, encode)
    kept = [(text, positive) for text, positive in rows if not overlap.shares(text, encode(" " + text))]
    return kept, len(rows) - len(kept)


def describe_files(corpus: Path) -> dict[str, dict[str, str]]:
    """sha256 and licence of each file that the training reads."""
    licences = {f"{name}.txt.xz": licence for name, licence in TEXTS.items()}
    licences |= {f"fewshot/{name}.jsonl": licence for name, licence in LABELLED_LICENCES.items()}
    licences["gen_stories.py"] = "the project's own, the first generator"
    return {
        name: {"sha256": sha256_of(corpus / name), "licence": licence} for name, licence in licences.items()
    }


def prepare(corpus: Path, out: Path) -> None:
    """Write `train_*.npy`, `held_*.npy`, `counts.npy` and `manifest.json`."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer()

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    sentences = Overlap((text for text, _ in read_labelled(SENTENCES_FILE)), encode)
    rows, n_resembling = split_rows(corpus, encode)
    print(f"{len(rows):,} labelled rows to train on; {n_resembling} more resemble a row kept for testing")
    held = held_out_streams(corpus, tokenizer)
    held_made = make_documents(corpus, HELD_OUT_SEED, HELD_OUT_SHARE)

    sources = {name: shuffled_documents(corpus, name) for name in TEXTS} | make_documents(
        corpus, 0, 1.0, rows
    )
    counts = np.zeros(VOCABULARY, dtype=np.int64)
    described = {}
    for name, documents in sources.items():
        ids = encode_all(tokenizer, documents)
        ends = np.cumsum([len(each) for each in ids])
        n_held = int((ends < N_HELD_OUT).sum()) + 1 if name in TEXTS else 0
        known = set(held_made.get(name, ()))
        kept = [
            each
            for text, each in zip(documents[n_held:], ids[n_held:], strict=True)
            if text not in known and not sentences.shares(text, each)
        ]
        stream = to_stream(kept)
        counts += np.bincount(stream, minlength=VOCABULARY)
        np.save(out / f"train_{name}.npy", stream)
        np.save(out / f"held_{name}.npy", held[name])
        described[name] = {
            "documents": len(kept),
            "tokens": len(stream),
            "dropped": len(ids) - n_held - len(kept),
        }
        print(
            f"{name}: {len(kept):,} documents, {len(stream):,} tokens; {len(ids) - n_held - len(kept)} left out"
        )
    np.save(out / "counts.npy", counts)
    manifest = {
        "files": describe_files(corpus),
        "sources": described,
        "labelled_rows": len(rows),
        "tokens": int(counts.sum()),
        "trained_ids": int((counts > 0).sum()),
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(f"{manifest['tokens']:,} tokens, {manifest['trained_ids']:,} different ids")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, default=ROOT / ".." / "shared" / "corpus")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "training" / "data")
    arguments = parser.parse_args()
    prepare(arguments.corpus, arguments.out)
