"""Attention maps of a Trace, computed when they are looked at: by layer, head and block of queries."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gpt_core.capture import LayerCapture, attention_scores
from gpt_core.errors import InputError, MemoryLimitError, UnsupportedError
from gpt_core.trace import Trace
from gpt_core.validation import check_integer

#: Most bytes of weights that are computed at once.
MAX_MAP_BYTES = 2**29
#: Bytes of weights that are held at once where all of a layer's are gone through: what a processor's cache holds.
BLOCK_BYTES = 2**22


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class AttentionMaps:
    """Maps of some heads of one layer."""

    layer: int
    """Layer, from 0."""
    heads: tuple[int, ...]
    """`(n_chosen_heads,)`: heads, from 0."""
    queries: tuple[int, ...]
    """`(n_queries,)`: positions of the rows, from 0."""
    weights: np.ndarray
    """`(n_chosen_heads, n_queries, n_tokens)`: probability; a row sums to 1, cells that the mask closes are 0."""
    allowed: np.ndarray
    """`(n_chosen_heads, n_queries, n_tokens)`: bool; False where the mask closes the cell."""

    def __post_init__(self) -> None:
        assert self.weights.shape == self.allowed.shape
        assert self.weights.shape[:2] == (len(self.heads), len(self.queries))
        self.weights.flags.writeable = False
        self.allowed.flags.writeable = False

    @property
    def cells(self) -> np.ndarray:
        """`(n_chosen_heads, n_queries, n_tokens)`: float32, the weights with NaN where the mask closes the cell."""
        return open_weights(self.weights, self.allowed)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class AttentionSteps:
    """How one row of one map comes about (arXiv:1706.03762, section 3.2.1)."""

    layer: int
    """Layer, from 0."""
    head: int
    """Head, from 0."""
    query: int
    """Position of the row, from 0."""
    products: np.ndarray
    """`(n_tokens,)`: q·k, no unit; with every later position too."""
    scaling: float
    """The factor on q·k: 1/√d_head in most models."""
    scores: np.ndarray
    """`(n_tokens,)`: scaled, and capped where the model caps."""
    masked: np.ndarray
    """`(n_tokens,)`: scores with -inf where the mask closes the cell."""
    weights: np.ndarray
    """`(n_tokens,)`: probability; the softmax of `masked`."""

    def __post_init__(self) -> None:
        for array in (self.products, self.scores, self.masked, self.weights):
            assert array.shape == self.products.shape
            array.flags.writeable = False


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class TokenAttention:
    """What one token of one head gives and gets: its row and its column."""

    layer: int
    """Layer, from 0."""
    head: int
    """Head, from 0."""
    position: int
    """The token's position, from 0."""
    paid: np.ndarray
    """`(n_tokens,)`: probability that it gives to each token; NaN where the mask closes the cell."""
    received: np.ndarray
    """`(n_tokens,)`: probability that each token gives to it; NaN where the mask closes the cell."""
    first_share: float
    """Mean probability that the tokens after the first give to the first, the attention sink (arXiv:2309.17453), in
    the head as it is; NaN for a text of one token."""

    def __post_init__(self) -> None:
        assert self.paid.shape == self.received.shape
        self.paid.flags.writeable = False
        self.received.flags.writeable = False


def attention_maps(
    trace: Trace, *, layer: int, heads: Sequence[int] | None = None, queries: range | None = None
) -> AttentionMaps:
    """Maps of `heads` (all when None) of `layer`, for a block of `queries` (all when None).

    Raises InputError (out of range), UnsupportedError (the model's attention was not recorded) and MemoryLimitError
    (more than MAX_MAP_BYTES).
    """
    capture = layer_capture(trace, layer)
    n_heads = capture.query.shape[0]
    chosen = tuple(
        check_integer("head", head, low=0, high=n_heads - 1)
        for head in (range(n_heads) if heads is None else heads)
    )
    rows = range(trace.n_tokens) if queries is None else queries
    if rows.step != 1:
        raise InputError(f"The queries must be a block of neighbours. Given: every {rows.step}th.")
    if len(rows):
        check_integer("query", rows[0], low=0, high=trace.n_tokens - 1)
        check_integer("query", rows[-1], low=0, high=trace.n_tokens - 1)
    _admit(len(chosen) * len(rows) * trace.n_tokens)
    with torch.inference_mode():
        scores = attention_scores(
            capture, heads=torch.tensor(chosen, dtype=torch.long), queries=slice(rows.start, rows.stop)
        )
        weights = scores.softmax(dim=-1)
    return AttentionMaps(
        layer=layer,
        heads=chosen,
        queries=tuple(rows),
        weights=weights.numpy().copy(),
        allowed=open_cells(scores).numpy(),
    )


