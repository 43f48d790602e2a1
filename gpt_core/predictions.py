"""What the model expects next: at one position, at every position, and at every depth.

Probabilities are over the whole vocabulary, ranks are counted (not sorted), and the lens applies the model's own
final norm and head, so that its last row is the model's prediction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from gpt_core.control import Control
from gpt_core.errors import InputError, UnsupportedError
from gpt_core.model import LanguageModel
from gpt_core.sampling import exact_softmax
from gpt_core.trace import Trace, logits_at, logits_of
from gpt_core.validation import check_integer

if TYPE_CHECKING:
    from gpt_core.tokenizer import Tokenization

_LN2 = float(np.log(2.0))
#: Bytes of logits that are held at once.
_CHUNK_BYTES = 32 * 2**20
#: Rows of logits that are read at once: what they need stays in the processor's cache.
_ROWS = 4


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class NextToken:
    """The distribution over the token after one position."""

    position: int
    """Position whose next token is predicted, from 0."""
    token_ids: np.ndarray
    """`(k,)`: int64, most probable first."""
    logits: np.ndarray
    """`(k,)`: no unit."""
    probs: np.ndarray
    """`(k,)`: probability over the whole vocabulary."""
    rest: float
    """Probability of all other tokens together."""
    entropy: float
    """Bits, over the whole vocabulary."""

    def __post_init__(self) -> None:
        assert self.token_ids.shape == self.logits.shape == self.probs.shape
        for array in (self.token_ids, self.logits, self.probs):
            array.flags.writeable = False


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class PositionTable:
    """What the model expected at every position, beside what came."""

    token_ids: np.ndarray
    """`(n_tokens,)`: int64, the text."""
    predicted_ids: np.ndarray
    """`(n_tokens,)`: int64, most probable next token after each position."""
    predicted_probs: np.ndarray
    """`(n_tokens,)`: its probability."""
    entropies: np.ndarray
    """`(n_tokens,)`: bits of the distribution after each position."""
    probs: np.ndarray
    """`(n_tokens,)`: probability that the model gave to this token before it came; NaN for the first."""
    surprisals: np.ndarray
    """`(n_tokens,)`: bits, -log2 of `probs`; NaN for the first."""
    ranks: np.ndarray
    """`(n_tokens,)`: 1 + number of tokens with a higher logit; 0 for the first token, which nobody predicted."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            array = getattr(self, name)
            assert array.shape == self.token_ids.shape
            array.flags.writeable = False


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class LogitLens:
    """What each depth would predict if the final norm and the head read it there (nostalgebraist 2020)."""

    positions: tuple[int, ...]
    """`(n_positions,)`: the columns, from 0."""
    token_ids: np.ndarray
    """`(n_layers + 1, n_positions)`: int64, most probable next token; row 0 reads the embeddings, row i block i-1."""
    probs: np.ndarray
    """`(n_layers + 1, n_positions)`: its probability."""
    entropies: np.ndarray
    """`(n_layers + 1, n_positions)`: bits."""
    final_ranks: np.ndarray
    """`(n_layers + 1, n_positions)`: rank at this depth of the token that the last row predicts, from 1."""
    kl_to_final: np.ndarray
    """`(n_layers + 1, n_positions)`: bits that are lost by expecting what this depth does instead of what the model
    does, KL(model || depth); 0 in the last row."""

    def __post_init__(self) -> None:
        for array in (self.token_ids, self.probs, self.entropies, self.final_ranks, self.kl_to_final):
            assert array.shape == (self.token_ids.shape[0], len(self.positions))
            array.flags.writeable = False


