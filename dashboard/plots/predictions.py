"""Figures of the Predictions page: results of `gpt_core.predictions` and `gpt_core.sampling` in, figures out."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from dashboard.plots import style
from gpt_core.attribution import DirectContributions
from gpt_core.decoding import STAGE_LABELS, STAGES
from gpt_core.interventions import PredictionChange
from gpt_core.predictions import LogitLens, PositionTable, Trajectories
from gpt_core.saliency import Saliency
from gpt_core.sampling import SamplingResult

#: Columns of the lens: more could not be read.
MAX_LENS_COLUMNS = 24
LENS_COLOURS = ("probability", "entropy", "rank", "KL")
POSITION_COLOURS = ("surprisal", "probability", "rank", "entropy")
#: Upper ends of the rank buckets, as in GLTR (Gehrmann et al. 2019, arXiv:1906.04043), with 1 by itself.
RANK_BUCKETS = (1, 10, 100, 1000)
#: Surprisal, in bits, at which the colour of a token is full: one chance in a million.
MOST_SURPRISAL = 20.0
COLOUR_NOTES = {
    "surprisal": (
        "How unexpected each token was: −log₂ of the probability that the model gave it, in bits. The stronger the "
        "colour, the more surprising."
    ),
    "probability": "The probability that the model gave to each token before it came: the stronger, the more probable.",
    "rank": (
        "The rank of each token before it came: no colour for rank 1, then 2–10, 11–100, 101–1,000 and, strongest, "
        "beyond."
    ),
    "entropy": (
        "How open the choice after each token is: the entropy of the next-token distribution, full colour where all "
        "tokens are equally probable."
    ),
}


def top_ids(result: SamplingResult, k: int) -> np.ndarray:
    """The `k` tokens that are most probable to the model, most probable first: `(k,)` int64."""
    best = np.argpartition(-result.model_probs, min(k, len(result.model_probs) - 1))[:k]
    ordered: np.ndarray = best[np.argsort(-result.model_probs[best], kind="stable")]
    return ordered


def lifted_ids(result: SamplingResult, shown: np.ndarray, k: int = 3) -> np.ndarray:
    """Those of the `k` tokens most probable after the stages that are not among `shown`: `(at most k,)` int64.

    A logit bias, or a penalty on all others, can lift a token that the model alone would not name.
    """
    k = min(k, len(result.probs))
    best = np.argpartition(-result.probs, k - 1)[:k]
    best = best[np.argsort(-result.probs[best], kind="stable")]
    lifted: np.ndarray = best[(result.probs[best] > 0) & ~np.isin(best, shown)]
    return lifted


def next_token_bars(result: SamplingResult, *, token_ids: np.ndarray, labels: Sequence[str]) -> go.Figure:
    """Probability of each token under the model and after all stages; removed ones are said in the hover."""
    places = list(range(len(token_ids)))
    names = [style.literal(label) for label in labels]
    fate = [
        "kept" if stage < 0 else f"removed by {STAGE_LABELS[STAGES[stage]].lower()}"
        for stage in result.removed_by[token_ids]
    ]
    custom = np.array([[names[i], int(token_ids[i]), fate[i]] for i in places], dtype=object)
    return _paired_bars(
        ("the model's own", result.model_probs[token_ids], style.MUTED),
        ("after the stages", result.probs[token_ids], style.ACCENT),
        labels=labels,
        custom=custom,
        note="%{customdata[2]}",
    )


def _paired_bars(
    *pairs: tuple[str, np.ndarray, str], labels: Sequence[str], custom: np.ndarray, note: str
) -> go.Figure:
    """Two bars a token: name, `(n_tokens,)` probabilities and colour of each.

    custom: `(n_tokens, 3)`, text, id and what `note` shows.
    """
    places = list(range(len(labels)))
    figure = go.Figure()
    for name, probs, colour in pairs:
        figure.add_trace(
            go.Bar(
                x=probs,
                y=places,
                orientation="h",
                name=name,
                marker_color=colour,
                customdata=custom,
                hovertemplate=(
                    f"%{{customdata[0]}} (id %{{customdata[1]}})<br>{name}: %{{x:.5f}}<br>{note}<extra></extra>"
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
    one of LENS_COLOURS.
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
        "KL": (
            lens.kl_to_final,
            (0.0, None),
            "KL from the final distribution (bits)",
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
                    f"{lens.final_ranks[row, column]:,}",
                    f"{lens.positions[column]} {style.literal(labels[column])}",
                    row_names[row],
                    f"{lens.kl_to_final[row, column]:.3f}",
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
                "<br>rank of the final token %{customdata[4]}<br>KL from the final distribution %{customdata[7]} bits"
                "<extra></extra>"
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


def position_values(table: PositionTable, colour: str, vocab_size: int) -> np.ndarray:
    """How strongly each token is coloured, 0..1, by one of POSITION_COLOURS; NaN where there is nothing to say."""
    if colour == "probability":
        return table.probs
    if colour == "rank":
        buckets = np.searchsorted(RANK_BUCKETS, table.ranks, side="left") / len(RANK_BUCKETS)
        return np.where(table.ranks == 0, np.nan, buckets).astype(np.float32)
    if colour == "entropy":
        return (table.entropies / np.float32(np.log2(vocab_size))).astype(np.float32)
    values: np.ndarray = np.clip(table.surprisals / MOST_SURPRISAL, 0, 1)
    return values


def trajectory_lines(found: Trajectories, *, labels: Sequence[str]) -> go.Figure:
    """Rank of each token at every depth, the first rank on top, logarithmic."""
    n_rows = found.ranks.shape[0]
    names = ["embeddings"] + [f"layer {layer}" for layer in range(n_rows - 1)]
    figure = go.Figure()
    for place, label in enumerate(labels):
        figure.add_trace(
            go.Scatter(
                x=list(range(n_rows)),
                y=found.ranks[:, place],
                mode="lines+markers",
                name=style.literal(style.shorten(label)),
                line={"color": style.SERIES[place % len(style.SERIES)], "width": 2},
                marker={"symbol": place % 8, "size": 7},
                customdata=[
                    [
                        style.literal(label),
                        found.token_ids[place],
                        names[row],
                        f"{found.probs[row, place]:.5f}",
                    ]
                    for row in range(n_rows)
                ],
                hovertemplate=(
                    "%{customdata[0]} (id %{customdata[1]})<br>after %{customdata[2]}: rank %{y:,}"
                    "<br>probability %{customdata[3]}<extra></extra>"
                ),
            )
        )
    figure.update_yaxes(title={"text": "rank (logarithmic)"}, type="log", autorange="reversed", dtick=1)
    figure.update_xaxes(
        title={"text": "depth"},
        tickmode="array",
        tickvals=list(range(n_rows))[:: max(1, n_rows // 15)],
        ticktext=names[:: max(1, n_rows // 15)],
        tickangle=-45,
        showgrid=False,
    )
    figure.update_layout(legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0}, showlegend=True)
    return style.finish(figure, height=380)


def contribution_heatmap(found: DirectContributions) -> go.Figure:
    """What each head, and in the last column each MLP, adds to the logit: blue adds, red takes off."""
    table = found.table
    n_layers, n_columns = table.shape
    largest = float(np.abs(table).max()) or 1.0
    columns = [*(f"head {head}" for head in range(n_columns - 1)), "MLP"]
    figure = go.Figure(
        go.Heatmap(
            z=table,
            x=list(range(n_columns)),
            y=list(range(n_layers)),
            zmin=-largest,
            zmax=largest,
            colorscale=style.DIVERGING,
            colorbar=style.colorbar("added to the logit"),
            text=[[f"layer {layer}, {name}" for name in columns] for layer in range(n_layers)],
            hovertemplate="%{text}<br>%{z:+.4f}<extra></extra>",
        )
    )
    figure.add_vline(x=n_columns - 1.5, line={"color": style.MUTED, "width": 2})
    figure.update_xaxes(
        title={"text": "head, and the MLP"},
        tickmode="array",
        tickvals=list(range(n_columns)),
        ticktext=[*(str(head) for head in range(n_columns - 1)), "MLP"],
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(
        title={"text": "layer"},
        tickmode="array",
        tickvals=list(range(n_layers)),
        showgrid=False,
        zeroline=False,
    )
    return style.finish(figure, height=150 + 30 * n_layers)


def change_bars(found: PredictionChange, *, labels: Sequence[str]) -> go.Figure:
    """Probability of each token by the model as it is and with parts replaced."""
    custom = np.array(
        [
            [style.literal(label), int(found.token_ids[i]), f"{found.logit_differences[i]:+.3f}"]
            for i, label in enumerate(labels)
        ],
        dtype=object,
    )
    return _paired_bars(
        ("the model as it is", found.probs, style.MUTED),
        ("with parts replaced", found.changed_probs, style.SECOND),
        labels=labels,
        custom=custom,
        note="logit %{customdata[2]}",
    )


def saliency_bars(found: Saliency, *, labels: Sequence[str], token_ids: Sequence[int]) -> go.Figure:
    """What each token did for the chosen one's log-probability, token after token."""
    places = list(range(len(found.scores)))
    figure = go.Figure(
        go.Bar(
            x=places,
            y=found.scores,
            marker_color=[style.ACCENT if score >= 0 else style.SECOND for score in found.scores],
            customdata=[[place, style.literal(labels[place]), int(token_ids[place])] for place in places],
            hovertemplate="%{customdata[0]} %{customdata[1]} (id %{customdata[2]})<br>%{y:+.4f} nats<extra></extra>",
        )
    )
    figure.update_xaxes(
        style.token_axis(labels[: len(places)], title="token of the text") | {"tickangle": -60}
    )
    figure.update_yaxes(title={"text": "added to the log-probability (nats)"})
    return style.finish(figure, height=380)


def strongest(found: DirectContributions, k: int, *, sign: int) -> str:
    """The `k` parts that add most (`sign` 1) or take most off (-1), in words."""
    table = sign * found.table
    order = np.argsort(-table, axis=None)[:k]
    n_columns = table.shape[1]
    parts = []
    for flat in order:
        layer, column = divmod(int(flat), n_columns)
        if table[layer, column] <= 0:
            break
        name = "MLP" if column == n_columns - 1 else f"head {column}"
        parts.append(f"layer {layer} {name} {found.table[layer, column]:+.3f}")
    return ", ".join(parts) or "nothing"
