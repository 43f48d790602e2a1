"""Ready-made settings, and the same request as a call of `generate`. Runs no model."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt_core.decoding import (
    MAX_SEED,
    NOT_IN_GENERATE,
    SETTING_RANGES,
    STAGE_LABELS,
    STAGES,
    BeamSettings,
    GenerationSettings,
    SamplingSettings,
    check_range,
)
from gpt_core.errors import InputError
from gpt_core.generation import end_token_ids
from gpt_core.validation import check_integer

if TYPE_CHECKING:
    from gpt_core.model import LanguageModel


def sequence_settings(settings: GenerationSettings, n_sequences: int) -> tuple[GenerationSettings, ...]:
    """The settings of each of several continuations of one prompt: run number i has the seed `seed + i`.

    So each is a run of its own, whose text does not depend on how many others were asked for. Greedy has one answer,
    and gets one run. Raises InputError for more than 8, and for a seed that leaves no room.
    """
    n_sequences = check_range("n_sequences", n_sequences)
    if settings.effective_sampling.greedy:
        return (settings,)
    check_integer("seed", settings.seed, low=0, high=MAX_SEED - n_sequences + 1)
    return tuple(dataclasses.replace(settings, seed=settings.seed + i) for i in range(n_sequences))


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """Ready-made settings."""

    name: str
    """Short name for a list."""
    note: str
    """One sentence: what it is, and for the notebook's, what became of its `max_length`."""
    settings: GenerationSettings
    """The settings."""


#: The seed notebook's settings: name, what it used them for, sampling and `max_length`, which counts the prompt.
#: It never said `do_sample`: the pipeline of GPT-2 draws. Where it said no top-k, `generate` took 50.
_NOTEBOOK = (
    ("Notebook: continue", "a first continuation", SamplingSettings(top_k=50), 30),
    ("Notebook: sentiment", "few-shot sentiment", SamplingSettings(top_k=2, temperature=0.1), 55),
    ("Notebook: questions", "few-shot question answering", SamplingSettings(top_k=2, temperature=0.7), 250),
    (
        "Notebook: summary",
        "a summary",
        SamplingSettings(top_k=3, temperature=0.5, no_repeat_ngram=3),
        512,
    ),
)


def presets(n_prompt_tokens: int, *, context_length: int) -> tuple[Preset, ...]:
    """Greedy, the notebook's settings, and a creative one, for a prompt of that many tokens.

    The notebook's `max_length` counts the prompt; here it becomes `max_new_tokens`, at least 1 and at most what the
    context leaves.
    """
    room = max(1, context_length - n_prompt_tokens)
    found = [
        Preset(
            name="Greedy",
            note="Always the most probable token; no random number is drawn.",
            settings=GenerationSettings(do_sample=False, max_new_tokens=min(40, room)),
        )
    ]
    for name, use, shape, max_length in _NOTEBOOK:
        new = new_tokens_within(max_length, n_prompt_tokens, context_length=context_length)
        found.append(
            Preset(
                name=name,
                note=(
                    f"What the notebook used for {use}: its max_length={max_length} counts the prompt's "
                    f"{n_prompt_tokens:,} tokens, so {new:,} new one{'s' if new > 1 else ''} here."
                ),
                settings=GenerationSettings(sampling=shape, max_new_tokens=new),
            )
        )
    found.append(
        Preset(
            name="Creative",
            note="A flatter distribution without its improbable tail, and fewer repetitions.",
            settings=GenerationSettings(
                sampling=SamplingSettings(temperature=1.1, top_p=0.95, repetition_penalty=1.1),
                max_new_tokens=min(60, room),
            ),
        )
    )
    return tuple(found)


def new_tokens_within(max_length: int, n_prompt_tokens: int, *, context_length: int) -> int:
    """`max_new_tokens` for a `max_length` that counts the prompt: at least 1, at most what the context leaves."""
    return max(1, min(max_length, context_length) - n_prompt_tokens)