def next_token(lm: LanguageModel, trace: Trace, *, position: int, k: int = 20) -> NextToken:
    """The `k` most probable tokens after `position`.

    Raises InputError (position or k out of range) and UnsupportedError (logits cannot be rebuilt).
    """
    check_integer("k", k, low=1, high=lm.geometry.vocab_size)
    logits = logits_at(lm, trace, [position])[0]
    exact, entropy = exact_softmax(torch.from_numpy(logits))
    probs = exact.numpy()
    best = _largest(logits, k)
    return NextToken(
        position=position,
        token_ids=best,
        logits=logits[best],
        probs=probs[best],
        rest=max(0.0, 1.0 - float(probs[best].sum(dtype=np.float64))),
        entropy=entropy,
    )


def position_table(lm: LanguageModel, trace: Trace, *, control: Control | None = None) -> PositionTable:
    """Prediction, surprisal and rank at every position, from the logits of a few positions at a time."""
    n = trace.n_tokens
    ids = np.array(trace.token_ids, dtype=np.int64)
    predicted = np.zeros(n, dtype=np.int64)
    predicted_probs, entropies = np.zeros(n, dtype=np.float32), np.zeros(n, dtype=np.float32)
    probs, surprisals = np.full(n, np.nan, dtype=np.float32), np.full(n, np.nan, dtype=np.float32)
    ranks = np.zeros(n, dtype=np.int64)
    for rows in position_chunks(n, lm.geometry.vocab_size):
        if control is not None:
            control.check()
            control.report(rows.start / n, f"Position {rows.start} of 0–{n - 1}")
        here = slice(rows.start, rows.stop)
        # Nothing comes after the last position; its token is read in the place of what would.
        read = _read_logits(
            logits_at(lm, trace, rows), np.append(ids, ids[-1])[rows.start + 1 : rows.stop + 1]
        )
        predicted[here], entropies[here] = read.best_ids, read.entropies
        predicted_probs[here] = np.exp(read.best_log_probs)
        came = slice(rows.start + 1, min(rows.stop + 1, n))
        known = slice(0, came.stop - came.start)
        probs[came] = np.exp(read.log_probs[known])
        surprisals[came] = -read.log_probs[known] / _LN2
        ranks[came] = read.ranks[known]
    return PositionTable(
        token_ids=ids,
        predicted_ids=predicted,
        predicted_probs=predicted_probs,
        entropies=entropies,
        probs=probs,
        surprisals=surprisals,
        ranks=ranks,
    )


def logit_lens(
    lm: LanguageModel, trace: Trace, *, positions: range | None = None, control: Control | None = None
) -> LogitLens:
    """Read every depth with the final norm and the head, at `positions` (all when None).

    Raises InputError (positions out of range) and UnsupportedError (final norm or head not found).
    """
    norm = lm.anatomy.final_norm
    if "lens" in lm.closed_views or norm is None:
        raise UnsupportedError(lm.closed_views.get("lens", "The final norm of this model was not found."))
    columns = range(trace.n_tokens) if positions is None else positions
    if columns.step != 1:
        raise InputError(f"The positions must be a block of neighbours. Given: every {columns.step}th.")
    if len(columns) == 0:
        check_integer("number of positions", 0, low=1, high=trace.n_tokens)
    for end in (columns[0], columns[-1]):
        check_integer("position", end, low=0, high=trace.n_tokens - 1)
    n_rows, n_columns = trace.n_layers + 1, len(columns)
    token_ids = np.zeros((n_rows, n_columns), dtype=np.int64)
    probs, entropies, kl = (np.zeros((n_rows, n_columns), dtype=np.float32) for _ in range(3))
    final_ranks = np.zeros((n_rows, n_columns), dtype=np.int64)
    done = 0
    chunks = list(position_chunks(n_columns, lm.geometry.vocab_size))
    for part in chunks:
        here = slice(part.start, part.stop)
        where = slice(columns.start + part.start, columns.start + part.stop)
        # The last row first: the others are held against it.
        final: np.ndarray | None = None
        final_ids = np.zeros(0, dtype=np.int64)
        for row in reversed(range(n_rows)):
            if control is not None:
                control.check()
                control.report(done / (n_rows * len(chunks)), f"Reading depth {row} of 0–{n_rows - 1}")
            done += 1
            with torch.inference_mode():
                normed = norm(trace.residual[row][where].to(lm.device)[None])[0]
            logits = logits_of(lm, normed)
            if final is None:
                final, final_ids = logits, logits.argmax(axis=-1)
            read = _read_logits(logits, final_ids)
            token_ids[row, here], entropies[row, here] = read.best_ids, read.entropies
            probs[row, here] = np.exp(read.best_log_probs)
            final_ranks[row, here] = read.ranks
            if row < n_rows - 1:
                kl[row, here] = kl_bits(final, logits)
    return LogitLens(
        positions=tuple(columns),
        token_ids=token_ids,
        probs=probs,
        entropies=entropies,
        final_ranks=final_ranks,
        kl_to_final=kl,
    )


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Trajectories:
    """How chosen tokens fare from depth to depth, after one position."""

    position: int
    """From 0."""
    token_ids: tuple[int, ...]
    """`(k,)`: the tokens."""
    ranks: np.ndarray
    """`(n_layers + 1, k)`: int64, 1 + number of tokens with a higher logit at that depth."""
    probs: np.ndarray
    """`(n_layers + 1, k)`: probability at that depth."""

    def __post_init__(self) -> None:
        for array in (self.ranks, self.probs):
            assert array.shape == (self.ranks.shape[0], len(self.token_ids))
            array.flags.writeable = False


