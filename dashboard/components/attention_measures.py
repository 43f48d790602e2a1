"""What each head does: measures on the text that is shown, and the probe of repeated random tokens."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import cache
from dashboard.components import job, link
from dashboard.components.attention_map import take_head
from dashboard.components.csv import csv_bytes
from dashboard.components.head_grid import NO_MEASURE, ORDERS, GridMeasure
from dashboard.components.message import show_error
from dashboard.components.prompt import Inputs
from dashboard.plots import attention as plots
from dashboard.plots import style
from gpt_core.attention_measures import MEASURE_NAMES, MEASURES, HeadMeasures, Measure
from gpt_core.repeated_tokens import SCORES, RepeatedTokensProbe
from gpt_core.tasks import MeasureHeadsTask, RepeatedTokensTask

SLOT = "attention_measures"
PROBE_SLOT = "attention_probe"


def draw(inputs: Inputs, *, layer: int, head: int) -> None:
    """A selector and a heatmap of layers by heads, whose cells open a head; under it the probe."""
    titles = {measure.name: measure.title for measure in MEASURES}
    name = link.pick_option(
        "Measure", tuple(titles), key="attention_measure", default="induction", name=titles.__getitem__
    )
    measure = next(measure for measure in MEASURES if measure.name == name)
    st.caption(measure.definition)
    found: HeadMeasures = job.run(
        MeasureHeadsTask(model=inputs.model, token_ids=inputs.token_ids),
        slot=SLOT,
        message="Measuring every head.",
    )
    values = found.of(name)
    if not np.isfinite(values).any():
        st.info(
            "No token of this text counts here: "
            + (
                "it has one token only, which can look at nothing but itself."
                if found.n_tokens == 1
                else "none of its tokens stands in it twice. Try a text that repeats itself, or the probe below."
            ),
            icon=":material/info:",
        )
    else:
        st.plotly_chart(
            plots.head_values(values, unit=measure.unit, chosen=(layer, head), name=measure.title),
            key="attention_measure_map",
            on_select=lambda: take_head("attention_measure_map"),
            selection_mode="points",
            config=style.CONFIG,
            alt=f"{measure.title} of every head",
        )
        counted = (
            f"over {_count_tokens(found.n_repeated)} that stood in the text before"
            if name in ("duplicate", "induction")
            else f"over {_count_tokens(found.n_tokens - 1)} after the first"
        )
        best = np.unravel_index(int(np.nanargmax(values)), values.shape)
        st.caption(
            f"Click a cell to open that head above. Highest: layer {best[0]}, head {best[1]}, "
            f"{float(values[best]):.3f} {measure.unit}, {counted}. The colour begins at 0 and ends at the highest."
        )
        st.download_button(
            "All measures as CSV",
            data=lambda: csv_bytes(_table(found)),
            file_name="head_measures.csv",
            mime="text/csv",
            icon=":material/download:",
            key="attention_measures_csv",
        )
    _draw_probe(inputs, layer=layer, head=head)


def grid_arrangement() -> dict[str, str]:
    """For what the grid is marked and sorted by, the key of the session state that holds it; both are in the link."""
    keys = {"measure": "attention_grid_measure", "order": "attention_grid_order"}
    possible = {"measure": (NO_MEASURE, *MEASURE_NAMES), "order": ORDERS}
    for name, key in keys.items():
        link.restore(
            key,
            possible[name][0],
            partial(_among, possible[name]),
            allowed=", ".join(possible[name]),
        )
        link.publish(key, st.session_state[key])
        link.show_notice(key)
    return keys


def grid_measures(inputs: Inputs) -> tuple[GridMeasure, ...] | None:
    """What the grid of all heads can be sorted by; None until it is computed, and the page is then drawn again.

    None also where it could not be computed or was stopped, with a word and a button.
    """
    task = MeasureHeadsTask(model=inputs.model, token_ids=inputs.token_ids)
    if not job.holds(SLOT, task) or job.look(SLOT) is None:
        job.start(task, slot=SLOT, beside=True)
    status = job.look(SLOT)
    if status is None or not status.finished:
        _await_measures()
        return None
    if status.state != "done":
        if status.state == "failed" and status.error is not None:
            show_error(status.error)
        else:
            st.caption("The measures of the heads were stopped: the grid cannot be sorted or marked by them.")
        st.button("Measure the heads again", key="attention_grid_retry", on_click=job.forget, args=(SLOT,))
        return None
    return as_grid_measures(status.result)


def as_grid_measures(found: HeadMeasures) -> tuple[GridMeasure, ...]:
    """All of `found` as the grid takes them."""
    return tuple(
        GridMeasure(
            name=measure.name,
            title=_title(measure),
            definition=measure.definition,
            values=found.of(measure.name),
        )
        for measure in MEASURES
    )


@st.fragment(run_every=0.3)
def _await_measures() -> None:
    status = job.look(SLOT)
    if status is None or status.finished:
        st.rerun()


def _title(measure: Measure) -> str:
    return f"{measure.title} ({measure.unit})"


def _among(possible: Sequence[str], text: str) -> str | None:
    return text if text in possible else None


def _count_tokens(n: int) -> str:
    """`n` tokens, in words."""
    return f"{n:,} token{'' if n == 1 else 's'}"


def _table(found: HeadMeasures) -> pd.DataFrame:
    _, n_layers, n_heads = found.values.shape
    layers, heads = np.indices((n_layers, n_heads))
    columns = {_title(measure): found.of(measure.name).ravel() for measure in MEASURES}
    return pd.DataFrame({"layer": layers.ravel(), "head": heads.ravel()} | columns)


def _draw_probe(inputs: Inputs, *, layer: int, head: int) -> None:
    st.markdown("**The probe: random tokens, twice**")
    most = min(500, cache.longest_probe(inputs.model))
    if most < 2:
        st.caption("The context of this model is too short for it.")
        return
    st.markdown(
        "Nothing in such a text can be guessed from meaning. A head that looks at the token after the earlier "
        "occurrence of the present one can only have matched the prefix, as induction heads do "
        "([arXiv:2209.11895](https://arxiv.org/abs/2209.11895))."
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        n_repeated = link.enter_integer(
            f"Random tokens, said twice (2–{most})",
            key="attention_probe_tokens",
            low=2,
            high=most,
            default=min(50, most),
        )
        seed = link.enter_integer("Seed", key="attention_probe_seed", low=0, high=2**31, default=0)
        task = RepeatedTokensTask(model=inputs.model, n_repeated=n_repeated, seed=seed)
        st.button(
            "Run the probe",
            key="attention_probe",
            icon=":material/labs:",
            on_click=job.start,
            args=(task,),
            kwargs={"slot": PROBE_SLOT},
        )
    if not job.holds(PROBE_SLOT, task):
        return
    probe: RepeatedTokensProbe = job.run(task, slot=PROBE_SLOT, message="Probing every head.")
    names = [name for name, _ in SCORES]
    name = link.pick_option("Score", names, key="attention_score", default=names[0])
    place = names.index(name)
    st.caption(SCORES[place][1])
    st.plotly_chart(
        plots.head_values(probe.scores[place], unit="probability", chosen=(layer, head), name=name, most=1.0),
        key="attention_probe_map",
        on_select=lambda: take_head("attention_probe_map"),
        selection_mode="points",
        config=style.CONFIG,
        alt=f"{name} of every head in the probe",
    )
    if np.isfinite(probe.first_surprisal):
        st.caption(
            f"Mean surprisal of the first copy {probe.first_surprisal:.2f} bits, of the second "
            f"{probe.second_surprisal:.2f} bits: the second is lower where the model copies what it has seen."
        )
