"""The Generation page's tree of branches: what comes in is drawn at once, and what is there can be worked with.

Owns the session's tree. A run (continuations of the prompt, or one branch) is a job; while it runs, the tree is what
was there before plus what has come.
"""

import dataclasses
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import streamlit as st

from dashboard import cache
from dashboard.components import job, prompt
from dashboard.components.branch_tree import N_SHARED, DrawnBranch, branch_tree, pack_step
from dashboard.components.csv import csv_bytes
from dashboard.components.message import show_error, show_problem
from dashboard.components.token_strip import token_strip
from dashboard.plots import generation as plots
from gpt_core.branches import Branch, BranchTree, export_tree, first_difference
from gpt_core.decoding import GenerationSettings
from gpt_core.errors import GptCoreError
from gpt_core.recipes import describe_settings
from gpt_core.tasks import BranchTask, GenerateTask, Int8ShiftTask

if TYPE_CHECKING:
    from gpt_core.engine import JobStatus
    from gpt_core.generation import GenerationStep
    from gpt_core.reading import Precision

SLOT = "generation"
#: Seconds between looks at a running generation: often enough to read along, seldom enough that drawing costs the
#: model little (`page_overhead` in benchmarks/generation.py).
INTERVAL = 0.6
_TREE, _GROWTH, _ROWS = "_generation_tree", "_generation_growth", "_generation_rows"
_PROBLEM, _FOCUS, _NOW = "_generation_problem", "_generation_focus", "_generation_now"
_CLICKED = "_generation_clicked"
#: Where a text can be looked at further, by the page's file.
_PAGES = {
    "attention": ("Attention", ":material/grid_on:"),
    "predictions": ("Predictions", ":material/bar_chart:"),
    "embeddings": ("Embeddings", ":material/scatter_plot:"),
    "tokenizer": ("Tokenizer", ":material/segment:"),
}


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


def running() -> bool:
    """Whether something in the page's slot has not ended yet."""
    status = job.look(SLOT)
    return status is not None and not status.finished


def current_tree() -> BranchTree | None:
    """The tree as it is when nothing runs; of a run under way, what was there before."""
    growth: _Growth | None = st.session_state.get(_GROWTH)
    tree: BranchTree | None = st.session_state.get(_TREE) if growth is None else growth.base
    return tree


def start(task: GenerateTask) -> None:
    """Start a new tree: the runs of `task`. For a callback."""
    facts = cache.geometry(task.model)
    base = BranchTree(
        model=task.model,
        prompt_ids=task.token_ids,
        bytes_per_token=8 * facts.n_layers * facts.n_kv_heads * facts.d_head,
    )
    forget()
    try:
        base.check_room(n_new=task.settings.max_new_tokens, n_branches=len(task.runs))
    except GptCoreError as error:
        st.session_state[_PROBLEM] = str(error)
        return
    st.session_state[_GROWTH] = _Growth(task=task, base=base)
    job.start(task, slot=SLOT)


def forget() -> None:
    """Let go of the tree and of what runs."""
    job.forget(SLOT)
    for key in (_TREE, _GROWTH, _ROWS, _PROBLEM, _FOCUS):
        st.session_state.pop(key, None)


def reroll(key: str, high: int) -> None:
    """Put another seed into the field of that key. For a callback."""
    st.session_state[key] = secrets.randbelow(min(high, 1_000_000) + 1)


def go_where_asked() -> None:
    """Leave for the page that a button of `details` named."""
    page = st.session_state.pop("_generation_open", None)
    if page in _PAGES:
        st.switch_page(f"views/{page}.py")


