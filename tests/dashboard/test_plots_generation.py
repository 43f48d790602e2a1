"""What the Generation page says about each token is what the core reported."""

import numpy as np

from dashboard.plots.generation import step_notes, step_table
from gpt_core.decoding import GenerationSettings, SamplingSettings
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
