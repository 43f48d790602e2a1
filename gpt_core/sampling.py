"""From logits to the token that is drawn: the stages that `generate` applies, in its order or another, one at a time.

The stages are transformers' own logits processors (the presence and frequency penalties, of which it has none, are
written here); the generator and the sliders of a page run this same code, so
what a page shows about a stage is what happened to the text. Does not know where logits come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt_core.decoding import FILTERS, STAGE_LABELS, STAGES, SamplingSettings
from gpt_core.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class SamplingStage:
    """What one stage did to the distribution.

    The input of a stage is the distribution after the stages that ran before it; of the first, the model's own.
    """

    name: str
    """One of STAGES."""
    label: str
    """What a reader sees: the setting with its value, and what that does where it is special."""
    active: bool
    """False: the setting is at the value where the stage does nothing, or switched off; the stage did not run."""
    n_survivors: int
    """Tokens that no stage has removed so far: those whose logit is still above minus infinity."""
    n_removed: int
    """Tokens that this stage removed."""
    mass_removed: float
    """Probability (0..1) that the input gave to the tokens which this stage removed."""
    entropy_bits_before: float
    """Entropy of the input, bits."""
    entropy_bits: float
    """Entropy after the stage, bits."""
    logits: np.ndarray
    """`(vocab_size,)` float32, logits after the stage; minus infinity where a token is removed."""
    probs: np.ndarray
    """`(vocab_size,)` float32, probabilities after the stage; they sum to 1."""

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        self.logits.setflags(write=False)
        self.probs.setflags(write=False)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class SamplingResult:
    """A distribution on its way through all stages."""

    settings: SamplingSettings
    """What was asked for."""
    stages: tuple[SamplingStage, ...]
    """All of STAGES in the order in which they ran, inactive ones included."""
    model_logits: np.ndarray
    """`(vocab_size,)` float32, the model's own logits."""
    model_probs: np.ndarray
    """`(vocab_size,)` float32, the model's own probabilities: temperature 1, nothing removed."""
    probs: np.ndarray
    """`(vocab_size,)` float32, what the next token is drawn from; greedy, 1 at one token."""
    removed_by: np.ndarray
    """`(vocab_size,)` int8, position in STAGES of the stage that removed a token; -1 where it survived."""
    greedy: bool
    """True: the token with probability 1 is taken, and no random number is drawn."""

    def __post_init__(self) -> None:
        """Check that the shapes agree and make the arrays read-only."""
        assert self.model_probs.shape == self.probs.shape == self.removed_by.shape == self.model_logits.shape
        for array in (self.model_logits, self.model_probs, self.probs, self.removed_by):
            array.setflags(write=False)

    def stage(self, name: str) -> SamplingStage:
        """The stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)

    def input_of(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Logits and probabilities `(vocab_size,)` that the stage of that name was given."""
        place = next(place for place, stage in enumerate(self.stages) if stage.name == name)
        if place == 0:
            return self.model_logits, self.model_probs
        return self.stages[place - 1].logits, self.stages[place - 1].probs


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class CumulativeCurve:
    """Probability added up over a stage's input, token by token, in the order in which the stage looks at them."""

    ranks: np.ndarray
    """`(n_points,)` int64, how many tokens, from 1; closer together at the beginning."""
    cumulative: np.ndarray
    """`(n_points,)` float32, what the first `ranks` tokens have together, 0..1."""
    cut: int
    """How many tokens the stage kept: where the curve is cut off."""
    kept: float
    """Probability that its input gave to those, 0..1."""

    def __post_init__(self) -> None:
        """Check that the shapes agree and make the arrays read-only."""
        assert self.ranks.shape == self.cumulative.shape
        self.ranks.setflags(write=False)
        self.cumulative.setflags(write=False)


def check_vocabulary(settings: SamplingSettings, vocab_size: int) -> None:
    """Raise InputError where `top_k` is larger than the vocabulary, or a biased token is not in it."""
    if settings.top_k > vocab_size:
        raise InputError(
            f"`top_k` must be at most {vocab_size:,}, the size of this model's vocabulary. "
            f"Given: {settings.top_k:,}. 0 keeps every token."
        )
    largest = max((token_id for token_id, _ in settings.logit_bias), default=0)
    if largest >= vocab_size:
        raise InputError(
            f"`logit_bias` must name tokens from 0 to {vocab_size - 1:,}, this model's vocabulary. "
            f"Given: {largest:,}. Take it out of the list."
        )


