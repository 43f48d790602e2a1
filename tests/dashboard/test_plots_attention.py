"""Figures of the Attention page show the numbers of the core, cell by cell."""

import dataclasses

import numpy as np
import pytest

from dashboard.plots.attention import (
    MAX_LINES,
    contribution_bars,
    head_values,
    moved_bars,
    token_lines,
    token_profile,
)
from dashboard.plots.attention_map import (
    LOWEST_LOGARITHM,
    MAX_MAP_CELLS,
    MAX_MARKERS,
    SCALES,
    MapText,
    attention_heatmap,
    map_figure,
    scale_cells,
)
from gpt_core.attention import AttentionMaps, TokenAttention
from gpt_core.attention_cell import CellSteps


def make_maps(n_tokens: int, n_heads: int = 3, start: int = 0, stop: int | None = None) -> AttentionMaps:
    rng = np.random.default_rng(0)
    rows = range(start, n_tokens if stop is None else stop)
    allowed = np.tile(np.tri(n_tokens, dtype=bool)[rows.start : rows.stop], (n_heads, 1, 1))
    weights = rng.random(allowed.shape, dtype=np.float32) * allowed
    weights /= weights.sum(axis=-1, keepdims=True)
    return AttentionMaps(
        layer=0, heads=tuple(range(n_heads)), queries=tuple(rows), weights=weights, allowed=allowed
    )


def text_of(n: int, boundary: int | None = None) -> MapText:
    return MapText(labels=[f"t{i}" for i in range(n)], token_ids=list(range(100, 100 + n)), boundary=boundary)


def test_heatmap_shows_each_weight_and_leaves_masked_cells_empty() -> None:
    maps = make_maps(4)
    figure = attention_heatmap(maps, head=2, text=text_of(4))
    cells = np.array(figure.data[0].z)
    assert cells.dtype == np.float32
    assert np.array_equal(np.isnan(cells), ~maps.allowed[2])
    assert np.array_equal(cells[maps.allowed[2]], maps.weights[2][maps.allowed[2]])
    assert (figure.data[0].zmin, figure.data[0].zmax) == (0, 1)


def test_equal_tokens_keep_their_own_places() -> None:
    text = MapText(labels=["the", "cat", "the", "cat"], token_ids=[1, 2, 1, 2])
    figure = attention_heatmap(make_maps(4), head=0, text=text)
    for axis in (figure.layout.xaxis2, figure.layout.yaxis2):
        assert list(axis.tickvals) == [0, 1, 2, 3]
        assert list(axis.ticktext) == ["the", "cat", "the", "cat"]
        assert axis.title.text
    # The axes that hovers read name every token with its position and id, and draw nothing.
    for axis in (figure.layout.xaxis, figure.layout.yaxis):
        assert list(axis.ticktext) == ["0 the (id 1)", "1 cat (id 2)", "2 the (id 1)", "3 cat (id 2)"]
        assert not axis.showticklabels


def test_tags_stay_text() -> None:
    text = MapText(labels=["<b>x</b>", "${y}"], token_ids=[7, 8], note=("<i>folder</i>",))
    figure = attention_heatmap(make_maps(2), head=0, text=text)
    assert figure.layout.yaxis.ticktext[1] == "1 &#36;&#123;y&#125; (id 8)"
    assert figure.layout.xaxis.ticktext[0] == "0 &lt;b&gt;x&lt;/b&gt; (id 7)"
    assert "<b>" not in figure.layout.xaxis2.ticktext[0]
    assert "&lt;i&gt;folder" in figure.layout.xaxis2.title.text


def test_windows_of_queries_and_keys_keep_their_positions() -> None:
    maps = make_maps(10, start=6, stop=9)
    figure = attention_heatmap(maps, head=1, text=text_of(10), keys=range(3, 8))
    heatmap = figure.data[0]
    assert (heatmap.x0, heatmap.dx, heatmap.y0, heatmap.dy) == (3, 1, 6, 1)
    assert np.array_equal(np.nan_to_num(heatmap.z), maps.weights[1][:, 3:8])
    assert list(figure.layout.yaxis2.ticktext) == ["t6", "t7", "t8"]
    assert list(figure.layout.xaxis2.ticktext) == ["t3", "t4", "t5", "t6", "t7"]
    assert tuple(figure.layout.yaxis.range) == (8.5, 5.5)  # the first query on top
    assert tuple(figure.layout.xaxis.range) == (2.5, 7.5)


