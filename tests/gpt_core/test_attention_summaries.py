"""Maps made of many, by hand and beside slow references that go cell by cell."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from gpt_core import attention_output, attention_summaries
from gpt_core.attention_summaries import combine_heads, parse_heads, roll_out
from gpt_core.errors import InputError, MemoryLimitError
from gpt_core.model import LanguageModel
from gpt_core.trace import Trace, trace_tokens
from tests.conftest import ARCHITECTURES, make_network
from tests.gpt_core.test_attention_cell import named_output, reference
from tests.laws import TEXT

TinyLm = Callable[[str], LanguageModel]


def slow_rollout(layers: list[np.ndarray]) -> np.ndarray:
    """Paths through the layers, added up one by one: half of each token stays, half comes from where it looks."""
    n = len(layers[0])
    reached = [[1.0 if i == j else 0.0 for j in range(n)] for i in range(n)]
    for weights in layers:
        mixed = []
        for i in range(n):
            row = [0.5 * value for value in reached[i]]
            for k in range(n):
                for j in range(n):
                    row[j] += 0.5 * float(weights[i, k]) * reached[k][j]
            mixed.append(row)
        reached = mixed
    return np.array(reached)


def test_rollout_by_hand(tiny_lm: TinyLm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two layers, two tokens, one head: the second token looks at the first, then at both alike."""
    first = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    second = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
    lm = tiny_lm("gpt2")
    trace = _two_layers(trace_tokens(lm, TEXT[:2]))
    monkeypatch.setattr(
        attention_summaries,
        "attention_blocks",
        lambda trace, *, layer, **_: iter([(range(2), (first, second)[layer])]),
    )
    # Layer 1: token 1 becomes half itself, half token 0. Layer 2: 1/2 (0.5, 0.5) + 1/2 (1/2 (1, 0) + 1/2 (0.5, 0.5)).
    np.testing.assert_allclose(roll_out(lm, trace).weights, [[1, 0], [0.625, 0.375]])


