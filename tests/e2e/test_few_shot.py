"""The Few-Shot page as a reader sees it."""

import torch
from playwright.sync_api import Page, expect
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt_core.catalog import BUNDLED_FOLDER
from tests.e2e.harness import Server, plotted, visit, wait_until_idle

PROMPT = """Sentiment Analysis
Text: I hate it when my phone battery dies.
Sentiment: Negative
###
Text: My day has been really great!
Sentiment: Positive
###
Text: {query}
Sentiment:"""


def bars(page: Page) -> dict[str, list[float]]:
    """Probability of each label, by number of examples."""
    names, probs = plotted(page, "few_shot_bars", "name"), plotted(page, "few_shot_bars", "x")
    return dict(zip(names, probs, strict=True))


def plain_probs(query: str) -> dict[str, float]:
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_FOLDER)
    model = AutoModelForCausalLM.from_pretrained(BUNDLED_FOLDER, dtype=torch.float32).eval()
    with torch.inference_mode():
        probs = model(**tokenizer(PROMPT.format(query=query), return_tensors="pt")).logits[0, -1].softmax(-1)
    return {label: float(probs[tokenizer.encode(f" {label}")[0]]) for label in ("Positive", "Negative")}


def test_labels_are_the_models_and_a_link_restores_the_query(
    page: Page, server: Server, other_server: Server
) -> None:
    visit(page, server, "few_shot")
    for label, prob in plain_probs("This new music video was so bad.").items():
        assert abs(bars(page)[label][-1] - prob) < 1e-5
    # One interaction: another sentence.
    query = "This song was wonderful and I loved it."
    page.locator(".st-key-few_shot_sentiment_text textarea").fill(query)
    page.keyboard.press("Control+Enter")
    wait_until_idle(page)
    for where in (server, other_server):
        if where is other_server:
            visit(page, other_server, page.url.removeprefix(server.url).lstrip("/"))
        for label, prob in plain_probs(query).items():
            assert abs(bars(page)[label][-1] - prob) < 1e-5


def test_answer(page: Page, server: Server) -> None:
    visit(page, server, "few_shot")
    page.locator(".st-key-few_shot_start button").click()
    expect(page.locator(".st-key-few_shot_answer_sequence_0")).to_contain_text(
        "Sentiment: Negative", timeout=30_000
    )
    wait_until_idle(page)


def test_tasks_of_the_notebook(page: Page, server: Server) -> None:
    visit(page, server, "few_shot?few_shot_task=questions")
    expect(page.locator("[data-testid=stCode]").first).to_contain_text("Q: How many Champions title")
    page.get_by_text("Summary", exact=True).click()
    wait_until_idle(page)
    expect(page.locator("[data-testid=stCode]").first).to_contain_text("TL:DR:")
