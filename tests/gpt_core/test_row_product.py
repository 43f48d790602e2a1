"""One row times a weight in halves is the same product, and is used only where it pays."""

from typing import Any

import numpy as np
import pytest
import torch

from gpt_core import row_product
from gpt_core.capture import record
from gpt_core.catalog import ModelId
from gpt_core.model import wrap_network
from gpt_core.reading import PlainReader
from gpt_core.row_product import halves_pay, lay_out_for_rows, multiply_in_halves, step_twin, suits_halves
from tests.conftest import ARCHITECTURES, make_network

IDS = np.random.RandomState(5).randint(0, 50257, size=12).tolist()


@pytest.fixture
def pays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As on a machine where the halves pay; a list that grows by one with each product in halves."""
    taken: list[int] = []

    def counted(row: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        taken.append(1)
        return multiply_in_halves(row, weight, bias)

    monkeypatch.setattr(row_product, "halves_pay", lambda: True)
    monkeypatch.setattr(row_product, "multiply_in_halves", counted)
    return taken


@pytest.mark.parametrize("shape", [(1, 2), (5, 8), (48, 16), (16, 48), (301, 64)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_it_is_the_product(shape: tuple[int, int], with_bias: bool) -> None:
    numbers = torch.Generator().manual_seed(1)
    weight = torch.randn(shape, generator=numbers)
    row = torch.randn(shape[1], generator=numbers)
    bias = torch.randn(shape[0], generator=numbers) if with_bias else None
    exact = row.double() @ weight.double().t() + (0 if bias is None else bias.double())
    found = multiply_in_halves(row, weight, bias)
    assert found.shape == (shape[0],)
    np.testing.assert_allclose(found, exact, atol=1e-5)
    # A row that lies in memory with gaps.
    gaps = torch.stack([row, row + 1], dim=-1)[..., 0]
    np.testing.assert_allclose(multiply_in_halves(gaps, weight, bias), exact, atol=1e-5)


def test_the_bias_is_not_written_to() -> None:
    bias = torch.ones(3)
    multiply_in_halves(torch.ones(4), torch.ones(3, 4), bias)
    assert bias.tolist() == [1, 1, 1]


def test_what_suits(pays: list[int]) -> None:
    assert suits_halves(torch.ones(3, 4))
    assert not suits_halves(torch.ones(4, 3))  # an odd row
    assert not suits_halves(torch.ones(4, 3).t())  # the other order
    assert not suits_halves(torch.ones(3, 4, dtype=torch.float64))
    assert not suits_halves(torch.ones(3, 4, device="meta"))


@pytest.mark.parametrize(("plain", "expected"), [(1.0, False), (1.29, False), (1.31, True)])
def test_a_small_gain_is_no_reason(monkeypatch: pytest.MonkeyPatch, plain: float, expected: bool) -> None:
    # The plain product is timed first in each round; one round in which the machine was busy does not count.
    times = iter([9.0, 1.0, plain, 9.0, *[plain, 1.0] * (row_product._PROBE_ROUNDS - 2)])
    monkeypatch.setattr(row_product, "_seconds", lambda product, weights: next(times))
    assert halves_pay.__wrapped__() is expected


def test_where_they_do_not_pay_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_product, "halves_pay", lambda: False)
    network = make_network("gpt2")
    before = {name: p.stride() for name, p in network.named_parameters()}
    lay_out_for_rows(network)
    assert {name: p.stride() for name, p in network.named_parameters()} == before
    assert not suits_halves(torch.ones(3, 4))


def test_another_order_in_memory_is_the_same_network(pays: list[int]) -> None:
    network = make_network("gpt2").eval()
    before = {name: p.clone() for name, p in network.named_parameters()}
    ids = torch.tensor([IDS])
    with torch.inference_mode():
        expected = network(input_ids=ids).logits
        lay_out_for_rows(network)
        found = network(input_ids=ids).logits
    for name, p in network.named_parameters():
        assert torch.equal(p, before[name]), name
    block: Any = network.get_submodule("transformer.h.1")
    for part in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj):
        assert part.weight.t().is_contiguous()
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("in_halves", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_of_the_models_own_forward(
    architecture: str, in_halves: bool, pays: list[int], gpt2_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_product, "halves_pay", lambda: in_halves)
    lm = wrap_network(
        make_network(architecture), gpt2_tokenizer, model_id=ModelId("local", f"rows {architecture}")
    )
    with torch.inference_mode():
        expected = lm.network(input_ids=torch.tensor([IDS]), use_cache=False).logits[0].numpy()
    reader = PlainReader(lm, [IDS[:8]], None)
    reader.next_logits()
    of_the_prompt = len(pays)
    for i in range(8, len(IDS)):
        reader.append(IDS[i])
        found = reader.next_logits()[0]
        np.testing.assert_allclose(found, expected[i], atol=2e-5 * np.abs(expected[i]).max())
    assert of_the_prompt == 0
    # GPT-2's own maps are no Linear; its head is.
    at_least = 4 if architecture == "gpt2" else 4 * 4 * lm.geometry.n_layers
    assert len(pays) >= at_least if in_halves else not pays


def test_the_twin_is_the_same_network_and_leaves_the_other_alone(tiny_lm: Any) -> None:
    lm = tiny_lm("gpt_neox")
    n_hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.network.modules())
    assert n_hooks > 0
    twin = step_twin(lm.network)
    own = {p.data_ptr() for p in lm.network.parameters()}
    assert {p.data_ptr() for p in twin.parameters()} == own
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in twin.modules())
    ids = torch.tensor([IDS])
    with torch.inference_mode():
        expected = lm.network(input_ids=ids, use_cache=False).logits
        with record() as recording:
            found = twin(input_ids=ids, use_cache=False).logits
    assert not recording.block_inputs
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(expected.abs().max()))
    # Nothing of the first network went with it.
    assert n_hooks == sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.network.modules())
    assert all(type(m) is not row_product._RowLinear for m in lm.network.modules())


def test_several_texts_at_once_are_no_single_row(pays: list[int], gpt2_tokenizer: Any) -> None:
    lm = wrap_network(make_network("gpt_neox"), gpt2_tokenizer, model_id=ModelId("local", "two texts"))
    reader = PlainReader(lm, [IDS[:5], IDS[1:6]], None)
    reader.next_logits()
    reader.go_on([0, 1], IDS[6:8])
    reader.next_logits()
    assert not pays