#: Settings that a model may bring in its generation_config.json and that would change the text behind a reader's
#: back, with the value at which each does nothing.
_NEUTRAL: dict[str, Any] = {
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "top_h": None,
    "min_length": 0,
    "min_new_tokens": None,
    "bad_words_ids": None,
    "sequence_bias": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "guidance_scale": None,
    "watermarking_config": None,
    "stop_strings": None,
    "max_time": None,
    "token_healing": False,
    "remove_invalid_values": False,
    "renormalize_logits": False,
    "prompt_lookup_num_tokens": None,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "penalty_alpha": None,
    "dola_layers": None,
    "constraints": None,
    "force_words_ids": None,
}


#: The classes of transformers that are the stages, with what each is given, as a program writes it.
_PROCESSORS: dict[str, Callable[[SamplingSettings], str]] = {
    "logit_bias": lambda s: f"SequenceBiasLogitsProcessor({_bias(s)!r})",
    "repetition_penalty": lambda s: f"RepetitionPenaltyLogitsProcessor({s.repetition_penalty!r})",
    "no_repeat_ngram": lambda s: f"NoRepeatNGramLogitsProcessor({s.no_repeat_ngram!r})",
    "presence_penalty": lambda s: f"SeenPenalty({s.presence_penalty!r}, each_time=False)",
    "frequency_penalty": lambda s: f"SeenPenalty({s.frequency_penalty!r}, each_time=True)",
    "temperature": lambda s: f"TemperatureLogitsWarper({s.temperature!r})",
    "top_k": lambda s: f"TopKLogitsWarper({s.top_k!r})",
    "top_p": lambda s: f"TopPLogitsWarper({s.top_p!r})",
    "min_p": lambda s: f"MinPLogitsWarper({s.min_p!r})",
    "typical_p": lambda s: f"TypicalLogitsWarper({s.typical_p!r})",
}

_SEEN_PENALTY = """\
class SeenPenalty(LogitsProcessor):
    \"\"\"Takes `penalty` off the logit of every token that is in the text, once or each time.\"\"\"

    def __init__(self, penalty, each_time):
        self.penalty, self.each_time = penalty, each_time

    def __call__(self, input_ids, scores):
        counts = torch.bincount(input_ids[0], minlength=scores.shape[-1])[None]
        return scores - self.penalty * (counts if self.each_time else counts > 0)
"""


def _bias(shape: SamplingSettings) -> dict[tuple[int], float]:
    return {(token_id,): bias for token_id, bias in shape.logit_bias}


def _active_stages(shape: SamplingSettings) -> tuple[str, ...]:
    """The stages that do something, in the order in which they run; greedy, without the choice itself."""
    return tuple(
        stage
        for stage in shape.run_order
        if shape.is_active(stage) and not (stage == "temperature" and shape.greedy)
    )


def _needs_processors(shape: SamplingSettings) -> bool:
    """Whether `generate` has no settings for this: penalties that it lacks, or another order than its own."""
    active = _active_stages(shape)
    return (
        any(stage in NOT_IN_GENERATE for stage in active)
        or tuple(stage for stage in STAGES if stage in active) != active
    )


