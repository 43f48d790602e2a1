"""Ready-made settings, the call of `generate` and the program that a reader can copy."""

import contextlib
import dataclasses
import io
import json

import pytest
import torch
from transformers import GenerationConfig

from gpt_core import recipes
from gpt_core.beams import beam_search
from gpt_core.catalog import BUNDLED_FOLDER
from gpt_core.decoding import STAGES, BeamSettings, GenerationSettings, SamplingSettings
from gpt_core.errors import InputError
from gpt_core.generation import generate_tokens, grow_branch
from gpt_core.model import LanguageModel
from gpt_core.recipes import (
    describe_settings,
    generate_call,
    new_tokens_within,
    presets,
    read_settings,
    sequence_settings,
    snippet,
    write_settings,
)

PROMPT = 'It\'s a "small" dog\\cat,\nand <b>bold</b> 👧 said:'

SETTINGS = [
    GenerationSettings(max_new_tokens=8, seed=7),
    GenerationSettings(max_new_tokens=8, do_sample=False),
    GenerationSettings(
        max_new_tokens=12,
        seed=2**40,
        stop_strings=(" the", '"'),
        sampling=SamplingSettings(
            temperature=0.9, top_k=50, top_p=0.95, min_p=0.01, repetition_penalty=1.1, no_repeat_ngram=3
        ),
    ),
    GenerationSettings(
        max_new_tokens=10,
        seed=3,
        sampling=SamplingSettings(logit_bias=((262, 4.0), (11, -3.0)), typical_p=0.8, temperature=1.2),
    ),
    GenerationSettings(
        max_new_tokens=10,
        seed=4,
        sampling=SamplingSettings(
            presence_penalty=1.5, frequency_penalty=0.5, top_k=20, logit_bias=((262, 2.0),)
        ),
    ),
    GenerationSettings(
        max_new_tokens=10, do_sample=False, sampling=SamplingSettings(frequency_penalty=1.5, top_k=20)
    ),
    GenerationSettings(
        max_new_tokens=10,
        seed=5,
        sampling=SamplingSettings(
            temperature=3.0,
            top_p=0.7,
            top_k=30,
            order=(*STAGES[:5], "top_p", "top_k", "temperature", *STAGES[8:]),
        ),
    ),
    GenerationSettings(
        max_new_tokens=10,
        seed=6,
        sampling=SamplingSettings(
            temperature=0.3, top_k=2, repetition_penalty=1.4, switched_off=("top_k", "temperature")
        ),
    ),
]
NAMES = ["sampled", "greedy", "everything", "bias", "seen", "greedy seen", "order", "switched off"]


def run_program(program: str) -> str:
    """What the program prints, with the global generator left as it was."""
    printed = io.StringIO()
    with torch.random.fork_rng(), contextlib.redirect_stdout(printed):
        exec(compile(program, "snippet", "exec"), {"__name__": "__main__"})
    return printed.getvalue()


@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
def test_the_program_prints_the_text_on_the_page(
    settings: GenerationSettings, bundled: LanguageModel
) -> None:
    ids = bundled.tokenizer.backend_tokenizer.encode(PROMPT).ids
    text = list(generate_tokens(bundled, ids, settings))[-1].text
    assert run_program(snippet(str(BUNDLED_FOLDER), PROMPT, settings, bundled)) == text + "\n"


def test_the_programs_differ_where_their_texts_do(bundled: LanguageModel) -> None:
    """A program that forgot a stage would print another text than the page: each of these stages matters here."""
    ids = bundled.tokenizer.backend_tokenizer.encode(PROMPT).ids
    for settings in SETTINGS[3:]:
        plain = dataclasses.replace(settings, sampling=SamplingSettings())
        if settings.sampling.order != STAGES:
            plain = dataclasses.replace(
                settings, sampling=dataclasses.replace(settings.sampling, order=STAGES)
            )
        with_stages, without = (
            list(generate_tokens(bundled, ids, one))[-1].text for one in (settings, plain)
        )
        assert with_stages != without


