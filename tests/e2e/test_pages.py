"""What holds on every page: first paint, hostile texts, one reader beside another, both themes and sizes."""

from collections.abc import Callable
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.harness import PAGES, PHONE, Server, plotted, visit, wait_until_idle

HOSTILE = (
    "<img src=x onerror=window.__pwned=1></script><script>window.__pwned=1</script>"
    "<svg onload=window.__pwned=1> ![x](http://127.0.0.1:9/b.png) $x$ :red[hi]"
)


@pytest.mark.parametrize("name", PAGES)
def test_first_paint(page: Page, server: Server, name: str) -> None:
    visit(page, server, PAGES[name])
    expect(page.locator(".st-key-prompt textarea")).to_have_value(
        "The CS123 class was very intresting. I learned a lot."
    )
    expect(page.locator("h1")).to_be_visible()
    assert "15 of 512 tokens" in page.inner_text("[data-testid=stSidebar]")


@pytest.mark.parametrize("name", PAGES)
def test_hostile_text_stays_text(page: Page, server: Server, name: str) -> None:
    extra = f"&few_shot_sentiment_text={quote(HOSTILE)}&few_shot_sentiment_labels={quote(HOSTILE)}"
    visit(page, server, f"{PAGES[name]}?prompt={quote(HOSTILE)}{extra}")
    expect(page.locator(".st-key-prompt textarea")).to_have_value(HOSTILE)
    if name == "attention":
        page.get_by_text("BertViz", exact=True).click()
        wait_until_idle(page)
        page.frame_locator("iframe").first.locator("svg").first.wait_for(timeout=30_000, state="attached")
    if name in {"generation", "few_shot"}:
        page.locator(f".st-key-{name}_start button").click()
        page.locator("[class*=_sequence_0], .st-key-generation_tree_box .token").first.wait_for(
            timeout=60_000
        )
        expect(page.locator(f".st-key-{name}_stop button")).to_be_disabled(timeout=60_000)
        wait_until_idle(page)
    for label in ("How is this computed?", "Show me the code"):
        page.get_by_text(label).click()
        wait_until_idle(page)
    # The page fixture now asserts: nothing ran, nothing was fetched, nothing was logged.
    assert page.locator("[data-testid=stMain] img[src='x']").count() == 0


@pytest.mark.parametrize("name", PAGES)
def test_fits_a_phone_in_the_dark(open_page: Callable[..., Page], server: Server, name: str) -> None:
    page = open_page(viewport=PHONE, color_scheme="dark")
    visit(page, server, PAGES[name])
    overflow = page.evaluate(
        "() => { const main = document.querySelector('[data-testid=stMain]');"
        " return main.scrollWidth - main.clientWidth; }"
    )
    assert overflow <= 1


def test_two_readers_do_not_disturb_each_other(open_page: Callable[..., Page], server: Server) -> None:
    first, second = open_page(), open_page()
    visit(first, server, "generation?generation_max_new_tokens=300&generation_n_sequences=4")
    first.locator(".st-key-generation_start button").click()
    expect(first.locator(".st-key-generation_tree_box .token").first).to_be_visible(timeout=30_000)
    visit(second, server, "predictions?prompt=Someone+else+asks+meanwhile", timeout=30)
    assert plotted(second, "predictions_bars", "x")
    expect(first.locator(".st-key-generation_stop button")).to_be_enabled()
    first.locator(".st-key-generation_stop button").click()
    expect(first.locator(".st-key-generation_stop button")).to_be_disabled(timeout=15_000)
    wait_until_idle(first)


def test_switching_pages_keeps_the_prompt(page: Page, server: Server) -> None:
    visit(page, server, "attention?prompt=Kept+on+the+way")
    for title in ("Predictions", "Tokenizer", "Embeddings"):
        page.locator("[data-testid=stTopNavLink]", has_text=title).first.click()
        expect(page.locator("h1")).to_contain_text(title)
        wait_until_idle(page)
        expect(page.locator(".st-key-prompt textarea")).to_have_value("Kept on the way")


def test_control_enter_submits(page: Page, server: Server) -> None:
    visit(page, server)
    page.locator(".st-key-prompt textarea").fill("Hello World. This is Agney")
    page.keyboard.press("Control+Enter")
    wait_until_idle(page)
    assert "7 of 512 tokens" in page.inner_text("[data-testid=stSidebar]")
    assert "prompt=Hello" in page.url
