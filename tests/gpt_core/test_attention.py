"""Maps by the laws of tests/laws.py, on every architecture; and the same laws with a mistake put in."""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from gpt_core import attention, capture
from gpt_core.attention import AttentionMaps, all_attention_maps, attention_maps, attention_steps
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
    patch.setattr(attention, "_layer", lambda trace, layer: trace.attention[(layer + 1) % trace.n_layers])


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
