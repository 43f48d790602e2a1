"""One pass per text, whoever asks; what it leaves is what a plain model computes; its bounds are said."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from gpt_core import capture, trace
from gpt_core.anatomy import Anatomy
from gpt_core.errors import (
    CancelledError,
    ContextLengthError,
    InputError,
    MemoryLimitError,
    UnsupportedError,
)
from gpt_core.model import LanguageModel
from gpt_core.registry import Registry
from gpt_core.tokenizer import tokenize_text
from gpt_core.trace import (
    Trace,
    estimated_bytes,
    kept_trace,
    logits_at,
    logits_of,
    trace_text,
    trace_tokens,
)
from tests.conftest import ARCHITECTURES, CLOSED_ARCHITECTURES
from tests.laws import TEXT, check_hidden, check_logits, plain_reference

reference = cache(plain_reference)
TinyLm = Callable[[str], LanguageModel]


@pytest.fixture(autouse=True)
def empty_store(monkeypatch: pytest.MonkeyPatch) -> Registry[Any, Trace]:
    """A store of its own for each test: what was traced elsewhere is not there."""
    store: Registry[Any, Trace] = Registry(2**30, lambda kept: kept.n_bytes)
    monkeypatch.setattr(trace, "_traces", store)
    return store


@contextmanager
def passes(lm: LanguageModel, seen: list[int] | None = None) -> Iterator[list[int]]:
    """Counts passes through the first block: the length of each text."""
    counted: list[int] = [] if seen is None else seen

    def count(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        counted.append((args[0] if args else kwargs["hidden_states"]).shape[1])

    handle = lm.anatomy.blocks[0].register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield counted
    finally:
        handle.remove()


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *CLOSED_ARCHITECTURES])
@pytest.mark.parametrize("law", [check_logits, check_hidden])
def test_laws(tiny_lm: TinyLm, law: Callable[..., None], architecture: str) -> None:
    lm = tiny_lm(architecture)
    law(lm, trace_tokens(lm, TEXT), reference(architecture))


def _head_without_its_bias_scale_and_cap(patch: pytest.MonkeyPatch, lm: LanguageModel) -> None:
    weight = lm.network.get_output_embeddings().weight
    patch.setattr(trace, "apply_head", lambda network, hidden: hidden @ weight.T)


def _neighbouring_position(patch: pytest.MonkeyPatch, lm: LanguageModel) -> None:
    patch.setattr(trace, "_rows", lambda kept, positions: [max(0, p - 1) for p in positions])


def _final_norm_again(patch: pytest.MonkeyPatch, lm: LanguageModel) -> None:
    norm = lm.anatomy.final_norm
    assert norm is not None
    patch.setattr(trace, "apply_head", lambda network, hidden: capture.apply_head(network, norm(hidden)))


@pytest.mark.parametrize(
    ("mutation", "architecture"),
    [
        (_head_without_its_bias_scale_and_cap, "phi"),
        (_head_without_its_bias_scale_and_cap, "granite"),
        (_head_without_its_bias_scale_and_cap, "gemma2"),
        (_head_without_its_bias_scale_and_cap, "cohere"),
        (_neighbouring_position, "gpt2"),
        (_final_norm_again, "gpt2"),
        (_final_norm_again, "llama"),
    ],
)
def test_a_mistake_in_the_logits_shows(
    tiny_lm: TinyLm, monkeypatch: pytest.MonkeyPatch, mutation: Callable[..., None], architecture: str
) -> None:
    lm = tiny_lm(architecture)
    kept = trace_tokens(lm, TEXT)
    check_logits(lm, kept, reference(architecture))
    mutation(monkeypatch, lm)
    with pytest.raises(AssertionError), torch.inference_mode():
        check_logits(lm, kept, reference(architecture))


def _neighbouring_block(recording: capture.Recording) -> None:
    recording.block_outputs.reverse()


def _no_first_input(recording: capture.Recording) -> None:
    recording.block_inputs[0] = recording.block_outputs[0]


@pytest.mark.parametrize("mutation", [_neighbouring_block, _no_first_input])
def test_a_mistake_in_the_record_shows(
    tiny_lm: TinyLm, monkeypatch: pytest.MonkeyPatch, mutation: Callable[[capture.Recording], None]
) -> None:
    def recorded_pass(*args: Any) -> tuple[capture.Recording, torch.Tensor]:
        recording, last = capture.recorded_pass(*args)
        mutation(recording)
        return recording, last

    monkeypatch.setattr(trace, "recorded_pass", recorded_pass)
    lm = tiny_lm("llama")
    with pytest.raises(AssertionError):
        check_hidden(lm, trace_tokens(lm, TEXT), reference("llama"))


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *CLOSED_ARCHITECTURES])
def test_shapes_and_bytes(tiny_lm: TinyLm, architecture: str) -> None:
    lm = tiny_lm(architecture)
    kept, g = trace_tokens(lm, TEXT), lm.geometry
    assert kept.residual.shape == (g.n_layers + 1, len(TEXT), g.d_model)
    assert kept.final.shape == (len(TEXT), g.d_model)
    assert kept.token_vectors.shape == (len(TEXT), g.d_model)
    assert len(kept.block_arguments) == kept.n_layers == g.n_layers
    assert len(kept.attention) == (0 if "attention" in lm.closed_views else g.n_layers)
    for layer in kept.attention:
        assert layer.query.shape == (g.n_heads, len(TEXT), g.d_head)
        assert layer.key.shape == layer.value.shape == (g.n_kv_heads, len(TEXT), g.d_head)
    # The estimate by which a text is admitted is neither far below what is kept nor far above.
    assert 0.5 < estimated_bytes(lm, len(TEXT)) / kept.n_bytes < 2.5
    tensors = (kept.residual, kept.final, kept.token_vectors)
    assert all(t.dtype == torch.float32 and not t.requires_grad for t in tensors)


def test_nothing_of_size_tokens_squared_is_kept(bundled: LanguageModel) -> None:
    sizes = [trace_tokens(bundled, [11] * n).n_bytes for n in (64, 128, 256)]
    np.testing.assert_allclose(np.diff(sizes), [64 * sizes[0] / 64, 128 * sizes[0] / 64], rtol=0.02)


def test_eight_threads_one_pass(tiny_lm: TinyLm) -> None:
    lm = tiny_lm("gpt2")
    start = threading.Barrier(8)

    def ask(_: int) -> Trace:
        start.wait()
        return trace_tokens(lm, TEXT)

    with passes(lm) as counted, ThreadPoolExecutor(8) as pool:
        traces = list(pool.map(ask, range(8)))
        assert trace_tokens(lm, list(TEXT)) is traces[0]  # ids in another container
        assert trace_tokens(lm, np.array(TEXT)) is traces[0]  # type: ignore[arg-type]
    assert counted == [len(TEXT)]
    assert len({id(kept) for kept in traces}) == 1
    assert kept_trace(lm, TEXT) is traces[0]
    assert kept_trace(lm, TEXT[1:]) is None


def test_two_models_two_passes(tiny_lm: TinyLm) -> None:
    gpt2, llama = tiny_lm("gpt2"), tiny_lm("llama")
    with passes(gpt2) as by_gpt2, passes(llama) as by_llama:
        for _ in range(3):
            for lm in (gpt2, llama):
                assert trace_tokens(lm, TEXT).model_id == str(lm.model_id)
    assert (by_gpt2, by_llama) == ([40], [40])


def test_looking_runs_no_pass(bundled: LanguageModel) -> None:
    from gpt_core.attention import all_attention_maps, attention_maps
    from gpt_core.embeddings import input_embeddings
    from gpt_core.predictions import logit_lens, next_token, position_table

    with passes(bundled) as counted:
        kept = trace_text(bundled, "The CS123 class was very intresting.")
        for layer in range(bundled.geometry.n_layers):
            attention_maps(kept, layer=layer)
        all_attention_maps(kept)
        input_embeddings(bundled, kept)
        next_token(bundled, kept, position=0)
        position_table(bundled, kept)
        logit_lens(bundled, kept)
        assert trace_text(bundled, "The CS123 class was very intresting.") is kept
    assert len(counted) == 1


def test_a_text_and_its_ids_are_the_same_trace(bundled: LanguageModel) -> None:
    text = "Agney loves to train DL models"
    assert trace_text(bundled, text) is trace_tokens(bundled, tokenize_text(bundled, text).token_ids)


@pytest.mark.parametrize("architecture", ["gpt2", "mistral", "gemma2"])
def test_threads_do_not_see_each_other(
    tiny_lm: TinyLm, empty_store: Registry[Any, Trace], architecture: str
) -> None:
    lm = tiny_lm(architecture)
    texts = [tuple(np.random.RandomState(seed).randint(0, 50257, 10 + 3 * seed)) for seed in range(12)]
    alone = [trace_tokens(lm, text) for text in texts]
    empty_store.clear()
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: trace_tokens(lm, text), texts))
    for a, b in zip(alone, together, strict=True):
        assert a is not b
        torch.testing.assert_close(a.residual, b.residual, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(a.final, b.final, atol=1e-5, rtol=1e-5)
        for one, other in zip(a.attention, b.attention, strict=True):
            torch.testing.assert_close(one.query, other.query, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(one.key, other.key, atol=1e-5, rtol=1e-5)


def test_heads_asked_while_passes_run(tiny_lm: TinyLm, empty_store: Registry[Any, Trace]) -> None:
    """A head applied in one thread must not answer for a pass in another."""
    lm = tiny_lm("llama")
    kept = trace_tokens(lm, TEXT)
    expected = logits_at(lm, kept, range(40))

    def work(number: int) -> np.ndarray | Trace:
        return logits_at(lm, kept, range(40)) if number % 2 else trace_tokens(lm, TEXT[: number + 5])

    with ThreadPoolExecutor(4) as pool:
        for number, result in enumerate(pool.map(work, range(20))):
            if isinstance(result, Trace):
                torch.testing.assert_close(result.final, kept.final[: number + 5], atol=1e-5, rtol=1e-5)
            else:
                np.testing.assert_allclose(result, expected, atol=1e-6)


def test_the_model_stays_as_it_is(tiny_lm: TinyLm) -> None:
    """Nothing that is asked changes a weight, a buffer, the configuration or a hook."""

    def fingerprint(lm: LanguageModel) -> tuple[Any, ...]:
        network = lm.network
        return (
            [
                (n, t.sum().item(), t.data_ptr())
                for n, t in (*network.named_parameters(), *network.named_buffers())
            ],
            network.config.to_json_string(use_diff=False),
            [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()],
            network.training,
            [p.requires_grad for p in network.parameters()],
        )

    lm = tiny_lm("llama")
    before = fingerprint(lm)
    logits_at(lm, trace_tokens(lm, TEXT), [3])
    assert fingerprint(lm) == before


class StopAfter:
    """A control that stops the work at its n-th look."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise CancelledError("Stopped.")

    def report(self, fraction: float, message: str) -> None:
        pass


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_cancel_within_one_block(tiny_lm: TinyLm, blocks: int) -> None:
    lm = tiny_lm("gpt2")
    reached: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, number=number: reached.append(number))
        for number, block in enumerate(lm.anatomy.blocks)
    ]
    try:
        with pytest.raises(CancelledError):
            trace_tokens(lm, TEXT, control=StopAfter(blocks))
    finally:
        for handle in handles:
            handle.remove()
    assert reached == list(range(blocks))
    assert kept_trace(lm, TEXT) is None
    check_hidden(lm, trace_tokens(lm, TEXT), reference("gpt2"))  # and nothing is left behind


