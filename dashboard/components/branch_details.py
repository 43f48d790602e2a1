"""What can be done with one branch of the tree: its text, other pages, name, delete, compare, export."""

import dataclasses
from typing import TYPE_CHECKING

import streamlit as st

from dashboard import cache
from dashboard.components import growing, job, other_pages
from dashboard.components.generation_output import show_token_table
from dashboard.components.token_strip import token_strip
from gpt_core.branches import Branch, BranchTree, export_tree, first_difference
from gpt_core.decoding import GenerationSettings
from gpt_core.errors import GptCoreError
from gpt_core.tasks import GenerateTask

if TYPE_CHECKING:
    from gpt_core.reading import Precision


def draw() -> None:
    """A list of the branches, and below it everything about the chosen one."""
    tree = growing.current_tree()
    if tree is None or not tree.branches:
        return
    names = {branch.number: branch.name for branch, _ in tree.in_order()}
    focus = growing.take_focus()
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
            disabled=job.running(growing.SLOT),
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
    other_pages.draw(
        "generation",
        model=tree.model,
        text=before + branch.text,
        token_ids=(*tree.prompt_ids, *branch.token_ids),
    )
    if len(tree.branches) > 1:
        _compare(tree, branch)
    if branch.steps:
        labels = cache.labels(tree.model, branch.token_ids)
        show_token_table(branch.steps, labels, key="generation", file_name="generation.csv")


def _rename(number: int) -> None:
    tree = growing.current_tree()
    if tree is None or growing.is_growing():
        return
    try:
        renamed = tree.renamed(number, st.session_state[f"generation_name_{number}"])
    except GptCoreError as error:
        growing.say_problem(error)
        return
    # A list's choice travels as the text of its entry, which is another one now: choose it anew.
    growing.put_tree(renamed, focus=number)


def _delete(number: int) -> None:
    tree = growing.current_tree()
    if tree is None or growing.is_growing():
        return
    if any(branch.number == number for branch in tree.branches):
        growing.put_tree(tree.without(number))


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


def on_screen(task: GenerateTask) -> tuple[tuple[GenerationSettings, ...], tuple[int, ...], "Precision"]:
    """What "Show me the code" is about: runs, the tokens taken before them, and in what they were computed.

    That of the chosen branch if it grew from a token that was taken (none where nothing came after that), else those
    of all branches that began at the prompt; `task` where there is no tree of its prompt.
    """
    tree = growing.current_tree()
    if tree is None or not tree.branches or (tree.model, tree.prompt_ids) != (task.model, task.token_ids):
        return task.runs, (), task.precision
    chosen = st.session_state.get("generation_branch")
    branch = next((branch for branch in tree.branches if branch.number == chosen), tree.branches[0])
    if branch.drawn_from:
        runs = (_made_by(branch),) if branch.drawn_steps else ()
        return runs, branch.token_ids[: branch.drawn_from], branch.precision
    return tuple(_made_by(one) for one in tree.branches if not one.drawn_from), (), branch.precision


def _made_by(branch: Branch) -> GenerationSettings:
    """The settings that give this branch: where it was stopped, with as many tokens as came."""
    if branch.steps[-1].stop_reason is not None:
        return branch.settings
    return dataclasses.replace(branch.settings, max_new_tokens=len(branch.drawn_steps))
