"""Figures of the Embeddings page: what is drawn is the result, and nobody's text is read as markup."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dashboard.plots import embeddings as plots
from gpt_core.embeddings import (
    InputEmbeddings,
    Neighbours,
    Walk,
    input_embeddings,
    nearest_tokens,
    walk_blocks,
)
from gpt_core.model import LanguageModel
from gpt_core.parameters import ParameterPart, count_parameters
from gpt_core.rotary import RotaryAngles, rotary_angles
from gpt_core.trace import Trace, trace_text

TEXT = "The CS123 class was very intresting. I learned a lot."
EVIL = "<img src=x onerror=1> $x$ %{y}"


@pytest.fixture(scope="module")
def trace(bundled: LanguageModel) -> Trace:
    return trace_text(bundled, TEXT)


@pytest.fixture(scope="module")
def found(bundled: LanguageModel, trace: Trace) -> InputEmbeddings:
    return input_embeddings(bundled, trace)


def embeddings_of(tokens: np.ndarray, positions: np.ndarray | None, *, scale: float = 1.0) -> InputEmbeddings:
    total = tokens.copy() if positions is None else tokens + positions
    return InputEmbeddings(
        token_vectors=tokens,
        position_vectors=positions,
        total=total,
        block_input=total * (3.0 if np.isnan(scale) else scale),
        scale=scale,
        difference=0.0,
    )


def draw(found: InputEmbeddings, **options: Any) -> Any:
    n_tokens, d_model = found.total.shape
    settings: dict[str, Any] = {
        "labels": [f"t{i}" for i in range(n_tokens)],
        "token_ids": list(range(100, 100 + n_tokens)),
        "rows": range(n_tokens),
        "dimensions": range(d_model),
    }
    return plots.embedding_maps(found, **settings | options)


def test_three_maps_hold_the_vectors_and_share_their_colours(found: InputEmbeddings, trace: Trace) -> None:
    figure = draw(found, token_ids=trace.token_ids)
    assert len(figure.data) == 3
    for drawn, vectors in zip(
        figure.data, (found.token_vectors, found.position_vectors, found.total), strict=True
    ):
        assert np.array_equal(drawn.z, vectors)
        assert drawn.zmin == -drawn.zmax
        assert drawn.zmax == figure.data[0].zmax > 0
        assert np.array_equal(drawn.customdata[:, 7], trace.token_ids)
    assert [drawn.showscale for drawn in figure.data] == [True, False, False]
    assert [note.text for note in figure.layout.annotations] == [
        "wte: token vectors",
        "wpe: position vectors",
        "the sum, which enters block 0",
    ]
    everything = np.abs(np.concatenate([found.token_vectors, found.position_vectors, found.total]))
    assert 0.98 < float((everything <= figure.data[0].zmax).mean()) < 1


def test_a_range_of_dimensions_and_tokens(found: InputEmbeddings) -> None:
    figure = draw(found, rows=range(4, 9), dimensions=range(20, 31))
    for drawn, vectors in zip(
        figure.data, (found.token_vectors, found.position_vectors, found.total), strict=True
    ):
        assert np.array_equal(drawn.z, vectors[4:9, 20:31])
        assert (drawn.x0, drawn.dx) == (20, 1)
        assert list(drawn.y) == [4, 5, 6, 7, 8]
    # The colours stay where they are, whatever is zoomed to.
    assert figure.data[0].zmax == draw(found).data[0].zmax


def test_equal_tokens_keep_their_rows(found: InputEmbeddings) -> None:
    figure = draw(found, labels=["the"] * 15)
    for axis in (figure.layout.yaxis, figure.layout.yaxis2, figure.layout.yaxis3):
        assert list(axis.tickvals) == list(range(15))
        assert list(axis.ticktext) == [f"{i} the" for i in range(15)]
        assert axis.autorange == "reversed"
    assert figure.layout.xaxis3.title.text == "dimension"


@pytest.mark.parametrize(
    ("positions", "scale", "titles"),
    [
        (False, 1.0, ["token vectors, which enter block 0"]),
        (False, 5.6569, ["token vectors"]),
        (False, float("nan"), ["token vectors", "what enters block 0 (its own colours, up to ±3)"]),
        (True, 2.0, ["wte: token vectors", "wpe: position vectors", "the sum"]),
    ],
)
def test_other_models_have_other_maps(positions: bool, scale: float, titles: list[str]) -> None:
    ones = np.ones((3, 8), dtype=np.float32)
    maps = plots.vector_maps(embeddings_of(ones, ones.copy() if positions else None, scale=scale))
    assert [shown.title for shown in maps] == titles
    draw(embeddings_of(ones, ones.copy() if positions else None, scale=scale))


def test_colours_of_odd_numbers() -> None:
    values = np.zeros((2, 500), dtype=np.float32)
    assert plots.colour_limit(values) == 1.0
    values[0, 0] = 7
    assert plots.colour_limit(values) == 7.0  # the 99th percentile alone would be 0
    values[1, 0] = np.nan
    values[1, 1] = np.inf
    assert plots.colour_limit(values) == 7.0
    assert plots.colour_limit(np.full((1, 4), np.nan, dtype=np.float32)) == 1.0


def test_similarity_is_signed_and_square(trace: Trace) -> None:
    cosines = np.linspace(-1, 1, 15 * 15, dtype=np.float32).reshape(15, 15)
    figure = plots.similarity_heatmap(
        cosines, labels=["the"] * 15, token_ids=trace.token_ids, rows=range(3, 10)
    )
    (drawn,) = figure.data
    assert np.array_equal(drawn.z, cosines[3:10, 3:10])
    assert (drawn.zmin, drawn.zmax) == (-1, 1)
    assert drawn.text[0][1] == f"3 the (id {trace.token_ids[3]})<br>4 the (id {trace.token_ids[4]})"
    assert list(figure.layout.xaxis.tickvals) == list(range(3, 10))
    assert figure.layout.xaxis.scaleanchor == "y"


def test_neighbours_are_drawn_nearest_on_top(bundled: LanguageModel) -> None:
    near = nearest_tokens(bundled, 464, k=6)
    figure = plots.neighbour_bars(near, labels=list("abcdef"))
    (drawn,) = figure.data
    assert np.array_equal(drawn.x, near.cosines)
    assert figure.layout.yaxis.autorange == "reversed"
    assert [row[1] for row in drawn.customdata] == near.token_ids.tolist()
    assert figure.layout.shapes[0].x0 == near.mean_cosine
    assert list(drawn.text) == [f"{cosine:.3f}" for cosine in near.cosines]


def test_no_neighbours_at_all() -> None:
    near = Neighbours(
        token_id=1,
        token_ids=np.zeros(0, dtype=np.int64),
        cosines=np.zeros(0, dtype=np.float32),
        mean_cosine=float("nan"),
        n_compared=0,
    )
    assert not plots.neighbour_bars(near, labels=[]).layout.shapes


def test_a_walk_that_differs_nowhere_shows_its_zeros(bundled: LanguageModel, trace: Trace) -> None:
    walk = walk_blocks(bundled, trace)
    figure = plots.walk_figure(walk)
    first, others, bars = figure.data
    assert np.array_equal(first.y, walk.lengths[:, 0])
    assert np.allclose(others.y, walk.lengths[:, 1:].mean(axis=1))
    assert np.array_equal(bars.y, walk.block_differences)
    assert list(bars.x) == [1, 2, 3, 4, 5, 6]
    assert list(bars.customdata) == [f"after block {layer}" for layer in range(6)]
    if walk.equal:
        assert set(bars.text) == {"0"}
    assert figure.layout.yaxis2.range[1] > 0


@pytest.mark.parametrize("differences", [[0.0, 1e-6, 3e-5], [np.nan, 0.0, 1.0]])
def test_a_walk_that_differs(differences: list[float]) -> None:
    walk = Walk(
        hidden=np.zeros((1, 4), dtype=np.float32),
        reference=np.zeros((1, 4), dtype=np.float32),
        lengths=np.ones((4, 1), dtype=np.float32),
        block_differences=np.array(differences, dtype=np.float32),
        difference=0.5,
        equal=False,
    )
    figure = plots.walk_figure(walk)
    assert len(figure.data) == 2  # of one token, there are no others
    assert figure.layout.yaxis2.range[1] > differences[2]
    assert figure.data[1].text[2] == f"{differences[2]:.1e}"


def test_rotary_periods_and_cosines(tiny_lm: Callable[[str], LanguageModel]) -> None:
    (angles,) = rotary_angles(tiny_lm("llama"), 64)
    figure = plots.rotary_figure(angles, n_tokens=15)
    periods, cosines = figure.data
    assert np.array_equal(cosines.z, angles.cosines)
    assert (cosines.zmin, cosines.zmax) == (-1, 1)
    assert np.allclose(periods.y, 2 * np.pi / angles.frequencies)
    assert periods.y[0] == pytest.approx(6.2832, abs=1e-4)
    (line,) = figure.layout.shapes
    assert line.y0 == 14.5
    assert not plots.rotary_figure(angles, n_tokens=64).layout.shapes


def test_a_pair_that_never_turns() -> None:
    still = RotaryAngles(
        kind="",
        frequencies=np.array([1.0, 0.0], dtype=np.float32),
        cosines=np.ones((2, 2), dtype=np.float32),
        scaling=1.0,
    )
    assert np.isnan(plots.rotary_figure(still, n_tokens=2).data[0].y[1])


def test_parameters_by_part(bundled: LanguageModel) -> None:
    parts = count_parameters(bundled)
    figure = plots.parameter_bars(parts)
    (drawn,) = figure.data
    assert sum(drawn.x) == bundled.geometry.n_parameters
    shown = dict(zip((part.part for part in parts), drawn.text, strict=True))
    assert shown["token embedding"] == f"{50257 * 192 / bundled.geometry.n_parameters:.1%}"
    assert shown["head"] == "shared with the token embedding"
    assert shown["norms"] == "0.040%"
    tiny = ParameterPart(part="norms", n_parameters=3, modules=(), shared_with="")
    assert (
        plots.parameter_bars([dataclasses.replace(parts[0], n_parameters=10**9), tiny]).data[0].text[1]
        == "&lt;0.001%"
    )


def test_nothing_a_reader_wrote_is_markup(found: InputEmbeddings, trace: Trace) -> None:
    labels = [EVIL] * 15
    near = Neighbours(
        token_id=1,
        token_ids=np.array([2]),
        cosines=np.array([0.5], dtype=np.float32),
        mean_cosine=0.0,
        n_compared=1,
    )
    for figure in (
        draw(found, labels=labels),
        plots.similarity_heatmap(
            np.ones((15, 15), dtype=np.float32), labels=labels, token_ids=trace.token_ids, rows=range(15)
        ),
        plots.neighbour_bars(near, labels=[EVIL]),
    ):
        written = figure.to_json()
        for forbidden in ("<img", "\\u003cimg", "$x$", "onerror=1> %{y}"):
            assert forbidden not in written
