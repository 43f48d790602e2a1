"""Pictures of all heads are eager attention's maps, to 8 bits; and the same laws with a mistake put in."""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from gpt_core import head_grid
from gpt_core.attention import attention_maps
from gpt_core.capture import LayerCapture, attention_scores
from gpt_core.errors import CancelledError, InputError, UnsupportedError
from gpt_core.head_grid import (
    LayerThumbnails,
    decode_thumbnails,
    grid_step,
    kept_thumbnails,
    layer_thumbnails,
    thin_weights,
)
from gpt_core.model import LanguageModel
from gpt_core.registry import Registry
from gpt_core.trace import Trace, trace_tokens
from tests.conftest import ARCHITECTURES, CLOSED_ARCHITECTURES
from tests.laws import TEXT, Reference, plain_reference

reference = cache(plain_reference)
TinyLm = Callable[[str], LanguageModel]
HALF_STEP = 1 / 508


def seen(reference: Reference, layer: int) -> np.ndarray:
    """`(n_tokens, n_tokens)`: which cells the mask leaves open."""
    query, key = np.arange(len(TEXT))[:, None], np.arange(len(TEXT))[None, :]
    window = reference.windows[layer]
    return (key <= query) & ((query - key < window) if window else True)


def check_cells(trace: Trace, reference: Reference, step: int) -> None:
    """Each code is the largest eager weight among the open cells that it covers; closed where all are closed."""
    n = trace.n_tokens
    side = -(-n // step)
    for layer in range(trace.n_layers):
        found = decode_thumbnails(layer_thumbnails(trace, layer=layer, step=step))
        eager = np.where(seen(reference, layer), reference.attentions[layer], -1)
        for row in range(side):
            for column in range(side):
                block = eager[:, row * step : (row + 1) * step, column * step : (column + 1) * step]
                largest = block.max(axis=(1, 2))
                if column > row or (largest < 0).all():
                    assert np.isnan(found[:, row, column]).all(), (layer, row, column)
                else:
                    np.testing.assert_allclose(found[:, row, column], largest, atol=HALF_STEP + 1e-5, rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("step", [1, 3])
def test_cells_are_eager_attentions(tiny_lm: TinyLm, architecture: str, step: int) -> None:
    lm = tiny_lm(architecture)
    check_cells(trace_tokens(lm, TEXT), reference(architecture), step)


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma2"])
@pytest.mark.parametrize("block_bytes", [1, 4 * 40 * 3, 4 * 40 * 7, 4 * 40 * 4 * 11])
def test_blocks_of_any_size_give_the_same(
    tiny_lm: TinyLm, monkeypatch: pytest.MonkeyPatch, architecture: str, block_bytes: int
) -> None:
    trace = trace_tokens(tiny_lm(architecture), TEXT)
    for step in (1, 3, 40):
        whole = layer_thumbnails(trace, layer=1, step=step)
        with monkeypatch.context() as patch:
            patch.setattr(head_grid, "BLOCK_BYTES", block_bytes)
            parts = layer_thumbnails(trace, layer=1, step=step)
        # A sum in another order may fall to the other side of a half.
        assert (np.abs(whole.cells.astype(int) - parts.cells) <= 1).all()
        assert ((whole.cells == 0) == (parts.cells == 0)).all()


def test_memory_is_that_of_a_block(tiny_lm: TinyLm, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = trace_tokens(tiny_lm("gpt2"), TEXT)
    sizes: list[int] = []

    def measured(*args: Any, **options: Any) -> torch.Tensor:
        scores = attention_scores(*args, **options)
        sizes.append(4 * scores.numel())
        return scores

    monkeypatch.setattr(head_grid, "attention_scores", measured)
    monkeypatch.setattr(head_grid, "BLOCK_BYTES", 2000)
    layer_thumbnails(trace, layer=0, step=2)
    assert max(sizes) <= 2000
    assert len(sizes) > 4


def _wrong_scale(c: LayerCapture, **options: Any) -> torch.Tensor:
    return attention_scores(dataclasses.replace(c, scaling=c.scaling * 1.05), **options)


def _no_window(c: LayerCapture, **options: Any) -> torch.Tensor:
    return attention_scores(dataclasses.replace(c, mask=None), **options)


def _no_mask(c: LayerCapture, **options: Any) -> torch.Tensor:
    return attention_scores(c, **{**options, "masked": False})


def _neighbouring_head(c: LayerCapture, **options: Any) -> torch.Tensor:
    return attention_scores(c, **{**options, "heads": (options["heads"] + 1) % c.query.shape[0]})


def _shifted_queries(c: LayerCapture, **options: Any) -> torch.Tensor:
    return attention_scores(dataclasses.replace(c, query=c.query.roll(1, dims=1)), **options)


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize(
    ("mistake", "architecture"),
    [
        (_wrong_scale, "gpt2"),
        (_no_window, "mistral"),
        (_no_mask, "gemma3_text"),
        (_neighbouring_head, "llama"),
        (_shifted_queries, "gpt_neox"),
    ],
)
def test_a_mistake_breaks_the_law(
    tiny_lm: TinyLm, monkeypatch: pytest.MonkeyPatch, mistake: Any, architecture: str, step: int
) -> None:
    trace = trace_tokens(tiny_lm(architecture), TEXT)
    monkeypatch.setattr(head_grid, "attention_scores", mistake)
    with pytest.raises(AssertionError):
        check_cells(trace, reference(architecture), step)


def test_a_thin_diagonal_survives(tiny_lm: TinyLm) -> None:
    trace = trace_tokens(tiny_lm("gpt2"), TEXT)
    capture = trace.attention[0]
    n, d = trace.n_tokens, capture.query.shape[2]
    # Every query looks only at the token before it: unit vectors on a circle, sharpened.
    angles = torch.arange(n) * 0.1
    key = torch.zeros(capture.key.shape)
    key[..., 0], key[..., 1] = torch.cos(angles), torch.sin(angles)
    query = 1e5 * torch.zeros(n, d).index_copy(
        1, torch.tensor([0, 1]), torch.stack([torch.cos(angles - 0.1), torch.sin(angles - 0.1)], dim=1)
    )
    made = dataclasses.replace(capture, query=query.expand(capture.query.shape), key=key, scaling=1.0)
    trace = dataclasses.replace(trace, attention=(made, *trace.attention[1:]))
    for step in (2, 3, 7):
        found = decode_thumbnails(layer_thumbnails(trace, layer=0, step=step))
        assert (np.nanmax(found, axis=2) > 0.99).all()


@pytest.mark.parametrize("n_maps", [1, 36, 144, 270, 1024])
def test_step_keeps_what_is_sent_bounded_and_short_texts_whole(n_maps: int) -> None:
    for n_tokens in (1, 2, 15, 128, 129, 200, 512, 1000, 1024, 8192):
        step = grid_step(n_maps, n_tokens)
        side = -(-n_tokens // step)
        n_bytes = n_maps * side * (side + 1) // 2
        if n_tokens <= 128:
            assert step == 1
        else:
            assert n_bytes <= head_grid.MAX_GRID_BYTES
            larger = -(-n_tokens // (step - 1)) if step > 1 else 0
            assert step == 1 or n_maps * larger * (larger + 1) // 2 > head_grid.MAX_GRID_BYTES
    assert head_grid.MAX_GRID_BYTES >= 144 * 205 * 206 // 2  # 12 × 12 heads at 1,024 tokens: 5 × 5 a cell
    assert grid_step(144, 1024) == 5


def test_one_token(tiny_lm: TinyLm) -> None:
    found = layer_thumbnails(trace_tokens(tiny_lm("llama"), TEXT[:1]), layer=0)
    assert found.cells.tolist() == [[255]] * 4
    assert decode_thumbnails(found).tolist() == [[[1.0]]] * 4


def test_codes_reach_both_ends() -> None:
    cells = np.array([[0, 1, 255]], dtype=np.uint8)
    found = decode_thumbnails(LayerThumbnails(layer=0, n_tokens=2, step=1, cells=cells))
    np.testing.assert_array_equal(found, [[[np.nan, np.nan], [0, 1]]])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layer": 3}, "`layer` must be a whole number from 0 to 2. Given: 3."),
        ({"layer": True}, "`layer` must be"),
        ({"layer": 0, "step": 0}, "`step` must be a whole number from 1 to 40. Given: 0."),
        ({"layer": 0, "step": 41}, "`step` must be"),
    ],
)
def test_out_of_range_is_said(tiny_lm: TinyLm, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        layer_thumbnails(trace_tokens(tiny_lm("gpt2"), TEXT), **options)
    assert said in str(caught.value)


@pytest.mark.parametrize("architecture", CLOSED_ARCHITECTURES)
def test_closed_models_say_so(tiny_lm: TinyLm, architecture: str) -> None:
    with pytest.raises(UnsupportedError, match="no map"):
        layer_thumbnails(trace_tokens(tiny_lm(architecture), TEXT), layer=0)


def test_a_stop_is_heard_within_a_block(tiny_lm: TinyLm) -> None:
    class Stop:
        def check(self) -> None:
            raise CancelledError("Stopped.")

    stop: Any = Stop()
    with pytest.raises(CancelledError):
        layer_thumbnails(trace_tokens(tiny_lm("gpt2"), TEXT), layer=0, control=stop)


def test_pictures_are_kept_and_computed_once(tiny_lm: TinyLm, monkeypatch: pytest.MonkeyPatch) -> None:
    store: Registry[Any, LayerThumbnails] = Registry(2**20, lambda kept: kept.cells.nbytes)
    monkeypatch.setattr(head_grid, "_store", store)
    lm = tiny_lm("gpt2")
    first = kept_thumbnails(lm, TEXT, layer=1)
    assert kept_thumbnails(lm, TEXT, layer=1) is first
    other_layer, other_text = kept_thumbnails(lm, TEXT, layer=2), kept_thumbnails(lm, TEXT[:-1], layer=1)
    other_model = kept_thumbnails(tiny_lm("opt"), TEXT, layer=1)
    for other in (other_layer, other_text, other_model):
        assert not np.array_equal(other.cells, first.cells)
    np.testing.assert_array_equal(first.cells, layer_thumbnails(trace_tokens(lm, TEXT), layer=1).cells)


def test_nobody_can_write_into_a_result(tiny_lm: TinyLm) -> None:
    found = layer_thumbnails(trace_tokens(tiny_lm("gpt2"), TEXT), layer=0)
    with pytest.raises(ValueError, match="read-only"):
        found.cells[0, 0] = 2


@pytest.mark.parametrize("step", [1, 3])
def test_maps_that_are_there_already_are_thinned_alike(tiny_lm: TinyLm, step: int) -> None:
    trace = trace_tokens(tiny_lm("gpt2"), TEXT)
    expected = layer_thumbnails(trace, layer=1, step=step)
    maps = torch.from_numpy(attention_maps(trace, layer=1).weights.copy())
    square = np.zeros((4, expected.side, expected.side), dtype=np.uint8)
    for start in range(0, 40, 9):
        # A part of a larger array, which is not contiguous.
        codes = thin_weights(maps[:, start : start + 9, : start + 9], step)
        square[:, start // step : start // step + codes.shape[1], : codes.shape[2]] = codes
    found = square[:, np.tri(expected.side, dtype=bool)]
    assert np.abs(found.astype(int) - expected.cells).max() <= 1
    assert (found > 1).any()
