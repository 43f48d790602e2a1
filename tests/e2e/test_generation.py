"""The Generation page as a reader sees it."""

import contextlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote_plus

import pytest
import torch
from playwright.sync_api import Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt_core.catalog import BUNDLED_FOLDER, bundled_model_id
from gpt_core.decoding import GenerationSettings, SamplingSettings
from gpt_core.generation import generate_tokens, grow_branch
from gpt_core.model import load_model
from tests.e2e.harness import PHONE, Server, plotted, visit, wait_until_idle

PROMPT = "Once upon a time, there was"
LINK = f"generation?prompt={PROMPT.replace(' ', '+')}"
TREE = ".st-key-generation_tree_box"


def plain_text(**settings: object) -> str:
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_FOLDER)
    model = AutoModelForCausalLM.from_pretrained(BUNDLED_FOLDER, dtype=torch.float32).eval()
    inputs = tokenizer(PROMPT, return_tensors="pt")
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(7)
        ids = model.generate(**inputs, max_new_tokens=12, top_k=0, top_p=1.0, temperature=1.0, **settings)[0]
    return str(tokenizer.decode(ids))


def wait_for_end(page: Page) -> None:
    """Until something has come and nothing runs."""
    page.locator(f"{TREE} .token, [class*=st-key-generation_beam_0]").first.wait_for(timeout=60_000)
    expect(page.locator(f"{TREE} .running")).to_have_count(0, timeout=60_000)
    expect(page.locator(".st-key-generation_stop button")).to_be_disabled(timeout=60_000)
    wait_until_idle(page)


def generate(page: Page) -> None:
    page.locator(".st-key-generation_start button").click()
    wait_for_end(page)


def text_on_page(page: Page) -> str:
    return page.locator(".st-key-generation_text").inner_text()


def branch(page: Page, place: int) -> str:
    return page.locator(f"{TREE} .branch").nth(place).inner_text()


def take(page: Page, token: int, alternative: int, *, of: int = 0) -> str:
    """Click a token of a branch and take one of its alternatives; its label."""
    page.locator(f"{TREE} .branch").nth(of).locator(".token").nth(token).click()
    row = page.locator(f"{TREE} .menu [data-id]").nth(alternative)
    label = row.locator("bdi").inner_text()
    n_before = page.locator(f"{TREE} .branch").count()
    row.click()
    expect(page.locator(f"{TREE} .branch")).to_have_count(n_before + 1, timeout=30_000)
    wait_for_end(page)
    return label


def test_draws_what_generate_draws(page: Page, server: Server) -> None:
    visit(page, server, f"{LINK}&generation_seed=7&generation_max_new_tokens=12")
    assert page.locator(f"{TREE} .token").count() == 0, "a link must not generate"
    generate(page)
    assert text_on_page(page) == plain_text(do_sample=True)
    expect(page.locator(f"{TREE} .token")).to_have_count(12)
    head = branch(page, 0)
    assert "seed 7" in head
    assert "tokens/s" in head
    assert "first token after" in head


def test_greedy_and_the_settings_come_from_the_link(page: Page, server: Server) -> None:
    visit(page, server, f"{LINK}&generation_mode=Greedy&generation_max_new_tokens=12")
    generate(page)
    assert text_on_page(page) == plain_text(do_sample=False)


def test_stop_keeps_what_came(page: Page, server: Server) -> None:
    visit(page, server, f"{LINK}&generation_max_new_tokens=400&generation_n_sequences=8")
    page.locator(".st-key-generation_start button").click()
    expect(page.locator(f"{TREE} .token").first).to_be_visible(timeout=30_000)
    page.locator(".st-key-generation_stop button").click()
    expect(page.locator(".st-key-generation_stop button")).to_be_disabled(timeout=15_000)
    wait_until_idle(page)
    assert "stopped" in page.inner_text(f"{TREE} .tree")
    assert page.locator(f"{TREE} .branch").count() < 8
    assert page.locator(f"{TREE} .token").count() > 0


def test_beams_are_drawn_as_they_go(page: Page, server: Server) -> None:
    visit(page, server, f"{LINK}&generation_mode=Beam+search&generation_max_new_tokens=12")
    generate(page)
    expect(page.locator(".st-key-generation_beam_0")).to_contain_text(
        plain_text(do_sample=False, num_beams=4, length_penalty=1.0, early_stopping=False)
    )
    names = plotted(page, "generation_beam_tree", "name")
    assert {"kept", "dropped"} <= set(names)
    xs = plotted(page, "generation_beam_tree", "x")
    assert max(x for x in xs[names.index("kept")]) == 11


