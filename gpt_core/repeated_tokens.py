"""The probe for induction heads: random tokens, twice in a row.

Nothing in such a text can be guessed from meaning. A head that attends to the token after the earlier occurrence of
the present one can only have matched the prefix (Olsson et al. 2022, arXiv:2209.11895, section on prefix matching).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from gpt_core.attention import attention_blocks
from gpt_core.errors import InputError
from gpt_core.generation import start_token_ids
from gpt_core.predictions import position_table
from gpt_core.trace import trace_tokens
from gpt_core.validation import check_integer

if TYPE_CHECKING:
    from gpt_core.control import Control
    from gpt_core.model import LanguageModel

#: Scores in the order of `RepeatedTokensProbe.scores`, each with what it is.
SCORES = (
    (
        "prefix matching",
        (
            "Mean attention of each token of the second copy to the one after its earlier occurrence; for the last, "
            "that is the first of the second copy. 1 is perfect."
        ),
    ),
    ("duplicate token", "Mean attention of each token of the second copy to itself in the first copy."),
    ("previous token", "Mean attention of each token of both copies to the token right before it."),
)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RepeatedTokensProbe:
    """How each head attends in random tokens that come twice."""

    token_ids: tuple[int, ...]
    """The text: a token that begins a text where the model has one, then n random tokens, then the same n again."""
    n_repeated: int
    """n."""
    seed: int
    """Of the random tokens."""
    scores: np.ndarray
    """`(3, n_layers, n_heads)`: probability, in the order of SCORES."""
    first_surprisal: float
    """Mean surprisal of the first copy's tokens after its first, bits; NaN where the model closes its predictions."""
    second_surprisal: float
    """The same of the second copy: much lower where the model copies what it has seen."""

    def __post_init__(self) -> None:
        assert self.scores.ndim == 3
        assert len(self.scores) == len(SCORES)
        self.scores.flags.writeable = False


def longest_probe(lm: LanguageModel) -> int:
    """Most random tokens that fit twice into the context after a token that begins the text."""
    return min((lm.geometry.context_length - 1) // 2, lm.geometry.vocab_size // 2)


def probe_repeated_tokens(
    lm: LanguageModel, *, n_repeated: int = 50, seed: int = 0, control: Control | None = None
) -> RepeatedTokensProbe:
    """The scores of all heads on `n_repeated` random tokens, all different, said twice.

    Raises InputError (n_repeated below 2 or beyond `longest_probe`), the errors of `trace.trace_tokens` and
    `attention.attention_maps`, and what `control` raises.
    """
    check_integer("n_repeated", n_repeated, low=2, high=longest_probe(lm))
    check_integer("seed", seed, low=0, high=2**31)
    special = set(lm.tokenizer.all_special_ids)
    ordinary = torch.tensor(
        sorted(set(lm.tokenizer.get_vocab().values()) - special) or range(lm.geometry.vocab_size)
    )
    generator = torch.Generator().manual_seed(seed)
    drawn = ordinary[torch.randperm(len(ordinary), generator=generator)[:n_repeated]].tolist()
    if len(drawn) < n_repeated:
        raise InputError(
            f"`n_repeated` must be at most {len(drawn):,}, the ordinary tokens there are. Given: {n_repeated:,}."
        )
    try:
        begin = list(start_token_ids(lm))
    except InputError:
        begin = []
    ids = (*begin, *drawn, *drawn)
    trace = trace_tokens(lm, ids, control=control)
    scores = []
    for layer in range(trace.n_layers):
        sums = torch.zeros(len(SCORES), trace.attention[layer].query.shape[0] if trace.attention else 0)
        for queries, weights in attention_blocks(trace, layer=layer):
            if control is not None:
                control.check()
            sums = sums + _add_up(queries, weights, start=len(begin), n=n_repeated)
        counts = torch.tensor([n_repeated, n_repeated, len(ids) - max(1, len(begin))])
        scores.append((sums / counts[:, None]).numpy())
        if control is not None:
            control.report((layer + 1) / trace.n_layers, f"Layer {layer} of 0–{trace.n_layers - 1}")
    first = second = float("nan")
    if "logits" not in lm.closed_views:
        surprisals = position_table(lm, trace, control=control).surprisals
        first = float(surprisals[len(begin) + 1 : len(begin) + n_repeated].mean())
        second = float(surprisals[len(begin) + n_repeated + 1 :].mean())
    return RepeatedTokensProbe(
        token_ids=ids,
        n_repeated=n_repeated,
        seed=seed,
        scores=np.stack(scores, axis=1).astype(np.float32),
        first_surprisal=first,
        second_surprisal=second,
    )


def _add_up(queries: range, weights: torch.Tensor, *, start: int, n: int) -> torch.Tensor:
    """`(3, n_heads)`: what the rows `queries` add to the three scores."""
    rows = torch.arange(queries.start, queries.stop)
    sums = []
    for first, back in ((start + n, n - 1), (start + n, n), (max(1, start), 1)):
        chosen = rows[rows >= first]
        sums.append(weights[:, chosen - queries.start, chosen - back].sum(dim=1))
    return torch.stack(sums)
