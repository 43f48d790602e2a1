"""What may be asked of a continuation: every setting with its bounds and what it does. Runs no model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gpt_core.errors import InputError
from gpt_core.validation import check_integer, check_number

#: The stages in `generate`'s order (GenerationMixin._get_logits_processor). Those before the temperature always run;
#: the temperature and the filters after it only where a token is drawn at random. Presence and frequency penalty are
#: not among `generate`'s own settings: they stand where it runs processors that it is given.
STAGES = (
    "logit_bias",
    "repetition_penalty",
    "no_repeat_ngram",
    "presence_penalty",
    "frequency_penalty",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
)
NOT_IN_GENERATE = ("presence_penalty", "frequency_penalty")
#: The stages that keep or remove tokens by their probability; greedy needs none of them.
FILTERS = ("top_k", "top_p", "min_p", "typical_p")
#: What a reader sees of each stage.
STAGE_LABELS = {"logit_bias": "Logit bias"}
#: Most tokens with a logit bias of their own, and the largest bias (OpenAI's API allows the same range).
MAX_BIASED_TOKENS = 300
MAX_BIAS = 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SettingRange:
    """What one setting may be, and what it does."""

    label: str
    """What a reader sees beside the slider."""
    low: float
    """Smallest value; not allowed itself where `low_open`."""
    high: float
    """Largest value."""
    low_open: bool = False
    """True: values must be above `low`."""
    default: float
    """Where nothing else is said; of a sampling stage, the value at which it does nothing."""
    slider: tuple[float, float, float]
    """Lowest, highest and step of a slider over the useful part of the range."""
    explanation: str
    """One sentence: what it does."""


SETTING_RANGES: dict[str, SettingRange] = {
    "repetition_penalty": SettingRange(
        label="Repetition penalty",
        low=0.1,
        high=10.0,
        default=1.0,
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
        default=0,
        slider=(0, 10, 1),
        explanation=(
            "Bans every token that would complete a run of this many tokens which is already in the text, prompt "
            "included; 0 is off."
        ),
    ),
    "presence_penalty": SettingRange(
        label="Presence penalty",
        low=-10.0,
        high=10.0,
        default=0.0,
        slider=(-2.0, 2.0, 0.1),
        explanation=(
            "Taken off the logit of every token that is already in the text, prompt included, however often it "
            "occurs; 0 is off. `generate` has no such setting; OpenAI's API counts only the new text."
        ),
    ),
    "frequency_penalty": SettingRange(
        label="Frequency penalty",
        low=-10.0,
        high=10.0,
        default=0.0,
        slider=(-2.0, 2.0, 0.1),
        explanation=(
            "Taken off the logit of a token once for each time that it is in the text, prompt included; 0 is off. "
            "`generate` has no such setting; OpenAI's API counts only the new text."
        ),
    ),
    "temperature": SettingRange(
        label="Temperature",
        low=0.0,
        high=100.0,
        default=1.0,
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
        default=0,
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
        default=1.0,
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
        default=0.0,
        slider=(0.0, 1.0, 0.01),
        explanation=(
            "Keeps the tokens that are at least this share as probable as the most probable one; 0 is off."
        ),
    ),
    "typical_p": SettingRange(
        label="Typical-p",
        low=0.0,
        high=1.0,
        low_open=True,
        default=1.0,
        slider=(0.01, 1.0, 0.01),
        explanation=(
            "Keeps the tokens whose surprisal is nearest to the entropy, until their probabilities add up to at least "
            "this; it may remove the most probable token. 1 is off."
        ),
    ),
}
STAGE_LABELS |= {name: bounds.label for name, bounds in SETTING_RANGES.items()}

#: Temperatures above 0 and below this are refused: logits divided by so little no longer fit what float32 can tell
#: apart, and the most probable token takes everything anyway.
LOWEST_TEMPERATURE = 0.01


def _check_bias(value: Any) -> tuple[tuple[int, float], ...]:
    pairs = value.items() if isinstance(value, Mapping) else value
    if isinstance(pairs, str) or not isinstance(pairs, Iterable):
        raise InputError(f"`logit_bias` must be pairs of a token id and a number. Given: {repr(value)[:60]}.")
    found: dict[int, float] = {}
    for pair in pairs:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InputError(
                f"`logit_bias` must be pairs of a token id and a number. Given: {repr(pair)[:60]}."
            )
        token_id = check_integer("token id", pair[0], low=0, high=2**31 - 1)
        if token_id in found:
            raise InputError(f"`logit_bias` must name each token once. Given twice: {token_id}.")
        found[token_id] = check_number("logit_bias", pair[1], low=-MAX_BIAS, high=MAX_BIAS)
    if len(found) > MAX_BIASED_TOKENS:
        raise InputError(f"`logit_bias` must name at most {MAX_BIASED_TOKENS} tokens. Given: {len(found):,}.")
    # A bias of 0 does nothing.
    return tuple((token_id, bias) for token_id, bias in sorted(found.items()) if bias != 0)


def _check_stages(name: str, value: Any) -> tuple[str, ...]:
    """`value` as some of STAGES, in their order there."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InputError(f"`{name}` must be a list of stages. Given: {repr(value)[:60]}.")
    stages = tuple(value)
    for stage in stages:
        if stage not in STAGES:
            raise InputError(f"`{name}` must be among: {', '.join(STAGES)}. Given: {repr(stage)[:60]}.")
    return tuple(stage for stage in STAGES if stage in stages)


