"""Figures of the Few-Shot page show the numbers of the core."""

import numpy as np

from dashboard.plots.few_shot import label_bars, shot_name
from gpt_core.few_shot import FewShotPrompt, ShotOutcome
from gpt_core.labels import LabelScore, LabelScores


def score(label: str, prob: float) -> LabelScore:
    return LabelScore(
        label=label,
        continuation=f" {label}",
        token_ids=(1,),
        token_log_probs=np.log([prob]),
        log_prob=float(np.log(prob)),
        mean_log_prob=float(np.log(prob)),
        prob=prob,
        share=prob,
    )


def outcome(n_shots: int, probs: tuple[float, float] | None) -> ShotOutcome:
    return ShotOutcome(
        n_shots=n_shots,
        prompt=FewShotPrompt(text="", n_shots=n_shots, example_spans=(), query_span=(0, 0)),
        n_tokens=1,
        scores=None
        if probs is None
        else LabelScores(
            labels=(score("<b>yes</b>", probs[0]), score("no", probs[1])),
            prompt_ids=(1,),
            boundary_kept=True,
            notes=(),
        ),
        problem="" if probs else "too long",
        turn=None,
    )


def test_bars_by_label_and_number_of_examples() -> None:
    figure = label_bars([outcome(0, (0.2, 0.3)), outcome(1, None), outcome(5, (0.6, 0.1))])
    assert [trace.name for trace in figure.data] == ["&lt;b&gt;yes&lt;/b&gt;", "no"]
    assert list(figure.data[0].x) == [0.2, 0.6]
    assert list(figure.data[1].x) == [0.3, 0.1]
    assert list(figure.layout.yaxis.ticktext) == ["zero-shot", "5 examples"]
    assert list(figure.layout.xaxis.range) == [0, 1]


def test_names() -> None:
    assert [shot_name(n) for n in (0, 1, 2)] == ["zero-shot", "one-shot", "2 examples"]