def test_the_program_of_several_runs_prints_them_in_order(bundled: LanguageModel) -> None:
    ids = bundled.tokenizer.backend_tokenizer.encode(PROMPT).ids
    runs = (*sequence_settings(SETTINGS[0], 3), SETTINGS[4], SETTINGS[1])
    program = snippet(str(BUNDLED_FOLDER), PROMPT, runs, bundled)
    assert "for seed in [7, 8, 9]:" in program
    expected = [list(generate_tokens(bundled, ids, run))[-1].text for run in runs]
    assert run_program(program) == "".join(text + "\n" for text in expected)


def test_the_program_of_a_branch(bundled: LanguageModel) -> None:
    ids = bundled.tokenizer.backend_tokenizer.encode(PROMPT).ids
    taken = (" the", " old")
    taken_ids = [bundled.tokenizer.backend_tokenizer.encode(word).ids[0] for word in taken]
    branch = list(grow_branch(bundled, ids, taken_ids, SETTINGS[2]))
    program = snippet(str(BUNDLED_FOLDER), PROMPT, SETTINGS[2], bundled, taken_ids=taken_ids)
    assert branch[-1].text.startswith(" the old")
    assert run_program(program) == branch[-1].text + "\n"


def test_the_program_of_a_branch_that_ends_with_the_token_that_was_taken(bundled: LanguageModel) -> None:
    taken_ids = bundled.tokenizer.backend_tokenizer.encode(" the end").ids
    program = snippet(str(BUNDLED_FOLDER), PROMPT, (), bundled, taken_ids=taken_ids)
    assert "generate" not in program
    assert run_program(program) == " the end\n"


def test_the_beam_program_prints_all_texts(bundled: LanguageModel) -> None:
    settings = BeamSettings(n_beams=3, n_return=2, max_new_tokens=5)
    ids = bundled.tokenizer.backend_tokenizer.encode(PROMPT).ids
    texts = [beam.text for beam in beam_search(bundled, ids, settings).beams]
    assert run_program(snippet(str(BUNDLED_FOLDER), PROMPT, settings, bundled)) == "".join(
        t + "\n" for t in texts
    )


def test_the_call_says_every_setting() -> None:
    assert set(generate_call(GenerationSettings())) == {
        "max_new_tokens", "do_sample", "num_beams", "repetition_penalty", "no_repeat_ngram_size",
        "temperature", "top_k", "top_p", "min_p", "typical_p",
    }  # fmt: skip
    # `generate` would warn of settings that have no part in a greedy choice.
    assert not {"temperature", "top_k", "top_p", "min_p", "typical_p"} & set(
        generate_call(GenerationSettings(do_sample=False))
    )
    config = GenerationConfig(**generate_call(SETTINGS[2]))
    assert (config.top_k, config.no_repeat_ngram_size, config.stop_strings) == (50, 3, [" the", '"'])


def test_nothing_that_generate_has_is_left_to_itself(bundled: LanguageModel) -> None:
    """Every option of `generate` is in the call, or has a value at which it does nothing, or changes no text."""
    said = {name for run in (*SETTINGS, BeamSettings()) for name in generate_call(run, bundled)}
    assert "pad_token_id" in said
    changes_no_text = {
        # How it is computed, and what is handed back.
        "use_cache", "cache_implementation", "cache_config", "max_cache_len", "prefill_chunk_size", "low_memory",
        "compile_config", "disable_compile", "continuous_batching_config", "output_attentions",
        "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate",
        # Guessing ahead: only with an assistant or a lookup, which the call does not name or switches off.
        "is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold",
        "assistant_early_exit", "assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight",
        "max_matching_ngram_size", "speculation_type", "use_mtp",
        # The model's own tokens, which the page's loop takes from the same place.
        "bos_token_id", "eos_token_id", "decoder_start_token_id",
        # `max_new_tokens` goes before it.
        "max_length",
        "_from_model_config", "transformers_version",
    }  # fmt: skip
    neutral = recipes._NEUTRAL
    assert set(GenerationConfig().to_dict()) - said - set(neutral) == changes_no_text
    filled = GenerationConfig._get_default_generation_params()
    assert {name: filled[name] for name in set(filled) & set(neutral)} == {
        name: neutral[name] for name in set(filled) & set(neutral)
    }


