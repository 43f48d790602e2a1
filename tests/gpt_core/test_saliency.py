"""Gradient x input against finite differences of a plain copy, leave-one-out against plain re-runs."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from gpt_core import saliency
from gpt_core.catalog import ModelId
from gpt_core.errors import CancelledError, InputError, MemoryLimitError
from gpt_core.model import LanguageModel, wrap_network
from gpt_core.saliency import gradient_times_input, leave_one_out
from tests.conftest import ARCHITECTURES, CLOSED_ARCHITECTURES, make_network
from tests.laws import TEXT

TinyLm = Callable[[str], LanguageModel]
IDS = TEXT[:9]


def lively(architecture: str) -> Any:
    """A network whose attention is not so sharp that a difference quotient says nothing, and whose blocks write much:
    what the stream begins with is normed away before the first block, so that its length alone matters little."""
    network = make_network(architecture, sharpen=2.0).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() >= 2 and "conv" not in name:
                parameter.mul_(3.0)
    return network


@cache
def plain(architecture: str) -> Any:
    return lively(architecture)


@cache
def soft_lm(architecture: str, tokenizer: Any) -> LanguageModel:
    return wrap_network(lively(architecture), tokenizer, model_id=ModelId("local", f"soft-{architecture}"))


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *CLOSED_ARCHITECTURES])
def test_gradient_times_input_is_the_slope_along_each_vector(gpt2_tokenizer: Any, architecture: str) -> None:
    lm, network = soft_lm(architecture, gpt2_tokenizer), plain(architecture)
    found = gradient_times_input(lm, TEXT, position=8, token_id=11)
    with torch.no_grad():
        vectors = network.get_input_embeddings()(torch.tensor([IDS]))

        def log_prob(stretched: torch.Tensor) -> float:
            logits = network(inputs_embeds=stretched, use_cache=False).logits[0, -1]
            return float(logits.double().log_softmax(-1)[11])

        assert found.log_prob == pytest.approx(log_prob(vectors), abs=1e-3)
        step, slopes = 0.01, []
        for place in range(9):
            more, less = vectors.clone(), vectors.clone()
            more[0, place] *= 1 + step
            less[0, place] *= 1 - step
            slopes.append((log_prob(more) - log_prob(less)) / (2 * step))
    largest = np.abs(slopes).max()
    # Bloom norms the vectors before anything reads them: their length says nothing there.
    assert largest > (1e-4 if architecture == "bloom" else 3e-3), "nothing to compare"
    np.testing.assert_allclose(found.scores, slopes, atol=0.02 * largest + 1e-5, rtol=0.02)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *CLOSED_ARCHITECTURES])
def test_leave_one_out_is_plain_runs_without_the_token(gpt2_tokenizer: Any, architecture: str) -> None:
    lm, network = soft_lm(architecture, gpt2_tokenizer), plain(architecture)
    found = leave_one_out(lm, TEXT, position=8, token_id=11)

    def log_prob(ids: tuple[int, ...]) -> float:
        with torch.no_grad():
            return float(network(torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(-1)[11])

    expected = [log_prob(IDS) - log_prob(IDS[:place] + IDS[place + 1 :]) for place in range(9)]
    np.testing.assert_allclose(found.scores, expected, atol=1e-3)
    assert found.log_prob == pytest.approx(log_prob(IDS), abs=1e-3)


def test_batches_do_not_show(bundled: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = leave_one_out(bundled, TEXT, position=20, token_id=11)
    monkeypatch.setattr(saliency, "_BATCH_TOKENS", 3 * 20)
    np.testing.assert_allclose(
        leave_one_out(bundled, TEXT, position=20, token_id=11).scores, whole.scores, atol=1e-4
    )


def test_the_weights_need_no_gradient_and_nothing_is_left(bundled: LanguageModel) -> None:
    gradient_times_input(bundled, TEXT, position=3, token_id=11)
    for parameter in bundled.network.parameters():
        assert not parameter.requires_grad
        assert parameter.grad is None


def test_inside_inference_mode_as_well(bundled: LanguageModel) -> None:
    outside = gradient_times_input(bundled, TEXT, position=3, token_id=11)
    with torch.inference_mode():
        inside = gradient_times_input(bundled, TEXT, position=3, token_id=11)
    np.testing.assert_array_equal(inside.scores, outside.scores)


def test_an_error_of_the_model_comes_out(bundled: LanguageModel) -> None:
    calls = []

    def fail(*_: Any) -> None:
        calls.append(1)
        raise TypeError("inside the model")

    handle = bundled.network.register_forward_pre_hook(fail)
    try:
        with pytest.raises(TypeError, match="inside the model"):
            gradient_times_input(bundled, [464, 2402], position=1, token_id=5)
    finally:
        handle.remove()
    assert len(calls) == 1, "a model that fails is not asked again in another way"


def test_one_token(bundled: LanguageModel) -> None:
    assert np.isnan(leave_one_out(bundled, TEXT, position=0, token_id=11).scores).tolist() == [True]
    assert np.isfinite(gradient_times_input(bundled, TEXT, position=0, token_id=11).scores).all()


@pytest.mark.parametrize("method", [gradient_times_input, leave_one_out])
@pytest.mark.parametrize("n_checks", [0, 2, 9])
def test_it_can_be_stopped(bundled: LanguageModel, method: Any, n_checks: int) -> None:
    """Before a block, and for the gradient also on the way back: there are six blocks."""
    looks = 0

    class Control:
        def check(self) -> None:
            nonlocal looks
            looks += 1
            if looks > n_checks:
                raise CancelledError("Stopped.")

        def report(self, fraction: float, message: str) -> None: ...

    with pytest.raises(CancelledError):
        method(bundled, TEXT, position=20, token_id=11, control=Control())
    assert looks == n_checks + 1


@pytest.mark.parametrize("method", [gradient_times_input, leave_one_out])
@pytest.mark.parametrize("bad", [{"position": 40}, {"position": -1}, {"token_id": 50257}], ids=str)
def test_out_of_range_is_said(bundled: LanguageModel, method: Any, bad: dict[str, int]) -> None:
    with pytest.raises(InputError, match="Given"):
        method(bundled, TEXT, **({"position": 0, "token_id": 0} | bad))


def test_too_much_memory_is_said(bundled: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saliency, "MAX_GRADIENT_BYTES", 1000)
    with pytest.raises(MemoryLimitError, match="over 40 tokens"):
        gradient_times_input(bundled, TEXT, position=39, token_id=0)