def rank_trajectories(
    lm: LanguageModel, trace: Trace, *, position: int, token_ids: Sequence[int]
) -> Trajectories:
    """Rank and probability of `token_ids` at every depth, as the logit lens reads it.

    Raises InputError (position or id out of range) and UnsupportedError (final norm or head not found).
    """
    norm = lm.anatomy.final_norm
    if "lens" in lm.closed_views or norm is None:
        raise UnsupportedError(lm.closed_views.get("lens", "The final norm of this model was not found."))
    check_integer("position", position, low=0, high=trace.n_tokens - 1)
    ids = tuple(check_integer("token id", i, low=0, high=lm.geometry.vocab_size - 1) for i in token_ids)
    with torch.inference_mode():
        normed = norm(trace.residual[:, position].to(lm.device)[None])[0]
    logits = logits_of(lm, normed)
    ranks = np.stack([1 + np.count_nonzero(logits > logits[:, [i]], axis=-1) for i in ids], axis=1)
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    total = np.exp(shifted).sum(axis=-1, keepdims=True)
    return Trajectories(
        position=position,
        token_ids=ids,
        ranks=ranks.astype(np.int64),
        probs=(np.exp(shifted[:, list(ids)]) / total).astype(np.float32),
    )


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class TextScore:
    """How well the model expected a text: over the tokens that count."""

    n_tokens: int
    """Tokens that count: all but the first, which nothing predicted, and those that stand for no text (special
    tokens, and what a template puts around a text)."""
    n_bytes: int
    """UTF-8 bytes that these tokens spell."""
    bits: float
    """Their surprisals added up."""

    @property
    def bits_per_token(self) -> float:
        """Mean surprisal; NaN where no token counts."""
        return self.bits / self.n_tokens if self.n_tokens else float("nan")

    @property
    def perplexity(self) -> float:
        """2 to the mean surprisal: as uncertain as among that many equal choices. NaN where no token counts."""
        return float(2.0**self.bits_per_token)

    @property
    def bits_per_byte(self) -> float:
        """Comparable between models that cut texts differently, unlike the two above; NaN where no byte counts."""
        return self.bits / self.n_bytes if self.n_bytes else float("nan")


