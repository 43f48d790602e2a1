"""Figures of the Predictions page: results of `gpt_core.predictions` and `gpt_core.sampling` in, figures out."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from dashboard.plots import style
from gpt_core.decoding import STAGES
from gpt_core.predictions import LogitLens, PositionTable
from gpt_core.sampling import SamplingResult

#: Columns of the lens: more could not be read.
MAX_LENS_COLUMNS = 24
#: Surprisal, in bits, at which the colour of a token is full: one chance in a million.
MOST_SURPRISAL = 20.0
CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d"]}


def top_ids(result: SamplingResult, k: int) -> np.ndarray:
    """The `k` tokens that are most probable to the model, most probable first: `(k,)` int64."""
    best = np.argpartition(-result.model_probs, min(k, len(result.model_probs) - 1))[:k]
    ordered: np.ndarray = best[np.argsort(-result.model_probs[best], kind="stable")]
    return ordered


def next_token_bars(result: SamplingResult, *, token_ids: np.ndarray, labels: Sequence[str]) -> go.Figure:
    """Probability of each token under the model and after all stages; removed ones are said in the hover."""
    places = list(range(len(token_ids)))
    names = [style.literal(label) for label in labels]
    fate = [
        "kept" if stage < 0 else f"removed by {STAGES[stage].replace('_', ' ')}"
        for stage in result.removed_by[token_ids]
    ]
    custom = np.array([[names[i], int(token_ids[i]), fate[i]] for i in places], dtype=object)
    figure = go.Figure()
    for name, probs, colour in (
        ("the model's own", result.model_probs, style.MUTED),
        ("after the stages", result.probs, style.ACCENT),
    ):
        figure.add_trace(
            go.Bar(
                x=probs[token_ids],
                y=places,
                orientation="h",
                name=name,
                marker_color=colour,
                customdata=custom,
                hovertemplate=(
                    f"%{{customdata[0]}} (id %{{customdata[1]}})<br>{name}: %{{x:.5f}}"
                    "<br>%{customdata[2]}<extra></extra>"
                ),
            )
        )
    figure.update_xaxes(title={"text": "probability of coming next"}, rangemode="tozero", tickformat=".3~g")
    figure.update_yaxes(style.token_axis(labels, title="token") | {"autorange": "reversed"})
    figure.update_layout(
        barmode="group", bargap=0.25, legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0}
    )
    return style.finish(figure, height=90 + 30 * len(places))


def lens_heatmap(
    lens: LogitLens, *, labels: Sequence[str], predicted: Sequence[Sequence[str]], colour: str
) -> go.Figure:
    """What each depth would predict: the token in the cell, and in its colour the chosen measure.

    `labels` of the columns; `predicted` `(n_layers + 1, n_positions)` labels of the cells; `colour` is
    `probability`, `entropy` or `rank`.
    """
    values, bounds, title, scale = {
        "probability": (lens.probs, (0.0, 1.0), "probability", style.SEQUENTIAL),
        "entropy": (lens.entropies, (0.0, None), "entropy (bits)", style.SEQUENTIAL + "_r"),
        "rank": (
            np.log10(lens.final_ranks),
            (0.0, None),
            "log₁₀ of the rank of the final token",
            style.SEQUENTIAL + "_r",
        ),
    }[colour]
    n_rows, n_columns = values.shape
    row_names = ["embeddings"] + [f"layer {layer}" for layer in range(n_rows - 1)]
    custom = np.array(
        [
            [
                [
                    style.literal(predicted[row][column]),
                    int(lens.token_ids[row, column]),
                    f"{lens.probs[row, column]:.4f}",
                    f"{lens.entropies[row, column]:.2f}",
                    int(lens.final_ranks[row, column]),
                    f"{lens.positions[column]} {style.literal(labels[column])}",
                    row_names[row],
                ]
                for column in range(n_columns)
            ]
            for row in range(n_rows)
        ],
        dtype=object,
    )
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=list(range(n_columns)),
            y=list(range(n_rows)),
            zmin=bounds[0],
            zmax=bounds[1],
            colorscale=scale,
            colorbar=style.colorbar(title),
            text=[[style.literal(style.shorten(cell, 9)) for cell in row] for row in predicted],
            texttemplate="%{text}",
            customdata=custom,
            hovertemplate=(
                "after %{customdata[6]}, at position %{customdata[5]}<br>predicts %{customdata[0]} "
                "(id %{customdata[1]})<br>probability %{customdata[2]}<br>entropy %{customdata[3]} bits"
                "<br>rank of the final token %{customdata[4]}<extra></extra>"
            ),
        )
    )
    figure.update_xaxes(style.token_axis(labels, title="position (token read)") | {"tickangle": -60})
    figure.update_yaxes(
        title={"text": "depth"},
        tickmode="array",
        tickvals=list(range(n_rows)),
        ticktext=row_names,
        showgrid=False,
    )
    return style.finish(figure, height=130 + 34 * n_rows)


def position_notes(table: PositionTable, predicted: Sequence[str]) -> list[str]:
    """What a reader sees on hovering over each token: plain text, a line each."""
    notes = []
    for position in range(len(table.token_ids)):
        came = (
            "the first token: nothing predicted it"
            if position == 0
            else (
                f"surprisal {table.surprisals[position]:.3f} bits\nprobability {table.probs[position]:.5f}"
                f"\nrank {table.ranks[position]:,}"
            )
        )
        notes.append(
            f"{came}\nexpected after it: {predicted[position]} ({table.predicted_probs[position]:.4f})"
        )
    return notes
