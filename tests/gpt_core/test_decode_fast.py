"""The fast decoder says what the model says, is not used where it does not, and int8's shift is what is measured."""

import dataclasses
import threading
from typing import Any

import numpy as np
import pytest
import torch

from gpt_core import decode_fast, row_product
from gpt_core.catalog import ModelId
from gpt_core.decode_fast import (
    REFERENCE_TEXT,
    TOLERANCE,
    FastDecoder,
    fast_decoder,
    int8_problem,
    int8_shift,
    largest_difference,
)
from gpt_core.decoding import GenerationSettings
from gpt_core.errors import CancelledError, UnsupportedError
from gpt_core.generation import generate_tokens
from gpt_core.model import LanguageModel, wrap_network
from tests.conftest import make_network

IDS = np.random.RandomState(3).randint(0, 50257, size=30)

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "gpt2 other activation": ("gpt2", {"activation_function": "gelu", "layer_norm_epsilon": 1e-3}),
    "gpt2 layers scaled": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    "gpt2 unscaled": ("gpt2", {"scale_attn_weights": False, "sharpen": 4.0}),
    "llama": ("llama", {}),
    "llama biases": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama one key head": ("llama", {"num_key_value_heads": 1, "rms_norm_eps": 1e-2}),
    "llama wide heads": ("llama", {"head_dim": 16}),
    "llama scaled positions": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}},
    ),
}


@pytest.fixture(scope="module")
def wrap(gpt2_tokenizer: Any) -> Any:
    def make(name: str) -> LanguageModel:
        architecture, options = VARIANTS[name]
        network = make_network(architecture, **options)
        return wrap_network(network, gpt2_tokenizer, model_id=ModelId("local", "variant"))

    return make