def test_each_sequence_is_a_run_of_its_own() -> None:
    settings = GenerationSettings(seed=10)
    assert [s.seed for s in sequence_settings(settings, 3)] == [10, 11, 12]
    assert sequence_settings(GenerationSettings(do_sample=False), 3) == (GenerationSettings(do_sample=False),)
    for n in (0, 9, 10**6, "2"):
        with pytest.raises(InputError, match="`n_sequences`"):
            sequence_settings(settings, n)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`seed`"):
        sequence_settings(GenerationSettings(seed=2**63 - 1), 2)


@pytest.mark.parametrize(
    ("max_length", "n_prompt", "context", "expected"),
    [
        (55, 48, 512, 7),
        (55, 55, 512, 1),
        (55, 80, 512, 1),
        (512, 300, 512, 212),
        (512, 300, 400, 100),
        (250, 20, 64, 44),
    ],
)
def test_max_length_counts_the_prompt(max_length: int, n_prompt: int, context: int, expected: int) -> None:
    assert new_tokens_within(max_length, n_prompt, context_length=context) == expected


def test_presets_are_the_notebooks_and_fit() -> None:
    found = {preset.name: preset for preset in presets(15, context_length=512)}
    assert not found["Greedy"].settings.do_sample
    notebook = {
        "Notebook: continue": (SamplingSettings(top_k=50), 15),
        "Notebook: sentiment": (SamplingSettings(top_k=2, temperature=0.1), 40),
        "Notebook: questions": (SamplingSettings(top_k=2, temperature=0.7), 235),
        "Notebook: summary": (SamplingSettings(top_k=3, temperature=0.5, no_repeat_ngram=3), 497),
    }
    for name, (shape, new) in notebook.items():
        assert found[name].settings == GenerationSettings(sampling=shape, max_new_tokens=new)
        assert str(new) in found[name].note
    assert "Creative" in found
    for n_prompt in (1, 54, 55, 511):
        for preset in presets(n_prompt, context_length=512):
            assert n_prompt + preset.settings.max_new_tokens <= 512


@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
def test_settings_travel_as_json(settings: GenerationSettings) -> None:
    written = json.loads(json.dumps(write_settings(settings)))
    read = read_settings(written, dataclasses.replace(settings, sampling=SamplingSettings()))
    assert read == settings
    # Prompt, length, seed and stop strings are those of the page that reads them.
    base = GenerationSettings(max_new_tokens=3, seed=1)
    assert (read_settings(written, base).seed, read_settings(written, base).max_new_tokens) == (1, 3)


@pytest.mark.parametrize(
    "written",
    [
        None,
        [],
        "x",
        {"seed": 5},
        {"temperature": "hot"},
        {"temperature": float("nan")},
        {"order": ["top_k"]},
        {"top_k": -1},
    ],
)
def test_settings_that_are_none_are_refused(written: object) -> None:
    with pytest.raises(InputError):
        read_settings(written, GenerationSettings())


def test_settings_in_a_few_words() -> None:
    assert describe_settings(SETTINGS[0]) == "plain draw"
    assert describe_settings(SETTINGS[1]) == "greedy"
    assert describe_settings(SETTINGS[2]) == (
        "repetition penalty 1.1, no-repeat n-gram 3, temperature 0.9, top-k 50, top-p 0.95, min-p 0.01"
    )
    assert describe_settings(SETTINGS[3]) == "2 biased, temperature 1.2, typical-p 0.8"
    assert describe_settings(SETTINGS[5]) == "greedy, frequency penalty 1.5"
    assert describe_settings(SETTINGS[6]) == "top-p 0.7, top-k 30, temperature 3, own order"
    assert describe_settings(SETTINGS[7]) == "repetition penalty 1.4"