def test_the_next_in_line_makes_what_was_stopped(tiny_lm: TinyLm) -> None:
    lm = tiny_lm("gpt2")
    waiting, stopped = threading.Event(), threading.Event()

    class StopOnceOthersWait(StopAfter):
        def check(self) -> None:
            waiting.set()
            assert stopped.wait(10)
            raise CancelledError("Stopped.")

    with ThreadPoolExecutor(2) as pool, passes(lm) as counted:
        first = pool.submit(trace_tokens, lm, TEXT, control=StopOnceOthersWait(0))
        assert waiting.wait(10)
        second = pool.submit(trace_tokens, lm, TEXT)
        stopped.set()
        with pytest.raises(CancelledError):
            first.result(10)
        assert second.result(10) is trace_tokens(lm, TEXT)
    assert len(counted) <= 2


def test_context_length_and_one_more(tiny_lm: TinyLm) -> None:
    lm = tiny_lm("gpt2")
    full = list(range(64))
    assert logits_at(lm, trace_tokens(lm, full), [63]).shape == (1, 50257)
    with passes(lm) as counted, pytest.raises(ContextLengthError) as caught:
        trace_tokens(lm, [*full, 1])
    assert counted == []
    assert "at most 64 tokens" in str(caught.value)
    assert "Given: 65" in str(caught.value)
    assert "Shorten it by 1 " in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([], "no token"),
        ([50257], "from 0 to 50,256. Given: 50257"),
        ([-1], "Given: -1"),
        ([3, 4.0], "Given: 4.0"),
        ([3, True], "Given: True"),
        ([3, None], "Given: None"),
        ([3, "4"], "Given: '4'"),
    ],
)
def test_ids_out_of_range(tiny_lm: TinyLm, ids: list[Any], said: str) -> None:
    lm = tiny_lm("gpt2")
    with passes(lm) as counted, pytest.raises(InputError) as caught:
        trace_tokens(lm, ids)
    assert counted == []
    assert said in str(caught.value)


