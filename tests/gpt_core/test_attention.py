"""Maps by the laws of tests/laws.py, on every architecture; and the same laws with a mistake put in."""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from gpt_core import attention, capture
from gpt_core.attention import (
    AttentionMaps,
    all_attention_maps,
    attention_blocks,
    attention_maps,
    attention_steps,
    token_attention,
    without_first,
)
from gpt_core.capture import LayerCapture, attention_scores
from gpt_core.catalog import ModelId
from gpt_core.errors import InputError, MemoryLimitError, UnsupportedError
from gpt_core.model import LanguageModel, wrap_network
from gpt_core.trace import Trace, trace_tokens
from tests.conftest import ARCHITECTURES, CLOSED_ARCHITECTURES, make_network
from tests.laws import ATTENTION_LAWS, TEXT, check_maps, check_rows, plain_reference

reference = cache(plain_reference)
TinyLm = Callable[[str], LanguageModel]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("law", ATTENTION_LAWS)
def test_laws(tiny_lm: TinyLm, law: Callable[..., None], architecture: str) -> None:
    lm = tiny_lm(architecture)
    assert "attention" not in lm.closed_views
    law(lm, trace_tokens(lm, TEXT), reference(architecture))


def _changed(capture: LayerCapture, **changes: Any) -> LayerCapture:
    return dataclasses.replace(capture, **changes)


def _wrong_scale(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        attention,
        "attention_scores",
        lambda c, **options: attention_scores(_changed(c, scaling=c.scaling * 1.02), **options),
    )


def _no_mask(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        attention,
        "attention_scores",
        lambda c, **options: attention_scores(c, **{**options, "masked": False}),
    )


def _no_window(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        attention,
        "attention_scores",
        lambda c, **options: attention_scores(_changed(c, mask=None), **options),
    )


def _no_softcap(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        attention,
        "attention_scores",
        lambda c, **options: attention_scores(_changed(c, softcap=None), **options),
    )


def _neighbouring_layer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        attention, "layer_capture", lambda trace, layer: trace.attention[(layer + 1) % trace.n_layers]
    )


def _neighbouring_head(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        attention,
        "attention_scores",
        lambda c, **options: attention_scores(
            c, **{**options, "heads": (options["heads"] + 1) % c.query.shape[0]}
        ),
    )


def _wrong_key_head(patch: pytest.MonkeyPatch) -> None:
    def interleaved(c: LayerCapture, *, heads: torch.Tensor, **options: Any) -> torch.Tensor:
        # As if head i read key head i modulo the number of key heads.
        keys = c.key[torch.arange(c.query.shape[0]) % c.key.shape[0]]
        return attention_scores(_changed(c, key=keys), heads=heads, **options)

    patch.setattr(attention, "attention_scores", interleaved)


def _shifted_queries(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        attention,
        "attention_scores",
        lambda c, **options: attention_scores(_changed(c, query=c.query.roll(1, dims=1)), **options),
    )


MUTATIONS = [
    (_wrong_scale, "gpt2", check_maps),
    (_wrong_scale, "granite", check_maps),
    (_no_mask, "gpt2", check_rows),
    (_no_mask, "llama", check_maps),
    (_no_window, "mistral", check_rows),
    (_no_window, "mistral", check_maps),
    (_no_window, "gemma3_text", check_rows),
    (_no_softcap, "gemma2", check_maps),
    (_neighbouring_layer, "gpt2", check_maps),
    (_neighbouring_layer, "gemma3_text", check_rows),
    (_neighbouring_head, "opt", check_maps),
    (_wrong_key_head, "llama", check_maps),
    (_wrong_key_head, "qwen3", check_maps),
    (_shifted_queries, "gpt_neox", check_maps),
]


@pytest.mark.parametrize(
    ("mutation", "architecture", "law"), MUTATIONS, ids=lambda x: getattr(x, "__name__", x)
)
def test_a_mistake_breaks_a_law(
    tiny_lm: TinyLm,
    monkeypatch: pytest.MonkeyPatch,
    mutation: Callable[[pytest.MonkeyPatch], None],
    architecture: str,
    law: Callable[..., None],
) -> None:
    lm = tiny_lm(architecture)
    trace = trace_tokens(lm, TEXT)
    law(lm, trace, reference(architecture))
    mutation(monkeypatch)
    with pytest.raises(AssertionError):
        law(lm, trace, reference(architecture))


def test_heads_and_blocks_of_queries_are_cut_from_the_whole(tiny_lm: TinyLm) -> None:
    trace = trace_tokens(tiny_lm("mistral"), TEXT)
    whole = attention_maps(trace, layer=2)
    part = attention_maps(trace, layer=2, heads=(3, 1), queries=range(11, 30))
    assert (part.heads, part.queries) == ((3, 1), tuple(range(11, 30)))
    np.testing.assert_allclose(part.weights, whole.weights[[3, 1], 11:30], atol=1e-6)
    assert np.array_equal(part.allowed, whole.allowed[[3, 1], 11:30])
    assert np.array_equal(all_attention_maps(trace)[2], whole.weights)
    assert np.array_equal(all_attention_maps(trace, layers=[2]), whole.weights[None])
    assert attention_maps(trace, layer=0, heads=()).weights.shape == (0, 40, 40)
    assert attention_maps(trace, layer=0, queries=range(0)).weights.shape == (4, 0, 40)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "mistral", "gemma2", "granite"])
