"""From logits to the token that is drawn: the stages that `generate` applies, in its order, one at a time.

The stages are transformers' own logits processors; the generator and the sliders of a page run this same code, so
what a page shows about a stage is what happened to the text. Does not know where logits come from.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt_core.errors import InputError, UnsupportedError
from gpt_core.validation import check_integer, check_number

if TYPE_CHECKING:
    import torch

#: The stages in `generate`'s order. The first two always run; the others only where a token is drawn at random.
STAGES = ("repetition_penalty", "no_repeat_ngram", "temperature", "top_k", "top_p", "min_p")


@dataclass(frozen=True, kw_only=True, slots=True)
class SettingRange:
    """What one sampling setting may be, and what it does."""

    label: str
    """What a reader sees beside the slider."""
    low: float
    """Smallest value; not allowed itself where `low_open`."""
    high: float
    """Largest value."""
    low_open: bool = False
    """True: values must be above `low`."""
    off: float
    """The value at which the stage does nothing; also the default."""
    slider: tuple[float, float, float]
    """Lowest, highest and step of a slider over the useful part of the range."""
    explanation: str
    """One sentence: what it does to the distribution."""


SETTING_RANGES: dict[str, SettingRange] = {
    "repetition_penalty": SettingRange(
        label="Repetition penalty",
        low=0.1,
        high=10.0,
        off=1.0,
        slider=(0.8, 2.0, 0.05),
        explanation=(
            "For every token that is already in the text, prompt included, a positive logit is divided by this "
            "number and a negative one multiplied by it: above 1 discourages repetition, below 1 encourages it, "
            "1 is off."
        ),
    ),
    "no_repeat_ngram": SettingRange(
        label="No-repeat n-gram",
        low=0,
        high=100,
        off=0,
        slider=(0, 10, 1),
        explanation=(
            "Bans every token that would complete a run of this many tokens which is already in the text, prompt "
            "included; 0 is off."
        ),
    ),
    "temperature": SettingRange(
        label="Temperature",
        low=0.0,
        high=100.0,
        off=1.0,
        slider=(0.0, 2.0, 0.05),
        explanation=(
            "Divides all logits before the softmax: below 1 sharpens the distribution, above 1 flattens it, 1 leaves "
            "it as the model gives it, and 0 always takes the most probable token (greedy)."
        ),
    ),
    "top_k": SettingRange(
        label="Top-k",
        low=0,
        high=10_000_000,
        off=0,
        slider=(0, 200, 1),
        explanation=(
            "Keeps the k most probable tokens, and any that tie with the last of them; 0 is off (left unsaid, "
            "`generate` takes 50)."
        ),
    ),
    "top_p": SettingRange(
        label="Top-p",
        low=0.0,
        high=1.0,
        low_open=True,
        off=1.0,
        slider=(0.01, 1.0, 0.01),
        explanation=(
            "Keeps the smallest set of most probable tokens whose probabilities, as the stages before left them, add "
            "up to at least p; 1 is off."
        ),
    ),
    "min_p": SettingRange(
        label="Min-p",
        low=0.0,
        high=1.0,
        off=0.0,
        slider=(0.0, 1.0, 0.01),
        explanation=(
            "Keeps the tokens that are at least this share as probable as the most probable one; 0 is off."
        ),
    ),
}

#: Temperatures above 0 and below this are refused: logits divided by so little no longer fit what float32 can tell
#: apart, and the most probable token takes everything anyway.
LOWEST_TEMPERATURE = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingSettings:
    """How a distribution is shaped before a token is drawn. The defaults leave it as the model gives it.

    Raises InputError for a value outside SETTING_RANGES, NaN included.
    """

    repetition_penalty: float = 1.0
    """Factor on the logits of tokens already in the text (arXiv:1909.05858); 1 is off."""
    no_repeat_ngram: int = 0
    """Length in tokens of the runs that may not occur twice; 0 is off."""
    temperature: float = 1.0
    """Divisor of the logits; 0 is greedy."""
    top_k: int = 0
    """Tokens kept; 0 is off."""
    top_p: float = 1.0
    """Probability kept (arXiv:1904.09751); 1 is off."""
    min_p: float = 0.0
    """Smallest share of the largest probability that is kept (arXiv:2407.01082); 0 is off."""

    def __post_init__(self) -> None:
        """Check every value and store it as a plain int or float."""
        for name, value_range in SETTING_RANGES.items():
            value: Any = getattr(self, name)
            checked: float | int
            if name in {"no_repeat_ngram", "top_k"}:
                checked = check_integer(name, value, low=int(value_range.low), high=int(value_range.high))
            else:
                checked = check_number(
                    name, value, low=value_range.low, high=value_range.high, low_open=value_range.low_open
                )
            object.__setattr__(self, name, checked)
        if 0 < self.temperature < LOWEST_TEMPERATURE:
            raise InputError(
                f"`temperature` must be 0 (greedy) or a number from {LOWEST_TEMPERATURE:g} to "
                f"{SETTING_RANGES['temperature'].high:g}. Given: {self.temperature:g}. Use 0: the most probable token."
            )

    @property
    def greedy(self) -> bool:
        """True where the most probable token is taken and nothing is drawn."""
        return self.temperature == 0

    def is_active(self, stage: str) -> bool:
        """Whether that stage of STAGES does anything. Greedy, nothing after the temperature does."""
        if self.greedy and STAGES.index(stage) > STAGES.index("temperature"):
            return False
        return bool(getattr(self, stage) != SETTING_RANGES[stage].off)


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
    from transformers import generation

    make: dict[str, Callable[[], Any]] = {
        "repetition_penalty": lambda: generation.RepetitionPenaltyLogitsProcessor(settings.repetition_penalty),
        "no_repeat_ngram": lambda: generation.NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram),
        "temperature": lambda: (
            _keep_largest if settings.greedy else generation.TemperatureLogitsWarper(settings.temperature)
        ),
        "top_k": lambda: generation.TopKLogitsWarper(settings.top_k),
        "top_p": lambda: generation.TopPLogitsWarper(settings.top_p),
        "min_p": lambda: generation.MinPLogitsWarper(settings.min_p),
    }
    return [(stage, make[stage]()) for stage in STAGES if settings.is_active(stage)]


def _keep_largest(context_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Remove all but the token that `generate(do_sample=False)` takes: the first of the largest."""
    import torch

    kept = torch.full_like(logits, -math.inf)
    return kept.scatter(1, logits.argmax(dim=-1, keepdim=True), 0.0)


def apply_stages(logits: np.ndarray, context_ids: Sequence[int], settings: SamplingSettings) -> SamplingResult:
    """Run the logits `(vocab_size,)` through all stages, in float32 as `generate` does, and say what each did.

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

    probs = model_probs = _softmax(start)
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
            alive, probs = still_alive, _softmax(outputs[name])
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


def _softmax(logits: torch.Tensor) -> np.ndarray:
    probs: np.ndarray = logits.softmax(dim=-1)[0].numpy()
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


def greedy_settings(settings: SamplingSettings) -> SamplingSettings:
    """The same settings at temperature 0."""
    return dataclasses.replace(settings, temperature=0.0)


def draw_token(probs: torch.Tensor, generator: torch.Generator) -> int:
    """A token id drawn from probabilities `(vocab_size,)` with that generator alone, as `generate` draws it."""
    import torch

    return int(torch.multinomial(probs[None], num_samples=1, generator=generator))
