"""A tree of continuations, drawn in the browser: coloured tokens, alternatives on hover, a click takes one.

The tree travels as one binary payload: `BRT1` and the JSON in UTF-8. A step's part of it is written once (`pack_step`)
and joined again and again while tokens come in; the browser draws only what is new.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from dashboard.components import assets

if TYPE_CHECKING:
    from gpt_core.generation import GenerationStep

MAGIC = b"BRT1"
#: Tokens of the parent that are repeated in front of a branch, so that its beginning can be read.
N_SHARED = 8
COLOURS = ("probability", "rank", "entropy", "none")

_HERE = Path(__file__).parent
_tree = st.components.v2.component(
    "branch_tree",
    js=assets.script(_HERE / "branch_tree.js"),
    css=assets.style(_HERE / "branch_tree.css"),
)


@dataclass(frozen=True, kw_only=True)
class DrawnBranch:
    """A branch as the browser draws it."""

    number: int
    """Its name for the program."""
    name: str
    """Its name for a reader."""
    depth: int
    """0 for one that begins at the prompt."""
    notes: tuple[str, ...]
    """What is said of it beside its name."""
    running: bool
    """Whether tokens are coming in."""
    shared: tuple[str, ...]
    """Labels of the last tokens before its own; the first may be an ellipsis."""
    first: int
    """Index of its first own token in the continuation."""
    steps: Sequence[bytes]
    """Its own tokens, each from `pack_step`."""


def branch_tree(
    branches: Sequence[DrawnBranch],
    *,
    key: str,
    colour: str,
    most_bits: float,
    on_take: Callable[[int, int, int], None],
) -> None:
    """Draw the tree. `on_take(number, index, token_id)` is called before the page runs when a token is taken.

    colour: one of COLOURS; most_bits: the entropy that has the strongest colour. What `on_take` is given was checked
    to be whole numbers and nothing more: anyone can send anything as a click.
    """
    with st.container(key=f"{key}_box", gap=None):
        _tree(
            key=key,
            data=pack_tree(branches, colour=colour, most_bits=most_bits),
            on_taken_change=partial(_take, key, on_take),
        )


def pack_step(step: "GenerationStep", label: str, alternatives: Sequence[str]) -> bytes:
    """One token: what it is, its numbers, and of what else could have come labels, probabilities, whether removed."""
    return json.dumps(
        [
            label,
            step.token_id,
            _six_digits(step.prob),
            step.rank,
            round(step.entropy_bits, 4),
            _six_digits(step.filtered_prob),
            step.n_survivors,
            int(step.forced),
            [
                [text, int(token_id), _six_digits(prob), _six_digits(filtered), int(removed)]
                for text, token_id, prob, filtered, removed in zip(
                    alternatives,
                    step.alternative_ids,
                    step.alternative_probs,
                    step.alternative_filtered_probs,
                    step.alternative_removed,
                    strict=True,
                )
            ],
        ],
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode("utf-8", errors="replace")


def _six_digits(prob: float) -> float:
    """Six digits that count, however small it is."""
    return float(f"{prob:.6g}")


def pack_tree(branches: Sequence[DrawnBranch], *, colour: str, most_bits: float) -> bytes:
    """The payload; see the head of this module."""
    assert colour in COLOURS
    parts = []
    for branch in branches:
        head = json.dumps(
            {
                "number": branch.number,
                "name": branch.name,
                "depth": branch.depth,
                "notes": list(branch.notes),
                "running": branch.running,
                "shared": list(branch.shared),
                "first": branch.first,
            },
            ensure_ascii=False,
        ).encode("utf-8", errors="replace")
        parts.append(head[:-1] + b',"tokens":[' + b",".join(branch.steps) + b"]}")
    head = json.dumps({"colour": colour, "mostBits": most_bits}).encode()
    return MAGIC + head[:-1] + b',"branches":[' + b",".join(parts) + b"]}"


def _take(key: str, on_take: Callable[[int, int, int], None]) -> None:
    said = st.session_state[key].get("taken")
    if not isinstance(said, (list, tuple)) or len(said) != 3:
        return
    if all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**31 for n in said):
        on_take(*said)
