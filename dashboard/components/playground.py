"""The Generation page's tree of branches: what comes in is drawn at once, and a click grows a branch."""

import math
import secrets
from functools import partial

import streamlit as st

from dashboard import cache
from dashboard.components import branch_details, growing, job
from dashboard.components.branch_tree import N_SHARED, DrawnBranch, branch_tree, pack_step
from dashboard.components.message import show_problem
from dashboard.plots import generation as plots
from gpt_core.branches import Branch, BranchTree
from gpt_core.recipes import describe_settings
from gpt_core.tasks import GenerateTask

#: Seconds between looks at a running generation: often enough to read along, seldom enough that drawing costs the
#: model little (`page_overhead` in benchmarks/generation.py).
INTERVAL = 0.6
_ROWS = "_generation_rows"


def reroll(key: str, high: int) -> None:
    """Put another seed into the field of that key. For a callback."""
    st.session_state[key] = secrets.randbelow(min(high, 1_000_000) + 1)


def draw(task: GenerateTask, colour: str) -> None:
    """A button that starts `task`, one that stops what runs, the tree, and below it the branch that is chosen."""
    growing.use_settings(task)
    growing.settle()
    with st.container(horizontal=True, vertical_alignment="center"):
        job.start_button("Generate", key="generation_start", begin=partial(_start, task))
        job.stop_button(growing.SLOT, key="generation_stop")
        st.button(
            "Clear",
            key="generation_clear",
            icon=":material/delete_sweep:",
            disabled=growing.current_tree() is None,
            on_click=_clear,
        )
    if growing.problem():
        show_problem(growing.problem())
    tree = growing.current_tree()
    if tree is None:
        st.caption("Nothing runs until you press Generate; a link never does.")
        return
    made_by = growing.made_by()
    if made_by is None or made_by.key != task.key:
        st.caption(
            ":material/info: Made with other settings, another prompt or another model than now chosen. "
            "Press Generate to start a new tree. A branch that grows here follows the settings as they are now."
        )
    st.fragment(_show, run_every=INTERVAL if job.running(growing.SLOT) else None)(colour)
    branch_details.draw()


def _start(task: GenerateTask) -> None:
    st.session_state.pop(_ROWS, None)
    growing.start(task)


def _clear() -> None:
    st.session_state.pop(_ROWS, None)
    growing.forget()


def _show(colour: str) -> None:
    status = job.look(growing.SLOT)
    if growing.take_clicked() or (growing.is_growing() and (status is None or status.finished)):
        st.rerun()  # the page around this fragment shows Stop or Generate, and how often it looks
    tree = growing.tree_with_what_came(status)
    if tree is None:
        return
    if status is not None and not status.finished:
        with st.container(key="generation_progress"):
            st.caption(job.waiting_note(status) + (status.message or "Reading the prompt."))
    if tree.branches:
        alive = tree.branches[-1].number if growing.is_growing() else None
        branch_tree(
            [
                _drawn(tree, branch, depth, running=branch.number == alive)
                for branch, depth in tree.in_order()
            ],
            key="generation_tree",
            colour=colour,
            most_bits=math.log2(cache.geometry(tree.model).vocab_size),
            on_take=growing.take,
        )


def _drawn(tree: BranchTree, branch: Branch, depth: int, *, running: bool) -> DrawnBranch:
    rows: dict[tuple[int, int], bytes] = st.session_state.setdefault(_ROWS, {})
    for step in branch.own_steps:
        place = (branch.number, step.index)
        if place not in rows:
            own = cache.labels(tree.model, (step.token_id,))[0]
            others = cache.labels(tree.model, tuple(int(i) for i in step.alternative_ids))
            rows[place] = pack_step(step, own, others)
    shared_ids = (*tree.prompt_ids, *(step.token_id for step in branch.steps[: branch.fork]))
    shared = cache.labels(tree.model, shared_ids[-N_SHARED:])
    return DrawnBranch(
        number=branch.number,
        name=branch.name,
        depth=depth,
        notes=_notes(tree, branch, running=running),
        running=running,
        shared=("…", *shared) if len(shared_ids) > N_SHARED else shared,
        first=branch.fork,
        steps=[rows[branch.number, step.index] for step in branch.own_steps],
    )


def _notes(tree: BranchTree, branch: Branch, *, running: bool) -> tuple[str, ...]:
    steps = branch.steps
    notes = []
    if branch.parent is not None:
        notes.append(f"from {tree.find(branch.parent).name} at token {branch.fork}")
    notes.append(describe_settings(branch.settings))
    if not branch.settings.effective_sampling.greedy:
        notes.append(f"seed {branch.settings.seed}")
    if branch.precision == "int8":
        notes.append("int8")
    if steps:
        notes.append(f"log-probability {branch.log_prob:.2f} nats")
        ended = steps[-1].stop_reason
        state = f"ended by {ended}" if ended else "going on" if running else "stopped"
        notes.append(f"{len(steps):,} token{'s' if len(steps) > 1 else ''}, {state}")
    speed = plots.speed_note(branch.drawn_steps)
    return (*notes, speed) if speed else tuple(notes)
