"""A tree of continuations of one prompt: each branch leaves another at a token, and shares all before it.

Plain values that a page can keep for a reader; bounded, so that nobody's tree fills the machine. Runs no model:
`generation.grow_branch` makes the steps, `reading` keeps what a branch needs not compute again.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt_core.decoding import GenerationSettings
from gpt_core.errors import InputError, MemoryLimitError
from gpt_core.generation import GenerationStep

if TYPE_CHECKING:
    from gpt_core.reading import Precision

#: Most branches of a tree.
MAX_BRANCHES = 24
#: Most bytes of a tree: its steps, and the keys and values that are kept for its branches.
MAX_TREE_BYTES = 2**28
MAX_NAME_CHARACTERS = 60
#: Bytes of a step beside its arrays and its text, roughly: the object and its numbers.
_STEP_BYTES = 400
#: Bytes of the arrays of a step with ten alternatives, roughly.
_ARRAY_BYTES = 400
#: Bytes that a token adds to the text of its step and of every later one: about five characters of four bytes.
_TEXT_BYTES = 20


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Branch:
    """One continuation, whole: what it shares with its parent and what is its own."""

    number: int
    """Its name for the program; never used again in the same tree."""
    name: str
    """Its name for a reader."""
    parent: int | None
    """Number of the branch that it left; None where it begins at the prompt."""
    fork: int
    """Index of its first own token in the continuation; 0 where it begins at the prompt."""
    steps: tuple[GenerationStep, ...]
    """All tokens of the continuation, those before the fork too; empty while nothing has come."""
    settings: GenerationSettings
    """What its tokens from `drawn_from` on were drawn with, its seed included."""
    precision: Precision
    """`float32` or `int8`: what those tokens were computed in."""

    @property
    def own_steps(self) -> tuple[GenerationStep, ...]:
        """The steps from the fork on."""
        return self.steps[self.fork :]

    @property
    def drawn_from(self) -> int:
        """Index of the first token that its own run drew: the one after the last that a reader took.

        Not `fork` + 1 where the branch that it left was deleted: what that one drew is its own now, but not its run's.
        """
        taken = [index for index, step in enumerate(self.steps) if step.forced]
        return taken[-1] + 1 if taken else 0

    @property
    def drawn_steps(self) -> tuple[GenerationStep, ...]:
        """The steps that its own run drew."""
        return self.steps[self.drawn_from :]

    @property
    def token_ids(self) -> tuple[int, ...]:
        """`(n_tokens,)` the continuation."""
        return tuple(step.token_id for step in self.steps)

    @property
    def text(self) -> str:
        """The continuation without special tokens."""
        return self.steps[-1].text if self.steps else ""

    @property
    def log_prob(self) -> float:
        """Sum over the continuation of the log-probability that the model itself gives each token, nats."""
        return math.fsum(math.log(step.prob) if step.prob > 0 else -math.inf for step in self.steps)

    @property
    def mean_surprisal_bits(self) -> float:
        """Mean surprisal of its tokens under the model itself, bits; NaN where there is none."""
        return -self.log_prob / math.log(2) / len(self.steps) if self.steps else math.nan


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class BranchTree:
    """All branches of one prompt. Every change is a new tree."""

    model: str
    """`source:name@revision`."""
    prompt_ids: tuple[int, ...]
    """`(n_prompt,)` the prompt."""
    bytes_per_token: int
    """Bytes of keys and values that a kept token takes."""
    branches: tuple[Branch, ...] = ()
    """In the order in which they were grown: a parent comes before its children."""
    next_number: int = 0
    """Number of the next branch."""

    @property
    def n_bytes(self) -> int:
        """What the tree takes: its steps, and the keys and values kept for it, shared steps counted once."""
        own = sum(step_bytes(step) for branch in self.branches for step in branch.own_steps)
        kept = sum(len(self.prompt_ids) + len(branch.steps) for branch in self.branches)
        return own + kept * self.bytes_per_token

    def find(self, number: int) -> Branch:
        """The branch of that number; InputError where there is none."""
        for branch in self.branches:
            if branch.number == number:
                return branch
        raise InputError(f"There is no branch {number} here (any more). Choose one that is drawn.")

    def check_room(self, *, n_new: int, n_before: int = 0, n_branches: int = 1) -> None:
        """Raise MemoryLimitError where `n_branches` more, each of `n_new` tokens after `n_before`, are too much."""
        if len(self.branches) + n_branches > MAX_BRANCHES:
            raise MemoryLimitError(
                f"A tree must have at most {MAX_BRANCHES} branches. Here are {len(self.branches)}. Delete one, or "
                "export the tree and start a new one with Generate."
            )
        # Each step holds the whole text so far.
        texts = _TEXT_BYTES * (n_new * n_before + n_new * (n_new + 1) // 2)
        steps = n_new * (_STEP_BYTES + _ARRAY_BYTES) + texts
        each = (len(self.prompt_ids) + n_before + n_new) * self.bytes_per_token + steps
        if self.n_bytes + n_branches * each > MAX_TREE_BYTES:
            raise MemoryLimitError(
                f"A tree must take at most {MAX_TREE_BYTES / 2**20:,.0f} MiB. It takes {self.n_bytes / 2**20:,.1f} "
                f"MiB, and this needs up to {n_branches * each / 2**20:,.1f} MiB more. Delete a branch, or ask for "
                "fewer new tokens."
            )

    def with_branch(
        self,
        steps: Sequence[GenerationStep],
        settings: GenerationSettings,
        *,
        name: str = "",
        parent: int | None = None,
        fork: int = 0,
        precision: Precision = "float32",
    ) -> BranchTree:
        """The tree with one more branch; `steps` is the whole continuation, its first `fork` those of the parent.

        Raises InputError where the parent is not here or does not begin so.
        """
        if parent is not None:
            shared = self.find(parent).token_ids[:fork]
            if shared != tuple(step.token_id for step in steps[:fork]):
                raise InputError("A branch must begin like the one that it leaves.")
        elif fork:
            raise InputError("A branch without a parent begins at the prompt.")
        branch = Branch(
            number=self.next_number,
            name=name or f"Branch {self.next_number + 1}",
            parent=parent,
            fork=fork,
            steps=tuple(steps),
            settings=settings,
            precision=precision,
        )
        return dataclasses.replace(self, branches=(*self.branches, branch), next_number=self.next_number + 1)

    def renamed(self, number: int, name: str) -> BranchTree:
        """The tree with another name for a branch: 1 to MAX_NAME_CHARACTERS characters."""
        name = " ".join(name.split())
        if not 0 < len(name) <= MAX_NAME_CHARACTERS:
            raise InputError(
                f"A branch's name must have 1 to {MAX_NAME_CHARACTERS} characters. Given: {len(name):,}."
            )
        old = self.find(number)
        new = dataclasses.replace(old, name=name)
        return dataclasses.replace(
            self, branches=tuple(new if branch is old else branch for branch in self.branches)
        )

    def without(self, number: int) -> BranchTree:
        """The tree without a branch. Those that left it stay, and hang where it hung."""
        gone = self.find(number)
        kept = []
        for branch in self.branches:
            if branch is gone:
                continue
            if branch.parent == number:
                # Tokens that only the deleted one shared with it are now its own.
                branch = dataclasses.replace(  # noqa: PLW2901
                    branch, parent=gone.parent, fork=min(branch.fork, gone.fork)
                )
            kept.append(branch)
        return dataclasses.replace(self, branches=tuple(kept))

    def children(self, number: int | None) -> tuple[Branch, ...]:
        """The branches that left that one (None: that begin at the prompt), the later fork first."""
        found = [branch for branch in self.branches if branch.parent == number]
        return tuple(sorted(found, key=lambda branch: -branch.fork))

    def in_order(self) -> tuple[tuple[Branch, int], ...]:
        """Every branch with its depth, each followed by its children."""

        def below(number: int | None, depth: int) -> list[tuple[Branch, int]]:
            return [
                pair
                for branch in self.children(number)
                for pair in ((branch, depth), *below(branch.number, depth + 1))
            ]

        return tuple(below(None, 0))


def step_bytes(step: GenerationStep) -> int:
    """Bytes of one step, roughly."""
    arrays = (
        step.alternative_ids.nbytes + step.alternative_probs.nbytes + step.alternative_filtered_probs.nbytes
    )
    return _STEP_BYTES + arrays + 4 * len(step.text)


def first_difference(first: Branch, second: Branch) -> int | None:
    """Index of the first token that two continuations do not share; None where they are the same."""
    ours, theirs = first.token_ids, second.token_ids
    for index, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            return index
    return None if len(ours) == len(theirs) else min(len(ours), len(theirs))


def export_tree(tree: BranchTree, prompt: str, *, tokens: dict[int, str]) -> str:
    """The whole tree as JSON: prompt, and of each branch its place, settings, text and every own step.

    A branch's settings and precision are those of its tokens from `drawn_from` on. `tokens` gives the text of each
    token id that occurs; the ids are there too.
    """

    def say_step(step: GenerationStep) -> dict[str, Any]:
        return {
            "id": step.token_id,
            "token": tokens.get(step.token_id, ""),
            "prob": step.prob,
            "filtered_prob": step.filtered_prob,
            "rank": step.rank,
            "entropy_bits": step.entropy_bits,
            "filtered_entropy_bits": step.filtered_entropy_bits,
            "n_survivors": step.n_survivors,
            "forced": step.forced,
            "stop_reason": step.stop_reason,
            "alternatives": [
                {"id": int(i), "token": tokens.get(int(i), ""), "prob": float(p), "filtered_prob": float(f)}
                for i, p, f in zip(
                    step.alternative_ids,
                    step.alternative_probs,
                    step.alternative_filtered_probs,
                    strict=True,
                )
            ],
        }

    return json.dumps(
        {
            "format": "branch tree 1",
            "model": tree.model,
            "prompt": prompt,
            "prompt_ids": list(tree.prompt_ids),
            "branches": [
                {
                    "number": branch.number,
                    "name": branch.name,
                    "parent": branch.parent,
                    "fork": branch.fork,
                    "drawn_from": branch.drawn_from,
                    "text": branch.text,
                    "token_ids": list(branch.token_ids),
                    "log_prob_nats": branch.log_prob if math.isfinite(branch.log_prob) else None,
                    "precision": branch.precision,
                    "settings": dataclasses.asdict(branch.settings),
                    "own_steps": [say_step(step) for step in branch.own_steps],
                }
                for branch in tree.branches
            ],
        },
        ensure_ascii=False,
        allow_nan=False,
        indent=1,
    )
