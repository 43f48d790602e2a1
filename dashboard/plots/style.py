"""Colours and layout that all figures share. Chosen to be read in light and in dark theme, and by the colour-blind."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

#: Probability 0..1: from the page's own background upwards, so that 0 is nothing. Perceptually even (cividis' range).
SEQUENTIAL = "Viridis"
#: Signed values, symmetric around 0 (ColorBrewer RdBu, blue for positive).
DIVERGING = "RdBu"
ACCENT = "#2f74c9"
SECOND = "#d1791f"
MUTED = "#8a95a1"
#: Lines beside each other, told apart by the colour-blind too (Okabe and Ito 2008, the darker of them).
SERIES = (ACCENT, SECOND, "#23967f", "#c2569b", "#8a9a2b", "#7a5cc7", "#b0483a", "#5f7d95")
#: Transparent: figures sit on the page's background in both themes.
CLEAR = "rgba(0,0,0,0)"
#: Plotly's settings of every figure.
CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d"]}
#: More ticks than this are thinned out: they could not be read.
MAX_TICKS = 60


def literal(text: str) -> str:
    """`text` so that Plotly shows it letter for letter: it reads tags, entities and `$`…`$` in ticks and hovers."""
    return escape(text, quote=False).replace("$", "&#36;").replace("{", "&#123;").replace("}", "&#125;")


def shorten(text: str, length: int = 18) -> str:
    """`text` cut to `length` characters, the cut shown."""
    return text if len(text) <= length else text[: length - 1] + "…"


def token_axis(
    labels: Sequence[str], *, title: str, positions: Sequence[int] | None = None
) -> dict[str, object]:
    """An axis whose places are positions and whose tick texts are tokens: equal tokens stay apart."""
    places = list(range(len(labels)) if positions is None else positions)
    step = max(1, -(-len(places) // MAX_TICKS))
    return {
        "title": {"text": title},
        "tickmode": "array",
        "tickvals": places[::step],
        "ticktext": [literal(shorten(label)) for label in labels[::step]],
        "showgrid": False,
        "zeroline": False,
    }


def colorbar(title: str) -> dict[str, object]:
    """A colour bar above the figure: beside it, it would take a third of a narrow screen."""
    return {
        "title": {"text": title, "side": "top"},
        "orientation": "h",
        "thickness": 10,
        "len": 0.5,
        "x": 0.0,
        "xanchor": "left",
        "y": 1.0,
        "yanchor": "bottom",
    }


def finish(figure: go.Figure, *, height: int) -> go.Figure:
    """Common layout: no title (the page has it), small margins, no background of its own."""
    return figure.update_layout(
        height=height,
        margin={"l": 10, "r": 10, "t": 24, "b": 10},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"size": 13},
        hoverlabel={"align": "left"},
    )


def click_targets(x: np.ndarray, y: np.ndarray, values: np.ndarray, *, side: float, hover: str) -> go.Scatter:
    """Markers over a heatmap that cannot be seen, for Plotly reports no click on the heatmap itself.

    x, y, values `(n,)`: places and what stands there, `%{customdata}` in `hover`. side: of a marker, in pixels.
    """
    unseen: dict[str, Any] = {"marker": {"opacity": 0}}
    return go.Scatter(
        x=x,
        y=y,
        customdata=values,
        mode="markers",
        marker={"symbol": "square", "size": side, "opacity": 0, "color": ACCENT},
        selected=unseen,
        unselected=unseen,
        showlegend=False,
        hovertemplate=hover,
    )


def frame_cell(figure: go.Figure, *, x: int, y: int) -> None:
    """Draw a frame around the chosen cell of a heatmap."""
    line = {"color": SECOND, "width": 3}
    figure.add_shape(type="rect", x0=x - 0.5, x1=x + 0.5, y0=y - 0.5, y1=y + 0.5, line=line)