def generate_call(
    settings: GenerationSettings | BeamSettings, lm: LanguageModel | None = None
) -> dict[str, Any]:
    """Keyword arguments with which `model.generate(**inputs, ...)` gives the same tokens.

    Every setting is said, because `generate` has defaults of its own (top_k 50) and a model may bring others. With
    `lm`, what else its generation_config sets is switched off by name. For a draw, call `torch.manual_seed(seed)`
    just before; `stop_strings` also needs `tokenizer=`. Where `generate` has no setting for a stage or its place, all
    are at the values where they do nothing, and `logits_processor=` is needed too, as `snippet` writes it.
    """
    call: dict[str, Any] = {"max_new_tokens": settings.max_new_tokens}
    if isinstance(settings, BeamSettings):
        call |= {
            "do_sample": False,
            "num_beams": settings.n_beams,
            "num_return_sequences": settings.n_return,
            "length_penalty": settings.length_penalty,
            "early_stopping": settings.early_stopping,
        }
        shape = SamplingSettings(
            repetition_penalty=settings.repetition_penalty,
            no_repeat_ngram=settings.no_repeat_ngram,
            temperature=0,
        )
    else:
        shape = settings.effective_sampling
        call |= {"do_sample": not shape.greedy, "num_beams": 1}
    # What is switched off, or stands elsewhere, is at the value where it does nothing.
    own = _needs_processors(shape)
    said = {
        stage: getattr(shape, stage)
        if stage in _active_stages(shape) and not own
        else SETTING_RANGES[stage].default
        for stage in STAGES
        if stage in SETTING_RANGES
    }
    call |= {
        "repetition_penalty": float(said["repetition_penalty"]),
        "no_repeat_ngram_size": said["no_repeat_ngram"],
    }
    if shape.is_active("logit_bias") and not own:
        call["sequence_bias"] = _bias(shape)
    if not shape.greedy:
        call |= {name: said[name] for name in ("temperature", "top_k", "top_p", "min_p", "typical_p")}
    if isinstance(settings, GenerationSettings) and settings.stop_strings:
        call["stop_strings"] = list(settings.stop_strings)
    config = None if lm is None else lm.network.generation_config
    if lm is not None and config is not None:
        # `generate` fills up with the first end token where the model names none, and warns.
        ends = end_token_ids(lm)
        if config.pad_token_id is not None or ends:
            call["pad_token_id"] = ends[0] if config.pad_token_id is None else config.pad_token_id
        call |= {
            name: neutral
            for name, neutral in _NEUTRAL.items()
            if name not in call and getattr(config, name, None) not in (None, neutral)
        }
    return call


def snippet(
    model: str,
    prompt: str,
    settings: GenerationSettings | BeamSettings | Sequence[GenerationSettings],
    lm: LanguageModel | None = None,
    *,
    special_tokens: bool = True,
    taken_ids: Sequence[int] = (),
) -> str:
    """A Python program of plain transformers that prints the same continuations, one after the other.

    `model` is what `from_pretrained` takes: a name on the hub or a folder. Several settings are several runs, such as
    those of `sequence_settings`. Without `special_tokens`, names of special tokens in the prompt are plain text. With
    `taken_ids`, that much of the continuation is given (a branch); without a run, it is all that is printed.
    """
    runs = (settings,) if isinstance(settings, (GenerationSettings, BeamSettings)) else tuple(settings)
    shapes = [run.effective_sampling for run in runs if isinstance(run, GenerationSettings)]
    own = [shape for shape in shapes if _needs_processors(shape)]
    stages = {stage for shape in own for stage in _active_stages(shape)}
    classes = {
        text.partition("(")[0] for shape in own for text in (_PROCESSORS[stage](shape) for stage in stages)
    } - {"SeenPenalty"}
    seen = bool(stages & set(NOT_IN_GENERATE))
    classes |= ({"LogitsProcessorList"} if own else set()) | ({"LogitsProcessor"} if seen else set())
    lines = [
        "import torch",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        *(
            ["from transformers.generation.logits_process import (  # the stages, one class each"]
            if own
            else []
        ),
        *(f"    {name}," for name in sorted(classes)),
        *([")"] if own else []),
        "",
        *(["", *_SEEN_PENALTY.splitlines(), "", ""] if seen else []),
        f"tokenizer = AutoTokenizer.from_pretrained({model!r})",
        f"model = AutoModelForCausalLM.from_pretrained({model!r}, dtype=torch.float32).eval()",
        "",
        f"prompt = {prompt!r}",
        f'inputs = tokenizer(prompt, return_tensors="pt"{"" if special_tokens else ", split_special_tokens=True"})',
        'n_prompt = inputs["input_ids"].shape[1]',
    ]
    if taken_ids:
        lines += [
            f"taken = torch.tensor([{list(taken_ids)!r}])  # the branch so far",
            'inputs["input_ids"] = torch.cat([inputs["input_ids"], taken], dim=1)',
            'inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])',
        ]
    for _, group in itertools.groupby(runs, key=lambda run: _without_seed(run, lm)):
        lines += _run_lines(list(group), lm)
    if not runs:
        lines.append('print(tokenizer.decode(inputs["input_ids"][0, n_prompt:], skip_special_tokens=True))')
    return "\n".join(lines) + "\n"


