"""Predictions against plain float64 arithmetic on plain transformers' logits."""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from gpt_core import predictions
from gpt_core.catalog import BUNDLED_FOLDER
from gpt_core.errors import CancelledError, InputError
from gpt_core.model import LanguageModel
from gpt_core.predictions import (
    logit_lens,
    next_token,
    position_table,
    rank_trajectories,
    score_text,
)
from gpt_core.trace import trace_tokens
from tests import laws
from tests.conftest import ARCHITECTURES, CLOSED_ARCHITECTURES, make_network
from tests.laws import TEXT, check_lens

plain_reference = cache(laws.plain_reference)

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
    assert float(table.surprisals[1:].mean()) == pytest.approx(float((-came.log2()).mean()), abs=1e-3)


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
    # A logit of 15 is known to 1e-6 of itself, and the smallest probabilities to no more.
    np.testing.assert_allclose(cut_lens.probs, lens.probs, rtol=1e-5, atol=1e-8)


def test_the_lens_ends_at_the_prediction(model_and_logits: tuple[LanguageModel, torch.Tensor]) -> None:
    lm, logits = model_and_logits
    lens = logit_lens(lm, trace_tokens(lm, IDS), positions=range(3, 8))
    assert lens.positions == (3, 4, 5, 6, 7)
    assert lens.token_ids[-1].tolist() == logits[3:8].argmax(-1).tolist()
    np.testing.assert_allclose(lens.probs[-1], logits[3:8].softmax(-1).max(-1).values, rtol=5e-4)
    assert (lens.final_ranks[-1] == 1).all()
    assert (lens.final_ranks >= 1).all()


def test_every_depth_by_norm_and_head(model_and_logits: tuple[LanguageModel, torch.Tensor]) -> None:
    """All that the lens and the trajectories say of a depth, from plain norm and head in double precision."""
    lm, logits = model_and_logits
    trace = trace_tokens(lm, IDS)
    lens = logit_lens(lm, trace)
    network = (
        AutoModelForCausalLM.from_pretrained(BUNDLED_FOLDER, dtype=torch.float32)
        if lm.model_id.name != "tiny-llama"
        else make_network("llama")
    )
    with torch.inference_mode():
        output = network.eval()(torch.tensor([IDS]), output_hidden_states=True)
        decoder = network.get_decoder()
        norm = decoder.ln_f if hasattr(decoder, "ln_f") else decoder.norm
        for depth in range(trace.n_layers):
            read = network.lm_head(norm(output.hidden_states[depth]))[0].double().log_softmax(-1)
            final = logits.log_softmax(-1)
            kl = (final.exp() * (final - read)).sum(-1) / np.log(2)
            np.testing.assert_allclose(lens.kl_to_final[depth], kl, atol=2e-3, rtol=1e-3)
            np.testing.assert_allclose(lens.entropies[depth], entropy_of(read), atol=2e-3)
            ways = rank_trajectories(lm, trace, position=6, token_ids=(11, 262, 50256))
            np.testing.assert_allclose(ways.probs[depth], read[6, [11, 262, 50256]].exp(), rtol=1e-3)
            for place, token_id in enumerate((11, 262, 50256)):
                rank = 1 + int((read[6] > read[6, token_id]).sum())
                assert abs(int(ways.ranks[depth, place]) - rank) <= 2
    own = [1 + int((logits[6] > logits[6, i]).sum()) for i in (11, 262, 50256)]
    np.testing.assert_allclose(ways.ranks[-1], own, atol=2)  # two logits may tie in float32
    with pytest.raises(InputError):
        rank_trajectories(lm, trace, position=10, token_ids=(1,))
    with pytest.raises(InputError):
        rank_trajectories(lm, trace, position=0, token_ids=(50257,))


