"""Ready-made settings, and the same request as a call of `generate`. Runs no model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt_core.decoding import MAX_SEED, BeamSettings, GenerationSettings, SamplingSettings, check_range
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


def presets(n_prompt_tokens: int, *, context_length: int, seed: int = 42) -> tuple[Preset, ...]:
    """Greedy, the notebook's settings, and a creative one, for a prompt of that many tokens.

    The notebook's `max_length` counts the prompt; here it becomes `max_new_tokens`, at least 1 and at most what the
    context leaves.
    """
    room = max(1, context_length - n_prompt_tokens)
    found = [
        Preset(
            name="Greedy",
            note="Always the most probable token; no random number is drawn.",
            settings=GenerationSettings(do_sample=False, max_new_tokens=min(40, room), seed=seed),
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
                settings=GenerationSettings(sampling=shape, max_new_tokens=new, seed=seed),
            )
        )
    found.append(
        Preset(
            name="Creative",
            note="A flatter distribution without its improbable tail, and fewer repetitions.",
            settings=GenerationSettings(
                sampling=SamplingSettings(temperature=1.1, top_p=0.95, repetition_penalty=1.1),
                max_new_tokens=min(60, room),
                seed=seed,
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
}


def generate_call(
    settings: GenerationSettings | BeamSettings, lm: LanguageModel | None = None
) -> dict[str, Any]:
    """Keyword arguments with which `model.generate(**inputs, ...)` gives the same tokens.

    Every setting is said, because `generate` has defaults of its own (top_k 50) and a model may bring others. With
    `lm`, what else its generation_config sets is switched off by name. For a draw, call `torch.manual_seed(seed)`
    just before; `stop_strings` also needs `tokenizer=`.
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
    call |= {"repetition_penalty": shape.repetition_penalty, "no_repeat_ngram_size": shape.no_repeat_ngram}
    if not shape.greedy:
        call |= {
            "temperature": shape.temperature,
            "top_k": shape.top_k,
            "top_p": shape.top_p,
            "min_p": shape.min_p,
        }
    if isinstance(settings, GenerationSettings) and settings.stop_strings:
        call["stop_strings"] = list(settings.stop_strings)
    config = None if lm is None else lm.network.generation_config
    if config is not None:
        call |= {
            name: neutral
            for name, neutral in _NEUTRAL.items()
            if name not in call and getattr(config, name, None) not in (None, neutral)
        }
    return call


def snippet(
    model: str,
    prompt: str,
    settings: GenerationSettings | BeamSettings,
    lm: LanguageModel | None = None,
    *,
    special_tokens: bool = True,
) -> str:
    """A Python program of plain transformers that prints the same continuation (of a beam search: all of them).

    `model` is what `from_pretrained` takes: a name on the hub or a folder. Without `special_tokens`, names of
    special tokens in the prompt are plain text.
    """
    call = generate_call(settings, lm)
    draws = bool(call["do_sample"])
    lines = [
        "import torch",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f"tokenizer = AutoTokenizer.from_pretrained({model!r})",
        f"model = AutoModelForCausalLM.from_pretrained({model!r}, dtype=torch.float32).eval()",
        "",
        f"prompt = {prompt!r}",
        f'inputs = tokenizer(prompt, return_tensors="pt"{"" if special_tokens else ", split_special_tokens=True"})',
        *(
            [f"torch.manual_seed({settings.seed})"]
            if isinstance(settings, GenerationSettings) and draws
            else []
        ),
        "output = model.generate(",
        "    **inputs,",
        *(f"    {name}={value!r}," for name, value in call.items()),
        *(["    tokenizer=tokenizer,"] if call.get("stop_strings") else []),
        ")",
        'n_prompt = inputs["input_ids"].shape[1]',
        "for ids in output:",
        "    print(tokenizer.decode(ids[n_prompt:], skip_special_tokens=True))",
    ]
    return "\n".join(lines) + "\n"