def filter_logits(
    logits: torch.Tensor,
    context_ids: torch.Tensor,
    settings: SamplingSettings,
    *,
    watch: Callable[[str, torch.Tensor], None] | None = None,
    stop_before: str | None = None,
) -> torch.Tensor:
    """The logits `(1, vocab_size)` float32 after every active stage; removed tokens are at minus infinity.

    `context_ids` `(1, n_tokens)` int64 is the text so far, prompt included. `watch` is called after each active
    stage with its name and its output; the stage `stop_before` and those after it are left out. In the default order
    equal, bit for bit, to the processors that `generate` makes from the same settings. Raises UnsupportedError where
    the logits hold NaN or plus infinity, and InputError where `no_repeat_ngram` bans every token.
    """
    if not float(logits.max()) < math.inf:  # the maximum with a NaN is NaN
        raise UnsupportedError(
            "This model's logits are not all numbers (NaN or infinity), so no probabilities follow from them."
        )
    for stage, process in _processors(settings):
        if stage == stop_before:
            break
        logits = process(context_ids, logits)
        if stage == "no_repeat_ngram" and not bool((logits > -math.inf).any()):
            raise InputError(
                f"`no_repeat_ngram` = {settings.no_repeat_ngram} bans every token that is left here. "
                "Raise it, or set it to 0."
            )
        if watch is not None:
            watch(stage, logits)
    return logits


def _processors(
    settings: SamplingSettings,
) -> list[tuple[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]]:
    """The active stages and their processors, in the order in which they run."""
    import transformers.generation.logits_process as logits_process

    biases: Any = {(token_id,): bias for token_id, bias in settings.logit_bias}
    make: dict[str, Callable[[], Any]] = {
        "logit_bias": lambda: logits_process.SequenceBiasLogitsProcessor(biases),
        "repetition_penalty": lambda: logits_process.RepetitionPenaltyLogitsProcessor(
            settings.repetition_penalty
        ),
        "no_repeat_ngram": lambda: logits_process.NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram),
        "presence_penalty": lambda: (
            lambda context_ids, logits: (
                logits - settings.presence_penalty * (count_tokens(context_ids, logits) > 0)
            )
        ),
        "frequency_penalty": lambda: (
            lambda context_ids, logits: (
                logits - settings.frequency_penalty * count_tokens(context_ids, logits)
            )
        ),
        "temperature": lambda: (
            _keep_largest if settings.greedy else logits_process.TemperatureLogitsWarper(settings.temperature)
        ),
        "top_k": lambda: logits_process.TopKLogitsWarper(settings.top_k),
        "top_p": lambda: logits_process.TopPLogitsWarper(settings.top_p),
        "min_p": lambda: logits_process.MinPLogitsWarper(settings.min_p),
        "typical_p": lambda: logits_process.TypicalLogitsWarper(settings.typical_p),
    }
    return [(stage, make[stage]()) for stage in settings.run_order if settings.is_active(stage)]


