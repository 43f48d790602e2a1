"""The Generation page as a reader sees it."""

import torch
from playwright.sync_api import Page, expect
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt_core.catalog import BUNDLED_FOLDER
from tests.e2e.harness import Server, visit, wait_until_idle

PROMPT = "Once upon a time, there was"
LINK = f"generation?prompt={PROMPT.replace(' ', '+')}"


def plain_text(**settings: object) -> str:
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_FOLDER)
    model = AutoModelForCausalLM.from_pretrained(BUNDLED_FOLDER, dtype=torch.float32).eval()
    inputs = tokenizer(PROMPT, return_tensors="pt")
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(7)
        ids = model.generate(**inputs, max_new_tokens=12, top_k=0, top_p=1.0, temperature=1.0, **settings)[0]
    return str(tokenizer.decode(ids))


def generate(page: Page) -> None:
    page.locator(".st-key-generation_start button").click()
    page.locator("[class*=generation_sequence_0], [class*=generation_beam_0]").first.wait_for(timeout=60_000)
    expect(page.locator(".st-key-generation_stop button")).to_be_disabled(timeout=60_000)
    wait_until_idle(page)


def test_draws_what_generate_draws(page: Page, server: Server) -> None:
    visit(page, server, f"{LINK}&generation_seed=7&generation_max_new_tokens=12")
    assert page.locator(".st-key-generation_sequence_0").count() == 0, "a link must not generate"
    generate(page)
    expect(page.locator(".st-key-generation_sequence_0")).to_contain_text(plain_text(do_sample=True))
    expect(
        page.locator(
            ".st-key-generation_sequence_0 [role=option], .st-key-generation_sequence_0 [role=listitem]"
        )
    ).to_have_count(12)


def test_greedy_and_the_settings_come_from_the_link(page: Page, server: Server) -> None:
    visit(page, server, f"{LINK}&generation_mode=Greedy&generation_max_new_tokens=12")
    generate(page)
    expect(page.locator(".st-key-generation_sequence_0")).to_contain_text(plain_text(do_sample=False))


def test_stop_keeps_what_came(page: Page, server: Server) -> None:
    visit(page, server, f"{LINK}&generation_max_new_tokens=400&generation_n_sequences=8")
    page.locator(".st-key-generation_start button").click()
    expect(page.locator(".st-key-generation_sequence_0")).to_be_visible(timeout=30_000)
    page.locator(".st-key-generation_stop button").click()
    expect(page.locator(".st-key-generation_stop button")).to_be_disabled(timeout=15_000)
    wait_until_idle(page)
    assert "stopped" in page.inner_text("[data-testid=stMain]")
    assert page.locator(".st-key-generation_sequence_7").count() == 0


def test_beams(page: Page, server: Server) -> None:
    visit(page, server, f"{LINK}&generation_mode=Beam+search&generation_max_new_tokens=12")
    generate(page)
    expect(page.locator(".st-key-generation_beam_0")).to_contain_text(
        plain_text(do_sample=False, num_beams=4, length_penalty=1.0, early_stopping=False)
    )
