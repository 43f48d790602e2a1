"""The Attention page as a reader sees it."""

import torch
from playwright.sync_api import Page, expect
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt_core.catalog import BUNDLED_FOLDER
from tests.e2e.harness import Server, plotted, visit, wait_until_idle

PROMPT = "The cat sat on the mat. The cat sat on the"


def plain_attention(layer: int, head: int) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_FOLDER)
    model = AutoModelForCausalLM.from_pretrained(
        BUNDLED_FOLDER, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.inference_mode():
        return model(**tokenizer(PROMPT, return_tensors="pt"), output_attentions=True).attentions[layer][
            0, head
        ]


def test_map_is_the_models_and_a_link_restores_it(page: Page, server: Server, other_server: Server) -> None:
    visit(page, server, f"attention?prompt={PROMPT.replace(' ', '+')}")
    # One interaction: another head.
    page.locator(".st-key-attention_head input").fill("head 4")
    page.keyboard.press("Enter")
    wait_until_idle(page)
    expected = plain_attention(layer=5, head=4)
    for place in (page, None):
        if place is None:  # the link, on a server whose defaults differ
            address = page.url.removeprefix(server.url).lstrip("/")
            visit(page, other_server, address)
        cells = plotted(page, "attention_map", "z")[0]
        for q, row in enumerate(cells):
            assert [cell is None for cell in row] == [k > q for k in range(len(row))]
            for k in range(q + 1):
                assert abs(row[k] - float(expected[q, k])) < 1e-5  # type: ignore[operator]


def test_bertviz_draws(page: Page, server: Server) -> None:
    visit(page, server, "attention")
    page.get_by_text("BertViz", exact=True).click()
    wait_until_idle(page)
    frame = page.frame_locator(".st-key-attention_bertviz iframe, iframe[title^=BertViz]").first
    frame.locator("svg line, svg path, svg rect").first.wait_for(timeout=30_000)
    page.get_by_text("Head view", exact=True).click()
    wait_until_idle(page)
    page.frame_locator("iframe[title='BertViz Head view']").locator("svg line").first.wait_for(
        timeout=30_000, state="attached"
    )


def test_steps_add_up(page: Page, server: Server) -> None:
    visit(page, server, "attention?attention_query=3")
    page.get_by_text("Masked self-attention, step by step").click()
    wait_until_idle(page)
    expect(page.locator(".st-key-attention_steps [data-testid=stDataFrame]")).to_be_visible()
    assert "1/√32" in page.inner_text("[data-testid=stMain]")
