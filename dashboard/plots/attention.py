"""Figures of the Attention page: results of `gpt_core.attention` in, Plotly figures out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from dashboard.plots import style
from gpt_core.attention import AttentionMaps, TokenAttention
from gpt_core.attention_cell import CellSteps

#: Cells of one map that are sent: 2 MiB of float32, and as much again where the colour is not the weight itself.
MAX_MAP_CELLS = 2**19
#: A text up to this length needs no windows: its map can be read whole.
SHORT_TOKENS = 64
#: Columns that a table can still show.
MAX_TABLE_COLUMNS = 128
#: Places of a map that answer to a click. A larger map has one for each block of cells, on the block's largest.
MAX_MARKERS = 2500
#: Tokens written beside and below a map: more would overlap. A text that has a few more is thinned further below, where
#: a narrow screen has less room.
MAX_LABELS = {"x": 32, "y": 40}
FEW_LABELS = 16
#: Lines from and to one token that are drawn: the strongest.
MAX_LINES = 24
#: A BertViz page up to this many bytes is drawn at once, a larger one after a click, a still larger one not at all:
#: a browser needs most of a minute and two million elements for 65 MB.
FREE_BERTVIZ_BYTES = 5_000_000
MAX_BERTVIZ_BYTES = 40_000_000
CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d"]}
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
    marked cell, query and key. Over the cells lie markers that cannot be seen: Plotly reports no click on a heatmap.
    """
    place = maps.heads.index(head)
    shown = range(maps.queries[-1] + 1) if keys is None else keys
    cells = _masked(maps, place)[:, shown.start : shown.stop]
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
        go.Scatter(
            x=columns,
            y=queries,
            customdata=values,
            mode="markers",
            marker={"symbol": "square", "size": side, "opacity": 0, "color": style.ACCENT},
            selected={"marker": {"opacity": 0}},
            unselected={"marker": {"opacity": 0}},
            showlegend=False,
            hovertemplate=f"query %{{y}}<br>key %{{x}}<br>{name} %{{customdata:.4g}}<extra></extra>",
        )
    )
    # Hovers read an axis's texts, all of them; what is drawn beside the map are a few of them, by a second axis.
    figure.add_trace(
        go.Scatter(x=[None], y=[None], xaxis="x2", yaxis="y2", showlegend=False, hoverinfo="skip")
    )
    note = "".join(f"<br><span style='font-size:10px'>{style.literal(line)}</span>" for line in text.note)
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
            figure.add_shape(
                type="rect",
                x0=key - 0.5,
                x1=key + 0.5,
                y0=query - 0.5,
                y1=query + 0.5,
                line={"color": style.SECOND, "width": 3},
            )
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


def token_profile(found: TokenAttention, *, text: MapText) -> go.Figure:
    """What one token pays to each token and receives from each, along the text."""
    positions = np.arange(len(found.paid))
    names = [f"{place} {style.literal(label)}" for place, label in enumerate(text.labels)]
    figure = go.Figure()
    for values, name, colour in (
        (found.paid, "paid", style.ACCENT),
        (found.received, "received", style.SECOND),
    ):
        seen = np.isfinite(values)
        figure.add_trace(
            go.Bar(
                x=positions[seen],
                y=values[seen],
                name=name,
                marker={"color": colour, "line": {"width": 0}},
                text=[names[place] for place in positions[seen]],
                textposition="none",
                hovertemplate=f"%{{text}}<br>{name} %{{y:.4g}}<extra></extra>",
            )
        )
    figure.update_xaxes(style.token_axis(text.labels, title="token") | {"tickangle": -60})
    figure.update_yaxes(title="attention (probability)", rangemode="tozero")
    figure.update_layout(
        barmode="overlay", bargap=0, legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0}
    )
    figure.update_traces(opacity=0.75)
    return style.finish(figure, height=300)


def token_lines(found: TokenAttention, *, text: MapText) -> go.Figure:
    """The strongest lines from one token (a query) to what it looks at, and to it (a key) from what looks at it.

    Queries stand on the left, keys on the right, in the order of the text; a line is as strong as its weight, relative
    to the strongest that is drawn.
    """
    paid = _strongest(found.paid)
    received = [place for place in _strongest(found.received) if place != found.position]
    shown = sorted({found.position, *paid, *received})
    height = {place: number for number, place in enumerate(shown)}
    figure = go.Figure()
    links = [(found.position, key, float(found.paid[key]), style.ACCENT) for key in paid]
    links += [(query, found.position, float(found.received[query]), style.SECOND) for query in received]
    most = max((weight for _, _, weight, _ in links), default=1.0)
    for query, key, weight, colour in links:
        figure.add_trace(
            go.Scatter(
                x=[0, 1],
                y=[height[query], height[key]],
                mode="lines",
                line={"color": colour, "width": 1 + 6 * weight / most},
                opacity=0.25 + 0.75 * weight / most,
                hoverinfo="skip",
                showlegend=False,
            )
        )
    for side, values, what in ((0, found.received, "pays to it"), (1, found.paid, "is paid by it")):
        figure.add_trace(
            go.Scatter(
                x=[side] * len(shown),
                y=[height[place] for place in shown],
                mode="markers+text",
                marker={
                    "size": 7,
                    "color": [style.ACCENT if place == found.position else style.MUTED for place in shown],
                },
                text=[f"{place} {style.literal(style.shorten(text.labels[place], 14))}" for place in shown],
                textposition="middle left" if side == 0 else "middle right",
                hovertext=[
                    f"{place} {style.literal(text.labels[place])}<br>{what} {values[place]:.4g}"
                    if np.isfinite(values[place])
                    else f"{place} {style.literal(text.labels[place])}"
                    for place in shown
                ],
                hovertemplate="%{hovertext}<extra></extra>",
                showlegend=False,
                cliponaxis=False,
            )
        )
    figure.update_xaxes(
        range=[-1.0, 2.0],
        tickvals=[0, 1],
        ticktext=["query", "key"],
        side="top",
        showgrid=False,
        zeroline=False,
        fixedrange=True,
    )
    figure.update_yaxes(visible=False, range=[len(shown) - 0.5, -0.5], fixedrange=True)
    return style.finish(figure, height=90 + 24 * len(shown))


