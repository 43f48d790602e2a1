"""Does a text share five words or tokens in a row with one of the sentences that the model is tested on?"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

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
        return any(
            token_id in first and tuple(ids[i : i + RUN]) in known for i, token_id in enumerate(ids)
        )

    def shares_words(self, text: str) -> bool:
        """Whether five words in a row are among the sentences'."""
        words = WORD.findall(text.lower())
        first, known = self._first_words, self.words
        return any(word in first and tuple(words[i : i + RUN]) in known for i, word in enumerate(words))

    def shares(self, text: str, ids: Sequence[int]) -> bool:
        """Either of the two."""
        return self.shares_words(text) or self.shares_ids(ids)
