"""One forward pass for each distinct text, however many pages and readers look at it."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from gpt_core import trace
from gpt_core.decode_fast import FastDecoder, fast_decoder
from gpt_core.model import LanguageModel
from tests.dashboard.pages import NAMES, errors, open_page, settle

TEXT = "Forward passes are counted on the model itself."


@pytest.fixture
def passes(bundled: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Length in tokens of each pass through the first block, as the model itself sees it."""
    seen: list[int] = []
    handle = bundled.anatomy.blocks[0].register_forward_hook(
        lambda block, args, output: seen.append(output.shape[1])
    )
    # The fast loop reads the weights, not the blocks; what proves it is no pass over a reader's text.
    fast_decoder(bundled)
    read = FastDecoder.read

    def count(self: Any, token_ids: Any, *arguments: Any, **more: Any) -> Any:
        seen.append(len(token_ids))
        return read(self, token_ids, *arguments, **more)

    monkeypatch.setattr(FastDecoder, "read", count)
    trace._traces.clear()
    seen.clear()
    yield seen
    handle.remove()


def test_six_pages_and_two_sessions_share_one_pass(passes: list[int], bundled: LanguageModel) -> None:
    n_tokens = len(bundled.tokenizer.backend_tokenizer.encode(TEXT).ids)
    for _ in range(2):
        for name in NAMES:
            if name != "few_shot":  # makes prompts of its own
                assert errors(open_page(name, prompt=TEXT)) == []
    assert passes == [n_tokens]


def test_sliders_and_pickers_run_no_model(passes: list[int]) -> None:
    at = open_page("predictions", prompt=TEXT)
    assert len(passes) == 1
    at.slider(key="predictions_temperature").set_value(0.5).run()
    at.slider(key="predictions_top_k").set_value(7).run()
    at.slider(key="predictions_top_p").set_value(0.5).run()
    at.selectbox(key="predictions_position").select(2).run()
    settle(at)
    attention = open_page("attention", prompt=TEXT)
    attention.selectbox(key="attention_head").select(3).run()
    attention.selectbox(key="attention_layer").select(1).run()
    assert errors(at) == errors(attention) == []
    assert len(passes) == 1


def test_few_shot_passes_once_for_each_prompt(passes: list[int]) -> None:
    open_page("few_shot")
    first = list(passes)
    assert len(first) == 3  # zero, one and two examples; " Positive" and " Negative" are one token each
    open_page("few_shot")
    assert passes == first


def test_a_link_generates_nothing(passes: list[int], bundled: LanguageModel) -> None:
    n_tokens = len(bundled.tokenizer.backend_tokenizer.encode(TEXT).ids)
    at = open_page("generation", prompt=TEXT, generation_max_new_tokens="5", generation_mode="Greedy")
    assert passes == []
    at.button(key="generation_start").click()
    at.run()
    while not at.button(key="generation_stop").disabled:
        time.sleep(0.05)
        at.run()
    assert errors(at) == []
    assert passes == [n_tokens, 1, 1, 1, 1]


def test_the_walk_runs_on_request_and_each_block_once(passes: list[int]) -> None:
    at = open_page("embeddings", prompt=TEXT + " Walked.")
    assert len(passes) == 1
    at.button(key="embeddings_walk").click()
    settle(at.run())
    assert errors(at) == []
    assert len(passes) == 2
    settle(at.run())
    assert len(passes) == 2
