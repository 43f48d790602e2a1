"""Many heads in one map: mean, maximum, and what reaches each token through all layers together.

Attention rollout: Abnar & Zuidema 2020, Quantifying Attention Flow in Transformers (arXiv:2005.00928), section 3. Its
value-weighted form here takes, in the place of a layer's mean attention, the length of what all its heads together
hand from key to query, ‖Σ_h α_h v_h W_O,h‖ (Kobayashi et al. 2020, arXiv:2004.10102, equation 3), each row scaled to
sum to 1. Neither knows the MLPs, and no flow is solved for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from gpt_core.attention import MAX_MAP_BYTES, attention_blocks, layer_open_cells, open_weights
from gpt_core.attention_output import output_matrix
from gpt_core.errors import InputError, MemoryLimitError
from gpt_core.trace import Trace
from gpt_core.validation import check_integer

if TYPE_CHECKING:
    from gpt_core.control import Control
    from gpt_core.model import LanguageModel

Kind = Literal["mean", "maximum", "rollout", "value-weighted rollout"]
#: The share of a layer's input that rollout takes to pass by the attention (arXiv:2005.00928, section 3).
RESIDUAL = 0.5
#: Keys whose value vectors are multiplied with each other at once.
_KEYS = 64


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class AttentionSummary:
    """One map made of many."""

    kind: Kind
    """What was made of them."""
    n_heads_used: int
    """Heads that went into it."""
    weights: np.ndarray
    """`(n_tokens, n_tokens)`: float32, query by key. Rows sum to 1, except those of a maximum."""
    allowed: np.ndarray
    """`(n_tokens, n_tokens)`: bool; False where no map that went in lets the query look or, in a rollout, reach."""
    projected: bool
    """Whether values were taken through the output projection; True where values were not needed."""

    def __post_init__(self) -> None:
        assert self.weights.ndim == 2
        assert self.weights.shape[0] == self.weights.shape[1]
        assert self.allowed.shape == self.weights.shape
        self.weights.flags.writeable = False
        self.allowed.flags.writeable = False

    @property
    def cells(self) -> np.ndarray:
        """`(n_tokens, n_tokens)`: float32, the weights with NaN where they are not allowed."""
        return open_weights(self.weights, self.allowed)


def parse_heads(text: str, *, n_layers: int, n_heads: int) -> tuple[tuple[int, int], ...]:
    """The (layer, head) pairs that `text` names, in order, each once.

    Parts are separated by commas or spaces: `all`, `5` (all heads of layer 5), `0-2` (of layers 0 to 2), `5.4`
    (layer 5, head 4), `5.0-3` (layer 5, heads 0 to 3), `*.4` (head 4 of every layer). Raises InputError.
    """
    pairs: set[tuple[int, int]] = set()
    parts = [part for part in re.split(r"[,\s]+", text.strip()) if part]
    for part in parts:
        layers_text, dot, heads_text = part.partition(".")
        layers = _span("layer", "*" if part == "all" else layers_text, n_layers)
        heads = _span("head", heads_text if dot else "*", n_heads)
        pairs.update((layer, head) for layer in layers for head in heads)
    if not pairs:
        raise InputError(
            "At least one head must be named. Write `all`, a layer such as 5, or a head such as 5.4."
        )
    return tuple(sorted(pairs))


def _span(name: str, text: str, n: int) -> range:
    if text == "*":
        return range(n)
    ends = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", text)
    if not ends or not int(ends[1]) <= int(ends[2] or ends[1]) < n:
        given = text if re.fullmatch(r"[\w*-]{1,20}", text) else "something else"
        raise InputError(
            f"A {name} must be a whole number from 0 to {n - 1}, two of them with - between, or * for all. "
            f"Given: {given}. Write heads as layer.head, such as 0.1 or 0.0-2."
        )
    return range(int(ends[1]), int(ends[2] or ends[1]) + 1)


def combine_heads(
    trace: Trace,
    heads: Sequence[tuple[int, int]],
    *,
    kind: Literal["mean", "maximum"],
    control: Control | None = None,
) -> AttentionSummary:
    """Mean or maximum, cell by cell, of the maps of `heads`, (layer, head) pairs.

    Raises InputError (no head), the errors of `attention.attention_maps`, and what `control` raises.
    """
    if not heads:
        raise InputError("At least one head must be chosen. Given: none.")
    _admit(trace.n_tokens)
    total = torch.zeros(trace.n_tokens, trace.n_tokens)
    allowed = torch.zeros(trace.n_tokens, trace.n_tokens, dtype=torch.bool)
    chosen = sorted(set(heads))
    for layer in sorted({layer for layer, _ in chosen}):
        own = [head for other, head in chosen if other == layer]
        allowed |= layer_open_cells(trace, layer=layer, heads=own)
        for queries, weights in attention_blocks(trace, layer=layer, heads=own):
            _check(control, layer, trace.n_layers)
            rows = total[queries.start : queries.stop, : queries.stop]
            if kind == "mean":
                rows += weights.sum(dim=0) / len(chosen)
            else:
                torch.maximum(rows, weights.amax(dim=0), out=rows)
    return AttentionSummary(
        kind=kind,
        n_heads_used=len(chosen),
        weights=total.numpy(),
        allowed=allowed.numpy(),
        projected=True,
    )


def roll_out(
    lm: LanguageModel, trace: Trace, *, value_weighted: bool = False, control: Control | None = None
) -> AttentionSummary:
    """How much of each token's first vector is in each token's last one, if attention alone moved anything.

    R = Â_L … Â_1 with Â = ½ A + ½ 1, where A is a layer's mean over heads, or with `value_weighted` what the head
    of this module says. Errors as in `combine_heads`.
    """
    _admit(trace.n_tokens)
    reached = torch.eye(trace.n_tokens)
    allowed = torch.eye(trace.n_tokens, dtype=torch.bool)
    projected = True
    for layer in range(trace.n_layers):
        allowed = _reach_on(allowed, layer_open_cells(trace, layer=layer))
        if value_weighted:
            mixed, known = _value_weights(lm, trace, layer, control)
            projected = projected and known
        else:
            mixed = torch.zeros_like(reached)
            for queries, weights in attention_blocks(trace, layer=layer):
                _check(control, layer, trace.n_layers)
                mixed[queries.start : queries.stop, : queries.stop] = weights.mean(dim=0)
        reached = RESIDUAL * (mixed @ reached) + (1 - RESIDUAL) * reached
    return AttentionSummary(
        kind="value-weighted rollout" if value_weighted else "rollout",
        n_heads_used=sum(len(capture.query) for capture in trace.attention),
        weights=reached.numpy(),
        allowed=allowed.numpy(),
        projected=projected,
    )


def _reach_on(reached: torch.Tensor, looks: torch.Tensor) -> torch.Tensor:
    """`(n_tokens, n_tokens)`: bool, what is `reached` already, or by a token that a layer lets one look at."""
    n_tokens = len(looks)
    if int(looks.sum()) == n_tokens * (n_tokens + 1) // 2:  # all that came before: there is no more
        return looks
    return reached | ((looks.float() @ reached.float()) > 0)


def _value_weights(
    lm: LanguageModel, trace: Trace, layer: int, control: Control | None
) -> tuple[torch.Tensor, bool]:
    """`(n_tokens, n_tokens)`: lengths of what is handed over in `layer`, rows summing to 1; and whether W_O is known.

    ‖Σ_h α_h u_h‖² = Σ_h Σ_g α_h α_g u_h·u_g, so that no array of queries × keys × d_model is needed.
    """
    matrix = output_matrix(lm, trace, layer=layer)
    values = trace.attention[layer].value
    n_heads = trace.attention[layer].query.shape[0]
    groups = n_heads // values.shape[0]
    products = []
    with torch.inference_mode():
        for start in range(0, trace.n_tokens, _KEYS):
            own = values[:, start : start + _KEYS].float().repeat_interleave(groups, dim=0)
            if matrix is None:  # side by side, the heads' vectors are at right angles
                products.append(torch.diag_embed(own.square().sum(dim=-1).T))
            else:
                moved = (own @ matrix).transpose(0, 1)  # (n_keys, n_heads, d_model)
                products.append(moved @ moved.transpose(1, 2))
        product = torch.cat(products)  # (n_tokens, n_heads, n_heads)
        lengths = torch.zeros(trace.n_tokens, trace.n_tokens)
        for queries, weights in attention_blocks(trace, layer=layer):
            _check(control, layer, trace.n_layers)
            by_key = weights.permute(2, 1, 0)  # (n_keys, n_queries, n_heads)
            squares = ((by_key @ product[: queries.stop]) * by_key).sum(dim=-1)
            lengths[queries.start : queries.stop, : queries.stop] = squares.clamp(min=0).sqrt().T
        return lengths / lengths.sum(dim=-1, keepdim=True), matrix is not None


def _check(control: Control | None, layer: int, n_layers: int) -> None:
    if control is not None:
        control.check()
        control.report(layer / n_layers, f"Layer {layer} of 0–{n_layers - 1}")


def _admit(n_tokens: int) -> None:
    check_integer("n_tokens", n_tokens, low=1, high=2**31)
    needed = 18 * n_tokens**2  # at most four arrays of float32 and two of bool
    if needed > MAX_MAP_BYTES:
        raise MemoryLimitError(
            f"A summary must take at most {MAX_MAP_BYTES / 2**20:,.0f} MiB of memory. Needed: "
            f"{needed / 2**20:,.0f} MiB for {n_tokens:,} tokens. Shorten the text."
        )