def test_hover_gives_the_alternatives_and_a_click_grows_a_branch(page: Page, server: Server) -> None:
    visit(page, server, f"{LINK}&generation_seed=7&generation_max_new_tokens=12&generation_top_k=3")
    generate(page)
    lm = load_model(bundled_model_id())
    ids = lm.tokenizer.backend_tokenizer.encode(PROMPT).ids
    settings = GenerationSettings(seed=7, max_new_tokens=12, sampling=SamplingSettings(top_k=3))
    steps = list(generate_tokens(lm, ids, settings))
    page.locator(f"{TREE} .token").nth(4).hover()
    tip = page.locator(f"{TREE} .tip")
    expect(tip).to_be_visible()
    said = tip.inner_text()
    assert f"probability {steps[4].prob:.4f}" in said
    assert f"after the stages {steps[4].filtered_prob:.4f}, of 3 tokens left" in said
    for place in range(5):
        assert f"{steps[4].alternative_probs[place]:.4f}" in said
    # The fifth is removed by top-k, and can be taken all the same.
    label = take(page, 4, 4)
    taken = [*(step.token_id for step in steps[:4]), int(steps[4].alternative_ids[4])]
    grown = list(grow_branch(lm, ids, taken, settings))
    assert text_on_page(page) == PROMPT + grown[-1].text
    assert label in branch(page, 1)
    assert "from Text 1 at token 4" in branch(page, 1)
    assert page.locator(f"{TREE} .branch").nth(1).locator(".token").count() == 13
    assert page.locator(f"{TREE} .forced").count() == 1
    # The branch that it left is as it was.
    assert page.locator(f"{TREE} .branch").nth(0).locator(".token").count() == 12


def test_branches_are_named_compared_exported_and_deleted(page: Page, server: Server) -> None:
    visit(page, server, f"{LINK}&generation_seed=7&generation_max_new_tokens=8")
    generate(page)
    take(page, 3, 2)
    take(page, 2, 1, of=1)
    assert page.locator(f"{TREE} .branch").count() == 3
    page.locator("[class*=st-key-generation_name_] input").fill("<b>mine</b>")
    page.keyboard.press("Enter")
    wait_until_idle(page)
    expect(page.locator(f"{TREE} .branch").nth(2)).to_contain_text("<b>mine</b>")
    wait_until_idle(page)
    field = page.locator(".st-key-generation_compare input").first
    field.scroll_into_view_if_needed()
    page.wait_for_timeout(500)  # a list closes when the page moves under it
    entry = page.get_by_role("option", name="Text 1").first
    for _ in range(5):
        field.click()
        with contextlib.suppress(PlaywrightTimeoutError):
            entry.click(timeout=5000)
            break
    wait_until_idle(page)
    left, right = (page.locator(f".st-key-generation_compared_{side}") for side in ("left", "right"))
    expect(left.locator('[aria-selected="true"]')).to_have_count(1)
    assert left.locator('[aria-selected="true"]').get_attribute("data-i") == "3"
    assert right.locator('[aria-selected="true"]').get_attribute("data-i") == "3"
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    written = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert [b["name"] for b in written["branches"]] == ["Text 1", "Branch 2", "<b>mine</b>"]
    assert [b["parent"] for b in written["branches"]] == [None, 0, 1]
    page.get_by_role("button", name="Delete").click()
    expect(page.locator(f"{TREE} .branch")).to_have_count(2)
    wait_until_idle(page)


def test_keyboard_takes_an_alternative(page: Page, server: Server) -> None:
    visit(page, server, f"{LINK}&generation_max_new_tokens=5")
    generate(page)
    page.locator(f"{TREE} .token").first.focus()
    for key in ("ArrowRight", "ArrowRight", "Enter", "ArrowDown", "Enter"):
        page.keyboard.press(key)
        page.wait_for_timeout(50)
    expect(page.locator(f"{TREE} .branch")).to_have_count(2, timeout=30_000)
    wait_for_end(page)
    assert "at token 2" in branch(page, 1)


def test_other_pages_open_on_the_text(page: Page, server: Server) -> None:
    visit(page, server, f"{LINK}&generation_seed=7&generation_max_new_tokens=6")
    generate(page)
    text = text_on_page(page)
    page.locator(".st-key-generation_to_attention button").click()
    expect(page.get_by_role("heading", name="Attention").first).to_be_visible(timeout=30_000)
    wait_until_idle(page)
    assert page.locator(".st-key-prompt textarea").input_value() == text
    assert f"prompt={quote_plus(text)[:20]}" in page.url


def test_settings_side_by_side(page: Page, server: Server, open_page: Callable[..., Page]) -> None:
    visit(page, server, f"{LINK}&generation_seed=7&generation_max_new_tokens=6&generation_temperature=0.5")
    page.get_by_role("button", name="Put these settings beside").click()
    wait_until_idle(page)
    page.get_by_role("radio", name="Greedy").click()
    wait_until_idle(page)
    generate(page)
    assert page.locator(f"{TREE} .family").count() == 2
    assert "greedy" in branch(page, 0)
    assert "temperature 0.5" in branch(page, 1)
    receiver = open_page()
    receiver.goto(page.url)
    wait_until_idle(receiver)
    assert "B: temperature 0.5" in receiver.inner_text("[data-testid=stMain]")
    assert receiver.locator(f"{TREE} .token").count() == 0