def test_score_of_a_text(bundled: LanguageModel) -> None:
    """Bits and bytes by hand: what the first token and special tokens hold does not count."""
    from gpt_core.tokenizer import tokenize_text

    text = "Once upon a time<|endoftext|> the café"
    tokens = tokenize_text(bundled, text)
    table = position_table(bundled, trace_tokens(bundled, tokens.token_ids))
    end = tokens.token_ids.index(50256)
    counted = [i for i in range(1, tokens.n_tokens) if i != end]
    score = score_text(table, tokens)
    assert score.n_tokens == len(counted) == tokens.n_tokens - 2
    assert score.n_bytes == len(b" upon a time") + len(" the café".encode())
    assert score.bits == pytest.approx(float(table.surprisals[counted].sum()), rel=1e-6)
    logits = bundled.network(torch.tensor([tokens.token_ids])).logits[0].double().log_softmax(-1)
    nats = [-float(logits[i - 1, tokens.token_ids[i]]) for i in counted]
    assert score.perplexity == pytest.approx(np.exp(np.mean(nats)), rel=1e-3)
    assert score.bits_per_byte == pytest.approx(sum(nats) / np.log(2) / score.n_bytes, rel=1e-3)
    alone = tokenize_text(bundled, "Once")
    empty = score_text(position_table(bundled, trace_tokens(bundled, alone.token_ids)), alone)
    assert (empty.n_tokens, empty.n_bytes) == (0, 0)
    assert np.isnan(empty.perplexity)
    assert np.isnan(empty.bits_per_byte)


def test_one_token(bundled: LanguageModel) -> None:
    table = position_table(bundled, trace_tokens(bundled, [464]))
    assert table.ranks.tolist() == [0]
    assert np.isnan(table.surprisals).tolist() == [True]
    assert logit_lens(bundled, trace_tokens(bundled, [464])).token_ids.shape == (7, 1)


@pytest.mark.parametrize(
    "options", [{"position": 10}, {"position": -1}, {"position": 0, "k": 0}, {"position": 0, "k": 10**9}]
)
def test_out_of_range_is_said(bundled: LanguageModel, options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="Given"):
        next_token(bundled, trace_tokens(bundled, IDS), **options)
    with pytest.raises(InputError):
        logit_lens(bundled, trace_tokens(bundled, IDS), positions=range(5, 99))


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *CLOSED_ARCHITECTURES])
def test_the_last_row_of_the_lens_is_the_prediction(
    tiny_lm: Callable[[str], LanguageModel], architecture: str
) -> None:
    lm = tiny_lm(architecture)
    check_lens(lm, trace_tokens(lm, TEXT), plain_reference(architecture))


