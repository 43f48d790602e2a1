"""The Predictions page as a reader sees it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from playwright.sync_api import Page, expect
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt_core.catalog import BUNDLED_FOLDER
from gpt_core.decoding import STAGES
from tests.e2e.harness import PHONE, Server, plotted, visit, wait_until_idle

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


def cards(page: Page) -> list[dict[str, Any]]:
    """What the row of stages shows: name, whether it ran, its text."""
    found: list[dict[str, Any]] = page.locator(".st-key-predictions_stages_box .card").evaluate_all(
        """cards => cards.map(card => ({
          stage: card.dataset.stage, active: card.classList.contains('active'), text: card.innerText,
          gone: [...card.querySelectorAll('.gone .token')].map(token => token.textContent),
        }))"""
    )
    return found


def test_stages_are_moved_and_switched_off_and_the_link_knows(page: Page, server: Server) -> None:
    query = "predictions_top_k=5&predictions_top_p=0.5&predictions_temperature=2"
    visit(page, server, f"predictions?prompt={PROMPT.replace(' ', '+')}&{query}")
    expect(page.get_by_text("In the order of generate.")).to_be_visible()
    shown = {card["stage"]: card for card in cards(page)}
    assert [card["stage"] for card in cards(page)] == list(STAGES)
    assert [name for name, card in shown.items() if card["active"]] == ["temperature", "top_k", "top_p"]
    assert "→ 5 tokens" in shown["top_k"]["text"]
    assert len(shown["top_k"]["gone"]) == 3  # eight tokens are in each card
    probs = plain_probs(2.0)
    assert f"probability removed {1 - float(probs.topk(5).values.sum()):.4f}" in shown["top_k"]["text"]

    page.locator('[data-stage="top_p"] [data-action="earlier"]').click()
    wait_until_idle(page)
    assert "Not the order of generate" in page.inner_text("body")
    moved = [card["stage"] for card in cards(page)]
    assert moved.index("top_p") + 1 == moved.index("top_k")
    assert "predictions_order=logit_bias" in page.url
    # Top-p now reads the whole distribution instead of the five that top-k left.
    kept = int((probs.sort(descending=True).values.cumsum(0) < 0.5).sum()) + 1
    assert f"→ {kept:,} tokens" in {card["stage"]: card for card in cards(page)}["top_p"]["text"]

    page.locator('[data-stage="top_k"] [data-action="switch"]').click()
    wait_until_idle(page)
    assert "predictions_off=top_k" in page.url
    assert not {card["stage"]: card for card in cards(page)}["top_k"]["active"]
    page.locator(".st-key-predictions_sampling_reset button").click()
    wait_until_idle(page)
    assert [card["stage"] for card in cards(page)] == list(STAGES)
    assert not any(card["active"] for card in cards(page))


def test_why_any_token_is_gone(page: Page, server: Server) -> None:
    visit(page, server, f"predictions?prompt={PROMPT.replace(' ', '+')}&predictions_top_p=0.5")
    box = page.locator(".st-key-predictions_fate input")
    box.click()
    box.fill("zebra")
    box.press("Enter")
    wait_until_idle(page)
    text = page.inner_text("body")
    assert "more probable tokens already have" in text or "No single token" in text
    box.click()
    box.fill("#262")
    box.press("Enter")
    wait_until_idle(page)
    assert "predictions_fate=262" in page.url
    rank = 1 + int((plain_probs() > plain_probs()[262]).sum())
    assert f"Rank {rank:,} for the model" in page.inner_text("body")


def test_parts_are_replaced_and_the_other_reader_sees_nothing(
    page: Page, open_page: Callable[..., Page], server: Server
) -> None:
    query = "predictions_view=Ablate+and+see&predictions_parts=0.1_0.2_1.mlp"
    visit(page, server, f"predictions?prompt={PROMPT.replace(' ', '+')}&{query}")
    page.locator(".st-key-predictions_ablate button").click()
    wait_until_idle(page)
    intact, changed = plotted(page, "predictions_change", "x")
    own = plain_probs().topk(3).values.tolist()
    assert max(abs(a - b) for a, b in zip(sorted(intact, reverse=True)[:3], own, strict=True)) < 1e-5
    assert max(abs(a - b) for a, b in zip(intact, changed, strict=True)) > 0.01
    other = open_page()
    visit(other, server, f"predictions?prompt={PROMPT.replace(' ', '+')}")
    bars, _ = plotted(other, "predictions_bars", "x")
    assert max(abs(a - b) for a, b in zip(bars[:3], own, strict=True)) < 1e-5


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_look_fits_a_phone(open_page: Callable[..., Page], server: Server, colours: str) -> None:
    page = open_page(viewport=PHONE, color_scheme=colours)
    query = "predictions_top_k=5&predictions_typical_p=0.5"
    for look in ("Every+position", "Logit+lens", "Who+said+so?", "Ablate+and+see", "Which+words+mattered?"):
        visit(page, server, f"predictions?prompt={PROMPT.replace(' ', '+')}&{query}&predictions_view={look}")
        main = page.locator('[data-testid="stMain"]')
        assert main.evaluate("node => node.scrollWidth <= node.clientWidth")
        row = page.locator(".st-key-predictions_stages_box .row")
        assert row.evaluate("node => node.scrollWidth <= node.clientWidth + 1")
        # A card a line, as wide as the screen lets it.
        widths = row.locator(".card").evaluate_all("cards => cards.map(card => card.offsetWidth)")
        assert set(widths) == {row.evaluate("node => node.clientWidth")}
