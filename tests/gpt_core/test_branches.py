"""A branch costs only its own tokens, is what its text alone would give, and a tree of them stays in its bounds."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from gpt_core import branches, reading
from gpt_core.branches import MAX_BRANCHES, BranchTree, export_tree, first_difference, step_bytes
from gpt_core.decoding import GenerationSettings, SamplingSettings
from gpt_core.errors import CancelledError, ContextLengthError, InputError, MemoryLimitError
from gpt_core.generation import GenerationStep, generate_tokens, grow_branch, take_alternative
from gpt_core.model import LanguageModel
from gpt_core.reading import key_value_bytes, open_reader
from gpt_core.registry import Registry

PROMPT = (7454, 2402, 257, 640, 11, 612, 373)
DRAWN = GenerationSettings(max_new_tokens=8, seed=5)


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> Registry[Any, Any]:
    """A store of kept texts of this test's own."""
    store: Registry[Any, Any] = Registry(2**28, lambda text: text.n_bytes)
    monkeypatch.setattr(reading, "_kept", store)
    return store


@pytest.fixture
def positions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many positions each pass read, of the fast loop and of the model's own forward."""
    seen: list[int] = []
    for reader in (reading._FastReader, reading.PlainReader):
        plain = reader.next_logits

        def count(self: Any, plain: Any = plain) -> torch.Tensor:
            before = self.n_read
            logits: torch.Tensor = plain(self)
            seen.append(self.n_read - before)
            return logits

        monkeypatch.setattr(reader, "next_logits", count)
    return seen


def other(step: GenerationStep, place: int = 3) -> int:
    """One of a step's alternatives, not the one that was taken."""
    return int([i for i in step.alternative_ids if i != step.token_id][place])


def branch_at(
    lm: LanguageModel, steps: list[GenerationStep], settings: GenerationSettings = DRAWN, place: int = 3
) -> list[GenerationStep]:
    """What comes where another token is taken in place of the last of `steps`, that token first."""
    forced = take_alternative(lm, PROMPT, steps, other(steps[-1], place), settings)
    taken = (*(step.token_id for step in steps[:-1]), forced.token_id)
    return [forced, *grow_branch(lm, PROMPT, taken, settings)]


# -- growing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bundled", "gpt2", "llama", "qwen3", "gpt_neox"])
@pytest.mark.parametrize("fork", [0, 3, 7])
def test_a_branch_reads_only_its_own_tokens(
    name: str, fork: int, bundled: LanguageModel, tiny_lm: Any, positions: list[int]
) -> None:
    lm = bundled if name == "bundled" else tiny_lm(name)
    steps = list(generate_tokens(lm, PROMPT, DRAWN, keep=True))
    assert positions == [len(PROMPT)] + [1] * 7
    positions.clear()
    branch = branch_at(lm, steps[: fork + 1])
    # The token that was asked for, then the new ones: nothing of the text before is read again.
    assert positions == [1] * 8
    assert [step.index for step in branch] == list(range(fork, fork + 9))
    assert [step.forced for step in branch] == [True] + [False] * 8
    # A branch of the branch, from its own middle.
    positions.clear()
    whole = [*steps[:fork], *branch]
    branch_at(lm, whole[: fork + 4])
    assert positions == [1] * 8


@pytest.mark.parametrize("name", ["bundled", "llama", "qwen3", "mistral"])
def test_a_branch_is_what_its_text_alone_gives(name: str, bundled: LanguageModel, tiny_lm: Any) -> None:
    lm = bundled if name == "bundled" else tiny_lm(name)
    steps = list(generate_tokens(lm, PROMPT, DRAWN, keep=True))
    taken = other(steps[3])
    branch = branch_at(lm, steps[:4])
    text = (*PROMPT, *(step.token_id for step in steps[:3]), taken)
    alone = list(generate_tokens(lm, text, DRAWN))
    assert [step.token_id for step in branch[1:]] == [step.token_id for step in alone]
    assert [step.prob for step in branch[1:]] == pytest.approx([step.prob for step in alone], rel=1e-3)
    ids = torch.tensor([[*text, *(step.token_id for step in branch[1:])]])
    with torch.inference_mode():
        probs = lm.network(input_ids=ids, use_cache=False).logits[0].double().softmax(-1)
    for step in branch:
        row = probs[len(PROMPT) - 1 + step.index]
        assert step.prob == pytest.approx(float(row[step.token_id]), rel=1e-3, abs=1e-7)
    decoded = lm.tokenizer.decode(ids[0, len(PROMPT) :])
    assert branch[-1].text == decoded