@pytest.mark.parametrize("in_halves", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_logits_are_the_models(
    name: str, in_halves: bool, wrap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_product, "halves_pay", lambda: in_halves)
    lm = wrap(name)
    decoder = fast_decoder(lm)
    assert decoder is not None
    with torch.inference_mode():
        expected = lm.network(input_ids=torch.from_numpy(IDS)[None], use_cache=False).logits[0]
    scale = float(expected.abs().max())
    ids = torch.from_numpy(IDS)
    # At once; in two pieces; token by token; and cropped.
    for pieces in ([30], [11, 19], [1] * 30, [20, 1, 1, 8]):
        state = decoder.new_state(30)
        place = 0
        for n in pieces:
            logits = decoder.read(ids[place : place + n], state)
            place += n
            assert float((logits[0] - expected[place - 1]).abs().max()) <= TOLERANCE * scale
    state = state.copy(7, 30)
    assert float((decoder.read(ids[7:12], state)[0] - expected[11]).abs().max()) <= TOLERANCE * scale


@pytest.mark.parametrize(
    "mistake",
    ["scaling", "rotation", "norm", "position", "key head", "activation"],
)
def test_a_decoder_that_is_wrong_is_not_used(
    mistake: str, wrap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = wrap("gpt2" if mistake == "position" else "llama")
    make = FastDecoder.__init__

    def spoil(self: Any, lm: LanguageModel) -> None:
        make(self, lm)
        block = self._blocks[1]
        if mistake == "scaling":
            block.scaling *= 1.01
        elif mistake == "rotation":
            cos, sin = self._rotation
            self._rotation = (cos.roll(1, 0), sin.roll(1, 0))
        elif mistake == "norm":
            weight, eps = block.norms[1]
            block.norms[1] = (weight * 1.01, eps)
        elif mistake == "position":
            self._positions = self._positions.roll(1, 0)
        elif mistake == "key head":
            weight = block.key.weight
            block.key.weight = torch.cat([weight[8:], weight[:8]])
        else:
            block.activation = torch.nn.functional.gelu

    monkeypatch.setattr(FastDecoder, "__init__", spoil)
    assert fast_decoder(lm) is None
    # The page goes on with the model's own forward.
    assert len(list(generate_tokens(lm, IDS[:5], GenerationSettings(max_new_tokens=2)))) == 2
    with pytest.raises(UnsupportedError):
        fast_decoder(lm, int8=True)


def test_other_architectures_and_other_rotations_have_none(tiny_lm: Any, gpt2_tokenizer: Any) -> None:
    for name in ("mistral", "gemma2", "gpt_neox"):
        assert fast_decoder(tiny_lm(name)) is None
    dynamic = make_network(
        "llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    )
    lm = wrap_network(dynamic, gpt2_tokenizer, model_id=ModelId("local", "dynamic"))
    assert fast_decoder(lm) is None
    with pytest.raises(UnsupportedError, match="GPT-2 and Llama only"):
        fast_decoder(tiny_lm("mistral"), int8=True)
    with pytest.raises(UnsupportedError, match="GPT-2 and Llama only"):
        generate_tokens(tiny_lm("mistral"), [1], GenerationSettings(), precision="int8")


def test_nothing_is_copied(bundled: LanguageModel) -> None:
    decoder = FastDecoder(bundled)
    own = {p.data_ptr() for p in bundled.network.parameters()}
    block = decoder._blocks[0]
    assert {part.weight.data_ptr() for part in (block.qkv, block.out, block.up, block.down)} <= own


def test_a_pass_that_is_stopped_leaves_the_state_as_it_was(bundled: LanguageModel) -> None:
    decoder = fast_decoder(bundled)
    assert decoder is not None
    ids, state, looks = torch.from_numpy(IDS), decoder.new_state(30), [0]
    first = decoder.read(ids[:10], state).clone()

    def stop() -> None:
        looks[0] += 1
        if looks[0] == 3:
            raise CancelledError("Stopped.")

    with pytest.raises(CancelledError):
        decoder.read(ids[10:], state, check=stop)
    assert state.n_tokens == 10
    assert torch.equal(decoder.read(ids[9:10], state.copy(9, 30)), decoder.read(ids[9:10], state.copy(9, 30)))
    again = decoder.read(ids[9:10], state.copy(9, 30))
    assert torch.allclose(again, first, atol=1e-3)


# -- int8 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("narrow", [False, True])
def test_int8_product_by_hand(narrow: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(40, 64, generator=rng), torch.randn(40, generator=rng)
    x = torch.randn(64, generator=rng)
    exact = decode_fast._Linear(weight, bias)
    ours = decode_fast._Int8Linear(exact, narrow=narrow).of_one(x)
    scale = weight.abs().amax(1) / 127
    rounded = (weight / scale[:, None]).round()
    # From the smallest number of the row to the largest, with 0 among what is exact.
    largest = 127 if narrow else 255
    step = (x.max() - x.min()) / largest
    zero = (-x.min() / step).round()
    row = ((x / step).round() + zero).clamp(0, largest) - zero
    assert torch.allclose(ours, (rounded @ row) * step * scale + bias, atol=1e-4)
    assert 0 < float((ours - exact.of_one(x)).abs().max()) < (0.4 if narrow else 0.2)
    assert torch.equal(decode_fast._Int8Linear(exact, narrow=narrow).of_one(torch.zeros(64)), bias)


def test_shift_is_that_of_the_distributions(bundled: LanguageModel) -> None:
    found = int8_shift(bundled)
    ids = torch.tensor(bundled.tokenizer.backend_tokenizer.encode(REFERENCE_TEXT).ids)
    assert found.n_positions == len(ids)
    decoder = fast_decoder(bundled, int8=True)
    assert decoder is not None
    state = decoder.new_state(len(ids))
    ours = torch.cat([decoder.read(ids[i : i + 1], state) for i in range(len(ids))]).double().softmax(-1)
    with torch.inference_mode():
        exact = bundled.network(input_ids=ids[None], use_cache=False).logits[0].double().softmax(-1)
    assert found.total_variation == pytest.approx(float((exact - ours).abs().sum(-1).mean() / 2), rel=1e-3)
    divergence = (exact * (exact / ours).log2()).sum(-1).mean()
    assert found.kl_bits == pytest.approx(float(divergence), rel=1e-2)
    assert found.same_favourite == pytest.approx(float((exact.argmax(-1) == ours.argmax(-1)).double().mean()))
    # int8 is another number, and not a wild one.
    assert 1e-4 < found.total_variation < 0.1
    assert found.total_variation <= found.largest_total_variation <= 1
    assert int8_shift(bundled) is found


def test_shift_can_be_stopped(bundled: LanguageModel) -> None:
    lm = dataclasses.replace(bundled)

    def stop() -> None:
        raise CancelledError("Stopped.")

    with pytest.raises(CancelledError):
        int8_shift(lm, check=stop)


def test_int8_stays_on_its_own_road(bundled: LanguageModel) -> None:
    settings = GenerationSettings(max_new_tokens=12, do_sample=False)
    exact = [step.prob for step in generate_tokens(bundled, IDS[:6], settings)]
    quick = [step.prob for step in generate_tokens(bundled, IDS[:6], settings, precision="int8")]
    assert quick != exact
    # The first token comes from the prompt, which is read in float32.
    assert quick[0] == exact[0]
    assert [step.prob for step in generate_tokens(bundled, IDS[:6], settings)] == exact


@pytest.mark.parametrize("n_prompt", [1, 6])
def test_the_prompt_is_read_in_float32_however_short(n_prompt: int, bundled: LanguageModel) -> None:
    settings = GenerationSettings(max_new_tokens=2, do_sample=False)
    exact, rounded = (
        list(generate_tokens(bundled, IDS[:n_prompt], settings, precision=precision))
        for precision in ("float32", "int8")
    )
    assert rounded[0].prob == exact[0].prob
    assert rounded[1].prob != exact[1].prob


def test_the_reason_for_no_int8_is_this_models(tiny_lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "MistralForCausalLM is read in float32" in int8_problem(tiny_lm("mistral"), None)
    lm = tiny_lm("llama")
    assert "LlamaForCausalLM: its logits there are not the model's within 0.0001" in int8_problem(lm, None)
    monkeypatch.setattr(lm.anatomy.rotary, "rope_type", "dynamic")
    assert "position angles of the kind 'dynamic'" in int8_problem(lm, None)


def test_a_machine_without_int8_says_so(bundled: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: Any) -> torch.Tensor:
        raise RuntimeError("not here")

    decode_fast.int8_machine_problem.cache_clear()
    monkeypatch.setattr(torch, "quantize_per_channel", missing)
    assert "not here" in int8_problem(bundled, fast_decoder(bundled))
    monkeypatch.undo()
    decode_fast.int8_machine_problem.cache_clear()
    monkeypatch.setattr(decode_fast._Int8Linear, "of_one", lambda self, row: torch.zeros(4))
    assert "come out wrong" in int8_problem(bundled, fast_decoder(bundled))
    with pytest.raises(UnsupportedError, match="come out wrong"):
        generate_tokens(bundled, [1], GenerationSettings(), precision="int8")
    decode_fast.int8_machine_problem.cache_clear()
    monkeypatch.undo()
    assert int8_problem(bundled, fast_decoder(bundled)) == ""


def test_proved_once_however_many_ask(bundled: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = dataclasses.replace(bundled)
    proofs = []

    def prove(lm: LanguageModel, decoder: FastDecoder) -> float:
        proofs.append(1)
        return largest_difference(lm, decoder)

    monkeypatch.setattr(decode_fast, "largest_difference", prove)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(fast_decoder(lm))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(proofs) == 1
    assert len({id(decoder) for decoder in found}) == 1


def test_int8_weights_are_counted_as_the_models(bundled: LanguageModel) -> None:
    lm = dataclasses.replace(bundled)
    before = lm.n_bytes
    assert before == sum(t.numel() * 4 for t in lm.network.parameters()) + sum(
        t.numel() * t.element_size() for t in lm.network.buffers()
    )
    decoder = fast_decoder(lm, int8=True)
    assert decoder is not None
    rows = [p for name, p in lm.network.named_parameters() if p.dim() == 2 and "wpe" not in name]
    # One byte a number, and a float32 scale for each output: a Conv1D keeps these last, the head first.
    n_out = sum(
        p.shape[0] if "wte" in name else p.shape[1]
        for name, p in lm.network.named_parameters()
        if p.dim() == 2 and "wpe" not in name
    )
    assert lm.n_bytes - before == sum(p.numel() for p in rows) + 4 * n_out
    counted = lm.n_bytes
    fast_decoder(lm, int8=True)
    assert lm.n_bytes == counted


@pytest.mark.parametrize(("product", "expected"), [(64.0, False), (64.2, False), (32.3, True)])
def test_rows_are_narrow_where_their_products_overflow(
    product: float, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 64 products of 255 · 127, whose pairs do not fit into 16 bits.
    monkeypatch.setattr(decode_fast._Int8Linear, "of_one", lambda self, row: torch.tensor([product]))
    assert decode_fast._rows_are_narrow.__wrapped__() is expected
