"""Figures of the Predictions page show the numbers of the core."""

import numpy as np
import pytest

from dashboard.plots.predictions import lens_heatmap, next_token_bars, position_notes, top_ids
from gpt_core.decoding import SamplingSettings
from gpt_core.predictions import LogitLens, PositionTable
from gpt_core.sampling import apply_stages

LOGITS = np.array([0.0, 3.0, 1.0, 2.0, -1.0], dtype=np.float32)


def test_top_ids_are_the_most_probable_in_order() -> None:
    result = apply_stages(LOGITS, (0,), SamplingSettings())
    assert top_ids(result, 3).tolist() == [1, 3, 2]
    assert top_ids(result, 99).tolist() == [1, 3, 2, 0, 4]


def test_bars_show_both_distributions_and_who_removed_a_token() -> None:
    result = apply_stages(LOGITS, (0,), SamplingSettings(temperature=0.5, top_k=2))
    shown = top_ids(result, 4)
    figure = next_token_bars(result, token_ids=shown, labels=["a", "a", "<i>", "d"])
    own, after = figure.data
    expected = np.exp(LOGITS) / np.exp(LOGITS).sum()
    assert np.allclose(own.x, expected[shown], atol=1e-6)
    assert np.allclose(after.x, result.probs[shown])
    assert [row[2] for row in after.customdata] == ["kept", "kept", "removed by top-k", "removed by top-k"]
    assert list(figure.layout.yaxis.tickvals) == [0, 1, 2, 3]
    assert figure.layout.yaxis.ticktext[2] == "&lt;i&gt;"
    assert "probability" in figure.layout.xaxis.title.text


def make_lens() -> LogitLens:
    return LogitLens(
        positions=(4, 5),
        token_ids=np.array([[1, 2], [3, 4], [5, 6]]),
        probs=np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], dtype=np.float32),
        entropies=np.array([[9, 8], [7, 6], [5, 4]], dtype=np.float32),
        final_ranks=np.array([[100, 10], [10, 10], [1, 1]]),
        kl_to_final=np.array([[5, 4], [3, 2], [0, 0]], dtype=np.float32),
    )


@pytest.mark.parametrize(
    ("colour", "expected"), [("probability", 0.5), ("entropy", 5.0), ("rank", 0.0), ("KL", 0.0)]
)
def test_lens_colours_by_the_chosen_measure(colour: str, expected: float) -> None:
    figure = lens_heatmap(
        make_lens(), labels=["x", "y"], predicted=[["p", "q"], ["r", "s"], ["<b>", "u"]], colour=colour
    )
    heatmap = figure.data[0]
    assert np.isclose(np.array(heatmap.z)[2][0], expected)
    assert heatmap.text[2][0] == "&lt;b&gt;"
    assert list(heatmap.customdata[2][0]) == [
        "&lt;b&gt;",
        5,
        "0.5000",
        "5.00",
        "1",
        "4 x",
        "layer 1",
        "0.000",
    ]
    assert list(figure.layout.yaxis.ticktext) == ["embeddings", "layer 0", "layer 1"]


def test_notes_say_what_came_and_what_was_expected() -> None:
    table = PositionTable(
        token_ids=np.array([7, 8]),
        predicted_ids=np.array([8, 9]),
        predicted_probs=np.array([0.5, 0.25], dtype=np.float32),
        entropies=np.array([1, 2], dtype=np.float32),
        probs=np.array([np.nan, 0.5], dtype=np.float32),
        surprisals=np.array([np.nan, 1], dtype=np.float32),
        ranks=np.array([0, 1]),
    )
    first, second = position_notes(table, ["eight", "nine"])
    assert "nothing predicted it" in first
    assert "eight (0.5000)" in first
    assert "surprisal 1.000 bits" in second
    assert "rank 1" in second
    assert "nine (0.2500)" in second
