"""Figures of the Attention page: results of `gpt_core.attention` in, Plotly figures out."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.plots import style
from gpt_core.attention import AttentionMaps

#: Rows of the large map. A longer text is shown a block of queries at a time, so that each cell can name its tokens.
MAX_ROWS = 128
BLOCK_ROWS = 64
#: Columns that a table can still show.
MAX_TABLE_COLUMNS = 128
#: A BertViz page up to this many bytes is drawn at once, a larger one after a click, a still larger one not at all:
#: a browser needs most of a minute and two million elements for 65 MB.
FREE_BERTVIZ_BYTES = 5_000_000
MAX_BERTVIZ_BYTES = 40_000_000
CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d"]}
#: Cells with a hover text of their own: more would cost more bytes than the map.
MAX_HOVER_CELLS = 64 * 1024
#: Side of a small map, in cells: a larger one is thinned by maximum, so that a thin diagonal survives.
THUMBNAIL_CELLS = 48
#: Columns of the grid of small maps.
THUMBNAIL_COLUMNS = 6


def attention_heatmap(
    maps: AttentionMaps, *, head: int, labels: Sequence[str], token_ids: Sequence[int]
) -> go.Figure:
    """One head's map: rows are queries, columns keys, colour the probability 0..1; masked cells are empty.

    `head` is one of `maps.heads`; `labels` and `token_ids` are those of the whole text.
    """
    place = maps.heads.index(head)
    n_keys = maps.queries[-1] + 1  # what comes after the last query is masked in every row
    weights = _masked(maps, place)[:, :n_keys]
    labels, token_ids = labels[:n_keys], token_ids[:n_keys]
    names = [f"{position} {style.literal(label)}" for position, label in enumerate(labels)]
    with_text = weights.size <= MAX_HOVER_CELLS
    text = (
        [
            [
                f"{names[q]} (id {token_ids[q]})<br>key {names[k]} (id {token_ids[k]})"
                for k in range(len(labels))
            ]
            for q in maps.queries
        ]
        if with_text
        else None
    )
    figure = go.Figure(
        go.Heatmap(
            z=weights,
            x=list(range(len(labels))),
            y=list(maps.queries),
            zmin=0,
            zmax=1,
            colorscale=style.SEQUENTIAL,
            colorbar=style.colorbar("attention (probability)"),
            text=text,
            hoverongaps=False,
            hovertemplate=(
                "query %{text}<br>attention %{z:.4f}<extra></extra>"
                if with_text
                else "query at position %{y}<br>key at position %{x}<br>attention %{z:.4f}<extra></extra>"
            ),
        )
    )
    n_rows = len(maps.queries)
    figure.update_xaxes(
        style.token_axis(labels, title="key: the token looked at") | {"side": "bottom", "tickangle": -60}
    )
    figure.update_yaxes(
        style.token_axis(
            [labels[q] for q in maps.queries], title="query: the token that looks", positions=maps.queries
        )
        | {"autorange": "reversed"}
    )
    return style.finish(figure, height=max(420, min(860, 150 + 26 * n_rows)))


def head_grid(maps: AttentionMaps, *, chosen: int) -> go.Figure:
    """All heads of a layer as small maps; the chosen one is named in bold."""
    n = len(maps.heads)
    columns = min(THUMBNAIL_COLUMNS, n)
    rows = -(-n // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[f"<b>head {head}</b>" if head == chosen else f"head {head}" for head in maps.heads],
        horizontal_spacing=0.02,
        vertical_spacing=min(0.12, 0.5 / rows),
    )
    for place, head in enumerate(maps.heads):
        small, step = thin_by_maximum(_masked(maps, place), THUMBNAIL_CELLS)
        figure.add_trace(
            go.Heatmap(
                z=small,
                x0=0,
                dx=step,
                y0=0,
                dy=step,
                zmin=0,
                zmax=1,
                colorscale=style.SEQUENTIAL,
                showscale=False,
                hoverongaps=False,
                hovertemplate=f"head {head}<br>query position %{{y}}<br>key position %{{x}}<br>"
                + ("attention" if step == 1 else "largest attention from here on")
                + " %{z:.3f}<extra></extra>",
            ),
            row=place // columns + 1,
            col=place % columns + 1,
        )
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(visible=False, autorange="reversed")
    return style.finish(figure, height=40 + 190 * rows)


def thin_by_maximum(cells: np.ndarray, side: int) -> tuple[np.ndarray, int]:
    """`cells` (n, m) with blocks of `step` × `step` replaced by their largest value, so that no side passes `side`.

    Also the step. A block without a value stays NaN.
    """
    n, m = cells.shape
    step = max(1, -(-max(n, m) // side))
    if step == 1:
        return cells, 1
    padded = np.full((-(-n // step) * step, -(-m // step) * step), -np.inf, dtype=cells.dtype)
    padded[:n, :m] = np.where(np.isnan(cells), -np.inf, cells)
    small = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step).max(axis=(1, 3))
    return np.where(np.isneginf(small), np.nan, small), step


def _masked(maps: AttentionMaps, place: int) -> np.ndarray:
    cells: np.ndarray = np.where(maps.allowed[place], maps.weights[place], np.float32(np.nan))
    return cells
