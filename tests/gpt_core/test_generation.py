"""The steps are `generate`'s own, token for token, and what each says of itself is true."""

import copy
import dataclasses
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from gpt_core.decoding import GenerationSettings, SamplingSettings
from gpt_core.errors import CancelledError, ContextLengthError, InputError
from gpt_core.generation import (
    GenerationStep,
    check_prompt,
    end_token_ids,
    generate_tokens,
    start_token_ids,
)
from gpt_core.model import LanguageModel
from gpt_core.recipes import generate_call

PROMPT = (464, 9429, 10163, 1398, 373, 845, 493, 2118, 278, 13, 314, 4499, 257, 1256, 13)

SHAPES = [
    SamplingSettings(),
    SamplingSettings(temperature=0.7),
    SamplingSettings(temperature=1.8),
    SamplingSettings(top_k=5),
    SamplingSettings(top_p=0.6),
    SamplingSettings(min_p=0.3),
    SamplingSettings(repetition_penalty=1.7),
    SamplingSettings(no_repeat_ngram=1),
    SamplingSettings(top_k=2, temperature=0.1),
    SamplingSettings(
        repetition_penalty=1.3, no_repeat_ngram=2, temperature=0.8, top_k=40, top_p=0.9, min_p=0.05
    ),
]


def reference_ids(lm: LanguageModel, settings: GenerationSettings, **more: Any) -> list[int]:
    """What plain `model.generate` gives, on the global generator, for the tokens after PROMPT."""
    prompt = torch.tensor([PROMPT])
    network: Any = lm.network
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)  # `generate` draws from no other generator
        output = network.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), **generate_call(settings, lm), **more
        )
    ids: list[int] = output[0, len(PROMPT) :].tolist()
    return ids


def our_ids(lm: LanguageModel, settings: GenerationSettings) -> list[int]:
    return [step.token_id for step in generate_tokens(lm, PROMPT, settings)]


@pytest.fixture(scope="session")
def choose_lm(bundled: LanguageModel, tiny_lm: Any) -> Callable[[str], LanguageModel]:
    return lambda name: bundled if name == "bundled" else tiny_lm(name)


# -- equal to generate --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("do_sample", [True, False], ids=["sampled", "greedy"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["gpt2", "llama", "bundled"])
def test_equal_to_generate(name: str, shape: SamplingSettings, do_sample: bool, choose_lm: Any) -> None:
    lm = choose_lm(name)
    settings = GenerationSettings(sampling=shape, max_new_tokens=16, do_sample=do_sample, seed=1234)
    assert our_ids(lm, settings) == reference_ids(lm, settings)


@pytest.mark.parametrize("name", ["mistral", "gemma2", "qwen3", "gpt_neox", "opt"])
def test_equal_to_generate_on_other_architectures(name: str, tiny_lm: Any) -> None:
    for do_sample in (True, False):
        settings = GenerationSettings(sampling=SHAPES[-1], max_new_tokens=20, do_sample=do_sample, seed=9)
        assert our_ids(tiny_lm(name), settings) == reference_ids(tiny_lm(name), settings)


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 + 5, 2**63 - 1])
def test_equal_to_generate_for_every_seed(seed: int, bundled: LanguageModel) -> None:
    settings = GenerationSettings(max_new_tokens=6, seed=seed)
    assert our_ids(bundled, settings) == reference_ids(bundled, settings)


def test_grid_is_not_trivial(bundled: LanguageModel) -> None:
    texts = {
        tuple(our_ids(bundled, GenerationSettings(sampling=shape, max_new_tokens=16, seed=1234)))
        for shape in SHAPES
    }
    assert len(texts) >= len(SHAPES) - 2


def test_temperature_0_is_greedy(bundled: LanguageModel) -> None:
    zero = GenerationSettings(sampling=SamplingSettings(temperature=0), max_new_tokens=12)
    greedy = GenerationSettings(do_sample=False, max_new_tokens=12)
    assert our_ids(bundled, zero) == our_ids(bundled, greedy) == reference_ids(bundled, zero)


@pytest.fixture
def end_at(bundled: LanguageModel) -> Callable[..., LanguageModel]:
    """A copy of the bundled model whose texts end at the given ids."""

    def make(ids: Any, **more: Any) -> LanguageModel:
        network: Any = copy.copy(bundled.network)
        network.generation_config = copy.deepcopy(bundled.network.generation_config)
        network.generation_config.eos_token_id = ids
        for name, value in more.items():
            setattr(network.generation_config, name, value)
        return dataclasses.replace(bundled, network=network)

    return make


