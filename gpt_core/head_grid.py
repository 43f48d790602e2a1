"""All heads of all layers as small pictures: the lower triangle of each map, a byte a cell, thinned by maximum.

A picture is for looking. No number that is printed comes from it: those come from `attention`, in float32.
The weights are computed in blocks of heads and queries and thinned at once, so that memory is that of a block.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from gpt_core.attention import keys_before, layer_capture, open_cells
from gpt_core.capture import LayerCapture, attention_scores
from gpt_core.registry import Registry
from gpt_core.trace import Trace, trace_tokens
from gpt_core.validation import check_integer

if TYPE_CHECKING:
    from gpt_core.control import Control
    from gpt_core.model import LanguageModel

#: Up to this many tokens a picture keeps every cell, whatever the model.
WHOLE_TOKENS = 128
#: Bytes that the pictures of all heads may take together where the text is longer.
MAX_GRID_BYTES = 3_600_000
#: Bytes of weights that are computed at once; a block's queries are at least as many as one cell covers.
BLOCK_BYTES = 2**23
#: Queries of a block at most: what comes after its last query need not be computed.
_BLOCK_QUERIES = 128
#: Bytes of pictures that are kept, of all readers' texts together.
STORE_BYTES = 2**26
#: The largest code: a weight of 1. Code 0 is a cell that the mask closes, code 1 a weight of 0.
LARGEST_CODE = 255
_CLOSED = -1.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, slots=True, weakref_slot=True)
class LayerThumbnails:
    """The pictures of all heads of one layer."""

    layer: int
    """Layer, from 0."""
    n_tokens: int
    """Length of the text."""
    step: int
    """A cell covers `step` queries × `step` keys, and is their maximum."""
    cells: np.ndarray
    """`(n_heads, side * (side + 1) / 2)`: uint8, row after row of the lower triangle. 0: closed by the mask;
    otherwise the weight is `(code - 1) / 254`, to 1/508."""

    def __post_init__(self) -> None:
        assert self.cells.dtype == np.uint8
        assert self.cells.shape[1] == self.side * (self.side + 1) // 2
        self.cells.flags.writeable = False

    @property
    def side(self) -> int:
        """Cells along a side of the triangle."""
        return -(-self.n_tokens // self.step)


def grid_step(n_maps: int, n_tokens: int) -> int:
    """Tokens along a side of a cell: the fewest with which `n_maps` pictures take at most MAX_GRID_BYTES.

    1, so that nothing is lost, up to WHOLE_TOKENS tokens.
    """
    step = 1
    while n_tokens > WHOLE_TOKENS and step < n_tokens:
        side = -(-n_tokens // step)
        if n_maps * side * (side + 1) // 2 <= MAX_GRID_BYTES:
            break
        step += 1
    return step


def layer_thumbnails(
    trace: Trace, *, layer: int, step: int | None = None, control: Control | None = None
) -> LayerThumbnails:
    """The pictures of `layer`; `step` is that of `grid_step` by default.

    Raises InputError (out of range), UnsupportedError (the model's attention was not recorded), and what `control`
    raises.
    """
    capture = layer_capture(trace, layer)
    n_heads, n_tokens = capture.query.shape[0], trace.n_tokens
    if step is None:
        step = grid_step(trace.n_layers * n_heads, n_tokens)
    check_integer("step", step, low=1, high=n_tokens)
    side = -(-n_tokens // step)
    heads_at_once = max(1, min(n_heads, BLOCK_BYTES // (4 * n_tokens * step)))
    rows = BLOCK_BYTES // (4 * n_tokens * heads_at_once)
    rows = max(step, min(rows, _BLOCK_QUERIES) // step * step)
    square = np.zeros((n_heads, side, side), dtype=np.uint8)
    with torch.inference_mode():
        for first in range(0, n_heads, heads_at_once):
            heads = range(first, min(n_heads, first + heads_at_once))
            for start in range(0, n_tokens, rows):
                if control is not None:
                    control.check()
                codes = _block_codes(capture, heads, range(start, min(n_tokens, start + rows)), step)
                place = start // step
                square[first : heads.stop, place : place + codes.shape[1], : codes.shape[2]] = codes
    return LayerThumbnails(
        layer=layer, n_tokens=n_tokens, step=step, cells=square[:, np.tri(side, dtype=bool)]
    )


def kept_thumbnails(
    lm: LanguageModel, token_ids: Sequence[int], *, layer: int, control: Control | None = None
) -> LayerThumbnails:
    """The pictures of `layer` for a text, computed once and then kept as long as there is room.

    Errors as in `layer_thumbnails` and `trace.trace_tokens`.
    """
    key = (str(lm.model_id), str(lm.device), tuple(token_ids), layer)
    kept = _store.get(key)
    if kept is not None:
        return kept
    trace = trace_tokens(lm, token_ids, control=control)
    return _store.get_or_make(
        key,
        lambda: layer_thumbnails(trace, layer=layer, control=control),
        check=None if control is None else control.check,
    )


def decode_thumbnails(thumbnails: LayerThumbnails) -> np.ndarray:
    """`(n_heads, side, side)`: the weights that the bytes stand for; NaN where the mask closes the cell."""
    side = thumbnails.side
    weights = np.full((len(thumbnails.cells), side, side), np.nan, dtype=np.float32)
    codes = thumbnails.cells.astype(np.float32)
    weights[:, np.tri(side, dtype=bool)] = np.where(codes == 0, np.nan, (codes - 1) / (LARGEST_CODE - 1))
    return weights


def _block_codes(capture: LayerCapture, heads: range, queries: range, step: int) -> np.ndarray:
    """Codes `(n_heads, n_rows, n_columns)` of a block of queries that begins at a multiple of `step`."""
    scores = attention_scores(
        keys_before(capture, queries.stop),
        heads=torch.arange(heads.start, heads.stop),
        queries=slice(queries.start, queries.stop),
    )
    weights = scores.softmax(dim=-1)
    if capture.mask is not None:  # without one it is causal, and no cell of the triangle is closed
        weights.masked_fill_(~open_cells(scores), _CLOSED)
    return thin_weights(weights, step)


def thin_weights(weights: torch.Tensor, step: int) -> np.ndarray:
    """Codes `(n_heads, n_rows, n_columns)` of `weights` (n_heads, n_queries, n_keys), below 0 where closed.

    The block's queries and keys begin at multiples of `step`. The weights may be changed in place.
    """
    if step > 1:
        n_heads, n_queries, n_keys = weights.shape
        weights = functional.pad(weights, (0, -n_keys % step, 0, -n_queries % step), value=_CLOSED)
        rows, columns = weights.shape[1] // step, weights.shape[2] // step
        weights = weights.reshape(n_heads, rows, step, -1).amax(dim=2)
        weights = weights.reshape(n_heads, rows, columns, step).amax(dim=3)
    codes: np.ndarray = (
        weights.mul_(LARGEST_CODE - 1).add_(1.5).clamp_(0, LARGEST_CODE).to(torch.uint8).numpy()
    )
    return codes


_store: Registry[tuple[str, str, tuple[int, ...], int], LayerThumbnails] = Registry(
    STORE_BYTES, lambda thumbnails: thumbnails.cells.nbytes
)