def _twice(norm: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda hidden: norm(norm(hidden))


def _never(norm: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda hidden: hidden


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2", "cohere", "bloom"])
@pytest.mark.parametrize("mistake", [_twice, _never, "neighbouring depth"])
def test_a_mistake_in_the_lens_shows(
    tiny_lm: Callable[[str], LanguageModel], architecture: str, mistake: Any
) -> None:
    lm, reference = tiny_lm(architecture), plain_reference(architecture)
    trace = trace_tokens(lm, TEXT)
    check_lens(lm, trace, reference)
    if mistake == "neighbouring depth":
        trace = dataclasses.replace(trace, residual=trace.residual.roll(1, dims=0))
    else:
        anatomy = dataclasses.replace(lm.anatomy, final_norm=mistake(lm.anatomy.final_norm))
        lm = dataclasses.replace(lm, anatomy=anatomy)
    with pytest.raises(AssertionError):
        check_lens(lm, trace, reference)


@pytest.fixture
def given_logits(bundled: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> Callable[[np.ndarray], None]:
    """Let the head give these logits `(n_tokens, vocab_size)`, so that what is read from them is known exactly."""

    def give(logits: np.ndarray) -> None:
        monkeypatch.setattr(predictions, "logits_at", lambda lm, trace, positions: logits[list(positions)])

    return give


@pytest.mark.parametrize("scale", [0.01, 1.0, 4.0, 30.0])
def test_reading_is_exact(
    bundled: LanguageModel, given_logits: Callable[[np.ndarray], None], scale: float
) -> None:
    """Against float64 on the very same logits, from nearly uniform to nearly certain."""
    logits = np.random.RandomState(3).normal(size=(10, 50257), scale=scale).astype(np.float32)
    given_logits(logits)
    trace = trace_tokens(bundled, IDS)
    exact = torch.from_numpy(logits).double().log_softmax(-1)
    table = position_table(bundled, trace)
    np.testing.assert_allclose(table.predicted_probs, exact.max(-1).values.exp(), rtol=1e-6)
    np.testing.assert_allclose(table.entropies, entropy_of(exact), rtol=1e-5, atol=2e-6)
    own = exact[range(9), IDS[1:]].numpy()
    np.testing.assert_allclose(table.surprisals[1:], -own / np.log(2), rtol=1e-6)
    np.testing.assert_allclose(table.probs[1:], np.exp(own), rtol=2e-5, atol=1e-30)
    expected = [1 + int((logits[i] > logits[i, IDS[i + 1]]).sum()) for i in range(9)]
    assert table.ranks[1:].tolist() == expected
    found = next_token(bundled, trace, position=4, k=50257)
    assert found.token_ids.tolist() == np.argsort(-logits[4], kind="stable").tolist()
    np.testing.assert_allclose(found.probs, exact[4].exp().numpy()[found.token_ids], rtol=1e-6, atol=1e-38)
    assert found.rest == pytest.approx(0.0, abs=1e-9)


def entropy_of(log_probs: torch.Tensor) -> np.ndarray:
    bits: np.ndarray = (torch.special.entr(log_probs.exp()).sum(-1) / np.log(2)).numpy()
    return bits


def test_equal_logits_share_a_rank_and_stand_by_id(
    bundled: LanguageModel, given_logits: Callable[[np.ndarray], None]
) -> None:
    logits = np.zeros((10, 50257), dtype=np.float32)
    logits[:, [50000, 7, 300]] = 2.0
    logits[:, IDS[1]] = 1.0
    given_logits(logits)
    trace = trace_tokens(bundled, IDS)
    assert next_token(bundled, trace, position=0, k=6).token_ids.tolist() == [7, 300, 50000, IDS[1], 0, 1]
    table = position_table(bundled, trace)
    assert table.predicted_ids.tolist() == [7] * 10
    assert table.ranks.tolist() == [0, 4, *[5] * 8]  # three are above IDS[1], and four above all the rest


def test_one_token_that_has_it_all(
    bundled: LanguageModel, given_logits: Callable[[np.ndarray], None]
) -> None:
    logits = np.full((10, 50257), -1e4, dtype=np.float32)
    logits[:, 11] = 1e4
    given_logits(logits)
    found = next_token(bundled, trace_tokens(bundled, IDS), position=0, k=2)
    assert (found.token_ids[0], found.probs[0], found.rest, found.entropy) == (11, 1.0, 0.0, 0.0)
    table = position_table(bundled, trace_tokens(bundled, IDS))
    assert (table.entropies == 0).all()
    np.testing.assert_allclose(table.surprisals[1:], 2e4 / np.log(2), rtol=1e-6)


@pytest.mark.parametrize("positions", [range(0, 10, 2), range(9, 0, -1), range(0)])
def test_positions_are_a_block(bundled: LanguageModel, positions: range) -> None:
    with pytest.raises(InputError, match=r"block of neighbours|must be a whole number from 1"):
        logit_lens(bundled, trace_tokens(bundled, IDS), positions=positions)


def test_a_stop_is_heard_between_chunks(bundled: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "_CHUNK_BYTES", 2 * 4 * 50257)
    heard: list[float] = []

    class Control:
        def check(self) -> None:
            if len(heard) == 3:
                raise CancelledError("Stopped.")

        def report(self, fraction: float, message: str) -> None:
            heard.append(fraction)

    for read in (position_table, logit_lens):
        heard.clear()
        with pytest.raises(CancelledError):
            read(bundled, trace_tokens(bundled, IDS), control=Control())
        assert len(heard) == 3