@pytest.mark.parametrize("kind", ["one", "several", "none"])
def test_end_tokens_end_the_text_as_in_generate(kind: str, end_at: Any, bundled: LanguageModel) -> None:
    settings = GenerationSettings(max_new_tokens=16, seed=3)
    free = our_ids(bundled, settings)
    ids = {"one": free[5], "several": [free[9], free[5]], "none": None}[kind]
    lm = end_at(ids)
    steps = list(generate_tokens(lm, PROMPT, settings))
    assert [step.token_id for step in steps] == reference_ids(lm, settings)
    if kind == "none":
        assert end_token_ids(lm) == ()
        assert (len(steps), steps[-1].stop_reason) == (16, "length")
    else:
        assert len(steps) == free.index(free[5]) + 1
        assert steps[-1].stop_reason == "end token"
    assert all(step.stop_reason is None for step in steps[:-1])


def test_end_token_is_no_part_of_the_text(tiny_lm: Any, end_at: Any) -> None:
    lm = end_at(50256)
    network = lm.network
    forced = _ForcedLogits(network, [318, 50256])
    steps = list(generate_tokens(dataclasses.replace(lm, network=forced), PROMPT, GenerationSettings()))
    assert [step.text for step in steps] == [" is", " is"]
    assert steps[-1].stop_reason == "end token"


def test_settings_that_a_model_brings_have_no_part(end_at: Any, bundled: LanguageModel) -> None:
    settings = GenerationSettings(max_new_tokens=12, seed=3)
    free = our_ids(bundled, settings)
    lm = end_at(
        50256,
        top_k=1,
        temperature=0.2,
        top_p=0.1,
        min_p=0.9,
        repetition_penalty=3.0,
        no_repeat_ngram_size=1,
        typical_p=0.1,
        suppress_tokens=[free[0]],
        min_length=40,
    )
    call = generate_call(settings, lm)
    assert (call["typical_p"], call["suppress_tokens"], call["min_length"]) == (1.0, None, 0)
    assert our_ids(lm, settings) == reference_ids(lm, settings) == free


@pytest.mark.parametrize("name", ["gpt2", "llama", "bundled"])
def test_stop_strings_stop_as_in_generate(name: str, choose_lm: Any) -> None:
    lm = choose_lm(name)
    settings = GenerationSettings(max_new_tokens=20, seed=11)
    text = [step.text for step in generate_tokens(lm, PROMPT, settings)][-1]
    middle = len(text) // 2
    for stops in ([text[middle : middle + 3]], [text[3], "zzz"], [text[-1]], [". " + text[1:3]], ["lot."]):
        if any("\ufffd" in stop for stop in stops):
            continue
        stopping = dataclasses.replace(settings, stop_strings=tuple(stops))
        ours = list(generate_tokens(lm, PROMPT, stopping))
        assert [step.token_id for step in ours] == reference_ids(lm, stopping, tokenizer=lm.tokenizer)
        if ours[-1].stop_reason == "stop string":
            assert any(stop in "earned a lot." + ours[-1].text for stop in stops)
            assert not any(stop in step.text for step in ours[:-1] for stop in stops)


def test_stop_string_across_tokens_and_inside_one(bundled: LanguageModel) -> None:
    network = bundled.network

    def run(ids: list[int], stop: str) -> GenerationStep:
        lm = dataclasses.replace(bundled, network=_ForcedLogits(network, ids))
        return list(
            generate_tokens(lm, PROMPT, GenerationSettings(stop_strings=(stop,), max_new_tokens=len(ids)))
        )[-1]

    encode = bundled.tokenizer.backend_tokenizer.encode
    tokens = encode(" yes\n###\nText: no").ids
    last = run(tokens, "###")
    assert (last.text, last.stop_reason) == (" yes\n###", "stop string")
    last = run(encode(" Positive so").ids, "Posit")
    assert (last.text, last.stop_reason) == (" Positive", "stop string")
    # The last character of this family emoji needs several tokens.
    family = encode(" ok 👨‍👩‍👧 end").ids
    last = run(family, "👧")
    assert (last.text, last.stop_reason) == (" ok 👨‍👩‍👧", "stop string")


def test_a_stop_string_inside_the_prompt_does_not_stop(bundled: LanguageModel) -> None:
    settings = GenerationSettings(max_new_tokens=5, stop_strings=("class", "lot."), do_sample=False)
    assert len(list(generate_tokens(bundled, PROMPT, settings))) == 5