def _strongest(values: np.ndarray) -> list[int]:
    """Positions of the MAX_LINES largest values above nothing, the largest first."""
    weights = np.nan_to_num(values)
    order = np.argsort(-weights, kind="stable")[:MAX_LINES]
    return [int(place) for place in order if weights[place] > 0.0005]


def contribution_bars(cell: CellSteps, *, n_shown: int = 16) -> go.Figure:
    """The dimensions whose products weigh most in q·k, and the rest of them added up."""
    order = np.argsort(-np.abs(cell.contributions), kind="stable")[:n_shown]
    names = [f"dimension {dimension}" for dimension in order]
    values = [float(cell.contributions[dimension]) for dimension in order]
    left = len(cell.contributions) - len(order)
    if left:
        names.append(f"the other {left}")
        values.append(cell.product - sum(values))
    figure = go.Figure(
        go.Bar(
            x=values,
            y=names,
            orientation="h",
            marker={"color": [style.ACCENT if value >= 0 else style.SECOND for value in values]},
            hovertemplate="%{y}<br>q times k %{x:.4g}<extra></extra>",
        )
    )
    figure.update_xaxes(title="q times k (no unit)", zeroline=True)
    figure.update_yaxes(autorange="reversed", title=None)
    return style.finish(figure, height=80 + 22 * len(names))


def moved_bars(cell: CellSteps, *, text: MapText) -> go.Figure:
    """A row's weights beside each key's share of what is handed over."""
    total = float(cell.moved.sum(dtype=np.float64)) or 1.0
    weights, shares = cell.weights, cell.moved / total
    places = sorted(
        {
            int(place)
            for values in (weights, shares)
            for place in np.argsort(-values, kind="stable")[:12]
            if values[place] > 0
        }
        | {cell.key}
    )
    names = [f"{place} {style.literal(style.shorten(text.labels[place]))}" for place in places]
    figure = go.Figure()
    for values, name, colour in ((weights, "weight", style.ACCENT), (shares, "share moved", style.SECOND)):
        figure.add_trace(
            go.Bar(
                x=values[places],
                y=list(range(len(places))),
                orientation="h",
                name=name,
                marker={"color": colour},
                text=names,
                textposition="none",
                hovertemplate=f"%{{text}}<br>{name} %{{x:.4f}}<extra></extra>",
            )
        )
    figure.update_yaxes(tickvals=list(range(len(places))), ticktext=names, autorange="reversed")
    figure.update_xaxes(title="share of the row (0 to 1)", rangemode="tozero")
    figure.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0})
    return style.finish(figure, height=100 + 30 * len(places))


def head_values(
    values: np.ndarray, *, unit: str, chosen: tuple[int, int], name: str, most: float | None = None
) -> go.Figure:
    """`values` (n_layers, n_heads) as a heatmap with the chosen (layer, head) framed; a click names a head.

    The colour begins at 0 and ends at `most`, the largest value where None.
    """
    n_layers, n_heads = values.shape
    written = values.size <= 600
    highest = most if most is not None else float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    figure = go.Figure(
        go.Heatmap(
            z=np.asarray(values, dtype=np.float32),
            zmin=0,
            zmax=highest or 1.0,
            colorscale=style.SEQUENTIAL,
            colorbar=style.colorbar(f"{name} ({unit})"),
            texttemplate="%{z:.2f}" if written else None,
            hoverongaps=False,
            hovertemplate=f"layer %{{y}}, head %{{x}}<br>{name} %{{z:.4g}} {unit}<extra></extra>",
        )
    )
    layers, heads = np.indices(values.shape)
    figure.add_trace(
        go.Scatter(
            x=heads.ravel(),
            y=layers.ravel(),
            customdata=values.ravel(),
            mode="markers",
            marker={"symbol": "square", "size": 24, "opacity": 0},
            selected={"marker": {"opacity": 0}},
            unselected={"marker": {"opacity": 0}},
            showlegend=False,
            hovertemplate=f"layer %{{y}}, head %{{x}}<br>{name} %{{customdata:.4g}} {unit}<extra></extra>",
        )
    )
    layer, head = chosen
    figure.add_shape(
        type="rect",
        x0=head - 0.5,
        x1=head + 0.5,
        y0=layer - 0.5,
        y1=layer + 0.5,
        line={"color": style.SECOND, "width": 3},
    )
    for axis, title, count in (("x", "head", n_heads), ("y", "layer", n_layers)):
        edges = (-0.5, count - 0.5) if axis == "x" else (count - 0.5, -0.5)
        figure.update_layout(
            {
                f"{axis}axis": {
                    "title": {"text": title},
                    "dtick": max(1, count // 16),
                    "tick0": 0,
                    "range": edges,
                    "showgrid": False,
                    "zeroline": False,
                }
            }
        )
    # The nearest marker, however far: every place is some head's.
    figure.update_layout(hovermode="closest", hoverdistance=-1)
    return style.finish(figure, height=max(320, min(760, 130 + 36 * n_layers)))


def _masked(maps: AttentionMaps, place: int) -> np.ndarray:
    cells: np.ndarray = np.where(maps.allowed[place], maps.weights[place], np.float32(np.nan))
    return cells
