"""What the Generation page says about each generated token, and the tree of a beam search."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard.plots.style import ACCENT, MUTED, SECOND, finish, literal, shorten

if TYPE_CHECKING:
    from gpt_core.beams import BeamStep
    from gpt_core.generation import GenerationStep

#: Alternatives named in a hover.
MAX_ALTERNATIVES = 8


def step_notes(steps: Sequence["GenerationStep"], alternatives: Sequence[Sequence[str]]) -> list[str]:
    """What a reader sees on hovering over each generated token: plain text, a line each.

    `alternatives` are the labels of each step's `alternative_ids`.
    """
    notes = []
    for step, labels in zip(steps, alternatives, strict=True):
        lines = [
            f"probability {step.prob:.4f}, rank {step.rank:,}",
            f"after the stages {step.filtered_prob:.4f}, of {step.n_survivors:,} tokens left",
            f"entropy {step.entropy_bits:.2f} bits",
            "could have come (probability → after the stages):",
        ]
        lines += [
            f"  {label}  {prob:.4f} → {filtered:.4f}"
            for label, prob, filtered in zip(
                labels[:MAX_ALTERNATIVES],
                step.alternative_probs,
                step.alternative_filtered_probs,
                strict=False,
            )
        ]
        notes.append("\n".join(lines))
    return notes


def step_table(steps: Sequence["GenerationStep"], labels: Sequence[str]) -> pd.DataFrame:
    """One row a generated token: what it was, how probable, and among how many."""
    return pd.DataFrame(
        {
            "step": [step.index for step in steps],
            "token": list(labels),
            "id": [step.token_id for step in steps],
            "probability": np.array([step.prob for step in steps], dtype=np.float32),
            "after the stages": np.array([step.filtered_prob for step in steps], dtype=np.float32),
            "rank": [step.rank for step in steps],
            "tokens left": [step.n_survivors for step in steps],
            "entropy (bits)": np.array([step.entropy_bits for step in steps], dtype=np.float32),
        }
    )


def speed_note(steps: Sequence["GenerationStep"]) -> str:
    """Time to the first token of a run and tokens a second from there on; empty where nothing has come."""
    if not steps:
        return ""
    first, last = steps[0].elapsed, steps[-1].elapsed
    note = f"first token after {first:.2f} s"
    if len(steps) > 1 and last > first:
        note += f", then {(len(steps) - 1) / (last - first):,.1f} tokens/s"
    return note


#: How a candidate of a beam search is drawn: colour, symbol, size, and what the legend says.
_BEAM_MARKS = {
    "kept": (ACCENT, "circle", 11, "kept"),
    "ended": (SECOND, "star", 14, "finished by an end token, among the best"),
    "cut off": (SECOND, "square", 11, "finished by its length, among the best"),
    "outdone": (SECOND, "x", 9, "finished, not among the best"),
    "dropped": (MUTED, "circle-open", 7, "dropped"),
}
#: Token texts beside the marks are drawn for this many steps; more would overlap.
_MOST_LABELLED = 6


def beam_tree(steps: Sequence["BeamStep"], labels: Sequence[Sequence[str]]) -> go.Figure:
    """The tree of a beam search: a column a step, in it every candidate, the most probable on top.

    `labels` are the labels of each step's candidates' tokens. Lines lead from the beam that a candidate continues;
    what is not kept ends there. Beside a token stands the log-probability of its text, nats.
    """
    places: list[dict[int, int]] = []
    edges: dict[bool, tuple[list[float | None], list[float | None]]] = {True: ([], []), False: ([], [])}
    marks: dict[str, list[tuple[int, int, str, str]]] = {state: [] for state in _BEAM_MARKS}
    for step, names in zip(steps, labels, strict=True):
        before = places[-1] if places else {0: 0}
        here: dict[int, int] = {}
        for rank, (candidate, name) in enumerate(zip(step.candidates, names, strict=True)):
            if candidate.place is not None:
                here[candidate.place] = rank
            xs, ys = edges[candidate.state == "kept"]
            xs += [step.index, step.index + 1, None]
            ys += [before.get(candidate.parent, 0), rank, None]
            score = "" if candidate.score is None else f"<br>score {candidate.score:.4f}"
            hover = (
                f"<b>{literal(name)}</b>, id {candidate.token_id}<br>{candidate.state}"
                f"<br>log-probability of the text {candidate.log_prob:.4f} nats"
                f"<br>of this token {candidate.token_log_prob:.4f} nats{score}"
            )
            beside = f"{literal(shorten(name, 12))} {candidate.log_prob:.1f}"
            marks[candidate.state].append((step.index + 1, rank, beside, hover))
        places.append(here)
    figure = go.Figure()
    for kept, (xs, ys) in edges.items():
        figure.add_scatter(
            x=xs,
            y=ys,
            mode="lines",
            line={
                "color": ACCENT if kept else MUTED,
                "width": 2 if kept else 1,
                "dash": None if kept else "dot",
            },
            hoverinfo="skip",
            showlegend=False,
        )
    labelled = len(steps) <= _MOST_LABELLED
    for state, (colour, symbol, size, legend) in _BEAM_MARKS.items():
        if not marks[state]:
            continue
        x, y, texts, hovers = zip(*marks[state], strict=True)
        figure.add_scatter(
            x=x,
            y=y,
            mode="markers+text" if labelled and state != "dropped" else "markers",
            marker={"color": colour, "symbol": symbol, "size": size},
            text=texts,
            textposition="top center",
            textfont={"size": 11},
            hovertext=hovers,
            hoverinfo="text",
            name=legend,
        )
    deepest = max((len(step.candidates) for step in steps), default=1)
    figure.update_xaxes(title="tokens of the continuation", dtick=1 if labelled else None, zeroline=False)
    figure.update_yaxes(
        title="place among the candidates",
        range=[deepest - 0.5, -0.9],
        tickvals=list(range(deepest)),
        ticktext=[str(rank + 1) for rank in range(deepest)],
        zeroline=False,
    )
    figure.update_layout(legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0})
    return finish(figure, height=min(720, max(340, 110 + 40 * deepest)))
