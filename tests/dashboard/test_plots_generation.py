"""What the Generation page says about each token is what the core reported."""

import dataclasses
from typing import Any

import numpy as np

from dashboard.plots.generation import beam_tree, speed_note, step_notes, step_table
from gpt_core.beams import BeamCandidate, BeamStep, beam_steps
from gpt_core.decoding import BeamSettings, GenerationSettings, SamplingSettings
from gpt_core.generation import generate_tokens
from gpt_core.model import LanguageModel


def test_notes_and_table(bundled: LanguageModel) -> None:
    settings = GenerationSettings(sampling=SamplingSettings(top_k=3), max_new_tokens=4, n_alternatives=5)
    steps = list(generate_tokens(bundled, (7454, 2402, 257), settings))
    alternatives = [[f"t{i}" for i in step.alternative_ids] for step in steps]
    notes = step_notes(steps, alternatives)
    assert len(notes) == len(steps)
    for step, note in zip(steps, notes, strict=True):
        assert f"probability {step.prob:.4f}, rank {step.rank:,}" in note
        assert "of 3 tokens left" in note
        assert f"t{step.alternative_ids[4]}  {step.alternative_probs[4]:.4f} → 0.0000" in note
    table = step_table(steps, ["a"] * len(steps))
    assert table["id"].tolist() == [step.token_id for step in steps]
    assert np.allclose(table["probability"], [step.prob for step in steps])


def test_speed_is_that_of_the_tokens_after_the_first(bundled: LanguageModel) -> None:
    steps = list(generate_tokens(bundled, (7454, 2402, 257), GenerationSettings(max_new_tokens=5)))
    timed = [dataclasses.replace(step, elapsed=0.5 + 0.1 * step.index) for step in steps]
    assert speed_note(timed) == "first token after 0.50 s, then 10.0 tokens/s"
    assert speed_note(timed[:1]) == "first token after 0.50 s"
    assert speed_note([]) == ""


def candidate(
    parent: int, token_id: int, state: Any, place: int | None = None, score: float | None = None
) -> BeamCandidate:
    return BeamCandidate(
        parent=parent,
        token_id=token_id,
        token_log_prob=-1.0,
        log_prob=-2.0,
        state=state,
        place=place,
        score=score,
    )


def test_beam_tree_leads_from_parent_to_child() -> None:
    steps = [
        BeamStep(
            index=0,
            candidates=(candidate(0, 5, "kept", 0), candidate(0, 6, "dropped"), candidate(0, 7, "kept", 1)),
            texts=("a", "b"),
        ),
        BeamStep(
            index=1,
            candidates=(candidate(1, 8, "kept", 0), candidate(0, 9, "ended", score=-0.5)),
            texts=("c",),
        ),
    ]
    figure = beam_tree(steps, [["<b>5", "six", "seven"], ["eight", "nine"]])
    kept, rest = figure.data[0], figure.data[1]
    # Of the second step, the first candidate continues the beam in place 1, which was third among the candidates.
    assert list(kept.x) == [0, 1, None, 0, 1, None, 1, 2, None]
    assert list(kept.y) == [0, 0, None, 0, 2, None, 2, 0, None]
    assert list(rest.x) == [0, 1, None, 1, 2, None]
    assert list(rest.y) == [0, 1, None, 0, 1, None]
    marks = {trace.name: trace for trace in figure.data[2:]}
    assert list(marks["kept"].x) == [1, 1, 2]
    assert list(marks["kept"].y) == [0, 2, 0]
    assert marks["kept"].text[0] == "&lt;b&gt;5 -2.0"
    assert "score -0.5000" in marks["finished by an end token, among the best"].hovertext[0]
    assert "<b>&lt;b&gt;5</b>, id 5" in marks["kept"].hovertext[0]
    assert list(marks["dropped"].y) == [1]


def test_beam_tree_of_a_real_search(bundled: LanguageModel) -> None:
    steps = list(
        beam_steps(bundled, (7454, 2402, 257), BeamSettings(n_beams=3, n_return=1, max_new_tokens=20))
    )
    figure = beam_tree(steps, [[str(c.token_id) for c in step.candidates] for step in steps])
    n_marks = sum(len(trace.x) for trace in figure.data[2:])
    assert n_marks == sum(len(step.candidates) for step in steps)
    assert all(trace.mode == "markers" for trace in figure.data[2:]), "no texts where they would overlap"