def score_text(table: PositionTable, tokens: Tokenization) -> TextScore:
    """Perplexity and bits per byte of the text that `table` was read from."""
    assert tokens.token_ids == tuple(table.token_ids.tolist()), "the table is of this text"
    counted = [place for place in range(1, tokens.n_tokens) if tokens.kinds[place] in {"text", "unknown"}]
    return TextScore(
        n_tokens=len(counted),
        n_bytes=sum(len(tokens.token_bytes[place]) for place in counted),
        bits=float(table.surprisals[counted].sum(dtype=np.float64)),
    )


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _Reading:
    """What rows of logits say: `(n,)` each; log probabilities in nats, float64."""

    best_ids: np.ndarray
    best_log_probs: np.ndarray
    log_probs: np.ndarray
    ranks: np.ndarray
    entropies: np.ndarray


def _read_logits(logits: np.ndarray, token_ids: np.ndarray) -> _Reading:
    """Read logits `(n, vocab_size)`: the best token, `token_ids` (n,), and the entropy in bits.

    With shifted = logits - best and z = Σ exp(shifted): log p = shifted - log z, and the entropy is
    log z - Σ exp(shifted)·shifted / z. NumPy's sums are pairwise, so that float32 is exact to 1e-6 here; torch's
    float32 log_softmax is not, and its float64 one takes ten times as long.
    """
    n = len(logits)
    best_ids, ranks = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    best_log_probs, log_probs, entropies = (np.empty(n, dtype=np.float64) for _ in range(3))
    for start in range(0, n, _ROWS):
        rows = slice(start, start + _ROWS)
        block = logits[rows]
        best = block.argmax(axis=-1)
        top = np.take_along_axis(block, best[:, None], axis=1)
        own = np.take_along_axis(block, token_ids[rows, None], axis=1)
        shifted = block - top
        weights = np.exp(shifted)
        z = weights.sum(axis=-1)
        log_z = np.log(z, dtype=np.float64)
        np.multiply(weights, shifted, out=weights)
        best_ids[rows] = best
        best_log_probs[rows] = -log_z
        log_probs[rows] = (own - top)[:, 0] - log_z
        ranks[rows] = 1 + np.count_nonzero(block > own, axis=-1)
        entropies[rows] = np.maximum(0.0, log_z - weights.sum(axis=-1) / z) / _LN2
    return _Reading(
        best_ids=best_ids,
        best_log_probs=best_log_probs,
        log_probs=log_probs,
        ranks=ranks,
        entropies=entropies,
    )


def kl_bits(final: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """KL(final || logits), bits, of rows of logits `(n, vocab_size)`: `(n,)` float64. NumPy's sums, as in
    `_read_logits`."""
    kl = np.empty(len(logits), dtype=np.float64)
    for start in range(0, len(logits), _ROWS):
        rows = slice(start, start + _ROWS)
        one = final[rows] - final[rows].max(axis=-1, keepdims=True)
        other = logits[rows] - logits[rows].max(axis=-1, keepdims=True)
        weights = np.exp(one)
        z = weights.sum(axis=-1)
        # log p - log q = (one - log z) - (other - log z'), and only the first difference depends on the token.
        np.multiply(weights, one - other, out=one)
        log_z = np.log(z, dtype=np.float64) - np.log(np.exp(other).sum(axis=-1), dtype=np.float64)
        kl[rows] = one.sum(axis=-1) / z - log_z
    return np.maximum(0.0, kl) / _LN2


def _largest(logits: np.ndarray, k: int) -> np.ndarray:
    """The ids of the `k` largest of `logits` (vocab_size,), largest first, equal ones by id: int64."""
    least = np.partition(logits, len(logits) - k)[len(logits) - k]
    candidates = np.flatnonzero(logits >= least)
    order = np.argsort(-logits[candidates], kind="stable")[:k]
    largest: np.ndarray = candidates[order].astype(np.int64)
    return largest


def position_chunks(n: int, vocab_size: int) -> Iterator[range]:
    """Blocks of positions whose logits fit in _CHUNK_BYTES."""
    step = max(1, _CHUNK_BYTES // (4 * vocab_size))
    for start in range(0, n, step):
        yield range(start, min(n, start + step))
