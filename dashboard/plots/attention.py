"""Figures of one token, one cell and all heads: results of `gpt_core`'s attention in, Plotly figures out."""

import numpy as np
import plotly.graph_objects as go

from dashboard.plots import style
from dashboard.plots.attention_map import MapText
from gpt_core.attention import TokenAttention
from gpt_core.attention_cell import CellSteps

#: Lines from and to one token that are drawn: the strongest.
MAX_LINES = 24


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
    return [int(place) for place in order if weights[place] > 0]


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
        style.click_targets(
            heads.ravel(),
            layers.ravel(),
            values.ravel(),
            side=24,
            hover=f"layer %{{y}}, head %{{x}}<br>{name} %{{customdata:.4g}} {unit}<extra></extra>",
        )
    )
    layer, head = chosen
    style.frame_cell(figure, x=head, y=layer)
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
