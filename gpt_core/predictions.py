"""What the model expects next: at one position, at every position, and at every depth.

Probabilities are over the whole vocabulary, ranks are counted (not sorted), and the lens applies the model's own
final norm and head, so that its last row is the model's prediction.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from gpt_core.errors import InputError, UnsupportedError
from gpt_core.model import Control, LanguageModel
from gpt_core.trace import Trace, logits_at, logits_of
from gpt_core.validation import check_integer

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

    @property
    def mean_surprisal(self) -> float:
        """Bits per token over all tokens but the first; NaN for a text of one token."""
        return float(np.mean(self.surprisals[1:])) if len(self.surprisals) > 1 else float("nan")


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

    def __post_init__(self) -> None:
        for array in (self.token_ids, self.probs, self.entropies, self.final_ranks):
            assert array.shape == (self.token_ids.shape[0], len(self.positions))
            array.flags.writeable = False


def next_token(lm: LanguageModel, trace: Trace, *, position: int, k: int = 20) -> NextToken:
    """The `k` most probable tokens after `position`.

    Raises InputError (position or k out of range) and UnsupportedError (logits cannot be rebuilt).
    """
    check_integer("k", k, low=1, high=lm.geometry.vocab_size)
    logits = logits_at(lm, trace, [position])[0]
    exact = logits.astype(np.float64)
    weights = np.exp(exact - exact.max())
    total = weights.sum()
    probs = weights / total
    best = _largest(logits, k)
    return NextToken(
        position=position,
        token_ids=best,
        logits=logits[best],
        probs=probs[best].astype(np.float32),
        rest=max(0.0, 1.0 - float(probs[best].sum())),
        entropy=float(np.log(total) - probs @ (exact - exact.max())) / _LN2,
    )


def position_table(lm: LanguageModel, trace: Trace, *, control: Control | None = None) -> PositionTable:
    """Prediction, surprisal and rank at every position, from the logits of a few positions at a time."""
    n = trace.n_tokens
    ids = np.array(trace.token_ids, dtype=np.int64)
    predicted = np.zeros(n, dtype=np.int64)
    predicted_probs, entropies = np.zeros(n, dtype=np.float32), np.zeros(n, dtype=np.float32)
    probs, surprisals = np.full(n, np.nan, dtype=np.float32), np.full(n, np.nan, dtype=np.float32)
    ranks = np.zeros(n, dtype=np.int64)
    for rows in _chunks(n, lm.geometry.vocab_size):
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
    probs, entropies = (np.zeros((n_rows, n_columns), dtype=np.float32) for _ in range(2))
    final_ranks = np.zeros((n_rows, n_columns), dtype=np.int64)
    # From the last row back, so that its prediction is known when the others are ranked.
    for done, row in enumerate(reversed(range(n_rows))):
        with torch.inference_mode():
            hidden = trace.residual[row][columns.start : columns.stop].to(lm.device)
            normed = norm(hidden[None])[0]
        for part in _chunks(n_columns, lm.geometry.vocab_size):
            if control is not None:
                control.check()
                control.report(done / n_rows, f"Reading depth {row} of 0–{n_rows - 1}")
            here = slice(part.start, part.stop)
            logits = logits_of(lm, normed[here])
            final = logits.argmax(axis=-1) if row == n_rows - 1 else token_ids[-1, here]
            read = _read_logits(logits, final)
            token_ids[row, here], entropies[row, here] = read.best_ids, read.entropies
            probs[row, here] = np.exp(read.best_log_probs)
            final_ranks[row, here] = read.ranks
    return LogitLens(
        positions=tuple(columns),
        token_ids=token_ids,
        probs=probs,
        entropies=entropies,
        final_ranks=final_ranks,
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


def _largest(logits: np.ndarray, k: int) -> np.ndarray:
    """The ids of the `k` largest of `logits` (vocab_size,), largest first, equal ones by id: int64."""
    least = np.partition(logits, len(logits) - k)[len(logits) - k]
    candidates = np.flatnonzero(logits >= least)
    order = np.argsort(-logits[candidates], kind="stable")[:k]
    largest: np.ndarray = candidates[order].astype(np.int64)
    return largest


def _chunks(n: int, vocab_size: int) -> Iterator[range]:
    """Blocks of positions whose logits fit in _CHUNK_BYTES."""
    step = max(1, _CHUNK_BYTES // (4 * vocab_size))
    for start in range(0, n, step):
        yield range(start, min(n, start + step))
