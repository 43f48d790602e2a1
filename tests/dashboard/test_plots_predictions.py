"""Figures of the Predictions page show the numbers of the core."""

import numpy as np
import pytest

from dashboard.plots.predictions import (
    COLOUR_NOTES,
    POSITION_COLOURS,
    change_bars,
    contribution_heatmap,
    lens_heatmap,
    lifted_ids,
    next_token_bars,
    position_notes,
    position_values,
    saliency_bars,
    strongest,
    top_ids,
    trajectory_lines,
)
from gpt_core.attribution import DirectContributions
from gpt_core.decoding import SamplingSettings
from gpt_core.interventions import PredictionChange
from gpt_core.predictions import LogitLens, PositionTable, Trajectories
from gpt_core.saliency import Saliency
from gpt_core.sampling import apply_stages

LOGITS = np.array([0.0, 3.0, 1.0, 2.0, -1.0], dtype=np.float32)


def test_a_token_that_a_bias_lifts_is_among_those_shown() -> None:
    logits = np.arange(40, 0, -1, dtype=np.float32)
    plain = apply_stages(logits, [0], SamplingSettings())
    shown = top_ids(plain, 15)
    assert lifted_ids(plain, shown).tolist() == []
    biased = apply_stages(logits, [0], SamplingSettings(logit_bias=((30, 60.0), (35, 62.0))))
    assert lifted_ids(biased, top_ids(biased, 15)).tolist() == [30, 35]
    greedy = apply_stages(logits, [0], SamplingSettings(logit_bias=((30, 60.0),), temperature=0))
    assert lifted_ids(greedy, shown).tolist() == [30], "what has no probability is not lifted"


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


def make_contributions() -> DirectContributions:
    return DirectContributions(
        position=3,
        token_id=7,
        versus_id=None,
        heads=np.array([[1.0, -2.0], [0.25, 0.0]]),
        mlps=np.array([3.0, -0.5]),
        token_embedding=0.1,
        position_embedding=0.2,
        rest=0.3,
        logit=2.35,
        cap=None,
    )


def test_contributions_are_heads_and_at_last_the_mlp() -> None:
    found = make_contributions()
    heatmap = contribution_heatmap(found).data[0]
    assert np.array_equal(np.array(heatmap.z), [[1, -2, 3], [0.25, 0, -0.5]])
    assert (heatmap.zmin, heatmap.zmax) == (-3, 3)
    assert heatmap.text[1][2] == "layer 1, MLP"
    assert heatmap.text[0][1] == "layer 0, head 1"
    assert found.total == pytest.approx(2.35)
    assert strongest(found, 2, sign=1) == "layer 0 MLP +3.000, layer 0 head 0 +1.000"
    assert strongest(found, 9, sign=-1) == "layer 0 head 1 -2.000, layer 1 MLP -0.500"


def test_trajectories_are_a_line_for_each_token() -> None:
    found = Trajectories(
        position=2,
        token_ids=(5, 6),
        ranks=np.array([[900, 3], [40, 1]]),
        probs=np.array([[0.1, 0.2], [0.3, 0.4]], dtype=np.float32),
    )
    figure = trajectory_lines(found, labels=["<a>", "<a>"])
    assert [list(line.y) for line in figure.data] == [[900, 40], [3, 1]]
    assert figure.data[0].name == "&lt;a&gt;"
    assert list(figure.layout.xaxis.ticktext) == ["embeddings", "layer 0"]
    assert figure.layout.yaxis.type == "log"
    assert figure.layout.yaxis.autorange == "reversed"
    assert list(figure.data[1].customdata[1][2:]) == ["layer 0", "0.40000"]


def test_change_and_saliency_show_their_numbers() -> None:
    change = PredictionChange(
        position=1,
        token_ids=np.array([4, 9]),
        probs=np.array([0.5, 0.25], dtype=np.float32),
        changed_probs=np.array([0.125, 0.75], dtype=np.float32),
        logit_differences=np.array([-1, 1], dtype=np.float32),
        kl_bits=np.array([0.5, 0.25], dtype=np.float32),
    )
    intact, changed = change_bars(change, labels=["a", "a"]).data
    assert list(intact.x) == [0.5, 0.25]
    assert list(changed.x) == [0.125, 0.75]
    found = Saliency(
        method="gradient",
        position=1,
        token_id=4,
        log_prob=-1.0,
        scores=np.array([0.5, -0.25], dtype=np.float32),
    )
    bars = saliency_bars(found, labels=["a", "<b>", "later"], token_ids=[4, 9, 2])
    assert list(bars.data[0].y) == [0.5, -0.25]
    assert list(bars.layout.xaxis.ticktext) == ["a", "&lt;b&gt;"]
    assert bars.data[0].marker.color[0] != bars.data[0].marker.color[1]


def test_colours_of_positions() -> None:
    table = PositionTable(
        token_ids=np.arange(7),
        predicted_ids=np.arange(7),
        predicted_probs=np.full(7, 0.5, dtype=np.float32),
        entropies=np.array([0, 8, 16, 4, 4, 4, 4], dtype=np.float32),
        probs=np.array([np.nan, 0.5, 0.25, 0.1, 0.1, 0.1, 0.1], dtype=np.float32),
        surprisals=np.array([np.nan, 1, 2, 10, 30, 1, 1], dtype=np.float32),
        ranks=np.array([0, 1, 2, 10, 11, 1000, 1001]),
    )
    ranks = position_values(table, "rank", 65536)
    assert np.isnan(ranks[0])
    assert ranks[1:].tolist() == [0, 0.25, 0.25, 0.5, 0.75, 1]
    assert position_values(table, "entropy", 65536)[:3].tolist() == [0, 0.5, 1]
    assert position_values(table, "probability", 65536)[1:3].tolist() == [0.5, 0.25]
    assert position_values(table, "surprisal", 65536)[1:5].tolist() == pytest.approx([0.05, 0.1, 0.5, 1])
    assert set(COLOUR_NOTES) == set(POSITION_COLOURS)