@pytest.mark.parametrize("scale", SCALES)
def test_a_hover_says_the_weight_whatever_the_colour(scale: str) -> None:
    maps = make_maps(6)
    figure = attention_heatmap(maps, head=0, text=text_of(6), scale=scale)
    heatmap = figure.data[0]
    named = heatmap.z if heatmap.customdata is None else heatmap.customdata
    assert ("%{z" in heatmap.hovertemplate) == (heatmap.customdata is None)
    assert np.array_equal(np.nan_to_num(np.array(named)), maps.weights[0])
    low, high = heatmap.zmin, heatmap.zmax
    colours = np.array(heatmap.z)[maps.allowed[0]]
    assert (low <= colours).all()
    assert (colours <= high).all()


def test_scales() -> None:
    cells = np.array([[0.5, np.nan, np.nan], [0.0, 0.0, np.nan], [1e-9, 0.01, 0.25]], dtype=np.float32)
    rows = scale_cells(cells, "row maximum")
    np.testing.assert_allclose(rows, [[1, np.nan, np.nan], [0, 0, np.nan], [4e-9, 0.04, 1]], rtol=1e-6)
    logs = scale_cells(cells, "logarithmic")
    np.testing.assert_allclose(
        logs,
        [
            [np.log10(0.5), np.nan, np.nan],
            [LOWEST_LOGARITHM] * 2 + [np.nan],
            [LOWEST_LOGARITHM, -2, np.log10(0.25)],
        ],
        rtol=1e-5,
    )
    assert np.array_equal(np.nan_to_num(scale_cells(cells, "linear")), np.nan_to_num(cells))
    assert not np.isnan(cells[0, 0])
    assert np.isnan(scale_cells(np.full((1, 2), np.nan, dtype=np.float32), "row maximum")).all()


@pytest.mark.parametrize("n", [1, 2, 15, 70, 71, 200, 512])
def test_clicks_are_answered_by_few_markers_each_on_a_real_cell(n: int) -> None:
    maps = make_maps(n, 1)
    figure = attention_heatmap(maps, head=0, text=text_of(n))
    markers = figure.data[1]
    assert 0 < len(markers.x) <= MAX_MARKERS
    queries, keys = np.array(markers.y), np.array(markers.x)
    assert (keys <= queries).all()
    assert np.array_equal(np.array(markers.customdata), maps.weights[0][queries, keys])
    assert markers.marker.opacity == 0
    if n <= 70:  # one for each open cell
        assert len(markers.x) == n * (n + 1) // 2
        assert figure.layout.hoverdistance >= 20
    else:  # the largest of its block: the largest of all is among them
        assert maps.weights[0].max() in np.array(markers.customdata)
        assert figure.layout.hoverdistance == 1


def test_the_chosen_cell_and_the_boundary_are_drawn_where_they_are() -> None:
    figure = attention_heatmap(make_maps(8), head=0, text=text_of(8, boundary=5), chosen=(6, 2))
    boxes = [(s.x0, s.x1, s.y0, s.y1) for s in figure.layout.shapes]
    assert (-0.5, 7.5, 5.5, 6.5) in boxes  # the row
    assert (1.5, 2.5, -0.5, 7.5) in boxes  # the column
    assert (1.5, 2.5, 5.5, 6.5) in boxes
    assert (4.5, 4.5, -0.5, 7.5) in boxes  # before the first generated key
    assert (-0.5, 7.5, 4.5, 4.5) in boxes
    outside = attention_heatmap(
        make_maps(8, start=0, stop=3), head=0, text=text_of(8, boundary=5), chosen=(6, 7)
    )
    assert not outside.layout.shapes


def test_a_difference_is_symmetric_around_nothing() -> None:
    cells = np.array([[0.2, np.nan], [-0.5, 0.1]], dtype=np.float32)
    figure = map_figure(cells, rows=range(2), keys=range(2), text=text_of(2), name="difference", signed=True)
    assert (figure.data[0].zmin, figure.data[0].zmax) == (-0.5, 0.5)
    same = map_figure(
        cells * 0, rows=range(2), keys=range(2), text=text_of(2), name="difference", signed=True
    )
    assert same.data[0].zmax > 0


def make_token(n: int, position: int) -> TokenAttention:
    rng = np.random.default_rng(1)
    paid, received = rng.random((2, n), dtype=np.float32)
    paid[position + 1 :] = np.nan
    received[:position] = np.nan
    return TokenAttention(
        layer=0, head=0, position=position, paid=paid / np.nansum(paid), received=received, first_share=0.5
    )