def _two_layers(trace: Trace) -> Trace:
    import dataclasses

    return dataclasses.replace(
        trace,
        residual=trace.residual[:3],
        attention=trace.attention[:2],
        block_arguments=trace.block_arguments[:2],
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rollout_is_the_slow_one(tiny_lm: TinyLm, architecture: str) -> None:
    lm = tiny_lm(architecture)
    found = roll_out(lm, trace_tokens(lm, TEXT))
    expected = slow_rollout([layer.mean(axis=0) for layer in reference(architecture).attentions])
    np.testing.assert_allclose(found.weights, expected, atol=1e-5)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, atol=1e-5)
    assert (found.weights[np.triu_indices(40, 1)] == 0).all()
    assert found.n_heads_used == 12


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "mistral", "gemma2", "opt", "phi", "mixtral"])
def test_value_weighted_rollout_is_the_slow_one(
    tiny_lm: TinyLm, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = tiny_lm(architecture)
    trace = trace_tokens(lm, TEXT)
    monkeypatch.setattr(attention_summaries, "_KEYS", 7)
    network = make_network(architecture)
    layers = []
    for layer, weights in enumerate(reference(architecture).attentions.astype(np.float64)):
        value = trace.attention[layer].value
        values = value.repeat_interleave(4 // len(value), dim=0)
        projection = named_output(network, layer)
        lengths = np.zeros((40, 40))
        with torch.no_grad():
            nothing = projection(torch.zeros(1, 4 * values.shape[-1]))
            for key in range(40):
                # All heads' α v side by side, for every query, through the network's own projection.
                side_by_side = (
                    torch.from_numpy(weights[:, :, key].T[:, :, None]).float() * values[None, :, key]
                )
                lengths[:, key] = (projection(side_by_side.flatten(1)) - nothing).norm(dim=-1)
        layers.append(lengths / lengths.sum(axis=1, keepdims=True))
    found = roll_out(lm, trace, value_weighted=True)
    assert found.projected
    np.testing.assert_allclose(found.weights, slow_rollout(layers), atol=2e-4)
    plain = roll_out(lm, trace).weights
    assert np.abs(found.weights - plain).max() > 1e-2, "values make no difference: the test would not notice"


def test_without_a_projection_the_heads_stand_side_by_side(
    tiny_lm: TinyLm, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = tiny_lm("llama")
    trace = trace_tokens(lm, TEXT)
    monkeypatch.setattr(attention_output._Watch, "_look", lambda self, given, matrix: None)
    found = roll_out(lm, trace, value_weighted=True)
    assert not found.projected
    layers = []
    for layer, weights in enumerate(reference("llama").attentions.astype(np.float64)):
        lengths = trace.attention[layer].value.norm(dim=-1).numpy().repeat(2, axis=0)
        moved = np.sqrt(((weights * lengths[:, None, :]) ** 2).sum(axis=0))
        layers.append(moved / moved.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found.weights, slow_rollout(layers), atol=1e-4)


@pytest.mark.parametrize("kind", ["mean", "maximum"])
def test_mean_and_maximum_of_any_heads(tiny_lm: TinyLm, kind: Any) -> None:
    trace = trace_tokens(tiny_lm("mistral"), TEXT)
    maps = reference("mistral").attentions
    chosen = [(0, 1), (2, 3), (2, 0), (0, 1)]
    stack = np.stack([maps[0, 1], maps[2, 3], maps[2, 0]])
    found = combine_heads(trace, chosen, kind=kind)
    assert found.n_heads_used == 3
    np.testing.assert_allclose(
        found.weights, stack.mean(axis=0) if kind == "mean" else stack.max(axis=0), atol=1e-5
    )
    alone = combine_heads(trace, [(1, 2)], kind=kind)
    np.testing.assert_allclose(alone.weights, maps[1, 2], atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "full"), [("mistral", ()), ("gemma3_text", (1,)), ("llama", (0, 1, 2))]
)
def test_cells_that_no_map_lets_through_are_empty(
    tiny_lm: TinyLm, architecture: str, full: tuple[int, ...]
) -> None:
    """Windows of 8 tokens, except in the layers `full`."""
    lm = tiny_lm(architecture)
    trace = trace_tokens(lm, TEXT)
    back = np.subtract.outer(np.arange(40), np.arange(40))
    window, causal = (back >= 0) & (back < 8), back >= 0
    for kind in ("mean", "maximum"):
        for layers in ((0,), (0, 1)):
            found = combine_heads(trace, [(layer, 2) for layer in layers], kind=kind)  # type: ignore[arg-type]
            assert np.array_equal(found.allowed, causal if set(layers) & set(full) else window)
            assert np.array_equal(np.isnan(found.cells), ~found.allowed)
            assert np.array_equal(found.cells[found.allowed], found.weights[found.allowed])
    for value_weighted in (False, True):
        rolled = roll_out(lm, trace, value_weighted=value_weighted)
        # Three windows, one behind the other.
        assert np.array_equal(rolled.allowed, causal if full else (back >= 0) & (back <= 21))
        assert (rolled.weights[~rolled.allowed] == 0).all()


def test_what_cannot_be_combined_is_said(tiny_lm: TinyLm, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = trace_tokens(tiny_lm("gpt2"), TEXT)
    with pytest.raises(InputError, match="At least one head"):
        combine_heads(trace, [], kind="mean")
    with pytest.raises(InputError, match="head"):
        combine_heads(trace, [(0, 4)], kind="mean")
    monkeypatch.setattr(attention_summaries, "MAX_MAP_BYTES", 12 * 40 * 40 - 1)
    with pytest.raises(MemoryLimitError, match="40 tokens"):
        combine_heads(trace, [(0, 0)], kind="mean")


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("5.4", [(5, 4)]),
        ("all", [(layer, head) for layer in range(6) for head in range(5)]),
        ("5", [(5, head) for head in range(5)]),
        ("0-1", [(layer, head) for layer in (0, 1) for head in range(5)]),
        ("*.4", [(layer, 4) for layer in range(6)]),
        ("5.0-2", [(5, 0), (5, 1), (5, 2)]),
        (" 1.2,1.2  0.3 ", [(0, 3), (1, 2)]),
    ],
)
def test_heads_are_read(text: str, pairs: list[tuple[int, int]]) -> None:
    assert parse_heads(text, n_layers=6, n_heads=5) == tuple(pairs)


@pytest.mark.parametrize(
    "text", ["", " ", "6", "5.5", "-1", "1.-2", "3-1", "a", "1.2.3", "<b>", "all.4", "9" * 50]
)
def test_heads_that_are_none_are_said(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_heads(text, n_layers=6, n_heads=5)
    assert "<b>" not in str(caught.value)
    assert len(str(caught.value)) < 250