@pytest.mark.parametrize("mode", ["Draw", "Greedy"])
def test_the_code_on_the_page_prints_the_text_on_the_page(page: Page, server: Server, mode: str) -> None:
    visit(page, server, f"{LINK}&generation_seed=9&generation_max_new_tokens=8&generation_mode={mode}")
    generate(page)
    page.locator(".st-key-generation_code summary").click()
    wait_until_idle(page)
    program = page.locator(".st-key-generation_code [data-testid=stCode] code").inner_text()
    printed = io.StringIO()
    with torch.random.fork_rng(), contextlib.redirect_stdout(printed):
        exec(compile(program, "snippet", "exec"), {"__name__": "__main__"})
    assert PROMPT + printed.getvalue().rstrip("\n") == text_on_page(page)


def test_int8_says_how_far_it_is_off(page: Page, server: Server) -> None:
    visit(page, server, f"{LINK}&generation_max_new_tokens=6")
    page.locator(".st-key-generation_int8 label").first.click()
    wait_until_idle(page)
    said = page.inner_text("[data-testid=stMain]")
    assert "tokens of a reference text: probabilities shift by" in said
    generate(page)
    assert "int8" in branch(page, 0)


def test_a_second_reader_takes_turns_and_hears_of_it(
    page: Page, server: Server, open_page: Callable[..., Page]
) -> None:
    visit(page, server, f"{LINK}&generation_max_new_tokens=400&generation_n_sequences=8&generation_seed=1")
    second = open_page()
    visit(second, server, f"{LINK}&generation_max_new_tokens=400&generation_n_sequences=8&generation_seed=2")
    for one in (page, second):
        one.locator(".st-key-generation_start button").click()
    expect(second.locator(".st-key-generation_progress")).to_contain_text("1 other job", timeout=20_000)
    for one in (page, second):
        one.locator(".st-key-generation_stop button").click()
        expect(one.locator(".st-key-generation_stop button")).to_be_disabled(timeout=15_000)


#: Runs inside the server from its start: writes what its engine is doing, with the time, ten times a second.
PROBE = """\
import os, sys, threading, time

def watch():
    while True:
        engine = sys.modules.get("gpt_core.engine")
        if engine is not None and hasattr(engine, "shared_engine") and "dashboard.cache" in sys.modules:
            seen = engine.shared_engine().describe()
            with open(os.environ["ENGINE_PROBE"], "a") as file:
                file.write(f"{time.time()} {seen.running} {seen.queued}\\n")
        time.sleep(0.05)

if {"streamlit", "dashboard"} & set(sys.orig_argv):
    threading.Thread(target=watch, daemon=True).start()
"""


def test_closing_the_tab_frees_the_machine(
    open_page: Callable[..., Page], start_server: Callable[..., Server], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(PROBE)
    seen = tmp_path / "engine.txt"
    server = start_server(env={"PYTHONPATH": str(tmp_path), "ENGINE_PROBE": str(seen)})
    page = open_page()
    visit(page, server, f"{LINK}&generation_max_new_tokens=400&generation_n_sequences=8")
    page.locator(".st-key-generation_start button").click()
    expect(page.locator(f"{TREE} .token").first).to_be_visible(timeout=30_000)

    def states() -> list[tuple[float, int]]:
        lines = [line.split() for line in seen.read_text().splitlines() if line.count(" ") == 2]
        return [(float(when), int(running) + int(queued)) for when, running, queued in lines]

    assert states()[-1][1] == 1
    closed = time.time()
    page.close()
    time.sleep(6)
    after = [(when - closed, busy) for when, busy in states() if when > closed]
    # A tenth of a second on a quiet machine; the text alone would have taken a quarter of a minute or more.
    freed = min((seconds for seconds, busy in after if busy == 0), default=60.0)
    assert freed < 5, after
    assert all(busy == 0 for seconds, busy in after if seconds > freed)


@pytest.mark.parametrize("n_tokens", [1, 511])
def test_short_and_long_prompts_on_a_phone(
    n_tokens: int, open_page: Callable[..., Page], server: Server
) -> None:
    page = open_page(viewport=PHONE, color_scheme="dark")
    prompt = quote_plus("a" + " a" * (n_tokens - 1))
    visit(page, server, f"generation?prompt={prompt}&generation_max_new_tokens=5")
    generate(page)
    assert page.locator(f"{TREE} .token").count() == min(5, 512 - n_tokens)
    wide = page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth")
    assert wide <= PHONE["width"]
    page.locator(f"{TREE} .token").first.click()
    box = page.locator(f"{TREE} .menu").bounding_box()
    assert box
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE["width"]
    # At the end of the context a branch is the token that was taken, and nothing after it.
    page.locator(f"{TREE} .menu [data-id]").nth(1).click()
    expect(page.locator(f"{TREE} .branch")).to_have_count(2, timeout=30_000)
    wait_for_end(page)
    assert page.locator(f"{TREE} .branch").nth(1).locator(".token").count() == min(6, 512 - n_tokens)