def draw(task: GenerateTask, colour: str) -> None:
    """A button that starts `task`, one that stops what runs, the tree, and below it the branch that is chosen."""
    st.session_state[_NOW] = (task.settings, task.precision)
    _settle()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Generate",
            key="generation_start",
            type="primary",
            icon=":material/play_arrow:",
            on_click=start,
            args=(task,),
        )
        st.button(
            "Stop",
            key="generation_stop",
            icon=":material/stop:",
            disabled=not running(),
            on_click=job.stop,
            args=(SLOT,),
        )
        st.button(
            "Clear",
            key="generation_clear",
            icon=":material/delete_sweep:",
            disabled=current_tree() is None,
            on_click=forget,
        )
    problem = st.session_state.get(_PROBLEM)
    if problem:
        show_problem(problem)
    tree = current_tree()
    if tree is None:
        st.caption("Nothing runs until you press Generate; a link never does.")
        return
    if (tree.model, tree.prompt_ids) != (task.model, task.token_ids):
        st.caption(
            ":material/info: Made with other settings, another prompt or another model than now chosen. "
            "Press Generate to start a new tree."
        )
    st.fragment(_show, run_every=INTERVAL if running() else None)(colour)
    _details()


def pick_int8(model: str) -> bool:
    """A switch for int8, and how far it shifts the probabilities, measured when first asked for. Not in the link."""
    missing = cache.int8_machine_problem()
    wanted = st.toggle(
        "int8 (faster, approximate)",
        key="generation_int8",
        persist_state="session",
        disabled=bool(missing),
        help="Weights and activations of single tokens rounded to whole numbers. Only this page uses it, and only "
        "where you ask for it.",
    )
    if missing:
        st.text(missing)
    if missing or not wanted:
        return False
    why_not = cache.int8_problem(model)
    if why_not:
        show_problem(f"{why_not} The text is computed in float32.")
        return False
    if running():
        return True
    shift = job.run(
        Int8ShiftTask(model=model),
        slot="generation_int8",
        message="Measuring what int8 does to the probabilities.",
    )
    st.caption(
        f"Measured on this model, over {shift.n_positions} tokens of a reference text: probabilities shift by "
        f"{shift.total_variation:.2%} on average and {shift.largest_total_variation:.1%} at most (total variation), "
        f"{shift.kl_bits:.4f} bits of divergence a token; the most probable token is the same for "
        f"{shift.same_favourite:.0%} of them. The prompt itself is read in float32."
    )
    return True


def _show(colour: str) -> None:
    status = job.look(SLOT)
    growth: _Growth | None = st.session_state.get(_GROWTH)
    clicked = st.session_state.pop(_CLICKED, False)
    if clicked or (growth is not None and (status is None or status.finished)):
        st.rerun()  # the page around this fragment shows Stop or Generate, and how often it looks
    tree = current_tree() if growth is None or status is None else _with_items(growth, status)
    if tree is None:
        return
    if status is not None and not status.finished:
        with st.container(key="generation_progress"):
            others = f"{status.ahead} other {'job' if status.ahead == 1 else 'jobs'}"
            waiting = (
                ""
                if not status.ahead
                else f"Waits for {others}. "
                if status.state == "queued"
                else f"Takes turns with {others}, and is slower for it. "
            )
            st.caption(waiting + (status.message or "Reading the prompt."))
    if tree.branches:
        _draw(tree, colour, running_from=None if growth is None else len(growth.base.branches))


