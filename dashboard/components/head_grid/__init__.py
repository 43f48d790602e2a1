"""All heads of all layers as small pictures, drawn in the browser: hover, keyboard, clicks, order by a measure.

The grid is several components of one page: its frame (names, measures), the cells of some layers at a time as they
are computed, and what is selected. So the first layers are drawn before the last are there, and a click sends
neither frame nor cells again. The bytes' format is in `payload`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard import cache
from dashboard.components import assets, job, link
from dashboard.components.head_grid.page import head_grid_page, page_facts
from dashboard.components.head_grid.payload import GridMeasure, pack_cells, pack_frame, run_name
from dashboard.components.message import show_error
from gpt_core.errors import GptCoreError
from gpt_core.head_grid import grid_step
from gpt_core.tasks import HeadGridTask

__all__ = [
    "NO_MEASURE",
    "ORDERS",
    "GridMeasure",
    "HeadChoice",
    "check_arrangement",
    "check_choice",
    "download_grid",
    "head_grid",
]

NO_MEASURE = "none"
#: Layer by layer, or by a measure.
ORDERS = ("layers", "highest", "lowest")
#: Seconds that a page waits for pictures before it is drawn without them.
PATIENCE = 0.25
#: Seconds between looks at pictures that are still being computed.
INTERVAL = 0.2

_HERE = Path(__file__).parent


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


_frame = st.components.v2.component(
    "head_grid", js=assets.script(_HERE / "head_grid.js"), css=_read("head_grid.css")
)
_cells = st.components.v2.component("head_grid_cells", js=_read("cells.js"))
_selection = st.components.v2.component("head_grid_selection", js=_read("selection.js"))


@dataclass(frozen=True, kw_only=True)
class HeadChoice:
    """A head, and where a cell of it was chosen, its query and key."""

    layer: int
    """From 0."""
    head: int
    """From 0."""
    query: int | None = None
    """Position from 0; None where no cell was chosen."""
    key: int | None = None
    """Position from 0, not after `query`; None where no cell was chosen."""


@dataclass(kw_only=True)
class _Stream:
    """What the browser has of a grid that is being computed."""

    task: HeadGridTask
    n_layers: int
    chunks: list[tuple[int, int]] = field(default_factory=list)
    """Layers from, to: as they were sent, so that what is sent again is the same and need not travel."""
    error: GptCoreError | None = None
    """Why there are no more."""

    @property
    def sent(self) -> int:
        return self.chunks[-1][1] if self.chunks else 0

    @property
    def ended(self) -> bool:
        return self.sent == self.n_layers or self.error is not None


def head_grid(
    model: str,
    token_ids: tuple[int, ...],
    labels: Sequence[str],
    *,
    key: str,
    selected: HeadChoice,
    select_into: Mapping[str, str],
    measures: Sequence[GridMeasure] | None = None,
    arranged: Mapping[str, str] | None = None,
) -> HeadChoice | None:
    """Draw the grid of a text; what was chosen in this run, else None.

    labels: visible text of each token. selected: the head (and cell) that the page shows.
    select_into: for `layer`, `head`, `query` and `key`, the key of the session state that a choice sets before the
    page runs, such as that of a number input; what is not named is not set.
    measures: what the grid can be sorted and marked by.
    arranged: for `measure` (the name of one of them, or "none") and `order` (one of ORDERS), the key of the session
    state that holds what is chosen, and that the reader's choice sets before the page runs.
    """
    facts = cache.geometry(model)
    shape = facts.n_layers, facts.n_heads, len(token_ids)
    marked = check_choice({k: v for k, v in asdict(selected).items() if v is not None}, *shape)
    if marked is None:  # a cell of a longer text
        marked = HeadChoice(layer=selected.layer, head=selected.head)
    run = run_name(model, token_ids)
    stream = _stream(key, HeadGridTask(model=model, token_ids=token_ids), facts.n_layers)
    with st.container(key=f"{key}_box", gap=None):
        result = _frame(
            key=key,
            data=_pack_frame(model, token_ids, labels, key=key, measures=measures),
            on_chosen_change=partial(_take_choice, key, shape, dict(select_into)),
            on_arranged_change=partial(
                _take_arrangement, key, tuple(m.name for m in measures or ()), dict(arranged or {})
            ),
        )
        _look(key, stream)
        more = not stream.ended
        st.fragment(_send, run_every=INTERVAL if more else None)(key, run, more)
        _selection(
            key=f"{key}_selection",
            data={"grid": key}
            | asdict(marked)
            | {name: st.session_state[held] for name, held in (arranged or {}).items()},
            height=1,
        )
    return check_choice(result.get("chosen"), *shape)


def download_grid(
    model: str,
    token_ids: tuple[int, ...],
    labels: Sequence[str],
    text: str,
    *,
    key: str,
    measures: Sequence[GridMeasure] | None = None,
) -> None:
    """A button that saves the grid as one HTML file, made when it is pressed."""

    def make() -> bytes:
        facts = cache.geometry(model)
        frame = _pack_frame(model, token_ids, labels, key="grid", measures=measures)
        cells = pack_cells(
            [cache.layer_thumbnails(model, token_ids, layer) for layer in range(facts.n_layers)],
            key="grid",
            run=run_name(model, token_ids),
        )
        page = head_grid_page(frame, [cells], text=text, facts=page_facts(model))
        return page.encode("utf-8")

    st.download_button(
        "All heads as one HTML file",
        data=make,
        file_name="attention_heads.html",
        mime="text/html",
        icon=":material/download:",
        key=key,
    )


def _pack_frame(
    model: str,
    token_ids: tuple[int, ...],
    labels: Sequence[str],
    *,
    key: str,
    measures: Sequence[GridMeasure] | None,
) -> bytes:
    facts = cache.geometry(model)
    return pack_frame(
        labels,
        key=key,
        run=run_name(model, token_ids),
        n_layers=facts.n_layers,
        n_heads=facts.n_heads,
        step=grid_step(facts.n_layers * facts.n_heads, len(token_ids)),
        measures=measures,
    )


def check_choice(value: object, n_layers: int, n_heads: int, n_tokens: int) -> HeadChoice | None:
    """`value` if it names a head, and a cell or none, of this grid; else None: anyone can send anything as a click."""
    if not isinstance(value, Mapping):
        return None
    highest = {"layer": n_layers - 1, "head": n_heads - 1, "query": n_tokens - 1, "key": n_tokens - 1}
    found: dict[str, Any] = {name: value.get(name) for name in highest}
    if set(value) not in ({"layer", "head"}, set(highest)):
        return None
    for name in value:
        number = found[name]
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= highest[name]:
            return None
    choice = HeadChoice(**found)
    if choice.query is not None and choice.key is not None and choice.key > choice.query:
        return None
    return choice


def _take_choice(key: str, shape: tuple[int, int, int], select_into: dict[str, str]) -> None:
    choice = check_choice(st.session_state[key].get("chosen"), *shape)
    if choice is None:
        return
    for name, target in select_into.items():
        number = getattr(choice, name)
        if number is not None:
            link.choose(target, number)


def check_arrangement(value: object, names: Sequence[str]) -> dict[str, str] | None:
    """`value` if it names one of these measures or none, and an order; else None: anyone can send anything."""
    if not isinstance(value, Mapping) or set(value) != {"measure", "order"}:
        return None
    measure, order = value["measure"], value["order"]
    if measure not in (NO_MEASURE, *names) or order not in ORDERS:
        return None
    return {"measure": measure, "order": order}


def _take_arrangement(key: str, names: tuple[str, ...], held: dict[str, str]) -> None:
    found = check_arrangement(st.session_state[key].get("arranged"), names)
    if found is not None:
        for name, target in held.items():
            link.choose(target, found[name])


def _stream(key: str, task: HeadGridTask, n_layers: int) -> _Stream:
    """The stream of `task`, begun if another text was there before."""
    name = f"_stream_{key}"
    held: _Stream | None = st.session_state.get(name)
    if held is None or held.task.key != task.key:
        held = st.session_state[name] = _Stream(task=task, n_layers=n_layers)
        # The pictures come in beside what else the page waits for, and do not push it out.
        job.start(task, slot=key, beside=True)
        job.wait(key, PATIENCE)
    return held


def _send(key: str, run: str, more: bool) -> None:
    """Send the layers that are there; with `more`, those that come, until the last."""
    stream: _Stream = st.session_state[f"_stream_{key}"]
    had_ended = stream.ended
    _look(key, stream)
    model, token_ids = stream.task.model, stream.task.token_ids
    for first, stop in stream.chunks:
        layers = [cache.layer_thumbnails(model, token_ids, layer) for layer in range(first, stop)]
        _cells(key=f"{key}_cells_{first}", data=pack_cells(layers, key=key, run=run), height=1)
    if stream.error is not None:
        show_error(stream.error)
    if more and had_ended:
        # The page around this fragment ends the looking. Not before the browser has said, by looking once more, that
        # it has the last layers: else they would be sent again.
        st.rerun()


def _look(key: str, stream: _Stream) -> None:
    """See which layers have come since the last look."""
    if stream.ended:
        return
    status = job.look(key)
    if status is None or status.state == "cancelled":  # forgotten, or nobody was there for a while
        job.start(stream.task, slot=key, beside=True)
        return
    if len(status.items) > stream.sent:
        stream.chunks.append((stream.sent, len(status.items)))
    if status.state == "failed":
        stream.error = status.error
