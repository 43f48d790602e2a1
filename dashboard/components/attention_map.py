"""One head, large: its map, the chosen token's row and column, and the text coloured by them."""

import dataclasses
from typing import Any

import numpy as np
import streamlit as st

from dashboard import cache
from dashboard.components import link
from dashboard.components.prompt import Inputs
from dashboard.components.size import size_text
from dashboard.components.token_strip import token_strip
from dashboard.plots import attention as plots
from dashboard.plots import attention_map as map_plots
from dashboard.plots import style
from dashboard.plots.bertviz import BACKGROUND
from gpt_core.attention import AttentionMaps, TokenAttention, without_first
from gpt_core.attention_export import origin_of

#: From this share on, the first token is where a head looks that has nothing to look for.
LARGE_SHARE = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """What is being looked at."""

    layer: int
    head: int
    query: int
    """Position of the chosen token."""
    key: int
    """Position of the chosen key."""
    hide_first: bool
    """Whether the first token is left out and rows are renormalised."""
    scale: str
    """One of map_plots.SCALES."""
    rows: range
    """The queries shown."""
    keys: range
    """The keys shown."""


def pick_head(*, n_layers: int, n_heads: int) -> tuple[int, int]:
    """Two lists: layer and head."""
    layer = link.pick_integer(
        f"Layer (of 0–{n_layers - 1})",
        key="attention_layer",
        low=0,
        high=n_layers - 1,
        default=min(9, n_layers - 1),
        name=lambda number: f"layer {number}",
    )
    head = link.pick_integer(
        f"Head (of 0–{n_heads - 1})",
        key="attention_head",
        low=0,
        high=n_heads - 1,
        default=0,
        name=lambda number: f"head {number}",
    )
    return layer, head


def take_head(chart: str) -> None:
    """Open the head that was clicked in `chart`, a figure of layers by heads."""
    _take(chart, across="attention_head", down="attention_layer")


def take_cell(chart: str) -> None:
    """Choose the query and the key that were clicked in `chart`, a figure of queries by keys."""
    _take(chart, across="attention_key", down="attention_query")


def origin_lines(model: str) -> tuple[str, ...]:
    """Two lines of small print: model and revision, then dtype and versions."""
    origin = origin_of(model)
    return f"{origin.model}@{origin.revision}", f"{origin.dtype}, {origin.versions}"


def map_text(inputs: Inputs, boundary: int | None, *, what: str = "") -> map_plots.MapText:
    """The text around a map, with its small print, beginning with `what` the map is."""
    model, versions = origin_lines(inputs.model)
    return map_plots.MapText(
        labels=inputs.labels,
        token_ids=inputs.token_ids,
        boundary=boundary,
        note=(f"{what}{', ' if what else ''}{model}", versions),
        background=BACKGROUND["dark" if st.context.theme.type == "dark" else "light"],
    )


def picture_config(name: str, kind: str) -> dict[str, Any]:
    """Plotly's settings with the camera button set to `kind`, png or svg, and a file name."""
    options: dict[str, Any] = {"format": kind, "filename": name}
    return style.CONFIG | {"toImageButtonOptions": options | ({"scale": 2} if kind == "png" else {})}


def pick_picture() -> str:
    """Whether the camera over a map saves a PNG or an SVG."""
    return link.pick_option(
        "Picture as",
        ("png", "svg"),
        key="attention_picture",
        default="png",
        name=str.upper,
        explanation="What the camera over the map saves. The picture is made in this browser and carries the model, "
        "its revision and the versions in its small print.",
    )