def _check_order(value: Any) -> tuple[str, ...]:
    order = () if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
    if len(order) != len(STAGES) or _check_stages("order", order) != STAGES:
        raise InputError(
            f"`order` must name each stage once: {', '.join(STAGES)}. Given: {repr(value)[:60]}."
        )
    return order


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingSettings:
    """How a distribution is shaped before a token is drawn. The defaults leave it as the model gives it.

    Raises InputError for a value outside SETTING_RANGES, NaN included, and for an order that is none.
    """

    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, number added to its logit) pairs, by id; a mapping is taken too. Empty is off."""
    repetition_penalty: float = 1.0
    """Factor on the logits of tokens already in the text (arXiv:1909.05858); 1 is off."""
    no_repeat_ngram: int = 0
    """Length in tokens of the runs that may not occur twice; 0 is off."""
    presence_penalty: float = 0.0
    """Taken off the logit of each token that is in the text; 0 is off."""
    frequency_penalty: float = 0.0
    """Taken off the logit of each token once for each of its occurrences in the text; 0 is off."""
    temperature: float = 1.0
    """Divisor of the logits; 0 is greedy."""
    top_k: int = 0
    """Tokens kept; 0 is off."""
    top_p: float = 1.0
    """Probability kept (arXiv:1904.09751); 1 is off."""
    min_p: float = 0.0
    """Smallest share of the largest probability that is kept (arXiv:2407.01082); 0 is off."""
    typical_p: float = 1.0
    """Probability kept, nearest to the entropy first (arXiv:2202.00666); 1 is off."""
    order: tuple[str, ...] = STAGES
    """The names of STAGES in the order in which they run; `generate`'s unless said otherwise."""
    switched_off: tuple[str, ...] = ()
    """Stages that do not run, whatever their value."""

    def __post_init__(self) -> None:
        """Check every value and store it as a plain int or float."""
        object.__setattr__(self, "logit_bias", _check_bias(self.logit_bias))
        object.__setattr__(self, "order", _check_order(self.order))
        object.__setattr__(self, "switched_off", _check_stages("switched_off", self.switched_off))
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
        return self.temperature == 0 and "temperature" not in self.switched_off

    @property
    def in_default_order(self) -> bool:
        """Whether the stages run in `generate`'s order."""
        return self.order == STAGES

    @property
    def run_order(self) -> tuple[str, ...]:
        """The order in which the stages run. Greedy, the choice of the largest logit comes after all penalties."""
        if not self.greedy:
            return self.order
        last = ("temperature", *FILTERS)
        return (
            *(s for s in self.order if s not in last),
            "temperature",
            *(s for s in self.order if s in FILTERS),
        )

    def is_active(self, stage: str) -> bool:
        """Whether that stage of STAGES does anything. Greedy, no filter does."""
        if stage in self.switched_off or (self.greedy and stage in FILTERS):
            return False
        if stage == "logit_bias":
            return bool(self.logit_bias)
        return bool(getattr(self, stage) != SETTING_RANGES[stage].default)


