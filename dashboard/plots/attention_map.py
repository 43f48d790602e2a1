"""A map of attention as a Plotly figure: rows are queries, columns keys, and every place answers to a click."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

import numpy as np
import plotly.graph_objects as go

from dashboard.plots import style
from gpt_core.attention import AttentionMaps

#: Cells of one map that are sent: 2 MiB of float32, and as much again where the colour is not the weight itself.
MAX_MAP_CELLS = 2**19
#: A text up to this length needs no windows: its map can be read whole.
SHORT_TOKENS = 64
#: Places of a map that answer to a click. A larger map has one for each block of cells, on the block's largest.
MAX_MARKERS = 2500
#: Tokens written beside and below a map: more would overlap. A text that has a few more is thinned further below, where
#: a narrow screen has less room.
MAX_LABELS = {"x": 32, "y": 40}
FEW_LABELS = 16
#: Letters of a line of the small print: more would be cut off on a narrow screen.
NOTE_WIDTH = 44
#: What the colour of a map can show.
SCALES = ("linear", "row maximum", "logarithmic")
#: Weights below this have the colour of the smallest on a logarithmic scale.
LOWEST_LOGARITHM = -5.0
#: Pixels of a map's shorter side, about; its markers are sized by it.
_MAP_PIXELS = 560


@dataclass(frozen=True, kw_only=True)
class MapText:
    """What stands around a map: the text that it is about."""

    labels: Sequence[str]
    """`(n_tokens,)`: what a reader sees of each token."""
    token_ids: Sequence[int]
    """`(n_tokens,)`."""
    boundary: int | None = None
    """Position of the first generated token; None where all is prompt."""
    note: Sequence[str] = ()
    """Lines of small print under the map, which a picture of it carries along: model, revision, versions."""
    background: str = style.CLEAR
    """Colour behind it: a picture that is saved must be read without the page."""


def scale_cells(cells: np.ndarray, scale: str) -> np.ndarray:
    """What the colour shows of probabilities `cells` (n_rows, n_keys): 0..1, or a logarithm from LOWEST_LOGARITHM to 0.

    NaN stays NaN; a row without any weight stays 0.
    """
    assert scale in SCALES
    if scale == "row maximum":
        highest = np.max(np.where(np.isnan(cells), 0, cells), axis=1, keepdims=True, initial=0)
        # Where a row has nothing, its zeros and gaps stay as they are.
        shares: np.ndarray = np.divide(cells, highest, out=cells.copy(), where=highest > 0)
        return shares
    if scale == "logarithmic":
        floored = np.maximum(cells, np.float32(10.0**LOWEST_LOGARITHM))
        return np.asarray(np.log10(floored), dtype=np.float32)
    return cells


def attention_heatmap(
    maps: AttentionMaps,
    *,
    head: int,
    text: MapText,
    scale: str = "linear",
    keys: range | None = None,
    chosen: tuple[int, int] | None = None,
) -> go.Figure:
    """One head's map: rows are queries, columns keys; masked cells are empty.

    `head` is one of `maps.heads`; `keys` are the columns shown, all up to the last query where None; `chosen` is the
    marked cell, query and key.
    """
    place = maps.heads.index(head)
    shown = range(maps.queries[-1] + 1) if keys is None else keys
    cells = maps.cells[place][:, shown.start : shown.stop]
    return map_figure(
        cells,
        rows=range(maps.queries[0], maps.queries[-1] + 1),
        keys=shown,
        text=text,
        scale=scale,
        chosen=chosen,
    )


def map_figure(
    cells: np.ndarray,
    *,
    rows: range,
    keys: range,
    text: MapText,
    scale: str = "linear",
    chosen: tuple[int, int] | None = None,
    name: str = "attention",
    signed: bool = False,
) -> go.Figure:
    """`cells` (n_rows, n_keys), NaN where empty, as a map of the queries `rows` and the keys `keys`.

    `name` is what a cell is, in hovers. `signed`: differences, around 0.
    """
    assert cells.shape == (len(rows), len(keys))
    cells = np.asarray(cells, dtype=np.float32)
    colours = cells if signed else scale_cells(cells, scale)
    figure = go.Figure(
        go.Heatmap(
            z=colours,
            x0=keys.start,
            dx=1,
            y0=rows.start,
            dy=1,
            customdata=None if colours is cells else cells,
            hoverongaps=False,
            hovertemplate=(
                f"query %{{y}}<br>key %{{x}}<br>{name} "
                + ("%{z:.4g}" if colours is cells else "%{customdata:.4g}")
                + "<extra></extra>"
            ),
            **_colours(cells, scale, name, signed),
        )
    )
    queries, columns, values, side = _marked_cells(cells, rows, keys)
    figure.add_trace(
        style.click_targets(
            columns,
            queries,
            values,
            side=side,
            hover=f"query %{{y}}<br>key %{{x}}<br>{name} %{{customdata:.4g}}<extra></extra>",
        )
    )
    # Hovers read an axis's texts, all of them; what is drawn beside the map are a few of them, by a second axis.
    figure.add_trace(
        go.Scatter(x=[None], y=[None], xaxis="x2", yaxis="y2", showlegend=False, hoverinfo="skip")
    )
    note = "".join(f"<br><span style='font-size:10px'>{_broken(line)}</span>" for line in text.note)
    edges = {"x": (keys.start - 0.5, keys.stop - 0.5), "y": (rows.stop - 0.5, rows.start - 0.5)}
    for axis, places, title in (
        ("x", keys, f"key: the token looked at{note}"),
        ("y", rows, "query: the token that looks"),
    ):
        most = MAX_LABELS[axis] if axis == "y" or len(places) <= MAX_LABELS[axis] else FEW_LABELS
        some = places[:: -(-len(places) // most)]
        # Where some are left out, each says its place.
        labels = [(f"{place} " if len(some) < len(places) else "") + text.labels[place] for place in some]
        drawn = style.token_axis(labels, title=title, positions=some)
        figure.update_layout(
            {
                f"{axis}axis": {
                    "tickmode": "array",
                    "tickvals": list(places),
                    "ticktext": [
                        f"{place} {style.literal(text.labels[place])} (id {text.token_ids[place]})"
                        for place in places
                    ],
                    "showticklabels": False,
                    "ticks": "",
                    "showgrid": False,
                    "zeroline": False,
                    "range": edges[axis],
                },
                f"{axis}axis2": drawn
                | {"overlaying": axis, "matches": axis, "side": "bottom" if axis == "x" else "left"}
                | ({"tickangle": -60} if axis == "x" else {}),
            }
        )
    # With one marker a cell, the nearest is the cell's own; with fewer, a place between them is the heatmap's.
    every = len(values) == int(np.isfinite(cells).sum())
    figure.update_layout(
        hovermode="closest", hoverdistance=max(20, 2 * _MAP_PIXELS // max(1, len(keys))) if every else 1
    )
    _mark(figure, rows, keys, chosen, text.boundary)
    return style.finish(figure, height=max(520, min(760, 170 + 26 * len(rows)))).update_layout(
        paper_bgcolor=text.background
    )


def _broken(line: str) -> str:
    # A word and its number stay together.
    glued = re.sub(r" (?=\d)", "\N{NO-BREAK SPACE}", line)
    parts = wrap(glued, NOTE_WIDTH, break_long_words=False, break_on_hyphens=False)
    return "<br>".join(style.literal(part.replace("\N{NO-BREAK SPACE}", " ")) for part in parts)


def _colours(cells: np.ndarray, scale: str, name: str, signed: bool) -> dict[str, object]:
    if signed:
        most = float(np.nanmax(np.abs(cells))) if np.isfinite(cells).any() else 0.0
        limit = most or 1.0
        return {
            "zmin": -limit,
            "zmax": limit,
            "colorscale": style.DIVERGING,
            "colorbar": style.colorbar(name),
        }
    if scale == "logarithmic":
        exponents = list(range(int(LOWEST_LOGARITHM), 1))
        bar = style.colorbar(f"{name} (probability, logarithmic)")
        ticks = {"tickvals": exponents, "ticktext": [f"{10.0**exponent:g}" for exponent in exponents]}
        return {
            "zmin": LOWEST_LOGARITHM,
            "zmax": 0,
            "colorscale": style.SEQUENTIAL,
            "colorbar": bar | ticks,
        }
    unit = "probability" if scale == "linear" else "share of the row’s largest"
    return {
        "zmin": 0,
        "zmax": 1,
        "colorscale": style.SEQUENTIAL,
        "colorbar": style.colorbar(f"{name} ({unit})"),
    }


def _marked_cells(
    cells: np.ndarray, rows: range, keys: range
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Queries, keys and values of the places that answer to a click, and the side of a marker in pixels."""
    step = 1
    open_cells = np.isfinite(cells)
    while True:
        # The largest cell of each block of step x step.
        n_down, n_across = -(-cells.shape[0] // step), -(-cells.shape[1] // step)
        padded = np.full((n_down * step, n_across * step), -np.inf, dtype=np.float32)
        padded[: cells.shape[0], : cells.shape[1]] = np.where(open_cells, cells, -np.inf)
        blocks = padded.reshape(n_down, step, n_across, step).transpose(0, 2, 1, 3).reshape(-1, step * step)
        filled = np.flatnonzero(blocks.max(axis=1, initial=-np.inf) > -np.inf)
        if len(filled) <= MAX_MARKERS:
            break
        step += max(1, int((len(filled) / MAX_MARKERS) ** 0.5 * step) - step)
    largest = blocks[filled].argmax(axis=1) if len(filled) else np.zeros(0, dtype=int)
    down = filled // n_across * step + largest // step
    across = filled % n_across * step + largest % step
    side = max(4.0, min(30.0, step * _MAP_PIXELS / max(1, *cells.shape)))
    return down + rows.start, across + keys.start, cells[down, across], side


def _mark(
    figure: go.Figure, rows: range, keys: range, chosen: tuple[int, int] | None, boundary: int | None
) -> None:
    """The chosen cell with its row and column, and where the prompt ends."""
    left, right, top, bottom = keys.start - 0.5, keys.stop - 0.5, rows.start - 0.5, rows.stop - 0.5
    line = {"color": style.SECOND, "width": 1}
    if chosen is not None:
        query, key = chosen
        if query in rows:
            figure.add_shape(type="rect", x0=left, x1=right, y0=query - 0.5, y1=query + 0.5, line=line)
        if key in keys:
            figure.add_shape(type="rect", x0=key - 0.5, x1=key + 0.5, y0=top, y1=bottom, line=line)
        if query in rows and key in keys:
            style.frame_cell(figure, x=key, y=query)
    if boundary is not None:
        dashed = {"color": style.MUTED, "width": 2, "dash": "dash"}
        if boundary in keys:
            figure.add_shape(
                type="line", x0=boundary - 0.5, x1=boundary - 0.5, y0=top, y1=bottom, line=dashed
            )
        if boundary in rows:
            figure.add_shape(
                type="line", x0=left, x1=right, y0=boundary - 0.5, y1=boundary - 0.5, line=dashed
            )
