"""The Generation page without a browser: its tree, its limits, and what its link restores."""

import contextlib
import io
import json
import time
from collections.abc import MutableMapping
from typing import Any

import pytest
import torch
from streamlit.testing.v1 import AppTest

from dashboard.components import growing, playground
from dashboard.plots.generation import speed_note
from gpt_core import branches
from gpt_core.branches import BranchTree
from gpt_core.decoding import STAGES
from gpt_core.engine import shared_engine
from tests.dashboard.pages import errors, open_page, settle, texts

pytestmark = pytest.mark.usefixtures("bundled")


def generate(at: AppTest) -> AppTest:
    at.button(key="generation_start").click()
    at.run()
    return wait(at)


def wait(at: AppTest) -> AppTest:
    """Run again until nothing is growing."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if at.session_state["_generation_growth"] is None:
            return settle(at.run())
        time.sleep(0.1)
        at.run()
    raise TimeoutError("something still grows")


def tree(at: AppTest) -> BranchTree:
    found = at.session_state["_generation_tree"]
    assert isinstance(found, BranchTree)
    return found


class Session(MutableMapping[str, Any]):
    """The page's session as a callback sees it."""

    def __init__(self, at: AppTest) -> None:
        self._state = at.session_state

    def __getitem__(self, key: str) -> Any:
        return self._state[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._state[key] = value

    def __delitem__(self, key: str) -> None:
        del self._state[key]

    def __iter__(self) -> Any:
        return iter(self._state.filtered_state)

    def __len__(self) -> int:
        return len(self._state.filtered_state)


def click(at: AppTest, number: int, index: int, token_id: int, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    """What a click in the browser does: the callback, then a run of the page."""
    with monkeypatch.context() as patched:
        patched.setattr(growing.st, "session_state", Session(at))
        growing.take(number, index, token_id)
    return at


def test_a_run_and_what_is_said_of_it() -> None:
    at = generate(open_page("generation", generation_max_new_tokens="6", generation_seed="9"))
    assert errors(at) == []
    (branch,) = tree(at).branches
    assert len(branch.steps) == 6
    assert branch.settings.seed == 9
    assert any(element.value.endswith(branch.text) for element in at.text)
    assert "15 of the prompt + 6 new = 21 of 512 tokens" in texts(at)


def test_a_branch_by_a_click(monkeypatch: pytest.MonkeyPatch) -> None:
    at = generate(open_page("generation", generation_max_new_tokens="6"))
    step = tree(at).branches[0].steps[2]
    taken = int(next(i for i in step.alternative_ids if i != step.token_id))
    wait(click(at, 0, 2, taken, monkeypatch))
    assert errors(at) == []
    second = tree(at).branches[1]
    assert (second.parent, second.fork, second.steps[2].token_id) == (0, 2, taken)
    assert len(second.steps) == 3 + 6
    assert at.selectbox(key="generation_branch").value == second.number
    # Forged: no such branch, no such token, not its own token.
    for number, index, token_id in ((77, 0, taken), (0, 99, taken), (second.number, 1, taken), (0, 2, 0)):
        wait(click(at, number, index, token_id, monkeypatch))
        assert errors(at) == []
        assert len(tree(at).branches) == 2
    at.text_input(key=f"generation_name_{second.number}").set_value("  ").run()
    assert "1 to 60 characters" in texts(at)
    at.text_input(key=f"generation_name_{second.number}").set_value("mine").run()
    assert tree(at).find(second.number).name == "mine"
    at.selectbox(key="generation_compare").select(0).run()
    assert errors(at) == []
    assert "The first 2 tokens are the same" in texts(at)
    at.button(key="generation_delete").click().run()
    assert [branch.number for branch in tree(at).branches] == [0]


def take_at(at: AppTest, number: int, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take another token in place of that one of that branch, and wait for what grows."""
    step = tree(at).find(number).steps[index]
    taken = int(next(i for i in step.alternative_ids if i != step.token_id))
    wait(click(at, number, index, taken, monkeypatch))
    assert errors(at) == []


def test_a_branch_whose_parent_was_deleted_is_told_as_its_run_made_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = generate(open_page("generation", generation_max_new_tokens="5", generation_seed="3"))
    take_at(at, 0, 1, monkeypatch)
    take_at(at, 1, 4, monkeypatch)
    for gone in (1, 0):
        at.selectbox(key="generation_branch").select(gone).run()
        at.button(key="generation_delete").click().run()
    assert errors(at) == []
    (orphan,) = tree(at).branches
    assert (orphan.parent, orphan.fork, orphan.drawn_from) == (None, 0, 5)
    printed = io.StringIO()
    with torch.random.fork_rng(), contextlib.redirect_stdout(printed):
        exec(compile(program(at), "snippet", "exec"), {"__name__": "__main__"})
    assert printed.getvalue() == orphan.text + "\n"
    with monkeypatch.context() as patched:
        patched.setattr(playground.st, "session_state", Session(at))
        notes = playground._notes(tree(at), orphan, running=False)
    assert notes[-1] == speed_note(orphan.steps[5:])


def test_a_sampled_setting_beside_greedy_has_the_chosen_seed() -> None:
    written = json.dumps([{"temperature": 1.5}])
    at = open_page(
        "generation",
        generation_mode="Greedy",
        generation_beside=written,
        generation_seed="7",
        generation_max_new_tokens="3",
    )
    assert at.number_input(key="generation_seed").value == 7
    generate(at)
    assert [branch.settings.seed for branch in tree(at).branches] == [7, 7]
    at = open_page("generation", generation_beside=written, generation_n_sequences="3")
    assert "the 3 sequences have no part" in texts(at)


def test_a_bias_has_a_part_in_greedy_too() -> None:
    at = open_page(
        "generation",
        generation_mode="Greedy",
        generation_logit_bias="262:50",
        generation_max_new_tokens="2",
    )
    generate(at)
    assert tree(at).branches[0].token_ids == (262, 262)
    assert at.query_params["generation_logit_bias"] == "262:50"


def search(at: AppTest) -> AppTest:
    """Press Search and wait for its end."""
    at.button(key="generation_start").click()
    at.run()
    deadline = time.monotonic() + 60
    while not any(button.key == "generation_beam_0_to_lens" for button in at.button):
        assert time.monotonic() < deadline
        time.sleep(0.1)
        at.run()
    return at


def test_the_code_is_of_the_search_on_the_screen() -> None:
    at = search(open_page("generation", generation_mode="Beam search", generation_max_new_tokens="3"))
    at.slider(key="generation_length_penalty").set_value(-2.0).run()
    assert "length_penalty=1.0" in program(at)
    at.text_area(key="prompt").set_value("Something else").run()
    assert "length_penalty=-2.0" in program(at)


def test_a_beam_opens_the_lens() -> None:
    at = search(open_page("generation", generation_mode="Beam search", generation_max_new_tokens="3"))
    text = next(element.value for element in at.text if element.value.startswith("The CS123"))
    at.button(key="generation_beam_0_to_lens").click()
    settle(at.run())
    assert errors(at) == []
    assert at.title[0].value == "Predictions"
    assert at.text_area(key="prompt").value == text
    assert at.session_state["predictions_view"] == "Logit lens"


def test_few_beams_return_as_many_texts() -> None:
    at = open_page("generation", generation_mode="Beam search", generation_n_beams="2")
    assert at.slider(key="generation_n_return").value == 2
    assert "logit bias, presence and frequency penalty" in texts(at)
    at.slider(key="generation_n_beams").set_value(5).run()
    at.slider(key="generation_n_return").set_value(5).run()
    at.slider(key="generation_n_beams").set_value(3).run()
    assert errors(at) == []
    assert at.slider(key="generation_n_return").value == 3
    assert "5 is not among 1 to 3. Shown instead: 3." in texts(at)


def test_the_bound_of_new_tokens_is_said_with_both_numbers() -> None:
    at = open_page("generation", generation_max_new_tokens="500")
    assert (
        "The link asks for 500 here. Possible: 1 to 497 (512 tokens of context, 15 of them prompt)."
        in texts(at)
    )


def test_a_preset_keeps_the_seed_and_can_be_chosen_again() -> None:
    at = open_page("generation", generation_seed="7")
    for _ in range(2):
        at.selectbox(key="generation_preset").select("Creative").run()
        assert at.slider(key="generation_temperature").value == 1.1
        assert at.number_input(key="generation_seed").value == 7
        assert "A flatter distribution" in texts(at)
        at.slider(key="generation_temperature").set_value(0.5).run()
        assert "A flatter distribution" not in texts(at), "these are other settings now"
    assert errors(at) == []


def test_moved_sliders_are_said_beside_the_tree() -> None:
    at = generate(open_page("generation", generation_max_new_tokens="3"))
    assert "Made with other settings" not in texts(at)
    at.slider(key="generation_temperature").set_value(0.5).run()
    assert "Made with other settings" in texts(at)


def test_a_refused_run_leaves_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    at = generate(open_page("generation", generation_max_new_tokens="3"))
    before = tree(at)
    monkeypatch.setattr(branches, "MAX_TREE_BYTES", 1000)
    at.button(key="generation_start").click()
    settle(at.run())
    assert "A tree must take at most" in texts(at)
    assert tree(at) is before
    assert errors(at) == []


def test_limits_of_the_tree_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    at = generate(open_page("generation", generation_max_new_tokens="3"))
    monkeypatch.setattr(branches, "MAX_BRANCHES", 1)
    step = tree(at).branches[0].steps[1]
    click(at, 0, 1, int(step.alternative_ids[3]), monkeypatch)
    settle(at.run())
    assert "at most 1 branches. Here are 1" in texts(at)
    assert len(tree(at).branches) == 1
    monkeypatch.setattr(branches, "MAX_TREE_BYTES", 1000)
    at.button(key="generation_start").click()
    settle(at.run())
    assert "MiB" in texts(at)
    assert errors(at) == []


def test_settings_side_by_side_come_from_the_link() -> None:
    written = json.dumps([{"temperature": 0.5}, {"greedy": True}])
    at = open_page("generation", generation_beside=written, generation_max_new_tokens="3")
    assert "B: temperature 0.5" in texts(at)
    assert "C: greedy" in texts(at)
    generate(at)
    assert errors(at) == []
    assert [branch.name for branch in tree(at).branches] == ["Settings A", "Settings B", "Settings C"]
    seeds = {branch.settings.seed for branch in tree(at).branches}
    assert len(seeds) == 1
    at.button(key="generation_beside_remove_0").click().run()
    assert json.loads(at.query_params["generation_beside"]) == [{"greedy": True}]
    at.button(key="generation_beside_add").click().run()
    at.button(key="generation_beside_add").click().run()
    assert at.button(key="generation_beside_add").disabled
    assert errors(at) == []


@pytest.mark.parametrize(
    "written",
    ["[[[[", "5", '[{"a":1}]', '[{"top_k":-1}]', "[{},{},{},{}]", '[{"temperature":NaN}]', "[" * 9000],
)
def test_forged_settings_beside(written: str) -> None:
    at = open_page("generation", generation_beside=written)
    assert errors(at) == []
    assert "B:" not in texts(at)
    assert "The link asks for" in texts(at)


def test_stages_can_be_moved_and_switched_off() -> None:
    at = open_page("generation", generation_max_new_tokens="3", generation_top_k="5")
    order = [*STAGES]
    order.remove("top_k")
    at = open_page("generation", generation_max_new_tokens="3", generation_order=",".join(["top_k", *order]))
    generate(at)
    assert errors(at) == []
    assert tree(at).branches[0].settings.sampling.order[0] == "top_k"
    assert any("not `generate`'s" in expander.label for expander in at.expander)


def test_reroll_gives_another_seed() -> None:
    at = open_page("generation")
    seeds = set()
    for _ in range(3):
        at.button(key="generation_reroll").click().run()
        seeds.add(at.number_input(key="generation_seed").value)
    assert len(seeds) == 3
    assert at.query_params["generation_seed"] == str(at.number_input(key="generation_seed").value)


def test_a_link_generates_nothing() -> None:
    before = shared_engine().describe()
    at = open_page("generation", generation_max_new_tokens="400", generation_mode="Beam search")
    at = open_page("generation", generation_max_new_tokens="400", generation_int8="1")
    assert not at.toggle(key="generation_int8").value
    assert shared_engine().describe() == before
    assert "Nothing runs until you press" in texts(at)


def test_int8_is_measured_and_said() -> None:
    at = open_page("generation", generation_max_new_tokens="4")
    at.toggle(key="generation_int8").set_value(True)
    settle(at.run())
    assert "of a reference text: probabilities shift by" in texts(at)
    generate(at)
    assert tree(at).branches[0].precision == "int8"
    assert errors(at) == []


def test_int8_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import dashboard.cache

    monkeypatch.setattr(dashboard.cache, "int8_problem", lambda model: "No int8 here.")
    at = open_page("generation", generation_max_new_tokens="4")
    at.toggle(key="generation_int8").set_value(True)
    settle(at.run())
    assert "No int8 here. The text is computed in float32." in texts(at)
    generate(at)
    assert tree(at).branches[0].precision == "float32"
    monkeypatch.setattr(dashboard.cache, "int8_machine_problem", lambda: "Not on this machine.")
    at = open_page("generation")
    assert "Not on this machine." in texts(at)
    assert at.toggle(key="generation_int8").disabled


def test_other_pages_open_on_the_text() -> None:
    at = generate(open_page("generation", generation_max_new_tokens="4"))
    text = next(element.value for element in at.text if element.value.startswith("The CS123"))
    at.button(key="generation_to_predictions").click()
    settle(at.run())
    assert errors(at) == []
    assert at.title[0].value == "Predictions"
    assert at.text_area(key="prompt").value == text


def test_another_prompt_is_said_and_keeps_the_tree() -> None:
    at = generate(open_page("generation", generation_max_new_tokens="4"))
    at.text_area(key="prompt").set_value("Something else").run()
    assert "Made with other settings, another prompt or another model" in texts(at)
    assert len(tree(at).branches) == 1
    at.button(key="generation_clear").click().run()
    assert "Nothing runs until you press" in texts(at)


def test_at_the_end_of_the_context_a_branch_is_one_token(monkeypatch: pytest.MonkeyPatch) -> None:
    at = generate(open_page("generation", prompt=" a" * 511, generation_max_new_tokens="1"))
    step: Any = tree(at).branches[0].steps[0]
    wait(click(at, 0, 0, int(step.alternative_ids[2]), monkeypatch))
    assert errors(at) == []
    assert [len(branch.steps) for branch in tree(at).branches] == [1, 1]
    assert tree(at).branches[1].steps[-1].stop_reason == "length"


def program(at: AppTest) -> str:
    """Open "Show me the code" and read it."""
    at.session_state["generation_code"] = True
    at.run()
    return next(element.value for element in at.code if "from_pretrained" in element.value)


def test_the_code_is_of_the_text_on_the_screen() -> None:
    at = open_page(
        "generation", generation_max_new_tokens="4", generation_seed="3", generation_temperature="0.5"
    )
    assert "max_new_tokens=4" in program(at)
    generate(at)
    # Sliders that were moved since made no text yet.
    at.slider(key="generation_temperature").set_value(1.5).run()
    written = program(at)
    assert "temperature=0.5" in written
    assert "manual_seed(3)" in written
    at.text_area(key="prompt").set_value("Something else").run()
    assert "temperature=1.5" in program(at)


def test_the_code_of_an_int8_text_says_that_it_is_float32() -> None:
    at = open_page("generation", generation_max_new_tokens="4")
    program(at)
    assert "and gives what is on the screen" in texts(at)
    at.toggle(key="generation_int8").set_value(True)
    settle(at.run())
    generate(at)
    program(at)
    assert "gives the text that float32 makes" in texts(at)