MAX_SEED = 2**63 - 1
MAX_STOP_STRINGS = 4
MAX_STOP_STRING_CHARACTERS = 200

GENERATION_RANGES: dict[str, SettingRange] = {
    "max_new_tokens": SettingRange(
        label="New tokens",
        low=1,
        high=100_000,
        default=40,
        slider=(1, 200, 1),
        explanation=(
            "Most tokens to add. The prompt is not counted, but prompt and new tokens together must fit into the "
            "model's context."
        ),
    ),
    "seed": SettingRange(
        label="Seed",
        low=0,
        high=MAX_SEED,
        default=42,
        slider=(0, 1000, 1),
        explanation=(
            "Start of this run's own random numbers: equal seeds, settings and prompts give equal texts, whoever "
            "else is generating."
        ),
    ),
    "n_sequences": SettingRange(
        label="Sequences",
        low=1,
        high=8,
        default=1,
        slider=(1, 8, 1),
        explanation="Continuations of the same prompt, each a run of its own: the second has the seed plus 1.",
    ),
    "n_alternatives": SettingRange(
        label="Alternatives",
        low=1,
        high=100,
        default=10,
        slider=(1, 50, 1),
        explanation="How many of the most probable tokens are kept at each step to look at.",
    ),
    "n_beams": SettingRange(
        label="Beams",
        low=2,
        high=16,
        default=4,
        slider=(2, 8, 1),
        explanation=(
            "Unfinished texts kept at each step: all their continuations compete, and the most probable ones go on."
        ),
    ),
    "n_return": SettingRange(
        label="Texts returned",
        low=1,
        high=16,
        default=4,
        slider=(1, 8, 1),
        explanation="How many of the best finished texts to show; at most the number of beams.",
    ),
    "length_penalty": SettingRange(
        label="Length penalty",
        low=-10.0,
        high=10.0,
        default=1.0,
        slider=(-2.0, 2.0, 0.5),
        explanation=(
            "A finished text is scored by its log-probability divided by its length to this power. Log-probabilities "
            "are negative, so above 0 favours long texts and below 0 short ones; 0 compares plain log-probabilities."
        ),
    ),
}


def check_range(name: str, value: Any, remedy: str = "") -> int:
    """`value` as an int inside the bounds of that setting of GENERATION_RANGES, else InputError."""
    bounds = GENERATION_RANGES[name]
    return check_integer(name, value, low=int(bounds.low), high=int(bounds.high), remedy=remedy)


