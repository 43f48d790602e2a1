"""What the Generation page says about each generated token; tables and hover texts, no figures of its own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
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
