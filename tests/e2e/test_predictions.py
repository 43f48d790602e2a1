"""The Predictions page as a reader sees it."""

import torch
from playwright.sync_api import Page
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt_core.catalog import BUNDLED_FOLDER
from tests.e2e.harness import Server, plotted, visit, wait_until_idle

PROMPT = "Once upon a time, there was"


def plain_probs(temperature: float = 1.0) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_FOLDER)
    model = AutoModelForCausalLM.from_pretrained(BUNDLED_FOLDER, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = model(**tokenizer(PROMPT, return_tensors="pt")).logits[0, -1]
    return (logits.double() / temperature).softmax(dim=-1)


def test_bars_are_the_models_and_sliders_and_links_move_them(
    page: Page, server: Server, other_server: Server
) -> None:
    visit(page, server, f"predictions?prompt={PROMPT.replace(' ', '+')}&predictions_top_k=5")
    expected = plain_probs().topk(15).values.tolist()
    own, after = plotted(page, "predictions_bars", "x")
    assert max(abs(a - b) for a, b in zip(own, expected, strict=True)) < 1e-5
    assert sum(value > 0 for value in after) == 5
    # One interaction: a step of the temperature slider, from 1 down to 0.95.
    page.locator(".st-key-predictions_temperature input[type=range]").focus()
    page.keyboard.press("ArrowLeft")
    wait_until_idle(page)
    kept = plain_probs(0.95).topk(5).values
    for where in (server, other_server):
        if where is other_server:
            visit(page, other_server, page.url.removeprefix(server.url).lstrip("/"))
        own, after = plotted(page, "predictions_bars", "x")
        assert max(abs(a - b) for a, b in zip(own, expected, strict=True)) < 1e-5
        shown = [value for value in after if value > 0]
        assert max(abs(a - b) for a, b in zip(shown, (kept / kept.sum()).tolist(), strict=True)) < 1e-5


def test_a_click_on_a_token_chooses_the_position(page: Page, server: Server) -> None:
    visit(page, server, f"predictions?prompt={PROMPT.replace(' ', '+')}")
    page.locator(".st-key-predictions_strip_box [role=option]").nth(1).click()
    wait_until_idle(page)
    assert "predictions_position=1" in page.url