_PLAIN = SamplingSettings()


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationSettings:
    """How a text is continued. Raises InputError for a value that is not possible."""

    sampling: SamplingSettings = _PLAIN
    """How the distribution is shaped before a token is taken."""
    max_new_tokens: int = 40
    """Most tokens to add; the prompt is not counted."""
    do_sample: bool = True
    """False: greedy. Then the temperature and the filters have no part, as in `generate`; logit bias and penalties
    have."""
    seed: int = 42
    """Start of the run's own random generator, 0 to 2**63 - 1. On a CPU only its lowest 32 bits count (torch's
    Mersenne Twister)."""
    stop_strings: tuple[str, ...] = ()
    """At most 4. The text ends with the token that completes one of them; it stays in the text."""
    n_alternatives: int = 10
    """Most probable tokens to report at each step."""

    def __post_init__(self) -> None:
        """Check every value."""
        if not isinstance(self.sampling, SamplingSettings):
            raise InputError(f"`sampling` must be SamplingSettings. Given: {type(self.sampling).__name__}.")
        if not isinstance(self.do_sample, bool):
            raise InputError(f"`do_sample` must be True or False. Given: {repr(self.do_sample)[:60]}.")
        for name in ("max_new_tokens", "seed", "n_alternatives"):
            object.__setattr__(self, name, check_range(name, getattr(self, name)))
        object.__setattr__(self, "stop_strings", _check_stop_strings(self.stop_strings))

    @property
    def effective_sampling(self) -> SamplingSettings:
        """The stages as they run: at temperature 0 where nothing is drawn."""
        if self.do_sample:
            return self.sampling
        switched_off = tuple(stage for stage in self.sampling.switched_off if stage != "temperature")
        return dataclasses.replace(self.sampling, temperature=0.0, switched_off=switched_off)


@dataclass(frozen=True, kw_only=True, slots=True)
class BeamSettings:
    """How beam search looks for probable texts. Raises InputError for a value that is not possible."""

    n_beams: int = 4
    """Unfinished texts kept at each step."""
    n_return: int = 4
    """Finished texts returned, best first."""
    max_new_tokens: int = 40
    """Most tokens to add; the prompt is not counted."""
    length_penalty: float = 1.0
    """Exponent of the length by which a text's log-probability is divided."""
    early_stopping: bool | Literal["never"] = False
    """True: stop as soon as `n_beams` texts are finished; False: when better ones are unlikely; "never": only when
    there cannot be better ones."""
    repetition_penalty: float = 1.0
    """As in SamplingSettings, but on log-probabilities: `generate` normalises before this stage in a beam search."""
    no_repeat_ngram: int = 0
    """As in SamplingSettings."""

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("n_beams", "n_return", "max_new_tokens"):
            object.__setattr__(self, name, check_range(name, getattr(self, name)))
        if self.n_return > self.n_beams:
            raise InputError(
                f"`n_return` must be at most `n_beams`, which is {self.n_beams}. Given: {self.n_return}."
            )
        bounds = GENERATION_RANGES["length_penalty"]
        object.__setattr__(
            self,
            "length_penalty",
            check_number("length_penalty", self.length_penalty, low=bounds.low, high=bounds.high),
        )
        if self.early_stopping not in (True, False, "never"):
            raise InputError(
                f"`early_stopping` must be True, False or 'never'. Given: {repr(self.early_stopping)[:60]}."
            )
        shaped = SamplingSettings(
            repetition_penalty=self.repetition_penalty, no_repeat_ngram=self.no_repeat_ngram
        )
        object.__setattr__(self, "repetition_penalty", shaped.repetition_penalty)
        object.__setattr__(self, "no_repeat_ngram", shaped.no_repeat_ngram)


def _check_stop_strings(stop_strings: Any) -> tuple[str, ...]:
    if isinstance(stop_strings, str) or not isinstance(stop_strings, Sequence):
        raise InputError(f"`stop_strings` must be a list of strings. Given: {repr(stop_strings)[:60]}.")
    if len(stop_strings) > MAX_STOP_STRINGS:
        raise InputError(f"`stop_strings` must be at most {MAX_STOP_STRINGS}. Given: {len(stop_strings):,}.")
    for text in stop_strings:
        if not isinstance(text, str) or not 0 < len(text) <= MAX_STOP_STRING_CHARACTERS:
            given = f"{len(text):,} characters" if isinstance(text, str) else repr(text)[:60]
            raise InputError(
                f"A stop string must have 1 to {MAX_STOP_STRING_CHARACTERS} characters. Given: {given}. "
                "Leave the list empty to stop at no string."
            )
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"A stop string must be valid Unicode text. Given: {ascii(text)[:60]}."
            ) from None
    return tuple(stop_strings)