def _draw(tree: BranchTree, colour: str, *, running_from: int | None) -> None:
    alive = None if running_from is None else tree.branches[-1].number
    branch_tree(
        [_drawn(tree, branch, depth, running=branch.number == alive) for branch, depth in tree.in_order()],
        key="generation_tree",
        colour=colour,
        most_bits=math.log2(cache.geometry(tree.model).vocab_size),
        on_take=take,
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
    speed = plots.speed_note([step for step in branch.own_steps if not step.forced])
    return (*notes, speed) if speed else tuple(notes)


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


def _settle() -> None:
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
    st.session_state[_TREE] = tree
    st.session_state[_GROWTH] = None
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
        st.session_state[_PROBLEM] = str(error)


def _grow(tree: BranchTree, parent: Branch, index: int, token_id: int) -> None:
    if not parent.fork <= index < len(parent.steps):
        return
    now: tuple[GenerationSettings, Precision] | None = st.session_state.get(_NOW)
    settings, precision = now or (parent.settings, parent.precision)
    facts = cache.geometry(tree.model)
    room = facts.context_length - len(tree.prompt_ids) - index - 1
    settings = dataclasses.replace(
        settings, max_new_tokens=max(1, min(settings.max_new_tokens, room)), seed=settings.seed
    )
    steps = parent.steps[: index + 1]
    forced = cache.taken_alternative(tree.model, tree.prompt_ids, steps, token_id, settings)
    before = (*steps[:-1], forced)
    tree.check_room(n_new=settings.max_new_tokens, n_before=index + 1)
    if forced.stop_reason is not None or room < 1:
        ended = dataclasses.replace(forced, stop_reason=forced.stop_reason or "length")
        grown = tree.with_branch(
            (*steps[:-1], ended), settings, parent=parent.number, fork=index, precision=precision
        )
        st.session_state[_TREE] = grown
        st.session_state[_FOCUS] = grown.branches[-1].number
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


# -- one branch ---------------------------------------------------------------------------------------------------


def _details() -> None:
    """What can be done with a branch: its text, other pages, name, delete, compare, export."""
    tree = current_tree()
    if tree is None or not tree.branches:
        return
    names = {branch.number: branch.name for branch, _ in tree.in_order()}
    focus = st.session_state.pop(_FOCUS, None)
    if focus in names:
        st.session_state["generation_branch"] = focus
    if st.session_state.get("generation_branch") not in names:
        st.session_state["generation_branch"] = next(iter(names))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        number = st.selectbox(
            "Branch",
            list(names),
            key="generation_branch",
            format_func=lambda n: str(names.get(n, n)),
            width=260,
        )
        st.text_input(
            "Name",
            value=names[number],
            key=f"generation_name_{number}",
            max_chars=60,
            width=220,
            on_change=_rename,
            args=(number,),
        )
        st.button(
            "Delete",
            key="generation_delete",
            icon=":material/delete:",
            on_click=_delete,
            args=(number,),
            disabled=running(),
            help="Branches that left it stay.",
        )
        st.download_button(
            "Export",
            data=lambda: _export(tree),
            file_name="branches.json",
            mime="application/json",
            key="generation_export",
            icon=":material/download:",
            help="The whole tree as JSON: settings, tokens, probabilities, alternatives.",
        )
    branch = tree.find(number)
    before = cache.decoded_ids(tree.model, tree.prompt_ids).text
    with st.container(border=True, key="generation_text"):
        st.text(before + branch.text)
    if not branch.settings.effective_sampling.greedy:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption("Seed of this text:", width="content")
            st.code(str(branch.settings.seed), language=None, width=180)
    _other_pages(tree, branch, before + branch.text)
    if len(tree.branches) > 1:
        _compare(tree, branch)
    _table(tree, branch)


def _other_pages(tree: BranchTree, branch: Branch, text: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="generation_pages"):
        st.caption("Look into this text:", width="content")
        for page, (title, icon) in _PAGES.items():
            st.button(title, key=f"generation_to_{page}", icon=icon, on_click=_open, args=(page, text))
    read = cache.tokenization(tree.model, text, prompt.special_tokens()).token_ids if text else ()
    if read != (*tree.prompt_ids, *branch.token_ids):
        st.caption(
            ":material/info: Read again as a text, these are not the same tokens "
            f"({len(read):,} instead of {len(tree.prompt_ids) + len(branch.steps):,}): the other pages show what the "
            "text is read as."
        )


def _open(page: str, text: str) -> None:
    prompt.replace(text)
    st.session_state["_generation_open"] = page


def _rename(number: int) -> None:
    tree = st.session_state.get(_TREE)
    if tree is None or st.session_state.get(_GROWTH) is not None:
        return
    try:
        st.session_state[_TREE] = tree.renamed(number, st.session_state[f"generation_name_{number}"])
        # A list's choice travels as the text of its entry, which is another one now: choose it anew.
        st.session_state[_FOCUS] = number
        st.session_state.pop(_PROBLEM, None)
    except GptCoreError as error:
        st.session_state[_PROBLEM] = str(error)


def _delete(number: int) -> None:
    tree: BranchTree | None = st.session_state.get(_TREE)
    if tree is not None and any(branch.number == number for branch in tree.branches):
        st.session_state[_TREE] = tree.without(number)
        # Own tokens of its children may begin earlier now.
        st.session_state.pop(_ROWS, None)
        st.session_state.pop(_PROBLEM, None)


def _export(tree: BranchTree) -> bytes:
    ids = {
        int(i)
        for branch in tree.branches
        for step in branch.own_steps
        for i in (step.token_id, *step.alternative_ids)
    }
    order = tuple(sorted(ids))
    tokens = dict(zip(order, cache.labels(tree.model, order), strict=True))
    text = cache.decoded_ids(tree.model, tree.prompt_ids).text
    return export_tree(tree, text, tokens=tokens).encode("utf-8", errors="replace")


def _compare(tree: BranchTree, branch: Branch) -> None:
    others = [other.number for other in tree.branches if other.number != branch.number]
    if st.session_state.get("generation_compare") not in (None, *others):
        st.session_state["generation_compare"] = None
    number = st.selectbox(
        "Compare with",
        others,
        index=None,
        key="generation_compare",
        format_func=lambda n: tree.find(n).name if n in others else "",
        placeholder="Choose another branch",
        width=260,
    )
    if number is None:
        return
    other = tree.find(number)
    place = first_difference(branch, other)
    if place is None:
        st.caption("Both are the same tokens.")
    else:
        here, there = (_label_at(tree, one, place) for one in (branch, other))
        st.caption(f"The first {place:,} tokens are the same. The first difference is marked:")
        st.text(f"token {place}: {here} | {there}")
    for column, one, side in zip(st.columns(2), (branch, other), ("left", "right"), strict=True):
        with column, st.container(border=True, key=f"generation_compared_{side}"):
            st.text(one.name)
            st.caption(
                f"log-probability {one.log_prob:.3f} nats, {one.mean_surprisal_bits:.2f} bits a token, "
                f"{len(one.steps):,} tokens"
            )
            token_strip(
                cache.labels(tree.model, one.token_ids),
                key=f"generation_strip_{side}",
                ids=one.token_ids,
                values=[step.prob for step in one.steps],
                scale="sequential",
                selected=place if place is not None and place < len(one.steps) else None,
                name=one.name,
            )


def _label_at(tree: BranchTree, branch: Branch, place: int) -> str:
    if place >= len(branch.steps):
        return "(has ended)"
    return cache.labels(tree.model, (branch.token_ids[place],))[0]


def _table(tree: BranchTree, branch: Branch) -> None:
    with st.expander("Every token", key="generation_table_open", on_change="rerun") as box:
        if not box.open or not branch.steps:
            return
        frame = plots.step_table(branch.steps, cache.labels(tree.model, branch.token_ids))
        st.dataframe(
            frame,
            hide_index=True,
            key="generation_table",
            column_config={
                name: st.column_config.ProgressColumn(format="%.4f", min_value=0, max_value=1)
                for name in ("probability", "after the stages")
            }
            | {"entropy (bits)": st.column_config.NumberColumn(format="%.3f")},
        )
        st.download_button(
            "CSV",
            data=csv_bytes(frame),
            file_name="generation.csv",
            mime="text/csv",
            key="generation_csv",
        )


def on_screen(
    prompt_ids: tuple[int, ...], chosen: Sequence[GenerationSettings]
) -> tuple[tuple[GenerationSettings, ...], tuple[int, ...]]:
    """What "Show me the code" is about: the runs, and the tokens already taken where a branch is chosen."""
    tree = current_tree()
    number = st.session_state.get("generation_branch")
    if tree is not None and tree.prompt_ids == prompt_ids:
        for branch in tree.branches:
            if branch.number == number and branch.parent is not None:
                return (branch.settings,), branch.token_ids[: branch.fork + 1]
    return tuple(chosen), ()