def test_a_branch_with_a_seed_is_deterministic(bundled: LanguageModel, kept: Registry[Any, Any]) -> None:
    steps = list(generate_tokens(bundled, PROMPT, DRAWN, keep=True))

    def grow(seed: int) -> list[int]:
        settings = dataclasses.replace(DRAWN, seed=seed)
        return [step.token_id for step in branch_at(bundled, steps[:3], settings)]

    first = grow(11)
    assert grow(11) == first
    kept.clear()  # and the same where everything has to be read again
    assert grow(11) == first
    assert grow(12) != first


def test_an_int8_branch_does_not_depend_on_what_was_kept(
    bundled: LanguageModel, kept: Registry[Any, Any]
) -> None:
    steps = list(generate_tokens(bundled, PROMPT, DRAWN, keep=True, precision="int8"))
    taken = [step.token_id for step in steps[:6]]

    def grow(prompt: tuple[int, ...], taken: list[int]) -> list[float]:
        return [step.prob for step in grow_branch(bundled, prompt, taken, DRAWN, precision="int8")]

    first = grow(PROMPT, taken)
    kept.clear()
    assert grow(PROMPT, taken) == first, "tokens that were generated are read in int8 again, one by one"
    # The same ids as a prompt are read in float32, whatever was kept of them as a continuation.
    longer = (*PROMPT, *taken[:4])
    beside = grow(longer, taken[4:])
    kept.clear()
    assert grow(longer, taken[4:]) == beside


def test_sliding_windows_and_recurrences_read_again_and_are_right(tiny_lm: Any, positions: list[int]) -> None:
    for name in ("mistral", "mamba"):
        lm = tiny_lm(name)
        steps = list(generate_tokens(lm, PROMPT, DRAWN, keep=True))
        positions.clear()
        branch = branch_at(lm, steps[:3])
        assert positions[0] == len(PROMPT) + 3
        alone = generate_tokens(lm, (*PROMPT, *(s.token_id for s in steps[:2]), branch[0].token_id), DRAWN)
        assert [step.token_id for step in branch[1:]] == [step.token_id for step in alone]


def test_a_stopped_text_is_kept_too(bundled: LanguageModel, positions: list[int]) -> None:
    run = generate_tokens(bundled, PROMPT, DRAWN, keep=True)
    steps = [next(run) for _ in range(4)]
    run.close()  # type: ignore[attr-defined]
    positions.clear()
    assert len(branch_at(bundled, steps[:3])) == 9
    assert positions == [1] * 8


def test_what_was_kept_is_not_written_to(bundled: LanguageModel, kept: Registry[Any, Any]) -> None:
    steps = list(generate_tokens(bundled, PROMPT, DRAWN, keep=True))
    (key,) = kept.keys()
    state = kept.get(key).state
    before = state.keys.clone()
    branch_at(bundled, steps[:3])
    assert torch.equal(state.keys, before)
    assert kept.get(key).n_bytes == (len(PROMPT) + 7) * key_value_bytes(bundled)


def test_another_network_under_the_same_name_finds_nothing(bundled: LanguageModel, tiny_lm: Any) -> None:
    steps = list(generate_tokens(bundled, PROMPT, DRAWN, keep=True))
    text = (*PROMPT, *(step.token_id for step in steps))
    stranger = dataclasses.replace(tiny_lm("gpt2"), model_id=bundled.model_id)
    assert open_reader(bundled, text, capacity=40, reuse=True).next_logits().shape == (1, 50257)
    reader = open_reader(stranger, text, capacity=40, reuse=True)
    reader.next_logits()
    assert reader.n_read == len(text)
    exact = open_reader(bundled, text, capacity=40, precision="int8", reuse=True)
    exact.next_logits()
    assert exact.n_read == len(text), "int8 must not use what float32 kept, nor the other way round"