class _ForcedLogits(torch.nn.Module):
    """A network that wants the given tokens one after the other."""

    def __init__(self, network: Any, ids: list[int]) -> None:
        super().__init__()
        self.config, self.generation_config = network.config, network.generation_config
        left = iter(ids)
        # A function is not copied with a network: the copy goes on where this one is.
        self._next_id = lambda: next(left)

    def _supports_default_dynamic_cache(self) -> bool:
        return True

    def forward(self, input_ids: torch.Tensor, past_key_values: Any = None, **kwargs: Any) -> Any:
        logits = torch.full((1, 1, 50257), -100.0)
        logits[0, 0, self._next_id()] = 100.0
        return type("Output", (), {"logits": logits})()


# -- what a step says ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2", "llama", "bundled"])
def test_numbers_of_a_step_from_a_full_pass_without_cache(name: str, choose_lm: Any) -> None:
    lm = choose_lm(name)
    shape = SamplingSettings(temperature=0.8, top_k=30, top_p=0.95, repetition_penalty=1.2)
    steps = list(generate_tokens(lm, PROMPT, GenerationSettings(sampling=shape, max_new_tokens=12, seed=5)))
    ids = list(PROMPT) + [step.token_id for step in steps]
    with torch.inference_mode():
        logits = lm.network(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double()
    for index, step in enumerate(steps):
        row = logits[len(PROMPT) - 1 + index]
        probs = row.softmax(0)
        assert step.index == index
        assert step.prob == pytest.approx(float(probs[step.token_id]), abs=1e-5)
        assert step.entropy_bits == pytest.approx(float(-(probs * probs.log2()).sum()), abs=1e-3)
        # Rank by counting; neighbours closer than rounding may change places.
        close = int(((row - row[step.token_id]).abs() < 1e-5).sum())
        assert abs(step.rank - 1 - int((row > row[step.token_id]).sum())) < close
        top = probs.topk(10)
        assert np.allclose(step.alternative_probs, top.values, atol=1e-5)
        assert np.allclose(probs[torch.from_numpy(step.alternative_ids.copy())], top.values, atol=1e-5)
        # Filtered: penalty, temperature, then the 30 largest, then the nucleus, by hand.
        shaped = row.clone()
        seen = sorted(set(ids[: len(PROMPT) + index]))
        shaped[seen] = torch.where(shaped[seen] > 0, shaped[seen] / 1.2, shaped[seen] * 1.2)
        order = (shaped / 0.8).sort(descending=True)
        kept = order.values[:30].softmax(0)
        kept = kept[: int((kept.cumsum(0) < 0.95).sum()) + 1]
        place = order.indices.tolist().index(step.token_id)
        assert step.n_survivors == len(kept)
        assert step.filtered_prob == pytest.approx(float(kept[place] / kept.sum()), abs=1e-4)
        assert step.filtered_entropy_bits <= math.log2(30) + 1e-6
        assert (step.alternative_filtered_probs >= 0).all()


def test_tokens_that_the_model_itself_rules_out_do_not_survive(bundled: LanguageModel) -> None:
    class Ruled(_ForcedLogits):
        def forward(self, input_ids: torch.Tensor, past_key_values: Any = None, **kwargs: Any) -> Any:
            logits = torch.full((1, 1, 50257), -torch.inf)
            logits[0, 0, :5] = 0.0
            return type("Output", (), {"logits": logits})()

    lm = dataclasses.replace(bundled, network=Ruled(bundled.network, []))
    step = next(generate_tokens(lm, (0, 1, 2), GenerationSettings(max_new_tokens=1)))
    assert step.n_survivors == 5
    assert step.alternative_removed.tolist() == [False] * 5 + [True] * 5
    greedy = next(generate_tokens(lm, (0, 1, 2), GenerationSettings(max_new_tokens=1, do_sample=False)))
    assert (greedy.n_survivors, greedy.filtered_prob, greedy.alternative_removed.sum()) == (1, 1.0, 9)


def test_rank_counts_larger_logits_only(bundled: LanguageModel) -> None:
    class Flat(_ForcedLogits):
        def forward(self, input_ids: torch.Tensor, past_key_values: Any = None, **kwargs: Any) -> Any:
            logits = torch.zeros(1, 1, 50257)
            logits[0, 0, :3] = 1.0
            return type("Output", (), {"logits": logits})()

    lm = dataclasses.replace(bundled, network=Flat(bundled.network, []))
    shape = SamplingSettings(repetition_penalty=10.0)
    step = next(generate_tokens(lm, (0, 1, 2), GenerationSettings(sampling=shape, do_sample=False)))
    # All three favourites are penalised below... 0.1 > 0: the first of them is still largest.
    assert (step.token_id, step.rank) == (0, 1)
    step = next(
        generate_tokens(
            lm, (0, 1, 2), GenerationSettings(sampling=SamplingSettings(no_repeat_ngram=1), do_sample=False)
        )
    )
    assert (step.token_id, step.rank, step.filtered_prob) == (3, 4, 1.0)
    assert list(step.alternative_filtered_probs[:3]) == [0, 0, 0]


def test_greedy_step_has_filtered_probability_1(bundled: LanguageModel) -> None:
    for step in generate_tokens(bundled, PROMPT, GenerationSettings(do_sample=False, max_new_tokens=3)):
        assert (step.filtered_prob, step.n_survivors, step.filtered_entropy_bits, step.rank) == (1, 1, 0, 1)
        assert 0 < step.prob < 1


def test_text_grows_and_time_passes(bundled: LanguageModel) -> None:
    steps = list(generate_tokens(bundled, PROMPT, GenerationSettings(max_new_tokens=10, seed=2)))
    ids = [step.token_id for step in steps]
    assert steps[-1].text == bundled.tokenizer.decode(ids)
    assert [s.elapsed for s in steps] == sorted(s.elapsed for s in steps)
    assert steps[0].elapsed > 0
    with pytest.raises(ValueError, match="read-only"):
        steps[0].alternative_ids[0] = 1


def test_text_of_a_prompt_that_ends_inside_a_character(bundled: LanguageModel) -> None:
    ids = bundled.tokenizer.backend_tokenizer.encode("a 👧").ids
    lm = dataclasses.replace(bundled, network=_ForcedLogits(bundled.network, ids[2:]))
    steps = list(generate_tokens(lm, ids[:2], GenerationSettings(max_new_tokens=len(ids) - 2)))
    assert steps[-1].text.endswith("👧")


def test_prompt_is_read_once_and_only_its_last_logits_are_made(bundled: LanguageModel) -> None:
    calls = []

    class Watched(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = bundled.network.config
            self.generation_config = bundled.network.generation_config

        def _supports_default_dynamic_cache(self) -> bool:
            return True

        def forward(
            self,
            input_ids: torch.Tensor,
            past_key_values: Any = None,
            position_ids: Any = None,
            logits_to_keep: int = 0,
            use_cache: bool = True,
            **kwargs: Any,
        ) -> Any:
            output = bundled.network(
                input_ids=input_ids,
                past_key_values=past_key_values,
                position_ids=position_ids,
                logits_to_keep=logits_to_keep,
                use_cache=use_cache,
            )
            calls.append((input_ids.shape[1], position_ids[0].tolist(), output.logits.shape[1]))
            assert isinstance(past_key_values, DynamicCache)
            return output

    lm = dataclasses.replace(bundled, network=Watched())
    list(generate_tokens(lm, PROMPT, GenerationSettings(max_new_tokens=4, do_sample=False)))
    n = len(PROMPT)
    assert calls == [(n, list(range(n)), 1), (1, [n], 1), (1, [n + 1], 1), (1, [n + 2], 1)]


def test_a_model_without_such_a_cache_reads_the_text_again(bundled: LanguageModel) -> None:
    class Stateless(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = bundled.network.config
            self.generation_config = bundled.network.generation_config

        def forward(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
            return bundled.network(input_ids=input_ids, use_cache=False)

    settings = GenerationSettings(max_new_tokens=5, seed=1)
    lm = dataclasses.replace(bundled, network=Stateless())
    assert our_ids(lm, settings) == our_ids(bundled, settings)


# -- alone, stopped, refused ----------------------------------------------------------------------------------------


def test_the_global_generator_is_left_alone_and_does_not_matter(bundled: LanguageModel) -> None:
    settings = GenerationSettings(max_new_tokens=8, seed=77)
    state = torch.random.get_rng_state()
    first = our_ids(bundled, settings)
    assert torch.equal(torch.random.get_rng_state(), state)
    with torch.random.fork_rng():
        torch.manual_seed(123)  # what must not matter
        assert our_ids(bundled, settings) == first
    assert our_ids(bundled, dataclasses.replace(settings, seed=78)) != first


def test_noisy_neighbours_do_not_change_a_text(bundled: LanguageModel) -> None:
    settings = [GenerationSettings(max_new_tokens=6, seed=seed) for seed in range(9)]
    alone = [our_ids(bundled, s) for s in settings]
    together: dict[int, list[int]] = {}
    threads = [
        threading.Thread(target=lambda s=s: together.__setitem__(s.seed, our_ids(bundled, s)))
        for s in settings
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[seed] for seed in range(9)] == alone


def test_interleaved_runs_in_one_thread(bundled: LanguageModel) -> None:
    settings = [GenerationSettings(max_new_tokens=6, seed=seed) for seed in (1, 2)]
    alone = [our_ids(bundled, s) for s in settings]
    pairs = list(zip(*(generate_tokens(bundled, PROMPT, s) for s in settings), strict=True))
    assert [[step.token_id for step in run] for run in zip(*pairs, strict=True)] == alone


def test_an_unfinished_run_leaves_no_mode_behind(bundled: LanguageModel) -> None:
    run = generate_tokens(bundled, PROMPT, GenerationSettings())
    next(run)
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
    del run


class Stop:
    """Cancels at its n-th look."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        self.reports: list[float] = []

    def check(self) -> None:
        self.looks -= 1
        if self.looks < 0:
            raise CancelledError("Stopped.")

    def report(self, fraction: float, message: str) -> None:
        self.reports.append(fraction)


def test_cancel_stops_before_the_next_token_and_inside_a_pass(bundled: LanguageModel) -> None:
    run = generate_tokens(bundled, PROMPT, GenerationSettings(), control=(stop := Stop(10**6)))
    next(run)
    looks_per_token = 10**6 - stop.looks
    # Once for the token, and once for each of the layers.
    assert looks_per_token == 1 + bundled.geometry.n_layers
    stop.looks = 0
    with pytest.raises(CancelledError):
        next(run)
    with pytest.raises(CancelledError):
        next(generate_tokens(bundled, PROMPT, GenerationSettings(), control=Stop(3)))
    # The next run is whole.
    assert len(our_ids(bundled, GenerationSettings(max_new_tokens=3))) == 3


def test_prompt_and_new_tokens_must_fit_into_the_context(bundled: LanguageModel) -> None:
    limit = bundled.geometry.context_length
    prompt = [262] * (limit - 3)
    with pytest.raises(
        ContextLengthError, match=f"at most {limit}.*{limit - 3} \\+ 4 = {limit + 1}.*at most 3"
    ):
        generate_tokens(bundled, prompt, GenerationSettings(max_new_tokens=4))
    assert (
        len(list(generate_tokens(bundled, prompt, GenerationSettings(max_new_tokens=3, do_sample=False))))
        == 3
    )
    with pytest.raises(ContextLengthError, match="Shorten the prompt"):
        generate_tokens(bundled, [262] * limit, GenerationSettings(max_new_tokens=1))


def test_empty_prompt_is_refused_with_an_offer(bundled: LanguageModel) -> None:
    with pytest.raises(InputError, match=r"empty.*<\|endoftext\|>"):
        generate_tokens(bundled, [], GenerationSettings())
    assert start_token_ids(bundled) == (50256,)
    assert (
        len(list(generate_tokens(bundled, start_token_ids(bundled), GenerationSettings(max_new_tokens=2))))
        == 2
    )


@pytest.mark.parametrize("bad", [-1, 50257, 10**12, 2.5, "a", None, True])
def test_ids_outside_the_vocabulary_are_refused(bad: Any, bundled: LanguageModel) -> None:
    with pytest.raises(InputError, match="token id"):
        check_prompt(bundled, [464, bad], max_new_tokens=1)


def test_top_k_beyond_the_vocabulary_is_refused_at_once(bundled: LanguageModel) -> None:
    settings = GenerationSettings(sampling=SamplingSettings(top_k=50258))
    with pytest.raises(InputError, match=r"50,257.*50,258"):
        generate_tokens(bundled, PROMPT, settings)


def test_more_alternatives_than_tokens(bundled: LanguageModel) -> None:
    step = next(generate_tokens(bundled, PROMPT, GenerationSettings(n_alternatives=100)))
    assert step.alternative_ids.shape == (100,)
    assert sorted(step.alternative_probs, reverse=True) == list(step.alternative_probs)