def draw(inputs: Inputs, *, layer: int, head: int, boundary: int | None) -> View:
    """The map with its settings, the chosen token beside it, and the text under both."""
    n_tokens = len(inputs.token_ids)
    map_column, token_column = st.columns([3, 2], gap="medium")
    map_box = map_column.container()  # above its settings
    with map_column, st.container(horizontal=True, vertical_alignment="bottom"):
        scale = link.pick_option(
            "Colour scale",
            map_plots.SCALES,
            key="attention_scale",
            default="linear",
            name=str.capitalize,
            explanation="Linear: 0 to 1. Row maximum: each row's largest weight has the strongest colour. "
            "Logarithmic: from 0.00001 to 1.",
        )
        hide_first = _toggle_first()
        kind = pick_picture()
    with map_column:
        rows, keys = _windows(n_tokens)
    with token_column:
        query, key = _pick_cell(inputs.labels)
    view = View(
        layer=layer,
        head=head,
        query=query,
        key=key,
        hide_first=hide_first,
        scale=scale,
        rows=rows,
        keys=keys,
    )
    found = cache.token_attention(inputs.model, inputs.token_ids, layer, head, query, hide_first)
    maps = cache.attention_maps(inputs.model, inputs.token_ids, layer, head, rows.start, rows.stop)
    if hide_first:
        maps = without_first(maps)
    text = map_text(inputs, boundary, what=f"layer {layer}, head {head}")
    revision = origin_of(inputs.model).revision
    with map_box:
        st.plotly_chart(
            map_plots.attention_heatmap(
                maps, head=head, text=text, scale=scale, keys=keys, chosen=(query, key)
            ),
            key="attention_map",
            on_select=lambda: take_cell("attention_map"),
            selection_mode="points",
            config=picture_config(f"attention_{revision}_layer{layer}_head{head}", kind),
            alt=f"Attention map of layer {layer}, head {head}",
        )
        _say_what_is_shown(maps, head, keys, scale, n_tokens)
    with token_column:
        _describe_cell(found, view, inputs)
        st.plotly_chart(
            plots.token_lines(found, text=text),
            key="attention_lines",
            config=style.CONFIG | {"displayModeBar": False},
            alt="Lines from the chosen token to what it looks at, and to it from what looks at it",
        )
    _draw_text(found, view, inputs)
    return view


def _toggle_first() -> bool:
    key = "attention_hide_first"
    link.restore(key, False, {"1": True, "0": False}.get, allowed="0 or 1")
    hidden = st.toggle(
        "Hide the first token",
        key=key,
        help="The first token is left out, and each row is scaled to add up to 1 again.",
        persist_state="session",
    )
    link.publish(key, "1" if hidden else "0")
    return hidden


