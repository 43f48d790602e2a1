"""Figures of the Embeddings page: results of `embeddings`, `rotary` and `parameters` in, figures out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.plots import style
from gpt_core.embeddings import InputEmbeddings, Neighbours, Walk
from gpt_core.parameters import ParameterPart
from gpt_core.rotary import RotaryAngles

#: Tokens shown at a time: each row keeps its name, and three maps of a wide model stay under the page's bytes.
MAX_ROWS = 48
#: Positions of the rotary figure: below the first few hundred, slow pairs have hardly moved.
MAX_POSITIONS = 256
#: Pixels above the first map of a figure: its title, and a colour bar.
_RIM = 112
#: Percentile of |value| at which the colours end: a few dimensions of trained tables are so large that all others
#: would be white beside them.
COLOUR_PERCENTILE = 99.0


@dataclass(frozen=True, kw_only=True)
class VectorMap:
    """One of the maps that there are to show."""

    title: str
    """What it shows."""
    vectors: np.ndarray
    """`(n_tokens, d_model)`."""
    limit: float
    """Where its colours end, both ways from 0."""


def vector_maps(found: InputEmbeddings) -> list[VectorMap]:
    """The maps of a text. Those that add up have one scale of colours, so that they can be compared."""
    if found.position_vectors is not None:
        titles = ["wte: token vectors", "wpe: position vectors", "the sum, which enters block 0"]
        arrays = [found.token_vectors, found.position_vectors, found.total]
        limit = colour_limit(*arrays)
        maps = [VectorMap(title=t, vectors=a, limit=limit) for t, a in zip(titles, arrays, strict=True)]
        if found.scale == 1:
            return maps
        maps[-1] = VectorMap(title="the sum", vectors=found.total, limit=limit)
    else:
        title = "token vectors, which enter block 0" if found.scale == 1 else "token vectors"
        limit = colour_limit(found.token_vectors)
        maps = [VectorMap(title=title, vectors=found.token_vectors, limit=limit)]
    if not np.isfinite(found.scale):
        limit = colour_limit(found.block_input)
        title = f"what enters block 0 (its own colours, up to ±{limit:.3g})"
        maps.append(VectorMap(title=title, vectors=found.block_input, limit=limit))
    return maps


def colour_limit(*arrays: np.ndarray) -> float:
    """Where the colours of `arrays` end: above 0, and without the few values that would make all others white."""
    sizes = np.abs(np.concatenate([array.ravel() for array in arrays]))
    sizes = sizes[np.isfinite(sizes)]
    if not sizes.size:
        return 1.0
    return float(np.percentile(sizes, COLOUR_PERCENTILE)) or float(sizes.max()) or 1.0


def embedding_maps(
    found: InputEmbeddings, *, labels: Sequence[str], token_ids: Sequence[int], rows: range, dimensions: range
) -> go.Figure:
    """Vectors of the tokens `rows` in the chosen dimensions, one map under the other, signed, white at 0.

    `labels` and `token_ids` are those of the whole text.
    """
    maps = vector_maps(found)
    map_height = max(56, len(rows) * (22 if len(rows) <= 8 else 18 if len(maps) == 1 else 12))
    gap = 42
    height = len(maps) * map_height + (len(maps) - 1) * gap
    figure = make_subplots(
        rows=len(maps),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=gap / height if len(maps) > 1 else 0,
        subplot_titles=[shown.title for shown in maps],
    )
    columns = slice(dimensions.start, dimensions.stop)
    ids = np.repeat(
        np.array([token_ids[row] for row in rows], dtype=np.int32)[:, None], len(dimensions), axis=1
    )
    for place, shown in enumerate(maps):
        figure.add_trace(
            go.Heatmap(
                z=shown.vectors[rows.start : rows.stop, columns],
                x0=dimensions.start,
                dx=1,
                y=list(rows),
                zmin=-shown.limit,
                zmax=shown.limit,
                colorscale=style.DIVERGING,
                showscale=place == 0,
                colorbar=_colorbar_above("value (no unit)", height),
                customdata=ids,
                hoverongaps=False,
                hovertemplate=(
                    f"%{{y}} (id %{{customdata}})<br>{re.split('[:,(]', shown.title)[0].strip()}, dimension %{{x}}"
                    "<br>%{z:.4f}<extra></extra>"
                ),
            ),
            row=place + 1,
            col=1,
        )
    names = _names(labels)
    figure.update_yaxes(
        style.token_axis([names[row] for row in rows], title="", positions=rows)
        | {"autorange": "reversed", "tickfont": {"size": 10 if len(rows) > 8 else 12}}
    )
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_xaxes(title={"text": "dimension"}, row=len(maps), col=1)
    figure.update_annotations(xanchor="left", x=0, font={"size": 13})
    style.finish(figure, height=height + _RIM + 50)
    return figure.update_layout(margin={"t": _RIM, "b": 50})


def _colorbar_above(title: str, height: int) -> dict[str, object]:
    """A colour bar above the first subplot's title; `height` of the plot without its rims, in pixels."""
    return style.colorbar(title) | {"y": 1 + 26 / height}


