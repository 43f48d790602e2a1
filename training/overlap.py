"""Does a text share five words or tokens in a row with one of the sentences that the model is tested on?

usage: python -m training.overlap [--data build/training/data]     checks the prepared streams; they have none
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.vocabulary import load_tokenizer

RUN = 5
WORD = re.compile(r"[a-z0-9']+")

SENTENCES_FILE = Path(__file__).parent / "sentiment_50.jsonl"
#: The labelled rows of the corpus; 200 of each are for testing, the others may be trained on.
LABELLED_FILES = ("sentiment_amazon_snippets", "sentiment_movie_sentences")
N_TEST_ROWS = 200


def read_labelled(path: Path) -> list[tuple[str, bool]]:
    """Text, and whether its label is positive, of each row of a file."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["text"], row["label"] == "positive") for row in rows]


def split_labelled(path: Path) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """200 rows by seed 0 for testing, and the others."""
    rows = read_labelled(path)
    test = random.Random(0).sample(range(len(rows)), N_TEST_ROWS)
    chosen = set(test)
    return [rows[i] for i in test], [row for i, row in enumerate(rows) if i not in chosen]


def runs_of(items: Sequence[Any], length: int = RUN) -> set[tuple[Any, ...]]:
    """All runs of `length` neighbours."""
    return {tuple(items[i : i + length]) for i in range(len(items) - length + 1)}


class Overlap:
    """The runs of five of some sentences, as GPT-2 ids and as words without case and punctuation.

    A sentence may be written with or without a space before it, which changes its first id: both count.
    """

    def __init__(self, sentences: Iterable[str], encode: Any) -> None:
        self.ids: set[tuple[int, ...]] = set()
        self.words: set[tuple[str, ...]] = set()
        for sentence in sentences:
            self.ids |= runs_of(encode(sentence)) | runs_of(encode(" " + sentence))
            self.words |= runs_of(WORD.findall(sentence.lower()))
        self._first_ids = {run[0] for run in self.ids}
        self._first_words = {run[0] for run in self.words}

    def shares_ids(self, ids: Sequence[int]) -> bool:
        """Whether five ids in a row are among the sentences'."""
        first, known = self._first_ids, self.ids
        return any(token_id in first and tuple(ids[i : i + RUN]) in known for i, token_id in enumerate(ids))

    def shares_words(self, text: str) -> bool:
        """Whether five words in a row are among the sentences'."""
        words = WORD.findall(text.lower())
        first, known = self._first_words, self.words
        return any(word in first and tuple(words[i : i + RUN]) in known for i, word in enumerate(words))

    def shares(self, text: str, ids: Sequence[int]) -> bool:
        """Either of the two."""
        return self.shares_words(text) or self.shares_ids(ids)


def find_runs(stream: np.ndarray, overlap: Overlap) -> list[int]:
    """Where in a stream of ids `(n_tokens,)` a run of five begins that a sentence has too, document ends included."""
    candidates = np.flatnonzero(
        np.isin(stream[: len(stream) - RUN + 1], sorted({run[0] for run in overlap.ids}))
    )
    for offset in range(1, RUN):
        known = sorted({run[offset] for run in overlap.ids})
        candidates = candidates[np.isin(stream[candidates + offset], known)]
    return [int(at) for at in candidates if tuple(stream[at : at + RUN].tolist()) in overlap.ids]


def check_streams(data: Path) -> int:
    """Print, for each training stream, how often it shares five tokens or words in a row; the sum of all."""
    tokenizer = load_tokenizer()
    overlap = Overlap(
        (text for text, _ in read_labelled(SENTENCES_FILE)),
        lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids),
    )
    n_all = 0
    for file in sorted(data.glob("train_*.npy")):
        stream = np.load(file)
        n_tokens = len(find_runs(stream, overlap))
        documents = tokenizer.decode(stream.tolist(), skip_special_tokens=False).split("<|endoftext|>")
        n_words = sum(overlap.shares_words(document) for document in documents)
        print(
            f"{file.stem}: {len(stream):,} tokens; {n_tokens} runs of tokens, {n_words} documents with runs of words"
        )
        n_all += n_tokens + n_words
    return n_all


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path(__file__).parent.parent / "build" / "training" / "data"
    )
    found = check_streams(parser.parse_args().data)
    print(f"{found} runs of {RUN} shared with the test sentences")
    raise SystemExit(found > 0)