@pytest.mark.parametrize(("n", "position"), [(1, 0), (6, 3), (300, 200)])
def test_lines_go_from_the_token_and_to_it(n: int, position: int) -> None:
    found = make_token(n, position)
    figure = token_lines(found, text=text_of(n))
    *lines, queries, keys = figure.data
    assert len(lines) <= 2 * MAX_LINES
    assert list(queries.text) == list(keys.text)
    places = [int(text.split(" ")[0]) for text in queries.text]
    assert places == sorted(set(places))
    ends = {(places[line.y[0]], places[line.y[1]]) for line in lines}
    assert all(query == position or key == position for query, key in ends)
    assert all(key <= query for query, key in ends)
    strongest = int(np.nanargmax(found.paid))
    assert (position, strongest) in ends
    if n == 6:
        assert len(ends) == 4 + 2  # four keys paid by token 3 (itself once), and two later queries


def test_weak_lines_are_drawn_where_nothing_is_stronger() -> None:
    paid = np.array([0.9995, 0.0003, 0.0002, 0.0, np.nan], dtype=np.float32)
    found = TokenAttention(
        layer=0, head=0, position=3, paid=paid, received=np.full(5, np.nan, dtype=np.float32), first_share=1.0
    )
    *lines, queries, _ = token_lines(found, text=text_of(5)).data
    places = [int(text.split(" ")[0]) for text in queries.text]
    assert {(places[line.y[0]], places[line.y[1]]) for line in lines} == {(3, 0), (3, 1), (3, 2)}


def test_profile_shows_both_sides() -> None:
    found = make_token(6, 3)
    paid, received = token_profile(found, text=text_of(6)).data
    assert list(paid.x) == [0, 1, 2, 3]
    assert list(received.x) == [3, 4, 5]
    assert np.array_equal(np.array(paid.y), found.paid[:4])
    assert np.array_equal(np.array(received.y), found.received[3:])


def make_cell(n: int = 20, d_head: int = 32) -> CellSteps:
    rng = np.random.default_rng(2)
    contributions = rng.normal(size=d_head).astype(np.float32)
    weights = rng.dirichlet(np.ones(n)).astype(np.float32)
    lengths = rng.random(n).astype(np.float32) * 10
    return CellSteps(
        layer=0,
        head=0,
        query=n - 1,
        key=3,
        contributions=contributions,
        product=float(contributions.sum()),
        scaling=0.2,
        softcap=None,
        score=0.0,
        bias=0.0,
        log_sum=1.0,
        weights=weights,
        lengths=lengths,
        moved=weights * lengths,
        projected=True,
    )


def test_contributions_add_up_with_the_rest() -> None:
    cell = make_cell()
    bars = contribution_bars(cell, n_shown=10).data[0]
    assert len(bars.x) == 11
    np.testing.assert_allclose(sum(bars.x), cell.product, rtol=1e-5)
    assert abs(bars.x[0]) == np.abs(cell.contributions).max()
    assert bars.y[-1] == "the other 22"
    assert len(contribution_bars(dataclasses.replace(cell), n_shown=32).data[0].x) == 32


def test_moved_shares_stand_beside_the_weights() -> None:
    cell = make_cell()
    weights, shares = moved_bars(cell, text=text_of(20)).data
    places = [int(text.split(" ")[0]) for text in weights.text]
    assert cell.key in places
    np.testing.assert_array_equal(np.array(weights.x), cell.weights[places])
    np.testing.assert_allclose(np.array(shares.x), (cell.moved / cell.moved.sum())[places], rtol=1e-5)


def test_head_values_name_layer_and_head() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3) / 10
    values[0, 0] = np.nan
    figure = head_values(values, unit="bits", chosen=(1, 2), name="entropy")
    heatmap, markers = figure.data
    assert np.array_equal(np.nan_to_num(heatmap.z), np.nan_to_num(values))
    assert heatmap.zmax == pytest.approx(0.5)
    where = dict(zip(zip(markers.y, markers.x, strict=True), markers.customdata, strict=True))
    assert where[1, 2] == values[1, 2]
    assert where[1, 0] == values[1, 0]
    frame = figure.layout.shapes[0]
    assert (frame.x0, frame.x1, frame.y0, frame.y1) == (1.5, 2.5, 0.5, 1.5)
    assert head_values(values * np.nan, unit="bits", chosen=(0, 0), name="entropy").data[0].zmax == 1
    assert head_values(values * 0, unit="bits", chosen=(0, 0), name="entropy").data[0].zmax == 1
    assert MAX_MAP_CELLS * 4 == 2 * 2**20