def test_the_store_forgets_the_oldest(bundled: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    each = (len(PROMPT) + 7) * key_value_bytes(bundled)
    store: Registry[Any, Any] = Registry(3 * each, lambda text: text.n_bytes)
    monkeypatch.setattr(reading, "_kept", store)
    for seed in range(5):
        list(generate_tokens(bundled, PROMPT, dataclasses.replace(DRAWN, seed=seed), keep=True))
    assert len(store.keys()) == 3


def test_alternatives_that_may_be_taken(bundled: LanguageModel) -> None:
    shape = SamplingSettings(top_k=5)
    steps = list(
        generate_tokens(bundled, PROMPT, dataclasses.replace(DRAWN, sampling=shape, max_new_tokens=3))
    )
    take = lambda token_id: take_alternative(bundled, PROMPT, steps[:2], token_id, DRAWN)  # noqa: E731
    for place, token_id in enumerate(steps[1].alternative_ids.tolist()):
        taken = take(token_id)
        assert (taken.token_id, taken.forced) == (token_id, True)
        assert taken.prob == steps[1].alternative_probs[place]
        assert taken.rank == place + 1
        assert (taken.filtered_prob > 0) == (place < 5)
        assert taken.entropy_bits == steps[1].entropy_bits
        assert taken.text == bundled.tokenizer.decode([steps[0].token_id, token_id])
    again = take(steps[1].token_id)
    assert (again.prob, again.rank, again.forced) == (steps[1].prob, steps[1].rank, True)
    missing = next(i for i in range(50257) if i not in steps[1].alternative_ids and i != steps[1].token_id)
    with pytest.raises(InputError, match=f"{missing} is not among the 10"):
        take(missing)
    with pytest.raises(InputError, match="Given: none"):
        take_alternative(bundled, PROMPT, [], 5, DRAWN)
    with pytest.raises(ContextLengthError, match="at most 512"):
        grow_branch(bundled, [262] * 505, (5,), DRAWN)


def test_a_taken_token_may_end_the_text(bundled: LanguageModel) -> None:
    steps = list(generate_tokens(bundled, PROMPT, DRAWN))
    taken = other(steps[3])
    stopping = dataclasses.replace(DRAWN, stop_strings=(bundled.tokenizer.decode([taken]),))
    forced = take_alternative(bundled, PROMPT, steps[:4], taken, stopping)
    assert forced.stop_reason == "stop string"
    assert take_alternative(bundled, PROMPT, steps[:4], taken, DRAWN).stop_reason is None
    end = dataclasses.replace(
        steps[3], alternative_ids=np.array([50256, *steps[3].alternative_ids[1:]], dtype=np.int64)
    )
    forced = take_alternative(bundled, PROMPT, [*steps[:3], end], 50256, DRAWN)
    assert (forced.token_id, forced.stop_reason) == (50256, "end token")


def test_a_branch_can_be_stopped(bundled: LanguageModel) -> None:
    class Stop:
        def check(self) -> None:
            raise CancelledError("Stopped.")

        def report(self, fraction: float, message: str) -> None: ...

    with pytest.raises(CancelledError):
        next(grow_branch(bundled, PROMPT, (262, 5), DRAWN, control=Stop()))


# -- the tree -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(bundled: LanguageModel) -> BranchTree:
    """Two continuations; the first has a branch at its token 3, which has one at its token 5."""
    made = BranchTree(
        model=str(bundled.model_id), prompt_ids=PROMPT, bytes_per_token=key_value_bytes(bundled)
    )
    first = list(generate_tokens(bundled, PROMPT, DRAWN))
    second = list(generate_tokens(bundled, PROMPT, dataclasses.replace(DRAWN, seed=6)))
    third = [*first[:3], *branch_at(bundled, first[:4])]
    fourth = [*third[:5], *branch_at(bundled, third[:6])]
    made = made.with_branch(first, DRAWN, name="one").with_branch(second, DRAWN)
    made = made.with_branch(third, DRAWN, parent=0, fork=3)
    return made.with_branch(fourth, DRAWN, parent=2, fork=5)


def test_numbers_of_a_branch(tree: BranchTree, bundled: LanguageModel) -> None:
    branch = tree.find(3)
    ids = torch.tensor([[*PROMPT, *branch.token_ids]])
    with torch.inference_mode():
        log_probs = bundled.network(input_ids=ids).logits[0].double().log_softmax(-1)
    expected = sum(float(log_probs[len(PROMPT) - 1 + i, token]) for i, token in enumerate(branch.token_ids))
    assert branch.log_prob == pytest.approx(expected, abs=1e-3)
    assert branch.mean_surprisal_bits == pytest.approx(
        -expected / math.log(2) / len(branch.token_ids), abs=1e-3
    )
    assert branch.text == bundled.tokenizer.decode(branch.token_ids)
    assert branch.own_steps == branch.steps[5:]


def test_order_and_first_difference(tree: BranchTree) -> None:
    assert [(branch.number, depth) for branch, depth in tree.in_order()] == [(0, 0), (2, 1), (3, 2), (1, 0)]
    one, two, three, four = tree.branches
    assert first_difference(one, three) == 3
    assert first_difference(three, four) == 5
    assert first_difference(one, four) == 3
    assert first_difference(one, one) is None
    short = dataclasses.replace(one, steps=one.steps[:4])
    assert first_difference(one, short) == first_difference(short, one) == 4
    assert first_difference(one, two) == next(
        i for i, pair in enumerate(zip(one.token_ids, two.token_ids, strict=True)) if pair[0] != pair[1]
    )


def test_a_deleted_branch_leaves_its_children_where_it_hung(tree: BranchTree) -> None:
    smaller = tree.without(2)
    assert [branch.number for branch in smaller.branches] == [0, 1, 3]
    child = smaller.find(3)
    assert (child.parent, child.fork) == (0, 3)
    assert child.steps == tree.find(3).steps
    assert child.token_ids[:3] == smaller.find(0).token_ids[:3]
    orphan = smaller.without(0).find(3)
    assert (orphan.parent, orphan.fork) == (None, 0)
    with pytest.raises(InputError, match="no branch 2"):
        smaller.without(2)
    assert smaller.with_branch((), DRAWN).branches[-1].number == 4, "a number is never used again"


def test_what_a_run_drew_stays_its_own_when_its_parent_is_deleted(tree: BranchTree) -> None:
    assert [branch.drawn_from for branch in tree.branches] == [0, 0, 4, 6]
    for smaller in (tree.without(2), tree.without(2).without(0)):
        child = smaller.find(3)
        assert child.fork < 4, "tokens that the deleted one drew are the child's now"
        assert child.drawn_from == 6
        assert child.drawn_steps == tree.find(3).steps[6:]
        written = json.loads(export_tree(smaller, "", tokens={}))["branches"][-1]
        assert written["drawn_from"] == 6, "its seed is said to be that of what its run drew"


def test_names(tree: BranchTree) -> None:
    assert [branch.name for branch in tree.branches] == ["one", "Branch 2", "Branch 3", "Branch 4"]
    assert tree.renamed(1, "  a <b>\n name ").find(1).name == "a <b> name"
    for bad in ("", "   ", "x" * 61):
        with pytest.raises(InputError, match="1 to 60"):
            tree.renamed(1, bad)


def test_a_branch_must_begin_like_its_parent(tree: BranchTree) -> None:
    with pytest.raises(InputError, match="begin like"):
        tree.with_branch(tree.find(3).steps, DRAWN, parent=0, fork=4)
    with pytest.raises(InputError, match="begins at the prompt"):
        tree.with_branch(tree.find(3).steps, DRAWN, fork=4)


def test_bounds_in_number_and_bytes(tree: BranchTree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.check_room(n_new=40, n_branches=MAX_BRANCHES - 4)
    with pytest.raises(MemoryLimitError, match=r"at most 24 branches\. Here are 4\. Delete"):
        tree.check_room(n_new=1, n_branches=MAX_BRANCHES - 3)
    per_step = step_bytes(tree.find(0).steps[-1])
    own = sum(len(branch.own_steps) for branch in tree.branches)
    kept = sum(len(PROMPT) + len(branch.steps) for branch in tree.branches)
    assert tree.n_bytes == pytest.approx(own * per_step + kept * tree.bytes_per_token, rel=0.1)
    monkeypatch.setattr(branches, "MAX_TREE_BYTES", tree.n_bytes + 20 * tree.bytes_per_token)
    tree.check_room(n_new=5)
    with pytest.raises(MemoryLimitError, match=r"MiB.*Delete a branch, or ask for fewer"):
        tree.check_room(n_new=15)


def test_a_long_text_is_refused_before_it_outgrows_the_tree(
    tree: BranchTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step holds the whole text so far, so a text of twice the length takes four times the bytes."""
    plain = tree.find(0).steps[-1]
    long = [dataclasses.replace(plain, index=i, text="word " * (i + 1)) for i in range(600)]
    empty = dataclasses.replace(tree, branches=())
    grown = empty.with_branch(long, DRAWN)
    monkeypatch.setattr(branches, "MAX_TREE_BYTES", grown.n_bytes - 1)
    with pytest.raises(MemoryLimitError, match="fewer new tokens"):
        empty.check_room(n_new=600)
    with pytest.raises(MemoryLimitError, match="fewer new tokens"):
        empty.check_room(n_new=200, n_before=400, n_branches=2)
    empty.check_room(n_new=300)


def test_export_is_json_with_everything(tree: BranchTree) -> None:
    tokens = {i: f"<{i}>" for branch in tree.branches for i in branch.token_ids}
    written = json.loads(export_tree(tree.renamed(0, '"</script>'), "Once", tokens=tokens))
    assert written["prompt_ids"] == list(PROMPT)
    assert [branch["parent"] for branch in written["branches"]] == [None, None, 0, 2]
    for branch, said in zip(tree.branches, written["branches"], strict=True):
        assert tuple(said["token_ids"]) == branch.token_ids
        assert said["text"] == branch.text
        assert said["log_prob_nats"] == pytest.approx(branch.log_prob)
        assert said["settings"]["seed"] == 5
        assert len(said["own_steps"]) == len(branch.own_steps)
        for step, told in zip(branch.own_steps, said["own_steps"], strict=True):
            assert (told["id"], told["token"], told["prob"]) == (
                step.token_id,
                f"<{step.token_id}>",
                step.prob,
            )
            assert [a["id"] for a in told["alternatives"]] == step.alternative_ids.tolist()