def without_first(maps: AttentionMaps) -> AttentionMaps:
    """`maps` with the column of the first token closed and each row renormalised to sum to 1.

    A row that has nothing else, such as the first token's own, is closed altogether.
    """
    weights = np.where(maps.allowed, maps.weights, 0).astype(np.float32)
    weights[..., 0] = 0
    rest = weights.sum(axis=-1, keepdims=True, dtype=np.float64)
    allowed = maps.allowed & (rest > 0)
    allowed[..., 0] = False
    weights = np.divide(weights, rest, out=np.zeros_like(weights), where=rest > 0, casting="same_kind")
    return dataclasses.replace(maps, weights=weights, allowed=allowed)


def attention_blocks(
    trace: Trace, *, layer: int, heads: Sequence[int] | None = None, max_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[range, torch.Tensor]]:
    """All maps of `heads` (all when None) of `layer`, a block of queries at a time: `(queries, weights)`.

    `weights` is `(n_chosen_heads, n_queries, queries.stop)`, probability, float32: the keys after the block's last
    query, which are closed to all of its rows, are left out. The reader may change it. A block takes at most
    `max_bytes` where one row does. Errors as in `attention_maps`.
    """
    capture = layer_capture(trace, layer)
    n_heads = capture.query.shape[0]
    chosen = torch.tensor(
        [check_integer("head", head, low=0, high=n_heads - 1) for head in heads]
        if heads is not None
        else range(n_heads),
        dtype=torch.long,
    )
    n_rows = max(1, max_bytes // (4 * max(1, len(chosen)) * trace.n_tokens))
    for start in range(0, trace.n_tokens, n_rows):
        queries = range(start, min(trace.n_tokens, start + n_rows))
        # Not as a generator's decorator: what is between two blocks is the reader's.
        with torch.inference_mode():
            weights = attention_scores(
                keys_before(capture, queries.stop), heads=chosen, queries=slice(queries.start, queries.stop)
            ).softmax(dim=-1)
        yield queries, weights


def layer_capture(trace: Trace, layer: int) -> LayerCapture:
    """What was recorded of `layer`. Raises InputError (out of range) and UnsupportedError (nothing was)."""
    if not trace.attention:
        raise UnsupportedError(
            f"The attention of {trace.model_id} is not recorded, so it has no map. The other pages work."
        )
    return trace.attention[check_integer("layer", layer, low=0, high=trace.n_layers - 1)]


def keys_before(capture: LayerCapture, stop: int) -> LayerCapture:
    """`capture` with the keys 0..stop-1 alone."""
    return dataclasses.replace(
        capture,
        key=capture.key[:, :stop],
        value=capture.value[:, :stop],
        mask=None if capture.mask is None else capture.mask[..., :stop],
    )


def open_cells(scores: torch.Tensor) -> torch.Tensor:
    """Where the mask leaves a cell of masked `scores` open: bool, of their shape."""
    # An additive mask closes a cell with -inf or with the type's lowest number.
    return scores > torch.finfo(torch.float32).min / 2


def layer_open_cells(trace: Trace, *, layer: int, heads: Sequence[int] | None = None) -> torch.Tensor:
    """`(n_tokens, n_tokens)`: bool, where the mask of `layer` lets any of `heads` (all when None) look.

    Errors as in `layer_capture`.
    """
    mask = layer_capture(trace, layer).mask
    if mask is None:
        return torch.ones(trace.n_tokens, trace.n_tokens, dtype=torch.bool).tril()
    if heads is not None and mask.shape[0] > 1:
        mask = mask[list(heads)]
    opened = mask if mask.dtype == torch.bool else open_cells(mask)
    return opened.any(dim=0).cpu()


def open_weights(weights: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """`weights` with NaN where they are not `allowed`: a closed cell is not a weight of 0."""
    cells: np.ndarray = np.where(allowed, weights, np.float32(np.nan))
    return cells


def token_attention(
    trace: Trace, *, layer: int, head: int, position: int, hide_first: bool = False
) -> TokenAttention:
    """The row and the column of the token at `position`; with `hide_first`, of the map that `without_first` makes.

    Errors as in `attention_maps`.
    """
    check_integer("position", position, low=0, high=trace.n_tokens - 1)
    paid = np.full(trace.n_tokens, np.nan, dtype=np.float32)
    received = paid.copy()
    first = 0.0
    n_rows = max(1, BLOCK_BYTES // (4 * trace.n_tokens))
    for start in range(0, trace.n_tokens, n_rows):
        rows = range(start, min(trace.n_tokens, start + n_rows))
        maps = attention_maps(trace, layer=layer, heads=[head], queries=rows)
        first += float(maps.weights[0, max(0, 1 - start) :, 0].sum(dtype=np.float64))
        if hide_first:
            maps = without_first(maps)
        cells = maps.cells[0]
        received[rows.start : rows.stop] = cells[:, position]
        if position in rows:
            paid[:] = cells[position - start]
    return TokenAttention(
        layer=layer,
        head=head,
        position=position,
        paid=paid,
        received=received,
        first_share=first / (trace.n_tokens - 1) if trace.n_tokens > 1 else float("nan"),
    )


def all_attention_maps(trace: Trace, *, layers: Sequence[int] | None = None) -> np.ndarray:
    """All maps of `layers` (all when None), `(n_chosen_layers, n_heads, n_tokens, n_tokens)`, probability.

    Grows with n_tokens²: for short texts. Errors as in `attention_maps`.
    """
    chosen = range(trace.n_layers) if layers is None else layers
    _admit(sum(layer_capture(trace, layer).query.shape[0] for layer in chosen) * trace.n_tokens**2)
    return np.stack([attention_maps(trace, layer=layer).weights for layer in chosen])


def attention_steps(trace: Trace, *, layer: int, head: int, query: int) -> AttentionSteps:
    """The way from q·k to the weights of one row. Errors as in `attention_maps`."""
    capture = layer_capture(trace, layer)
    check_integer("head", head, low=0, high=capture.query.shape[0] - 1)
    check_integer("query", query, low=0, high=trace.n_tokens - 1)
    chosen = torch.tensor([head])
    row = slice(query, query + 1)
    with torch.inference_mode():
        scores = attention_scores(capture, heads=chosen, queries=row, masked=False)[0, 0]
        masked = attention_scores(capture, heads=chosen, queries=row)[0, 0]
        group = capture.query.shape[0] // capture.key.shape[0]
        products = capture.key[head // group].float() @ capture.query[head, query].float()
        weights = masked.softmax(dim=-1)
    return AttentionSteps(
        layer=layer,
        head=head,
        query=query,
        products=products.numpy().copy(),
        scaling=capture.scaling,
        scores=scores.numpy().copy(),
        masked=np.where(open_cells(masked).numpy(), masked.numpy(), -np.inf),
        weights=weights.numpy().copy(),
    )


def _admit(n_weights: int) -> None:
    if 4 * n_weights > MAX_MAP_BYTES:
        raise MemoryLimitError(
            f"Attention maps must take at most {MAX_MAP_BYTES / 2**20:,.0f} MiB of memory at once. Needed: "
            f"{4 * n_weights / 2**20:,.0f} MiB. Choose fewer heads or a block of queries, or shorten the text."
        )