def similarity_heatmap(
    cosines: np.ndarray, *, labels: Sequence[str], token_ids: Sequence[int], rows: range
) -> go.Figure:
    """Cosine of each pair of the tokens `rows`, -1..1, white at 0. `cosines` are those of the whole text."""
    names = _names(labels)
    full = [f"{names[row]} (id {token_ids[row]})" for row in rows]
    figure = go.Figure(
        go.Heatmap(
            z=cosines[rows.start : rows.stop, rows.start : rows.stop],
            x=list(rows),
            y=list(rows),
            zmin=-1,
            zmax=1,
            colorscale=style.DIVERGING,
            colorbar=style.colorbar("cosine"),
            text=[
                [f"{one}<br>{other}" for other in map(style.literal, full)]
                for one in map(style.literal, full)
            ],
            hoverongaps=False,
            hovertemplate="%{text}<br>cosine %{z:.4f}<extra></extra>",
        )
    )
    shown = [labels[row] for row in rows]
    square = {"constrain": "domain", "scaleanchor": "y", "constraintoward": "left"}
    figure.update_xaxes(style.token_axis(shown, title="token", positions=rows) | {"tickangle": -60} | square)
    figure.update_yaxes(
        style.token_axis(shown, title="token", positions=rows)
        | {"autorange": "reversed", "constrain": "domain", "constraintoward": "top"}
    )
    return style.finish(figure, height=max(300, min(860, 200 + 22 * len(rows))))


def neighbour_bars(near: Neighbours, *, labels: Sequence[str]) -> go.Figure:
    """Cosine of each neighbour, nearest on top; the dashed line is the mean over the vocabulary."""
    places = list(range(len(near.token_ids)))
    figure = go.Figure(
        go.Bar(
            x=near.cosines,
            y=places,
            orientation="h",
            marker_color=style.ACCENT,
            customdata=[
                [style.literal(label), int(token_id)]
                for label, token_id in zip(labels, near.token_ids, strict=True)
            ],
            text=[f"{cosine:.3f}" for cosine in near.cosines],
            textposition="outside",
            textfont={"size": 11},
            hovertemplate="%{customdata[0]} (id %{customdata[1]})<br>cosine %{x:.4f}<extra></extra>",
        )
    )
    if np.isfinite(near.mean_cosine):
        figure.add_vline(x=near.mean_cosine, line={"dash": "dash", "width": 2, "color": style.SECOND})
    lowest = min([0.0, near.mean_cosine, *near.cosines.tolist()])
    figure.update_xaxes(title={"text": "cosine with the chosen token"}, range=[lowest * 1.1, 1.1])
    figure.update_yaxes(style.token_axis(labels, title="token") | {"autorange": "reversed"})
    figure.update_layout(bargap=0.25)
    return style.finish(figure, height=90 + 22 * max(1, len(places)))