def test_steps_lead_from_products_to_the_row(tiny_lm: TinyLm, architecture: str) -> None:
    lm = tiny_lm(architecture)
    trace = trace_tokens(lm, TEXT)
    cap = getattr(lm.network.config, "attn_logit_softcapping", None)
    for layer, head, query in ((0, 0, 0), (1, 3, 20), (2, 2, 39)):
        steps = attention_steps(trace, layer=layer, head=head, query=query)
        scaled = steps.products.astype(np.float64) * steps.scaling
        np.testing.assert_allclose(
            steps.scores, cap * np.tanh(scaled / cap) if cap else scaled, rtol=1e-4, atol=1e-5
        )
        allowed = attention_maps(trace, layer=layer).allowed[head, query]
        assert np.array_equal(np.isfinite(steps.masked), allowed)
        assert np.array_equal(steps.masked[allowed], steps.scores[allowed])
        shifted = np.exp(steps.masked - steps.masked.max())
        np.testing.assert_allclose(steps.weights, shifted / shifted.sum(), atol=1e-6)
        np.testing.assert_allclose(
            steps.weights, reference(architecture).attentions[layer, head, query], atol=1e-5
        )


def test_one_token_looks_at_itself(tiny_lm: TinyLm) -> None:
    maps = attention_maps(trace_tokens(tiny_lm("llama"), TEXT[:1]), layer=0)
    assert maps.weights.tolist() == [[[1.0]]] * 4
    assert maps.allowed.all()