@pytest.mark.parametrize("position", [-1, 40, 1.5, True])
def test_positions_out_of_range(tiny_lm: TinyLm, position: Any) -> None:
    lm = tiny_lm("gpt2")
    with pytest.raises(InputError, match="`position` must be"):
        logits_at(lm, trace_tokens(lm, TEXT), [0, position])


def test_no_position_no_logits(tiny_lm: TinyLm) -> None:
    lm = tiny_lm("gpt2")
    assert logits_at(lm, trace_tokens(lm, TEXT), []).shape == (0, 50257)


def test_memory_is_asked_before_it_is_taken(
    tiny_lm: TinyLm, empty_store: Registry[Any, Trace], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = tiny_lm("llama")
    empty_store.capacity = 2 * estimated_bytes(lm, 20)
    trace_tokens(lm, TEXT[:20])
    with passes(lm) as counted, pytest.raises(MemoryLimitError) as caught:
        trace_tokens(lm, TEXT[:21])
    assert counted == []
    assert "21 tokens of tiny-llama" in str(caught.value)
    assert "GPT_CORE_TRACE_BYTES" in str(caught.value)
    monkeypatch.setattr(trace, "MAX_LOGITS_BYTES", 4 * 50257 * 3)
    kept = trace_tokens(lm, TEXT[:20])
    assert logits_at(lm, kept, range(3)).shape == (3, 50257)
    with pytest.raises(MemoryLimitError, match=r"3 positions of tiny-llama. Given: 4"):
        logits_at(lm, kept, range(4))


def test_least_recently_used_traces_leave(tiny_lm: TinyLm, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm("gpt2")
    size = trace_tokens(lm, TEXT).n_bytes
    store: Registry[Any, Trace] = Registry(int(3.5 * size), lambda kept: kept.n_bytes)
    monkeypatch.setattr(trace, "_traces", store)
    texts = [tuple(np.roll(TEXT, n)) for n in range(4)]
    for text in (*texts[:3], texts[0], texts[3]):  # the first is used again before the fourth comes
        trace_tokens(lm, text)
    assert [kept_trace(lm, text) is not None for text in texts] == [True, False, True, True]


def test_what_left_the_store_is_found_while_it_is_used(
    tiny_lm: TinyLm, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = tiny_lm("gpt2")
    held = trace_tokens(lm, TEXT)
    store: Registry[Any, Trace] = Registry(int(2.5 * held.n_bytes), lambda kept: kept.n_bytes)
    monkeypatch.setattr(trace, "_traces", store)
    held = trace_tokens(lm, TEXT)
    for n in range(1, 5):
        trace_tokens(lm, tuple(np.roll(TEXT, n)))
    with passes(lm) as counted:
        assert trace_tokens(lm, TEXT) is held
    assert counted == []


def test_another_models_trace_is_not_read(tiny_lm: TinyLm) -> None:
    with pytest.raises(AssertionError):
        logits_at(tiny_lm("llama"), trace_tokens(tiny_lm("gpt2"), TEXT), [0])


def test_closed_logits_are_not_given(tiny_lm: TinyLm) -> None:
    import dataclasses

    lm = tiny_lm("gpt2")
    closed = dataclasses.replace(lm, closed_views={"logits": "They could not be rebuilt."})
    with pytest.raises(UnsupportedError, match="could not be rebuilt"):
        logits_of(closed, trace_tokens(lm, TEXT).final)


@pytest.mark.parametrize("named", ["1G", "-1", "0", "1.5", "²"])
def test_a_wrong_variable_is_said(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv(trace.TRACE_BYTES_VARIABLE, named)
    with pytest.raises(ValueError, match="GPT_CORE_TRACE_BYTES must be"):
        trace._store_bytes()


def test_the_variable_sets_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trace.TRACE_BYTES_VARIABLE, "12345")
    assert trace._store_bytes() == 12345
    monkeypatch.setenv(trace.TRACE_BYTES_VARIABLE, "")
    assert trace._store_bytes() == 2**30


def test_blocks_that_are_called_by_keyword(bundled: LanguageModel) -> None:
    """A block may get its hidden states by name: the record is the same."""
    decoder = torch.nn.Module()
    block = torch.nn.Linear(4, 4)
    decoder.blocks = torch.nn.ModuleList([_Block(block)])
    decoder.table = torch.nn.Embedding(9, 4)
    decoder.forward = lambda input_ids, use_cache: (  # type: ignore[method-assign]
        decoder.blocks[0](hidden_states=decoder.table(input_ids), mask="m"),  # type: ignore[index, operator]
    )
    hidden = decoder.table(torch.arange(5))
    capture_args = {"blocks": decoder.blocks, "token_embedding": decoder.table, "position_embedding": None}
    for part in decoder.blocks:
        assert isinstance(part, _Block)
    with torch.inference_mode(), capture.record() as recording:
        # Only the hooks are under test: the decoder's own forward is a stand-in.
        _install_hooks(capture_args)
        output = decoder.forward(torch.arange(5)[None], use_cache=False)
    torch.testing.assert_close(recording.block_inputs[0], hidden.detach())
    torch.testing.assert_close(recording.block_outputs[0], output[0][0])
    assert recording.block_arguments == [((), {"mask": "m"})]


class _Block(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden_states: torch.Tensor, mask: str) -> torch.Tensor:
        return self.inner(hidden_states) if mask else hidden_states


def _install_hooks(parts: dict[str, Any]) -> None:
    class Decoder(torch.nn.Module):
        def forward(self) -> None:
            raise AssertionError

    capture.install(Decoder(), **parts)


def test_anatomy_is_frozen(tiny_lm: TinyLm) -> None:
    anatomy: Anatomy = tiny_lm("gpt2").anatomy
    with pytest.raises(AttributeError):
        anatomy.final_norm = None  # type: ignore[misc]
