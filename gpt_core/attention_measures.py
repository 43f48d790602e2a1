"""What each head does on a text, in numbers: how far it is a previous-token head, an induction head, and so on.

Every measure is a mean over the queries that it applies to. The first token is never among them: it can only look at
itself, so its row says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from gpt_core.attention import BLOCK_BYTES, attention_blocks
from gpt_core.trace import Trace

if TYPE_CHECKING:
    from gpt_core.control import Control


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """One number of a head on a text."""

    name: str
    """Its name in code and in links."""
    title: str
    """Its name for readers."""
    definition: str
    """What it is, in one sentence."""
    unit: str
    """`probability`, `bits` or `tokens`."""


MEASURES = (
    Measure(
        name="previous",
        title="previous token",
        definition="Mean attention of each token after the first to the token right before it.",
        unit="probability",
    ),
    Measure(
        name="current",
        title="current token",
        definition="Mean attention of each token after the first to itself.",
        unit="probability",
    ),
    Measure(
        name="first",
        title="first token",
        definition="Mean attention of each token after the first to the first token, the attention sink "
        "(arXiv:2309.17453).",
        unit="probability",
    ),
    Measure(
        name="duplicate",
        title="duplicate token",
        definition="Mean, over the tokens that stood in the text before, of the attention to all their earlier "
        "occurrences together.",
        unit="probability",
    ),
    Measure(
        name="induction",
        title="induction",
        definition="Mean, over the tokens that stood in the text before, of the attention to all tokens that came "
        "right after an earlier occurrence, the token itself left out (prefix matching, arXiv:2209.11895).",
        unit="probability",
    ),
    Measure(
        name="entropy",
        title="entropy",
        definition="Mean entropy of the attention of each token after the first: 0 where it looks at one token, "
        "log₂ n where it looks at n tokens alike.",
        unit="bits",
    ),
    Measure(
        name="distance",
        title="mean distance",
        definition="Mean, over the tokens after the first, of how many tokens back the attention lies, weighted by it.",
        unit="tokens",
    ),
)
MEASURE_NAMES = tuple(measure.name for measure in MEASURES)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class HeadMeasures:
    """Every measure of every head on one text."""

    names: tuple[str, ...]
    """`(n_measures,)`: names of MEASURES."""
    values: np.ndarray
    """`(n_measures, n_layers, n_heads)`: float32, in the unit of each measure; NaN where no token counts."""
    n_tokens: int
    """Length of the text."""
    n_repeated: int
    """Tokens of the text that stood in it before: what duplicate and induction are means over."""

    def __post_init__(self) -> None:
        assert self.values.ndim == 3
        assert len(self.values) == len(self.names)
        self.values.flags.writeable = False

    def of(self, name: str) -> np.ndarray:
        """`(n_layers, n_heads)`: the values of one measure."""
        values: np.ndarray = self.values[self.names.index(name)]
        return values


class HeadMeter:
    """Adds up the measures of one layer while its maps pass by, a block of queries at a time."""

    def __init__(self, token_ids: Sequence[int]) -> None:
        """`token_ids` of the whole text."""
        self._ids = torch.tensor(token_ids, dtype=torch.long)
        self._sums: torch.Tensor | None = None
        self.n_repeated = 0
        """Tokens so far that stood in the text before."""

    def add(self, queries: range, weights: torch.Tensor) -> None:
        """`weights` (n_heads, n_queries, n_keys), probability, of the rows `queries`; keys left out are closed."""
        n_keys = weights.shape[2]
        rows = torch.arange(queries.start, queries.stop)[:, None]
        keys = torch.arange(n_keys)[None, :]
        earlier = (self._ids[rows] == self._ids[keys]) & (keys < rows)
        followers = torch.zeros_like(earlier)
        followers[:, 1:] = earlier[:, :-1]
        followers &= keys < rows
        start = 1 if queries.start == 0 else 0  # the first token's row does not count
        counted = weights[:, start:]
        with torch.inference_mode():
            current = torch.diagonal(counted, offset=queries.start + start, dim1=1, dim2=2).sum(dim=1)
            previous = torch.diagonal(counted, offset=queries.start + start - 1, dim1=1, dim2=2)
            # A matrix product with the places: the mean place looked at, without an array of distances.
            looked_at = (counted @ torch.arange(n_keys, dtype=torch.float32)).double()
            distance = (counted.sum(dim=2, dtype=torch.float64) * rows[start:, 0] - looked_at).sum(dim=1)
            sums = torch.stack(
                [
                    previous.sum(dim=1).double(),
                    current.double(),
                    counted[:, :, 0].sum(dim=1).double(),
                    _sum_where(weights, earlier),
                    _sum_where(weights, followers),
                    _entropy_bits(counted),
                    distance,
                ],
                dim=1,
            )
        self._sums = sums if self._sums is None else self._sums + sums
        self.n_repeated += int(earlier.any(dim=1).sum())

    def values(self) -> np.ndarray:
        """`(n_measures, n_heads)`, float32, in the order of MEASURES."""
        assert self._sums is not None
        counts = np.full(len(MEASURES), len(self._ids) - 1, dtype=np.float64)
        counts[[MEASURE_NAMES.index("duplicate"), MEASURE_NAMES.index("induction")]] = self.n_repeated
        sums = self._sums.numpy().T
        means: np.ndarray = np.divide(
            sums, counts[:, None], out=np.full_like(sums, np.nan), where=counts[:, None] > 0
        )
        return means.astype(np.float32)


def _sum_where(weights: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """`(n_heads,)`: the weights (n_heads, n_rows, n_keys) of the cells `chosen` (n_rows, n_keys), added up."""
    if not bool(chosen.any()):
        return torch.zeros(len(weights), dtype=torch.float64)
    return (weights.flatten(1) @ chosen.flatten().float()).double()


def _entropy_bits(weights: torch.Tensor) -> torch.Tensor:
    """`(n_heads,)`: entropies of the rows of `weights` (n_heads, n_rows, n_keys), added up, bits."""
    # 0 log 0 is 0: the smallest number stands in for 0 inside the logarithm.
    logs = weights.clamp(min=torch.finfo(torch.float32).tiny).log_()
    total: torch.Tensor = torch.linalg.vecdot(weights, logs).sum(dim=1, dtype=torch.float64)
    return -total / float(np.log(2.0))


def measure_heads(
    trace: Trace, *, max_bytes: int = BLOCK_BYTES, control: Control | None = None
) -> HeadMeasures:
    """Every measure of every head of `trace`; a few times `max_bytes` of memory besides.

    Errors as in `attention.attention_maps`, and what `control` raises.
    """
    layers = []
    for layer in range(trace.n_layers):
        meter = HeadMeter(trace.token_ids)
        for queries, weights in attention_blocks(trace, layer=layer, max_bytes=max_bytes):
            if control is not None:
                control.check()
            meter.add(queries, weights)
        layers.append(meter.values())
        if control is not None:
            control.report((layer + 1) / trace.n_layers, f"Layer {layer} of 0–{trace.n_layers - 1}")
    return HeadMeasures(
        names=MEASURE_NAMES,
        values=np.stack(layers, axis=1),
        n_tokens=trace.n_tokens,
        n_repeated=meter.n_repeated,
    )
