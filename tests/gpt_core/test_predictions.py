"""Predictions against plain float64 arithmetic on plain transformers' logits."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from gpt_core import predictions
from gpt_core.catalog import BUNDLED_FOLDER
from gpt_core.errors import InputError
from gpt_core.model import LanguageModel
from gpt_core.predictions import logit_lens, next_token, position_table
from gpt_core.trace import trace_tokens
from tests.conftest import make_network

IDS = (464, 9429, 10163, 1398, 373, 845, 493, 2118, 278, 13)


@pytest.fixture(scope="module", params=["bundled", "llama"])
def model_and_logits(
    request: pytest.FixtureRequest, bundled: LanguageModel, tiny_lm: Callable[[str], LanguageModel]
) -> tuple[LanguageModel, torch.Tensor]:
    """A model, and float64 logits `(n_tokens, vocab_size)` of IDS by plain transformers."""
    if request.param == "bundled":
        lm, network = bundled, AutoModelForCausalLM.from_pretrained(BUNDLED_FOLDER, dtype=torch.float32)
    else:
        lm, network = tiny_lm(request.param), make_network(request.param)
    with torch.inference_mode():
        return lm, network.eval()(torch.tensor([IDS])).logits[0].double()


def entropy(probs: torch.Tensor) -> np.ndarray:
    return (-(probs * probs.log2()).sum(-1)).numpy()


def test_next_token(model_and_logits: tuple[LanguageModel, torch.Tensor]) -> None:
    lm, logits = model_and_logits
    for position in (0, 4, 9):
        probs = logits[position].softmax(-1)
        found = next_token(lm, trace_tokens(lm, IDS), position=position, k=7)
        best = probs.topk(7)
        assert found.token_ids.tolist() == best.indices.tolist()
        np.testing.assert_allclose(found.probs, best.values, rtol=2e-4)
        assert found.rest == pytest.approx(1 - float(best.values.sum()), abs=1e-5)
        assert found.entropy == pytest.approx(float(entropy(probs)), abs=1e-3)


def test_every_position(model_and_logits: tuple[LanguageModel, torch.Tensor]) -> None:
    lm, logits = model_and_logits
    table = position_table(lm, trace_tokens(lm, IDS))
    probs = logits.softmax(-1)
    assert table.predicted_ids.tolist() == logits.argmax(-1).tolist()
    np.testing.assert_allclose(table.predicted_probs, probs.max(-1).values, rtol=2e-4)
    np.testing.assert_allclose(table.entropies, entropy(probs), atol=1e-3)
    came = probs[range(9), IDS[1:]]
    np.testing.assert_allclose(table.probs[1:], came, rtol=5e-4)
    np.testing.assert_allclose(table.surprisals[1:], -came.log2(), atol=1e-3)
    ranks = 1 + (logits[:9] > logits[range(9), IDS[1:]][:, None]).sum(-1)
    assert np.abs(table.ranks[1:] - ranks.numpy()).max() <= 1  # two logits may tie in float32
    assert np.isnan(table.probs[0])
    assert table.ranks[0] == 0
    assert table.mean_surprisal == pytest.approx(float((-came.log2()).mean()), abs=1e-3)


def test_chunks_do_not_show(
    model_and_logits: tuple[LanguageModel, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, _ = model_and_logits
    trace = trace_tokens(lm, IDS)
    whole, lens = position_table(lm, trace), logit_lens(lm, trace)
    monkeypatch.setattr(predictions, "_CHUNK_BYTES", 3 * 4 * lm.geometry.vocab_size)
    cut, cut_lens = position_table(lm, trace), logit_lens(lm, trace)
    assert cut.ranks.tolist() == whole.ranks.tolist()
    np.testing.assert_allclose(cut.surprisals, whole.surprisals, rtol=1e-5)
    assert cut_lens.token_ids.tolist() == lens.token_ids.tolist()
    np.testing.assert_allclose(cut_lens.probs, lens.probs, rtol=1e-5)


def test_the_lens_ends_at_the_prediction(model_and_logits: tuple[LanguageModel, torch.Tensor]) -> None:
    lm, logits = model_and_logits
    lens = logit_lens(lm, trace_tokens(lm, IDS), positions=range(3, 8))
    assert lens.positions == (3, 4, 5, 6, 7)
    assert lens.token_ids[-1].tolist() == logits[3:8].argmax(-1).tolist()
    np.testing.assert_allclose(lens.probs[-1], logits[3:8].softmax(-1).max(-1).values, rtol=5e-4)
    assert (lens.final_ranks[-1] == 1).all()
    assert (lens.final_ranks >= 1).all()


def test_one_token(bundled: LanguageModel) -> None:
    table = position_table(bundled, trace_tokens(bundled, [464]))
    assert table.ranks.tolist() == [0]
    assert np.isnan(table.mean_surprisal)
    assert logit_lens(bundled, trace_tokens(bundled, [464])).token_ids.shape == (7, 1)


@pytest.mark.parametrize(
    "options", [{"position": 10}, {"position": -1}, {"position": 0, "k": 0}, {"position": 0, "k": 10**9}]
)
def test_out_of_range_is_said(bundled: LanguageModel, options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="Given"):
        next_token(bundled, trace_tokens(bundled, IDS), **options)
    with pytest.raises(InputError):
        logit_lens(bundled, trace_tokens(bundled, IDS), positions=range(5, 99))
