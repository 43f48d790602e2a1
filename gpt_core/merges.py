"""How byte-pair encoding made the tokens of a text: the merges of each word, in the order of the tokenizer.

The tokenizer cuts a text into words, writes each as single symbols, and then merges, again and again, the
neighbouring pair that comes first in its list of merges, leftmost first. The replay here follows the algorithm of the
`tokenizers` library, and its outcome is compared with the tokenizer's own.
Source: https://github.com/huggingface/tokenizers, tokenizers/src/models/bpe/word.rs (`merge_all`).
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt_core.errors import UnsupportedError
from gpt_core.tokenizer import Tokenization, tokenize_text
from gpt_core.visible import show_bytes, show_text
from gpt_core.vocabulary import PerModel, PieceCode, piece_code

if TYPE_CHECKING:
    from gpt_core.model import LanguageModel


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class MergeStep:
    """One merge of two neighbours."""

    left: str
    """Vocabulary string of the left part."""
    right: str
    """Vocabulary string of the right part."""
    merged: str
    """Vocabulary string that takes their place."""
    rank: int
    """Place of the pair in the tokenizer's list of merges, from 0: lower ranks go first."""
    start: int
    """First of the word's initial symbols in the merged part."""
    middle: int
    """First of its initial symbols that came from the right part."""
    stop: int
    """First of its initial symbols after the merged part."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class WordMerges:
    """One word of a text, as the tokenizer cuts texts into words, and how it became tokens."""

    start: int
    """First character, in the tokenization's `normalised` text."""
    stop: int
    """Character after the last."""
    first_token: int
    """Position of its first token in the tokenization."""
    text: str
    """Its text."""
    symbols: tuple[str, ...]
    """`(n_symbols,)` vocabulary strings before the first merge."""
    symbol_labels: tuple[str, ...]
    """`(n_symbols,)` their visible labels."""
    symbol_bytes: tuple[bytes, ...]
    """`(n_symbols,)` their bytes."""
    steps: tuple[MergeStep, ...]
    """`(n_steps,)` in the order in which the tokenizer applies them."""
    parts: tuple[str, ...]
    """`(n_tokens,)` vocabulary strings after the last merge: the tokens."""
    whole: bool
    """Whether the word was taken from the vocabulary or the added tokens as it is, and no merge was looked up."""

    def spans_after(self, n_steps: int) -> tuple[tuple[int, int], ...]:
        """The parts after the first `n_steps` steps, as start and stop in `symbols`."""
        if self.whole:
            return ((0, len(self.symbols)),)
        bounds = set(range(len(self.symbols) + 1))
        bounds.difference_update(step.middle for step in self.steps[:n_steps])
        return tuple(itertools.pairwise(sorted(bounds)))

    def parts_after(self, n_steps: int) -> tuple[str, ...]:
        """The vocabulary strings after the first `n_steps` steps."""
        if self.whole:
            return self.parts
        merged = {step.start: step.merged for step in self.steps[:n_steps]}
        return tuple(merged.get(start, self.symbols[start]) for start, _ in self.spans_after(n_steps))

    def labels_after(self, n_steps: int) -> tuple[str, ...]:
        """The visible labels after the first `n_steps` steps."""
        return tuple(
            self.symbol_labels[start]
            if stop == start + 1
            else show_bytes(b"".join(self.symbol_bytes[start:stop]))
            for start, stop in self.spans_after(n_steps)
        )


def bpe_merges(lm: LanguageModel, text: str, *, special_tokens: bool = True) -> tuple[WordMerges, ...]:
    """The merges of each word of `text`, in the order of the text.

    Raises InputError as `tokenize_text` does, and UnsupportedError where the tokenizer is no byte-pair encoding, makes
    its merges at random, or its own tokens do not come out.
    """
    model = lm.tokenizer.backend_tokenizer.model
    if type(model).__name__ != "BPE":
        raise UnsupportedError(
            f"This tokenizer is a {type(model).__name__} model, not byte-pair encoding: it has no merges to show."
        )
    if model.dropout:
        raise UnsupportedError(
            "This tokenizer leaves out merges at random (dropout), so there is no one order to show."
        )
    tokenization = tokenize_text(lm, text, special_tokens=special_tokens)
    code = piece_code(lm)
    ranks = _ranks.get(lm)
    replayed: dict[tuple[str, ...], tuple[MergeStep, ...]] = {}
    words = []
    positions = [i for i, kind in enumerate(tokenization.kinds) if kind != "template"]
    for _, group in itertools.groupby(positions, key=lambda i: tokenization.words[i]):
        tokens = list(group)
        words.append(_word(lm, code, tokenization, tokens, ranks, replayed))
    return tuple(words)