def _windows(n_tokens: int) -> tuple[range, range]:
    """The queries and the keys to show."""
    rows, keys = range(n_tokens), range(n_tokens)
    if n_tokens > map_plots.SHORT_TOKENS:
        with st.container(horizontal=True, gap="medium"):
            rows = link.pick_range("Queries shown", key="attention_rows", low=0, high=n_tokens - 1)
            keys = link.pick_range("Keys shown", key="attention_keys", low=0, high=n_tokens - 1)
    last = rows.stop - 1
    if keys.start > last:
        st.caption(
            f":material/info: The keys {keys.start:,} to {keys.stop - 1:,} come after the last of these queries, which "
            f"cannot look there. Shown instead: 0 to {last:,}."
        )
        keys = range(rows.stop)
    elif keys.stop > rows.stop:
        st.caption(
            f"The keys after {last:,}, the last of these queries, are masked for all of them: left out."
        )
        keys = range(keys.start, rows.stop)
    most = max(1, map_plots.MAX_MAP_CELLS // len(keys))
    if len(rows) > most:
        rows = range(rows.stop - most, rows.stop)
        st.caption(
            f":material/info: At most {map_plots.MAX_MAP_CELLS:,} cells are sent at once: the last {most:,} of these "
            f"queries, {rows.start:,} to {rows.stop - 1:,}. Choose others above."
        )
    return rows, keys


def _pick_cell(labels: tuple[str, ...]) -> tuple[int, int]:
    last = len(labels) - 1
    with st.container(horizontal=True):
        query = link.pick_integer(
            "Query: the token that looks",
            key="attention_query",
            low=0,
            high=last,
            default=last,
            name=lambda position: f"{position} {labels[position]}",
        )
        key = link.pick_integer(
            "Key: the token looked at",
            key="attention_key",
            low=0,
            high=last,
            default=0,
            name=lambda position: f"{position} {labels[position]}",
        )
    return query, key


def _say_what_is_shown(maps: AttentionMaps, head: int, keys: range, scale: str, n_tokens: int) -> None:
    n_open = int(maps.allowed[maps.heads.index(head), :, keys.start : keys.stop].sum())
    n_bytes = 4 * len(maps.queries) * len(keys) * (1 if scale == "linear" else 2)
    places = (
        "Click a cell to choose its query and key."
        if n_open <= map_plots.MAX_MARKERS
        else "A click chooses the strongest cell nearby; the fields and the text below choose any."
    )
    st.caption(
        f"{places} Empty cells are masked: a token cannot look at what comes after it. Drag to move, use the "
        f"buttons over the map to zoom. {len(maps.queries):,} × {len(keys):,} cells of {n_tokens:,} × {n_tokens:,}, "
        f"as float32: {size_text(n_bytes)}."
    )


def _say_weight(weight: float, *, query: int, key: int, hide_first: bool) -> str:
    """A cell's weight in words; for a closed cell, NaN, why it is closed."""
    if key > query:
        return "masked: the query cannot look there"
    if hide_first and key == 0:
        return "the first token is hidden"
    if np.isnan(weight):
        hidden = ", or the row gives all to the hidden first token" if hide_first else ""
        return f"closed: outside this layer's window{hidden}"
    return f"{weight:.4f}"


def _describe_cell(found: TokenAttention, view: View, inputs: Inputs) -> None:
    said = _say_weight(
        float(found.paid[view.key]), query=view.query, key=view.key, hide_first=view.hide_first
    )
    st.text(f"Query {view.query} pays key {view.key}: {said}")
    if len(inputs.token_ids) > 1:
        st.caption(
            f"In this head, the tokens after the first give **{found.first_share:.0%}** of their attention to the "
            "first token, the “attention sink” ([arXiv:2309.17453](https://arxiv.org/abs/2309.17453))"
            + (
                ": a head that has nothing to look for looks there."
                if found.first_share >= LARGE_SHARE
                else "."
            )
            + (
                " It is hidden now, and each row is scaled to add up to 1 without it."
                if view.hide_first
                else ""
            )
        )
    st.caption(
        "Blue lines: what the chosen query looks at. Orange lines: which queries look at that same token. The "
        f"strongest {plots.MAX_LINES} of each, relative to the strongest of all."
    )


def _say_in_text(weight: float, view: View, position: int, side: str) -> str:
    """What the text's token at `position` says when pointed at: what it is paid, or what the chosen token receives."""
    query, key = (view.query, position) if side == "paid" else (position, view.query)
    said = _say_weight(weight, query=query, key=key, hide_first=view.hide_first)
    return said if np.isnan(weight) else f"attention {side} {said}"


def _draw_text(found: TokenAttention, view: View, inputs: Inputs) -> None:
    side = link.pick_option(
        "The text, coloured by the attention that the chosen query token",
        ("paid", "received"),
        key="attention_side",
        default="paid",
        name={"paid": "pays", "received": "receives"}.__getitem__,
    )
    values = found.paid if side == "paid" else found.received
    colours = map_plots.scale_cells(values[None, :], view.scale)[0]
    if view.scale == "logarithmic":
        colours = 1 - colours / map_plots.LOWEST_LOGARITHM
    token_strip(
        inputs.labels,
        key="attention_strip",
        ids=inputs.token_ids,
        values=colours,
        scale="sequential",
        hover=[_say_in_text(float(value), view, position, side) for position, value in enumerate(values)],
        selected=view.query,
        select_into="attention_query",
        name="The text, coloured by attention",
    )
    with st.expander(
        "Along the text: paid and received",
        key="attention_profile",
        on_change="rerun",
        icon=":material/bar_chart:",
    ) as box:
        if box.open:
            st.plotly_chart(
                plots.token_profile(found, text=map_text(inputs, None)),
                key="attention_profile_figure",
                config=style.CONFIG,
                alt="Attention that the chosen token pays and receives, along the text",
            )


def _take(chart: str, *, across: str, down: str) -> None:
    """Choose what was clicked: its column into `across`, its row into `down`.

    Nothing where a click took a choice back, or is not one of a chart's.
    """
    points = st.session_state[chart].selection.points
    places = [points[0].get(axis) for axis in ("x", "y")] if points else []
    if places and all(isinstance(place, (int, float)) and float(place).is_integer() for place in places):
        for key, place in zip((across, down), places, strict=True):
            link.choose(key, int(place))
