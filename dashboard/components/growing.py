"""The session's tree of branches, and the run that grows it. Draws nothing.

A run (continuations of the prompt, or one branch) is a job; while it runs, the tree is what was there before plus what
has come.
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import streamlit as st

from dashboard import cache
from dashboard.components import job
from dashboard.components.message import show_error
from gpt_core.branches import Branch, BranchTree
from gpt_core.decoding import GenerationSettings
from gpt_core.errors import GptCoreError
from gpt_core.tasks import BranchTask, GenerateTask

if TYPE_CHECKING:
    from gpt_core.engine import JobStatus
    from gpt_core.generation import GenerationStep
    from gpt_core.reading import Precision

SLOT = "generation"
_TREE, _GROWTH, _PROBLEM = "_generation_tree", "_generation_growth", "_generation_problem"
_MADE_BY = "_generation_made_by"
_FOCUS, _NOW, _CLICKED = "_generation_focus", "_generation_now", "_generation_clicked"


@dataclass(frozen=True, kw_only=True)
class _Growth:
    """A run under way."""

    task: GenerateTask | BranchTask
    base: BranchTree
    """The tree before it."""
    parent: int | None = None
    before: tuple[Any, ...] = ()
    """The steps up to the token that was taken."""
    fork: int = 0


def current_tree() -> BranchTree | None:
    """The tree as it is when nothing runs; of a run under way, what was there before."""
    growth: _Growth | None = st.session_state.get(_GROWTH)
    tree: BranchTree | None = st.session_state.get(_TREE) if growth is None else growth.base
    return tree


def tree_with_what_came(status: "JobStatus | None") -> BranchTree | None:
    """The tree as far as it has grown, and so with the branch that is growing as its last."""
    growth: _Growth | None = st.session_state.get(_GROWTH)
    return current_tree() if growth is None or status is None else _with_items(growth, status)


def made_by() -> GenerateTask | None:
    """What was asked for when the tree was started."""
    task: GenerateTask | None = st.session_state.get(_MADE_BY)
    return task


def is_growing() -> bool:
    """Whether a run has not been taken into the tree yet."""
    return st.session_state.get(_GROWTH) is not None


def put_tree(tree: BranchTree, *, focus: int | None = None) -> None:
    """Keep a changed tree; with `focus`, that branch is the one to look at."""
    st.session_state[_TREE] = tree
    if focus is not None:
        st.session_state[_FOCUS] = focus
    st.session_state.pop(_PROBLEM, None)


def take_focus() -> int | None:
    """The branch that was made or changed since this was last asked."""
    focus: int | None = st.session_state.pop(_FOCUS, None)
    return focus


def problem() -> str:
    """Why the last thing that was asked of the tree was not done; empty where it was."""
    return str(st.session_state.get(_PROBLEM, ""))


def say_problem(error: GptCoreError) -> None:
    """Keep what `problem` says."""
    st.session_state[_PROBLEM] = str(error)


def take_clicked() -> bool:
    """Whether an alternative was taken since this was last asked."""
    return bool(st.session_state.pop(_CLICKED, False))


def use_settings(task: GenerateTask) -> None:
    """Branches that grow from now on follow the settings of `task`."""
    st.session_state[_NOW] = (task.settings, task.precision)


def start(task: GenerateTask) -> None:
    """Start a new tree: the runs of `task`. For a callback."""
    facts = cache.geometry(task.model)
    base = BranchTree(
        model=task.model,
        prompt_ids=task.token_ids,
        bytes_per_token=8 * facts.n_layers * facts.n_kv_heads * facts.d_head,
    )
    try:
        base.check_room(n_new=task.settings.max_new_tokens, n_branches=len(task.runs))
    except GptCoreError as error:
        say_problem(error)
        return
    forget()
    st.session_state[_MADE_BY] = task
    st.session_state[_GROWTH] = _Growth(task=task, base=base)
    job.start(task, slot=SLOT)


def forget() -> None:
    """Let go of the tree and of what runs."""
    job.forget(SLOT)
    for key in (_TREE, _GROWTH, _PROBLEM, _FOCUS, _MADE_BY):
        st.session_state.pop(key, None)


def _with_items(growth: _Growth, status: "JobStatus") -> BranchTree:
    """The tree with what has come."""
    task = growth.task
    if isinstance(task, BranchTask):
        return growth.base.with_branch(
            (*growth.before, *status.items),
            task.settings,
            parent=growth.parent,
            fork=growth.fork,
            precision=task.precision,
        )
    runs: dict[int, list[GenerationStep]] = {}
    for number, step in status.items:
        runs.setdefault(number, []).append(step)
    tree = growth.base
    for number, steps in runs.items():
        letter = "ABCD"[max(0, number - task.n_sequences + 1)] if task.others else ""
        name = f"Settings {letter}" if letter else f"Text {number + 1}"
        tree = tree.with_branch(steps, task.runs[number], name=name, precision=task.precision)
    return tree


def settle() -> None:
    """Take a run that has ended into the tree."""
    growth: _Growth | None = st.session_state.get(_GROWTH)
    status = job.look(SLOT)
    if growth is None or (status is not None and not status.finished):
        return
    if status is not None and status.state == "failed" and status.error is not None:
        show_error(status.error)
    _take_in(growth, status)


def _take_in(growth: _Growth, status: "JobStatus | None") -> BranchTree:
    tree = growth.base if status is None else _with_items(growth, status)
    if status is None:
        st.session_state[_PROBLEM] = (
            "What came while this page was away is kept for two minutes, and is gone. Generate it again: the same seed "
            "gives the same text."
        )
    st.session_state[_TREE], st.session_state[_GROWTH] = tree, None
    if tree.branches:
        st.session_state[_FOCUS] = tree.branches[-1 if growth.parent is not None else 0].number
    return tree


def take(number: int, index: int, token_id: int) -> None:
    """Grow a branch: `token_id` in place of token `index` of branch `number`. For a callback."""
    st.session_state.pop(_PROBLEM, None)
    st.session_state[_CLICKED] = True
    growth: _Growth | None = st.session_state.get(_GROWTH)
    if growth is not None:  # what runs is stopped, and what it made stays
        job.stop(SLOT)
        tree = _take_in(growth, job.look(SLOT))
    else:
        kept: BranchTree | None = st.session_state.get(_TREE)
        if kept is None:
            return
        tree = kept
    try:
        _grow(tree, tree.find(number), index, token_id)
    except GptCoreError as error:
        say_problem(error)


def _grow(tree: BranchTree, parent: Branch, index: int, token_id: int) -> None:
    if not parent.fork <= index < len(parent.steps):
        return
    now: tuple[GenerationSettings, Precision] | None = st.session_state.get(_NOW)
    settings, precision = now or (parent.settings, parent.precision)
    facts = cache.geometry(tree.model)
    room = facts.context_length - len(tree.prompt_ids) - index - 1
    settings = dataclasses.replace(settings, max_new_tokens=max(1, min(settings.max_new_tokens, room)))
    steps = parent.steps[: index + 1]
    forced = cache.taken_alternative(tree.model, tree.prompt_ids, steps, token_id, settings)
    before = (*steps[:-1], forced)
    tree.check_room(n_new=settings.max_new_tokens, n_before=index + 1)
    if forced.stop_reason is not None or room < 1:
        ended = dataclasses.replace(forced, stop_reason=forced.stop_reason or "length")
        grown = tree.with_branch(
            (*steps[:-1], ended), settings, parent=parent.number, fork=index, precision=precision
        )
        put_tree(grown, focus=grown.branches[-1].number)
        return
    task = BranchTask(
        model=tree.model,
        token_ids=tree.prompt_ids,
        taken_ids=tuple(step.token_id for step in before),
        settings=settings,
        precision=precision,
    )
    st.session_state[_GROWTH] = _Growth(task=task, base=tree, parent=parent.number, before=before, fork=index)
    job.start(task, slot=SLOT)