def _word(
    lm: LanguageModel,
    code: PieceCode,
    tokenization: Tokenization,
    tokens: list[int],
    ranks: Mapping[tuple[str, str], tuple[int, str]],
    replayed: dict[tuple[str, ...], tuple[MergeStep, ...]],
) -> WordMerges:
    pieces = tuple(tokenization.pieces[i] for i in tokens)
    added = tokenization.kinds[tokens[0]] == "added"
    symbols, symbol_bytes = (
        (pieces, tuple(tokenization.token_bytes[i] for i in tokens))
        if added
        else _initial_symbols(code, tokenization, tokens)
    )
    model = lm.tokenizer.backend_tokenizer.model
    whole = added or (len(tokens) == 1 and model.ignore_merges and len(symbols) > 0)
    steps: tuple[MergeStep, ...] = ()
    if not whole:
        if symbols not in replayed:
            replayed[symbols] = replay_merges(symbols, ranks)
        steps = replayed[symbols]
    word = WordMerges(
        start=tokenization.offsets[tokens[0]][0],
        stop=tokenization.offsets[tokens[-1]][1],
        first_token=tokens[0],
        text=b"".join(tokenization.token_bytes[i] for i in tokens).decode(errors="replace"),
        symbols=symbols,
        symbol_labels=tuple(
            show_bytes(data) or show_text(symbol) for symbol, data in zip(symbols, symbol_bytes, strict=True)
        ),
        symbol_bytes=symbol_bytes,
        steps=steps,
        parts=pieces,
        whole=whole,
    )
    if word.parts_after(len(steps)) != pieces:
        raise UnsupportedError(
            "The merges of this tokenizer, replayed, do not give its own tokens for "
            f"“{show_text(word.text)[:40]}”, so they are not shown."
        )
    return word


def _initial_symbols(
    code: PieceCode, tokenization: Tokenization, tokens: list[int]
) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    """What the merges start from: one symbol per character, per fallback byte, and per unknown stretch.

    The tokens' strings, put together, are the word that the tokenizer cut: merging only joins.
    """
    symbols: list[str] = []
    known: dict[int, bytes] = {}
    for i in tokens:
        piece = tokenization.pieces[i]
        if tokenization.kinds[i] == "unknown" or code.is_byte(piece):
            known[len(symbols)] = tokenization.token_bytes[i]
            symbols.append(piece)
            continue
        if i != tokens[0]:
            piece = piece.removeprefix(code.prefix)
        if i == tokens[-1]:
            piece = piece.removesuffix(code.suffix)
        symbols += piece
    for place in range(len(symbols)):
        if place not in known:
            suffix = code.suffix if place == len(symbols) - 1 else ""
            symbols[place] = (code.prefix if place else "") + symbols[place] + suffix
            known[place] = code.bytes_of(-1, symbols[place])
    return tuple(symbols), tuple(known[place] for place in range(len(symbols)))


def replay_merges(
    symbols: tuple[str, ...], ranks: Mapping[tuple[str, str], tuple[int, str]]
) -> tuple[MergeStep, ...]:
    """The steps, by a queue of candidate pairs ordered by rank, then from left to right.

    As in the library, a candidate that is taken from the queue is applied when the pair now at its place gives the
    same string, even if that pair is another one.
    """
    parts: list[str] = list(symbols)
    starts_after = [*range(1, len(symbols)), -1]  # place of the next part
    starts_before = list(range(-1, len(symbols) - 1))
    stop = list(range(1, len(symbols) + 1))
    alive = [True] * len(symbols)
    queue: list[tuple[int, int, str]] = []

    def consider(place: int) -> None:
        following = starts_after[place]
        if following >= 0 and (found := ranks.get((parts[place], parts[following]))):
            heapq.heappush(queue, (found[0], place, found[1]))

    for place in range(len(symbols)):
        consider(place)
    steps = []
    while queue:
        _, place, merged = heapq.heappop(queue)
        right = starts_after[place]
        if not alive[place] or right < 0:
            continue
        found = ranks.get((parts[place], parts[right]))
        if found is None or found[1] != merged:
            continue
        steps.append(
            MergeStep(
                left=parts[place],
                right=parts[right],
                merged=merged,
                rank=found[0],
                start=place,
                middle=right,
                stop=stop[right],
            )
        )
        parts[place] = merged
        stop[place] = stop[right]
        alive[right] = False
        starts_after[place] = starts_after[right]
        if starts_after[right] >= 0:
            starts_before[starts_after[right]] = place
        if starts_before[place] >= 0:
            consider(starts_before[place])
        consider(place)
    return tuple(steps)


def _read_ranks(lm: LanguageModel) -> dict[tuple[str, str], tuple[int, str]]:
    """Pair of vocabulary strings to its rank and the string that it becomes."""
    prefix_length = len(piece_code(lm).prefix)
    return {
        (left, right): (rank, left + right[prefix_length:])
        for rank, (left, right) in enumerate(
            json.loads(lm.tokenizer.backend_tokenizer.to_str())["model"]["merges"]
        )
    }


_ranks: PerModel[dict[tuple[str, str], tuple[int, str]]] = PerModel(_read_ranks)
