"""From where one number of a map comes: the dimensions of q and k behind it, and what it moves.

A weight says how much of a value vector is taken; what arrives also depends on how long that vector is (Kobayashi et
al. 2020, Attention is Not Only a Weight, arXiv:2004.10102).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from gpt_core.attention import attention_steps
from gpt_core.attention_output import output_matrix
from gpt_core.trace import Trace
from gpt_core.validation import check_integer

if TYPE_CHECKING:
    from gpt_core.model import LanguageModel


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class CellSteps:
    """How one weight comes about (arXiv:1706.03762, section 3.2.1), and what it moves."""

    layer: int
    """Layer, from 0."""
    head: int
    """Head, from 0."""
    query: int
    """Position of the row, from 0."""
    key: int
    """Position of the column, from 0."""
    contributions: np.ndarray
    """`(d_head,)`: q times k in each dimension, no unit; they add up to `product`."""
    product: float
    """q·k."""
    scaling: float
    """The factor on q·k: 1/√d_head in most models."""
    softcap: float | None
    """Scaled scores become `softcap * tanh(score / softcap)` where this is set (Gemma 2, arXiv:2408.00118)."""
    score: float
    """Scaled, and capped where the model caps."""
    bias: float
    """What the mask adds to the score: 0 in most models, -inf where it closes the cell."""
    log_sum: float
    """Logarithm of the sum of exp(score + bias) over the row, nats: weight = exp(score + bias - log_sum)."""
    weights: np.ndarray
    """`(n_tokens,)`: probability, the whole row."""
    lengths: np.ndarray
    """`(n_tokens,)`: length of each key's value vector, as `projected` says."""
    moved: np.ndarray
    """`(n_tokens,)`: length of weight times value vector in this row: what each key really hands over."""
    projected: bool
    """True: the value vectors are taken through the head's part of the output projection, v W_O; False: v alone."""

    def __post_init__(self) -> None:
        assert self.lengths.shape == self.moved.shape == self.weights.shape
        for array in (self.contributions, self.weights, self.lengths, self.moved):
            array.flags.writeable = False

    @property
    def weight(self) -> float:
        """The cell's own probability."""
        return float(self.weights[self.key])

    @property
    def moved_share(self) -> float:
        """This key's share of what all keys of the row hand over, lengths added up; 0..1."""
        total = float(self.moved.sum(dtype=np.float64))
        return float(self.moved[self.key]) / total if total else 0.0


def explain_cell(
    lm: LanguageModel, trace: Trace, *, layer: int, head: int, query: int, key: int
) -> CellSteps:
    """The way to the weight that `query` gives to `key` in one head. Errors as in `attention.attention_maps`."""
    check_integer("key", key, low=0, high=trace.n_tokens - 1)
    steps = attention_steps(trace, layer=layer, head=head, query=query)
    capture = trace.attention[layer]
    n_heads = capture.query.shape[0]
    group = head // (n_heads // capture.key.shape[0])
    matrix = output_matrix(lm, trace, layer=layer)
    with torch.inference_mode():
        contributions = (capture.query[head, query].float() * capture.key[group, key].float()).numpy().copy()
        values = capture.value[group].float()
        lengths = (values if matrix is None else values @ matrix[head]).norm(dim=-1).numpy().copy()
    finite = steps.masked[np.isfinite(steps.masked)].astype(np.float64)
    highest = float(finite.max())
    return CellSteps(
        layer=layer,
        head=head,
        query=query,
        key=key,
        contributions=contributions,
        product=float(steps.products[key]),
        scaling=steps.scaling,
        softcap=capture.softcap,
        score=float(steps.scores[key]),
        bias=float(steps.masked[key]) - float(steps.scores[key]),
        log_sum=highest + float(np.log(np.exp(finite - highest).sum())),
        weights=steps.weights.copy(),
        lengths=lengths,
        moved=steps.weights * lengths,
        projected=matrix is not None,
    )
