"""Figures of the Few-Shot page: results of `gpt_core.few_shot` in, Plotly figures out."""

from collections.abc import Sequence

import plotly.graph_objects as go

from dashboard.plots import style
from gpt_core.few_shot import ShotOutcome

PALETTE = (style.ACCENT, style.SECOND, "#3a9d5d", "#9254c8", "#c23b5a", "#4aa5b5", "#7a6a4f", "#8a95a1")


def label_bars(outcomes: Sequence[ShotOutcome]) -> go.Figure:
    """Probability of each label with each number of examples; what is missing to 1 went to other texts."""
    scored = [outcome for outcome in outcomes if outcome.scores is not None]
    figure = go.Figure()
    names = [shot_name(outcome.n_shots) for outcome in scored]
    for place, first in enumerate(scored[0].scores.labels if scored and scored[0].scores else ()):
        labels = [outcome.scores.labels[place] for outcome in scored if outcome.scores]
        figure.add_trace(
            go.Bar(
                x=[label.prob for label in labels],
                y=list(range(len(scored))),
                orientation="h",
                name=style.literal(style.shorten(first.label)),
                marker_color=PALETTE[place % len(PALETTE)],
                customdata=[[label.share, label.log_prob, len(label.token_ids)] for label in labels],
                hovertemplate=(
                    f"{style.literal(first.label)}<br>probability %{{x:.5f}}<br>share among the labels "
                    "%{customdata[0]:.4f}<br>log-probability %{customdata[1]:.4f} nats over %{customdata[2]} "
                    "token(s)<extra></extra>"
                ),
            )
        )
    figure.update_xaxes(title={"text": "probability that exactly this label comes next"}, range=[0, 1])
    figure.update_yaxes(
        title={"text": "examples in the prompt"},
        tickmode="array",
        tickvals=list(range(len(scored))),
        ticktext=names,
        autorange="reversed",
    )
    figure.update_layout(
        barmode="group", bargap=0.3, legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0}
    )
    return style.finish(figure, height=140 + 34 * max(1, len(scored)) * max(1, len(figure.data)))


def shot_name(n_shots: int) -> str:
    """Zero-shot, one-shot, or so many examples."""
    return {0: "zero-shot", 1: "one-shot"}.get(n_shots, f"{n_shots} examples")