def walk_figure(walk: Walk) -> go.Figure:
    """How long the vectors become on their way, and by how much the walk differs from the model after each block."""
    n_layers = len(walk.block_differences)
    depths = list(range(n_layers + 1))
    stations = ["into block 0", *(f"after block {layer}" for layer in range(n_layers))]
    figure = make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        row_heights=[0.6, 0.4],
        vertical_spacing=0.14,
        subplot_titles=["length of the vectors", "largest |walk − model|"],
    )
    lines = [("first token", walk.lengths[:, 0], style.SECOND)]
    if walk.lengths.shape[1] > 1:
        lines.append(("mean of the other tokens", walk.lengths[:, 1:].mean(axis=1), style.ACCENT))
    for name, values, colour in lines:
        figure.add_trace(
            go.Scatter(
                x=depths,
                y=values,
                mode="lines+markers",
                name=name,
                line_color=colour,
                customdata=stations,
                hovertemplate=f"{name}<br>%{{customdata}}: length %{{y:.4g}}<extra></extra>",
            ),
            row=1,
            col=1,
        )
    differences = walk.block_differences
    figure.add_trace(
        go.Bar(
            x=depths[1:],
            y=differences,
            marker_color=style.MUTED,
            showlegend=False,
            text=["0" if difference == 0 else f"{difference:.1e}" for difference in differences],
            textposition="outside",
            customdata=stations[1:],
            hovertemplate="%{customdata}: largest difference %{y:.2g}<extra></extra>",
        ),
        row=2,
        col=1,
    )
    finite = differences[np.isfinite(differences)]
    most = float(finite.max()) if finite.size else 0.0
    # An axis that began and ended at 0 would have no place for the bars' zeros.
    figure.update_yaxes(
        title={"text": "difference"}, range=[0, 1.4 * most or 1e-6], exponentformat="e", row=2, col=1
    )
    figure.update_yaxes(title={"text": "length (log)"}, type="log", dtick="D2", row=1, col=1)
    step = max(1, -(-len(depths) // 16))
    figure.update_xaxes(
        tickmode="array",
        tickvals=depths[::step],
        ticktext=["input", *(str(layer) for layer in range(n_layers))][::step],
        showgrid=False,
    )
    figure.update_xaxes(title={"text": "after block"}, row=2, col=1)
    figure.update_annotations(xanchor="left", x=0, font={"size": 13})
    figure.update_layout(
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.08, "xanchor": "right", "x": 1}
    )
    style.finish(figure, height=420)
    return figure.update_layout(margin={"t": 56})


def rotary_figure(angles: RotaryAngles, *, n_tokens: int) -> go.Figure:
    """How slowly each pair of dimensions turns, and the cosine of its angle at each position.

    Rows up to `n_tokens` are those of the text, the line below them marks its end.
    """
    n_positions, n_pairs = angles.cosines.shape
    pairs = list(range(n_pairs))
    with np.errstate(divide="ignore"):
        periods = 2 * np.pi / angles.frequencies.astype(np.float64)  # a frequency of 0 never comes round
    figure = make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        row_heights=[0.28, 0.72],
        vertical_spacing=0.11,
        subplot_titles=["tokens for one full turn", "cosine of the angle"],
    )
    figure.add_trace(
        go.Scatter(
            x=pairs,
            y=np.where(np.isfinite(periods), periods, np.nan),
            mode="lines+markers",
            line_color=style.ACCENT,
            customdata=angles.frequencies,
            hovertemplate=(
                "pair %{x}<br>%{customdata:.4g} radians per token<br>a full turn in %{y:,.4~r} tokens<extra></extra>"
            ),
            showlegend=False,
        ),
        row=1,
        col=1,
    )
    figure.add_trace(
        go.Heatmap(
            z=angles.cosines,
            x=pairs,
            y=list(range(n_positions)),
            zmin=-1,
            zmax=1,
            colorscale=style.DIVERGING,
            colorbar=_colorbar_above("cosine", 420),
            hovertemplate="position %{y}, pair %{x}<br>cosine %{z:.4f}<extra></extra>",
        ),
        row=2,
        col=1,
    )
    if n_tokens < n_positions:
        figure.add_hline(
            y=n_tokens - 0.5, line={"dash": "dash", "width": 1.5, "color": style.SECOND}, row=2, col=1
        )
    figure.update_yaxes(title={"text": "tokens (log)"}, type="log", row=1, col=1)
    figure.update_yaxes(title={"text": "position"}, autorange="reversed", row=2, col=1)
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_xaxes(title={"text": "pair of dimensions of q and k"}, row=2, col=1)
    figure.update_annotations(xanchor="left", x=0, font={"size": 13})
    style.finish(figure, height=420 + _RIM + 50)
    return figure.update_layout(margin={"t": _RIM, "b": 50})


def parameter_bars(parts: Sequence[ParameterPart]) -> go.Figure:
    """Parameters of each part, in the order in which a text meets them."""
    places = list(range(len(parts)))
    total = sum(part.n_parameters for part in parts) or 1
    largest = max(part.n_parameters for part in parts)
    figure = go.Figure(
        go.Bar(
            x=[part.n_parameters for part in parts],
            y=places,
            orientation="h",
            marker_color=style.ACCENT,
            text=[_share(part, total) for part in parts],
            textposition="outside",
            customdata=[f"{part.n_parameters:,}" for part in parts],
            hovertemplate="%{customdata} parameters<extra></extra>",
        )
    )
    figure.update_xaxes(title={"text": "parameters"}, range=[0, 1.35 * largest])
    figure.update_yaxes(style.token_axis([part.part for part in parts], title="") | {"autorange": "reversed"})
    figure.update_layout(bargap=0.25)
    return style.finish(figure, height=90 + 32 * len(parts))


def _share(part: ParameterPart, total: int) -> str:
    if part.n_parameters == 0:
        return f"shared with the {part.shared_with}"
    share = part.n_parameters / total
    if share < 0.00001:
        return style.literal("<0.001%")
    return f"{share:.1%}" if share >= 0.001 else f"{share:.3%}"


def _names(labels: Sequence[str]) -> list[str]:
    return [f"{position} {style.shorten(label)}" for position, label in enumerate(labels)]