def count_tokens(context_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """How often each token of the vocabulary is in the text `(1, n_tokens)`: `(1, vocab_size)` int64."""
    import torch

    return torch.bincount(context_ids[0], minlength=logits.shape[-1])[None]


def _keep_largest(context_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Remove all but the token that `generate(do_sample=False)` takes: the first of the largest."""
    import torch

    kept = torch.full_like(logits, -math.inf)
    return kept.scatter(1, logits.argmax(dim=-1, keepdim=True), 0.0)


def apply_stages(
    logits: np.ndarray, context_ids: Sequence[int], settings: SamplingSettings
) -> SamplingResult:
    """Run the logits `(vocab_size,)` through all stages, in float32 as `generate` does, and say what each did.

    Only the probabilities that are told are summed up more exactly (`exact_softmax`) than those that it draws from.
    `context_ids` is the text so far as token ids, prompt included; the penalties read it. Raises InputError and
    UnsupportedError as `filter_logits` and `check_vocabulary` do.
    """
    import torch

    if logits.ndim != 1:
        raise InputError(f"The logits must be those of one position. Given: an array of {logits.ndim} axes.")
    check_vocabulary(settings, len(logits))
    outputs: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        start = torch.from_numpy(np.array(logits, dtype=np.float32))[None]
        context = torch.tensor([list(context_ids)], dtype=torch.int64)
        filter_logits(start, context, settings, watch=outputs.__setitem__)

    def summarise(output: torch.Tensor) -> tuple[np.ndarray, float]:
        probs = exact_softmax(output[0])[0].numpy()
        return probs, entropy_bits(probs)

    after = model_logits = start[0].numpy()
    probs, entropy = summarise(start)
    model_probs = probs
    alive = model_logits > -math.inf
    removed_by = np.full(len(logits), -1, dtype=np.int8)
    stages = []
    for name in settings.run_order:
        before, entropy_before, n_removed, mass_removed = probs, entropy, 0, 0.0
        if name in outputs:
            after = outputs[name][0].numpy()
            still_alive = after > -math.inf
            removed = alive & ~still_alive
            n_removed = int(removed.sum())
            mass_removed = float(before[removed].sum(dtype=np.float64))
            removed_by[removed] = STAGES.index(name)
            alive = still_alive
            probs, entropy = summarise(outputs[name])
        stages.append(
            SamplingStage(
                name=name,
                label=_stage_label(name, settings),
                active=name in outputs,
                n_survivors=int(alive.sum()),
                n_removed=n_removed,
                mass_removed=mass_removed,
                entropy_bits_before=entropy_before,
                entropy_bits=entropy,
                logits=after,
                probs=probs,
            )
        )
    return SamplingResult(
        settings=settings,
        stages=tuple(stages),
        model_logits=model_logits,
        model_probs=model_probs,
        probs=probs,
        removed_by=removed_by,
        greedy=settings.greedy,
    )


def cumulative_curve(result: SamplingResult, name: str, *, n_points: int = 48) -> CumulativeCurve:
    """The curve of the stage `name`: its input's tokens, added up in the order in which it keeps them.

    Typical-p keeps those first whose surprisal is nearest to the entropy; all others, the most probable ones. What a
    stage before removed is not on the curve. `n_points` at most; the cut is always one of them.
    """
    logits, probs = result.input_of(name)
    alive = logits > -math.inf
    weights, stayed = probs[alive], result.stage(name).logits[alive] > -math.inf
    cut = int(stayed.sum())
    nearness = typical_distance(weights) if name == "typical_p" else None
    # What stayed comes first even among equals, of which a stage may take some.
    weights = np.concatenate(
        [
            np.sort(weights[part])[::-1] if nearness is None else weights[part][np.argsort(nearness[part])]
            for part in (stayed, ~stayed)
        ]
    )
    total = np.cumsum(weights, dtype=np.float64)
    ranks = np.unique(
        np.append(np.geomspace(1, len(total), max(2, n_points - 1)).round().astype(np.int64), cut)
    )
    return CumulativeCurve(
        ranks=ranks,
        cumulative=np.minimum(1.0, total[ranks - 1]).astype(np.float32),
        cut=cut,
        kept=min(1.0, float(total[cut - 1])),
    )


def typical_distance(probs: np.ndarray) -> np.ndarray:
    """How far the surprisal of each token is from the entropy of `probs` (n,), nats (arXiv:2202.00666, eq. 8)."""
    with np.errstate(divide="ignore"):
        surprisals = -np.log(probs, dtype=np.float64)
    seen = probs > 0
    distance: np.ndarray = np.abs(surprisals - float(probs[seen] @ surprisals[seen]))
    return distance


def exact_softmax(logits: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Probabilities `(n,)` float32 of logits `(n,)`, and their entropy in bits; both summed up in float64.

    A softmax in float32 over 50,257 tokens is off by up to 2e-5, because small terms are lost beside the sum. Entropy
    is the mean of -log p, and log p = logit - log(sum of exp(logits)): no logarithm of each probability.
    """
    import torch

    # MPS has no float64.
    shifted = (logits.cpu() if logits.device.type == "mps" else logits).to(torch.float64, copy=True)
    shifted -= float(logits.max())
    weights = shifted.exp()
    total = float(weights.sum())
    mean = float(torch.dot(weights, shifted)) / total
    if math.isnan(mean):  # a logit of minus infinity: no weight, and 0 times infinity is no number
        mean = float(torch.dot(weights, shifted.clamp_min(-1e9))) / total
    probs = weights.div_(total).to(device=logits.device, dtype=torch.float32)
    return probs, max(0.0, (math.log(total) - mean) / math.log(2))


def _stage_label(name: str, settings: SamplingSettings) -> str:
    label = STAGE_LABELS[name]
    if name in settings.switched_off:
        return f"{label}: switched off"
    if name == "temperature" and settings.greedy:
        return f"{label} 0: greedy, everything on the most probable token"
    if settings.greedy and name in FILTERS:
        return f"{label}: not used, greedy"
    if name == "logit_bias":
        n_biased = len(settings.logit_bias)
        return f"{label}: {n_biased} token{'s' if n_biased > 1 else ''}" if n_biased else f"{label}: off"
    value = getattr(settings, name)
    return f"{label} {value:g}" if settings.is_active(name) else f"{label} {value:g}: off"


def entropy_bits(probs: np.ndarray) -> float:
    """Shannon entropy of probabilities `(vocab_size,)`, in bits; tokens with probability 0 add nothing."""
    positive = probs[probs > 0]
    # Half a millionth of a bit of rounding would otherwise show as a negative entropy where one token has it all.
    return max(0.0, -float((positive * np.log2(positive, dtype=np.float64)).sum()))


def draw_token(probs: torch.Tensor, generator: torch.Generator) -> int:
    """A token id drawn from probabilities `(vocab_size,)` with that generator alone, as `generate` draws it."""
    import torch

    return int(torch.multinomial(probs[None], num_samples=1, generator=generator))
