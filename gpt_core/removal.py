"""Why is this token gone? The stage that removed it, the number that decided, and the number it fell short of.

Reads the result of `sampling.apply_stages`; runs no model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpt_core.decoding import STAGE_LABELS, STAGES
from gpt_core.sampling import SamplingResult, typical_distance
from gpt_core.validation import check_integer

_LN2 = math.log(2.0)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class TokenStep:
    """One token at one stage that ran."""

    stage: str
    """One of STAGES."""
    logit_before: float
    """No unit; minus infinity where the token was already gone."""
    logit: float
    """After the stage; minus infinity where the token is gone."""
    prob_before: float
    """Probability before the stage."""
    prob: float
    """Probability after the stage."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class TokenFate:
    """What became of one token of the vocabulary."""

    token_id: int
    """The token."""
    rank: int
    """1 + the number of tokens to which the model itself gives a larger logit."""
    model_prob: float
    """Probability under the model as it is."""
    prob: float
    """Probability after all stages."""
    removed_by: str | None
    """The stage that removed it, one of STAGES; `model` where the model itself rules it out; None: it is there."""
    measure: str
    """What the stage looked at; empty where nothing removed the token."""
    value: float
    """That number of this token; NaN where nothing removed it."""
    threshold: float
    """What the number was held against; NaN where nothing removed it."""
    sentence: str
    """The same in words."""
    steps: tuple[TokenStep, ...]
    """The stages that ran, in order."""


def explain_token(result: SamplingResult, token_id: int, context_ids: Sequence[int]) -> TokenFate:
    """What became of `token_id` in `result`, which was made from the text `context_ids`.

    `value` and `threshold` are taken from the input of the stage that removed the token, and decide again as it did,
    ties aside: those that a stage cuts through it splits by its own sorting. Raises InputError for an id outside the
    vocabulary.
    """
    token_id = check_integer("token id", token_id, low=0, high=len(result.probs) - 1)
    steps = []
    logit, prob = float(result.model_logits[token_id]), float(result.model_probs[token_id])
    for stage in result.stages:
        if stage.active:
            after = float(stage.logits[token_id]), float(stage.probs[token_id])
            steps.append(
                TokenStep(
                    stage=stage.name, logit_before=logit, logit=after[0], prob_before=prob, prob=after[1]
                )
            )
            logit, prob = after
    place = int(result.removed_by[token_id])
    if place >= 0:
        removed_by: str | None = STAGES[place]
        measure, value, threshold, sentence = _reason(result, STAGES[place], token_id, context_ids)
    elif result.model_logits[token_id] == -math.inf:
        removed_by, measure, value, threshold = "model", "logit", -math.inf, -math.inf
        sentence = "The model itself rules it out: its logit is minus infinity."
    else:
        removed_by, measure, value, threshold = None, "", math.nan, math.nan
        sentence = f"It is still there, with probability {prob:.3g}."
    return TokenFate(
        token_id=token_id,
        rank=1 + int(np.count_nonzero(result.model_logits > result.model_logits[token_id])),
        model_prob=float(result.model_probs[token_id]),
        prob=float(result.probs[token_id]),
        removed_by=removed_by,
        measure=measure,
        value=value,
        threshold=threshold,
        sentence=sentence,
        steps=tuple(steps),
    )


def _reason(
    result: SamplingResult, name: str, token_id: int, context_ids: Sequence[int]
) -> tuple[str, float, float, str]:
    """Measure, value, threshold and sentence of the stage `name` about a token that it removed."""
    settings = result.settings
    logits, probs = result.input_of(name)
    logit, prob = logits[token_id], probs[token_id]
    rank = 1 + int(np.count_nonzero(logits > logit))
    label = STAGE_LABELS[name]
    if name == "no_repeat_ngram":
        n = settings.no_repeat_ngram
        start = _earlier_run(context_ids, n, token_id)
        return (
            "position of the same run",
            float(start),
            float(n),
            (
                f"{label} {n}: it would complete a run of {n} token{'s' if n > 1 else ''} that is already in the text, "
                f"at position {start}."
            ),
        )
    if name == "temperature":
        best = float(logits.max())
        return (
            "logit",
            float(logit),
            best,
            f"{label} 0: greedy takes only the largest logit, {best:.4g}; this one's is {logit:.4g} (rank {rank:,}).",
        )
    if name == "top_k":
        last = float(np.partition(logits, len(logits) - settings.top_k)[len(logits) - settings.top_k])
        return (
            "logit",
            float(logit),
            last,
            (
                f"{label} {settings.top_k}: its logit {logit:.4g} (rank {rank:,}) is below {last:.4g}, that of the "
                f"{settings.top_k:,}th most probable token."
            ),
        )
    if name == "top_p":
        above = float(probs[logits > logit].sum(dtype=np.float64))
        return (
            "probability of the more probable tokens",
            above,
            settings.top_p,
            (
                f"{label} {settings.top_p:g}: the {rank - 1:,} more probable tokens already have {above:.4f} together, "
                f"which {_reaches(above, settings.top_p)}."
            ),
        )
    if name == "min_p":
        least = settings.min_p * float(probs.max())
        return (
            "probability",
            float(prob),
            least,
            (
                f"{label} {settings.min_p:g}: its probability {prob:.3g} is below {least:.3g}, {settings.min_p:g} × "
                f"the largest ({probs.max():.3g})."
            ),
        )
    assert name == "typical_p", f"{name} removes no token"
    distance = np.where(logits > -math.inf, typical_distance(probs), math.inf)
    nearer = float(probs[distance < distance[token_id]].sum(dtype=np.float64))
    return (
        "probability of the more typical tokens",
        nearer,
        settings.typical_p,
        (
            f"{label} {settings.typical_p:g}: its surprisal is {distance[token_id] / _LN2:.3g} bits away from the "
            f"entropy; tokens nearer to it already have {nearer:.4f} together, "
            f"which {_reaches(nearer, settings.typical_p)}."
        ),
    )


def _reaches(mass: float, limit: float) -> str:
    return (
        f"reaches {limit:g}"
        if mass >= limit
        else f"reaches {limit:g} with those that are equal to it or differ by a rounding: of such, some are taken"
    )


def _earlier_run(context_ids: Sequence[int], n: int, token_id: int) -> int:
    """Where the run of `n` tokens that `token_id` would complete is in the text already; -1 where it is not."""
    ids = tuple(context_ids)
    run = (*(ids[len(ids) - n + 1 :] if n > 1 else ()), token_id)
    return next((start for start in range(len(ids) - n + 1) if ids[start : start + n] == run), -1)