def test_nobody_can_write_into_a_result(tiny_lm: TinyLm) -> None:
    trace = trace_tokens(tiny_lm("gpt2"), TEXT)
    maps = attention_maps(trace, layer=0)
    with pytest.raises(ValueError, match="read-only"):
        maps.weights[0, 0, 0] = 2
    with pytest.raises(ValueError, match="read-only"):
        attention_steps(trace, layer=0, head=0, query=3).weights[0] = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        maps.layer = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layer": 3}, "`layer` must be a whole number from 0 to 2. Given: 3."),
        ({"layer": -1}, "`layer` must be"),
        ({"layer": 1.0}, "`layer` must be"),
        ({"layer": True}, "`layer` must be"),
        ({"layer": 0, "heads": (0, 4)}, "`head` must be a whole number from 0 to 3. Given: 4."),
        ({"layer": 0, "heads": range(10**6)}, "`head` must be"),
        ({"layer": 0, "queries": range(41)}, "`query` must be a whole number from 0 to 39. Given: 40."),
        ({"layer": 0, "queries": range(-1, 3)}, "`query` must be"),
        ({"layer": 0, "queries": range(0, 10, 2)}, "block of neighbours"),
        ({"layer": 0, "queries": range(9, 2, -1)}, "block of neighbours"),
    ],
)
def test_out_of_range_is_said(tiny_lm: TinyLm, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        attention_maps(trace_tokens(tiny_lm("gpt2"), TEXT), **options)
    assert said in str(caught.value)


def test_maps_that_would_not_fit_are_refused(tiny_lm: TinyLm, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = trace_tokens(tiny_lm("gpt2"), TEXT)
    monkeypatch.setattr(attention, "MAX_MAP_BYTES", 4 * 40 * 40 * 4)
    assert isinstance(attention_maps(trace, layer=0), AttentionMaps)
    with pytest.raises(MemoryLimitError, match="fewer heads"):
        attention_maps(trace, layer=0, heads=(0, 1, 2, 3, 3))
    with pytest.raises(MemoryLimitError):
        all_attention_maps(trace)
    assert all_attention_maps(trace, layers=[1]).shape == (1, 4, 40, 40)


@pytest.mark.parametrize("architecture", CLOSED_ARCHITECTURES)
def test_closed_models_say_so(tiny_lm: TinyLm, architecture: str) -> None:
    lm = tiny_lm(architecture)
    trace: Trace = trace_tokens(lm, TEXT)
    for look in (
        lambda: attention_maps(trace, layer=0),
        lambda: all_attention_maps(trace),
        lambda: attention_steps(trace, layer=0, head=0, query=0),
    ):
        with pytest.raises(UnsupportedError, match="no map"):
            look()


def test_capped_attention_is_the_same_in_blocks(tiny_lm: TinyLm, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm("gemma2")
    whole = trace_tokens(lm, TEXT)
    monkeypatch.setattr(capture, "_SOFTCAP_QUERIES", 7)
    blocks = trace_tokens(lm, TEXT[:-1])
    torch.testing.assert_close(blocks.final, whole.final[:-1], atol=1e-5, rtol=1e-5)


def test_a_model_whose_prefix_names_no_part_of_it(gpt2_tokenizer: Any) -> None:
    """Llama 4's text model says that its inner model is called otherwise than it is."""
    options = {"head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 64}
    lm = wrap_network(
        make_network("llama4_text", **options), gpt2_tokenizer, model_id=ModelId("local", "tiny-llama4")
    )
    assert dict(lm.closed_views) == {}
    theirs = plain_reference("llama4_text", **options).attentions
    np.testing.assert_allclose(all_attention_maps(trace_tokens(lm, TEXT)), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", ["gpt2", "mistral", "gemma2", "llama"])
def test_blocks_are_the_maps_in_pieces(tiny_lm: TinyLm, architecture: str) -> None:
    trace = trace_tokens(tiny_lm(architecture), TEXT)
    for heads in (None, (3, 1)):
        whole = attention_maps(trace, layer=1, heads=heads).weights
        together = np.zeros_like(whole)
        stops = []
        for queries, weights in attention_blocks(trace, layer=1, heads=heads, max_bytes=4 * 4 * 40 * 7):
            assert weights.shape == (len(whole), len(queries), queries.stop)
            together[:, queries.start : queries.stop, : queries.stop] = weights.numpy()
            stops.append(queries.stop)
        assert len(stops) > 2
        assert stops[-1] == 40
        np.testing.assert_allclose(together, whole, atol=1e-6)
    with pytest.raises(InputError):
        next(attention_blocks(trace, layer=1, heads=[4]))


def by_hand(weights: list[list[float]]) -> AttentionMaps:
    cells = np.array([weights], dtype=np.float32)
    n = cells.shape[1]
    return AttentionMaps(
        layer=0,
        heads=(0,),
        queries=tuple(range(n)),
        weights=cells,
        allowed=np.tri(n, dtype=bool)[None].copy(),
    )


def test_without_the_first_token_rows_sum_to_one_again() -> None:
    maps = without_first(by_hand([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [1, 0, 0, 0], [0.6, 0.1, 0.2, 0.1]]))
    assert np.isnan(maps.weights).sum() == 0
    np.testing.assert_allclose(maps.weights[0, 1], [0, 1, 0, 0])
    np.testing.assert_allclose(maps.weights[0, 3], [0, 0.25, 0.5, 0.25], atol=1e-6)
    # Nothing but the first token: nothing to show.
    assert maps.allowed[0].tolist() == [
        [False] * 4,
        [False, True, False, False],
        [False] * 4,
        [False, True, True, True],
    ]


def test_without_the_first_token_tiny_rests_stay_exact() -> None:
    maps = without_first(by_hand([[1, 0, 0], [1, 0, 0], [1 - 4e-9, 1e-9, 3e-9]]))
    np.testing.assert_allclose(maps.weights[0, 2], [0, 0.25, 0.75], rtol=1e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "mistral"])
def test_row_and_column_of_a_token(
    tiny_lm: TinyLm, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = trace_tokens(tiny_lm(architecture), TEXT)
    theirs = reference(architecture).attentions[2, 1]
    allowed = attention_maps(trace, layer=2).allowed[1]
    for block_bytes in (2**24, 4 * 40 * 7):
        monkeypatch.setattr(attention, "BLOCK_BYTES", block_bytes)
        found = token_attention(trace, layer=2, head=1, position=13)
        assert np.array_equal(np.isnan(found.paid), ~allowed[13])
        assert np.array_equal(np.isnan(found.received), ~allowed[:, 13])
        np.testing.assert_allclose(found.paid[allowed[13]], theirs[13][allowed[13]], atol=1e-5)
        np.testing.assert_allclose(found.received[allowed[:, 13]], theirs[:, 13][allowed[:, 13]], atol=1e-5)
        np.testing.assert_allclose(found.first_share, theirs[1:, 0].mean(), atol=1e-5)
        hidden = token_attention(trace, layer=2, head=1, position=13, hide_first=True)
        np.testing.assert_allclose(np.nansum(hidden.paid), 1, atol=1e-5)
        rest = theirs[:, 1:].sum(axis=1)
        later = allowed[:, 13] & (rest > 1e-3)
        np.testing.assert_allclose(
            hidden.received[later], theirs[later, 13] / rest[later], rtol=1e-3, atol=1e-5
        )
        assert hidden.first_share == found.first_share
    one = token_attention(trace_tokens(tiny_lm("gpt2"), TEXT[:1]), layer=0, head=0, position=0)
    assert one.paid.tolist() == one.received.tolist() == [1.0]
    assert np.isnan(one.first_share)
    with pytest.raises(InputError, match="position"):
        token_attention(trace, layer=0, head=0, position=40)