def _without_seed(run: GenerationSettings | BeamSettings, lm: LanguageModel | None) -> str:
    """Equal for runs that differ by their seed alone."""
    return repr(dataclasses.replace(run, seed=0) if isinstance(run, GenerationSettings) else run)


def _run_lines(runs: Sequence[GenerationSettings | BeamSettings], lm: LanguageModel | None) -> list[str]:
    """The part of a program that generates and prints `runs`, which differ by their seed alone."""
    first = runs[0]
    call = generate_call(first, lm)
    shape = first.effective_sampling if isinstance(first, GenerationSettings) else None
    own = shape is not None and _needs_processors(shape)
    lines: list[str] = []
    if own:
        assert shape is not None
        lines += [
            "processors = LogitsProcessorList(",
            "    [",
            *(f"        {_PROCESSORS[stage](shape)}," for stage in _active_stages(shape)),
            "    ]",
            ")",
        ]
    seeds = [run.seed for run in runs if isinstance(run, GenerationSettings)] if call["do_sample"] else []
    indent = ""
    if len(seeds) > 1:
        lines.append(f"for seed in {seeds!r}:")
        indent = "    "
    if seeds:  # in the reader's own program, where `generate` has no other way
        lines.append(f"{indent}torch.manual_seed({'seed' if len(seeds) > 1 else seeds[0]})")
    lines += [
        f"{indent}output = model.generate(",
        f"{indent}    **inputs,",
        *(f"{indent}    {name}={value!r}," for name, value in call.items()),
        *([f"{indent}    logits_processor=processors,"] if own else []),
        *([f"{indent}    tokenizer=tokenizer,"] if call.get("stop_strings") else []),
        f"{indent})",
        f"{indent}for ids in output:",
        f"{indent}    print(tokenizer.decode(ids[n_prompt:], skip_special_tokens=True))",
    ]
    return lines


def describe_settings(settings: GenerationSettings) -> str:
    """In a few words what is not at its default: `temperature 0.7, top-k 50`."""
    shape = settings.effective_sampling
    said = ["greedy"] if shape.greedy else []
    for stage in _active_stages(shape):
        if stage == "logit_bias":
            said.append(f"{len(shape.logit_bias)} biased")
        else:
            said.append(f"{STAGE_LABELS[stage].lower()} {getattr(shape, stage):g}")
    if not shape.in_default_order and not shape.greedy:
        said.append("own order")
    return ", ".join(said) or "plain draw"


def write_settings(settings: GenerationSettings) -> dict[str, Any]:
    """How the distribution is shaped, as plain values that JSON carries: what is not at its default."""
    plain = SamplingSettings()
    written: dict[str, Any] = {
        field.name: getattr(settings.sampling, field.name)
        for field in dataclasses.fields(SamplingSettings)
        if getattr(settings.sampling, field.name) != getattr(plain, field.name)
    }
    return written if settings.do_sample else {**written, "greedy": True}


def read_settings(written: Any, base: GenerationSettings) -> GenerationSettings:
    """`base` with the shape that `write_settings` wrote; InputError for anything else."""
    names = {field.name for field in dataclasses.fields(SamplingSettings)}
    if not isinstance(written, dict) or not set(written) <= names | {"greedy"}:
        raise InputError("Settings must be a list of names and values of the pipeline's settings.")
    values: dict[str, Any] = {
        name: tuple(tuple(v) if isinstance(v, list) else v for v in value)
        if isinstance(value, list)
        else value
        for name, value in written.items()
        if name != "greedy"
    }
    return dataclasses.replace(
        base, sampling=SamplingSettings(**values), do_sample=written.get("greedy") is not True
    )
