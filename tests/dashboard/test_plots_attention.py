"""Figures of the Attention page show the numbers of the core, cell by cell."""

import numpy as np
import pytest

from dashboard.plots.attention import (
    MAX_HOVER_CELLS,
    THUMBNAIL_CELLS,
    attention_heatmap,
    head_grid,
    thin_by_maximum,
)
from gpt_core.attention import AttentionMaps


def make_maps(n_tokens: int, n_heads: int = 3, start: int = 0, stop: int | None = None) -> AttentionMaps:
    rng = np.random.default_rng(0)
    rows = range(start, n_tokens if stop is None else stop)
    allowed = np.tile(np.tri(n_tokens, dtype=bool)[rows.start : rows.stop], (n_heads, 1, 1))
    weights = rng.random(allowed.shape, dtype=np.float32) * allowed
    weights /= weights.sum(axis=-1, keepdims=True)
    return AttentionMaps(
        layer=0, heads=tuple(range(n_heads)), queries=tuple(rows), weights=weights, allowed=allowed
    )


def test_heatmap_shows_each_weight_and_leaves_masked_cells_empty() -> None:
    maps = make_maps(4)
    figure = attention_heatmap(maps, head=2, labels=["the", "cat", "the", "cat"], token_ids=[1, 2, 1, 2])
    cells = np.array(figure.data[0].z)
    assert np.array_equal(np.isnan(cells), ~maps.allowed[2])
    assert np.array_equal(cells[maps.allowed[2]], maps.weights[2][maps.allowed[2]])
    assert (figure.data[0].zmin, figure.data[0].zmax) == (0, 1)


def test_equal_tokens_keep_their_own_places() -> None:
    figure = attention_heatmap(
        make_maps(4), head=0, labels=["the", "cat", "the", "cat"], token_ids=[1, 2, 1, 2]
    )
    for axis in (figure.layout.xaxis, figure.layout.yaxis):
        assert list(axis.tickvals) == [0, 1, 2, 3]
        assert list(axis.ticktext) == ["the", "cat", "the", "cat"]
        assert axis.title.text


def test_hover_names_query_and_key_and_tags_stay_text() -> None:
    figure = attention_heatmap(make_maps(2), head=0, labels=["<b>x</b>", "${y}"], token_ids=[7, 8])
    text = figure.data[0].text[1][0]
    assert "1 &#36;&#123;y&#125; (id 8)" in text
    assert "0 &lt;b&gt;x&lt;/b&gt; (id 7)" in text
    assert "<b>" not in text
    assert "<b>" not in figure.layout.xaxis.ticktext[0]


def test_a_block_of_rows_keeps_its_positions() -> None:
    maps = make_maps(10, start=6, stop=9)
    figure = attention_heatmap(maps, head=1, labels=[str(i) for i in range(10)], token_ids=list(range(10)))
    assert list(figure.data[0].y) == [6, 7, 8]
    assert list(figure.layout.yaxis.ticktext) == ["6", "7", "8"]
    assert "query 7" not in figure.data[0].text[1][0]
    assert figure.data[0].text[1][0].startswith("7 7 ")


def test_a_large_map_carries_no_text_of_its_own() -> None:
    n = int(MAX_HOVER_CELLS**0.5) + 1
    figure = attention_heatmap(make_maps(n, 1), head=0, labels=["a"] * n, token_ids=[0] * n)
    assert figure.data[0].text is None
    assert "%{y}" in figure.data[0].hovertemplate


def test_grid_has_a_map_for_every_head() -> None:
    figure = head_grid(make_maps(5, n_heads=13), chosen=4)
    assert len(figure.data) == 13
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles[4] == "<b>head 4</b>"
    assert titles[12] == "head 12"


@pytest.mark.parametrize("n", [1, THUMBNAIL_CELLS, THUMBNAIL_CELLS + 1, 500])
def test_thinning_keeps_the_largest_and_the_diagonal(n: int) -> None:
    cells = np.where(np.tri(n, dtype=bool), np.eye(n), np.nan)
    small, step = thin_by_maximum(cells, THUMBNAIL_CELLS)
    assert max(small.shape) <= THUMBNAIL_CELLS
    assert small.shape[0] == -(-n // step)
    assert np.array_equal(np.diag(small), np.ones(len(small)))
    assert np.isnan(small[np.triu_indices(len(small), 1)]).all()
