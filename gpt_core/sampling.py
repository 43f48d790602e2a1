"""From logits to the token that is drawn: the stages that `generate` applies, in its order, one at a time.

The stages are transformers' own logits processors; the generator and the sliders of a page run this same code, so
what a page shows about a stage is what happened to the text. Does not know where logits come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt_core.decoding import SETTING_RANGES, STAGES, SamplingSettings
from gpt_core.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class SamplingStage:
    """What one stage did to the distribution.

    The input of a stage is the distribution after the stages before it; of the first, the model's own.
    """

    name: str
    """One of STAGES."""
    label: str
    """What a reader sees: the setting with its value, and what that does where it is special."""
    active: bool
    """False: the setting is at the value where the stage does nothing, and the stage did not run."""
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
    probs: np.ndarray
    """`(vocab_size,)` float32, probabilities after the stage; they sum to 1."""

    def __post_init__(self) -> None:
        """Make the array read-only."""
        self.probs.setflags(write=False)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class SamplingResult:
    """A distribution on its way through all stages."""

    stages: tuple[SamplingStage, ...]
    """All six, in order, inactive ones included."""
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
        assert self.model_probs.shape == self.probs.shape == self.removed_by.shape
        for array in (self.model_probs, self.probs, self.removed_by):
            array.setflags(write=False)


def check_vocabulary(settings: SamplingSettings, vocab_size: int) -> None:
    """Raise InputError where `top_k` is larger than the vocabulary."""
    if settings.top_k > vocab_size:
        raise InputError(
            f"`top_k` must be at most {vocab_size:,}, the size of this model's vocabulary. "
            f"Given: {settings.top_k:,}. 0 keeps every token."
        )


def filter_logits(
    logits: torch.Tensor,
    context_ids: torch.Tensor,
    settings: SamplingSettings,
    *,
    watch: Callable[[str, torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """The logits `(1, vocab_size)` float32 after every active stage; removed tokens are at minus infinity.

    `context_ids` `(1, n_tokens)` int64 is the text so far, prompt included. `watch` is called after each active
    stage with its name and its output. Equal, bit for bit, to the processors that `generate` makes from the same
    settings. Raises UnsupportedError where the logits hold NaN or plus infinity, and InputError where
    `no_repeat_ngram` bans every token.
    """
    if not bool((logits < math.inf).all()):
        raise UnsupportedError(
            "This model's logits are not all numbers (NaN or infinity), so no probabilities follow from them."
        )
    for stage, process in _processors(settings):
        logits = process(context_ids, logits)
        if stage == "no_repeat_ngram" and not bool((logits > -math.inf).any()):
            raise InputError(
                f"`no_repeat_ngram` = {settings.no_repeat_ngram} bans every token of the vocabulary here. "
                "Raise it, or set it to 0."
            )
        if watch is not None:
            watch(stage, logits)
    return logits


def _processors(
    settings: SamplingSettings,
) -> list[tuple[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]]:
    """The active stages and their processors, in the order of `GenerationMixin._get_logits_processor`."""
    import transformers.generation.logits_process as logits_process

    make: dict[str, Callable[[], Any]] = {
        "repetition_penalty": lambda: logits_process.RepetitionPenaltyLogitsProcessor(
            settings.repetition_penalty
        ),
        "no_repeat_ngram": lambda: logits_process.NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram),
        "temperature": lambda: (
            _keep_largest if settings.greedy else logits_process.TemperatureLogitsWarper(settings.temperature)
        ),
        "top_k": lambda: logits_process.TopKLogitsWarper(settings.top_k),
        "top_p": lambda: logits_process.TopPLogitsWarper(settings.top_p),
        "min_p": lambda: logits_process.MinPLogitsWarper(settings.min_p),
    }
    return [(stage, make[stage]()) for stage in STAGES if settings.is_active(stage)]


def _keep_largest(context_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Remove all but the token that `generate(do_sample=False)` takes: the first of the largest."""
    import torch

    kept = torch.full_like(logits, -math.inf)
    return kept.scatter(1, logits.argmax(dim=-1, keepdim=True), 0.0)


def apply_stages(
    logits: np.ndarray, context_ids: Sequence[int], settings: SamplingSettings
) -> SamplingResult:
    """Run the logits `(vocab_size,)` through all stages, in float32 as `generate` does, and say what each did.

    Only the probabilities that are told are summed up more exactly (`exact_probs`) than those that it draws from.
    `context_ids` is the text so far as token ids, prompt included; the first two stages read it. Raises InputError
    and UnsupportedError as `filter_logits` and `check_vocabulary` do.
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

    probs = model_probs = _probs(start)
    alive = start[0].numpy() > -math.inf
    entropy = entropy_bits(probs)
    removed_by = np.full(len(logits), -1, dtype=np.int8)
    stages = []
    for index, name in enumerate(STAGES):
        before, entropy_before, n_removed, mass_removed = probs, entropy, 0, 0.0
        if name in outputs:
            still_alive = outputs[name][0].numpy() > -math.inf
            removed = alive & ~still_alive
            n_removed = int(removed.sum())
            mass_removed = float(before[removed].sum(dtype=np.float64))
            removed_by[removed] = index
            alive, probs = still_alive, _probs(outputs[name])
            entropy = entropy_bits(probs)
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
                probs=probs,
            )
        )
    return SamplingResult(
        stages=tuple(stages),
        model_probs=model_probs,
        probs=probs,
        removed_by=removed_by,
        greedy=settings.greedy,
    )


def exact_probs(logits: torch.Tensor) -> torch.Tensor:
    """Probabilities `(vocab_size,)` float32 of logits `(1, vocab_size)`, summed up in float64.

    A softmax in float32 over 50,257 tokens is off by up to 2e-5, because small terms are lost beside the sum.
    """
    import torch

    return logits[0].softmax(dim=-1, dtype=torch.float64).to(torch.float32)


def _probs(logits: torch.Tensor) -> np.ndarray:
    probs: np.ndarray = exact_probs(logits).numpy()
    return probs


def _stage_label(name: str, settings: SamplingSettings) -> str:
    label = SETTING_RANGES[name].label
    if name == "temperature" and settings.greedy:
        return f"{label} 0: greedy, everything on the most probable token"
    if settings.greedy and STAGES.index(name) > STAGES.index("temperature"):
        return f"{label}: not used, greedy"
    value = getattr(settings, name)
    return f"{label} {value:g}" if settings.is_active(name) else f"{label} {value:g}: off"


def entropy_bits(probs: np.ndarray) -> float:
    """Shannon entropy of probabilities `(vocab_size,)`, in bits; tokens with probability 0 add nothing."""
    positive = probs[probs > 0]
    # Half a millionth of a bit of rounding would otherwise show as a negative entropy where one token has it all.
    return max(0.0, -float(np.dot(positive, np.log2(positive, dtype=np.float64))))


def draw_token(probs: torch.Tensor, generator: torch.Generator) -> int:
    """A token id drawn from probabilities `(vocab_size,)` with that generator alone, as `generate` draws it."""
    import torch

    return int(torch.multinomial(probs[None], num_samples=1, generator=generator))
