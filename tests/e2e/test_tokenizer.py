"""The Tokenizer page as a reader sees it."""

from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect
from transformers import AutoTokenizer

from gpt_core.catalog import BUNDLED_FOLDER
from tests.e2e.harness import Server, visit, wait_until_idle

PROMPT = "Agney loves 👩‍👩‍👧 and 日本語"
INJECTION = "</script><img src=x onerror=window.__pwned=1>"


def strip_labels(page: Page, key: str = "tokenizer_strip") -> list[str]:
    return page.locator(f".st-key-{key}_box .token").all_text_contents()


def ids_on_hover(page: Page) -> list[int]:
    """The id that the strip tells of each token."""
    found = []
    for token in page.locator(".st-key-tokenizer_strip_box .token").all():
        token.hover()
        found.append(
            int(page.locator(".st-key-tokenizer_strip_box .tip").inner_text().split("id ")[1].split()[0])
        )
    return found


def test_tokens_are_transformers_and_a_link_restores_them(
    page: Page, server: Server, other_server: Server
) -> None:
    visit(page, server, f"?prompt={quote(PROMPT)}")
    expected = AutoTokenizer.from_pretrained(BUNDLED_FOLDER)(PROMPT)["input_ids"]
    assert ids_on_hover(page) == expected
    # One interaction: a word is taken apart.
    page.locator(".st-key-tokenizer_word input").fill("intresting")
    page.keyboard.press("Enter")
    expect(page.get_by_text("“intresting” is not in the vocabulary")).to_be_visible()
    wait_until_idle(page)
    visit(page, other_server, page.url.removeprefix(server.url).lstrip("/"))
    assert ids_on_hover(page) == expected
    expect(page.locator(".st-key-tokenizer_word input")).to_have_value("intresting")


def test_a_click_takes_the_word_apart(page: Page, server: Server) -> None:
    visit(page, server)
    assert strip_labels(page)[6:9] == ["␣int", "rest", "ing"]
    page.locator(".st-key-tokenizer_strip_box [data-i='7']").click()
    expect(page.locator(".st-key-tokenizer_word input")).to_have_value(" intresting")
    wait_until_idle(page)
    expect(page.get_by_text("No rule merges ␣int and rest, nor rest and ing.")).to_be_visible()
    chosen = page.locator(".st-key-tokenizer_strip_box [aria-selected=true]")
    assert chosen.get_attribute("data-i") == "7"
    # Another word is typed, then the same token is clicked again.
    page.locator(".st-key-tokenizer_word input").fill("other")
    page.keyboard.press("Enter")
    expect(page.get_by_text("“other” is token")).to_be_visible()
    wait_until_idle(page)
    page.locator(".st-key-tokenizer_strip_box [data-i='7']").click()
    expect(page.locator(".st-key-tokenizer_word input")).to_have_value(" intresting")


def test_ids_back_to_text(page: Page, server: Server) -> None:
    visit(page, server)
    page.locator(".st-key-tokenizer_ids textarea").fill("[363, 1681, 10408]")
    page.keyboard.press("Control+Enter")
    expect(page.locator("[data-testid=stMain] code", has_text="agney loves")).to_be_visible()
    wait_until_idle(page)
    assert strip_labels(page, "tokenizer_decoded") == ["ag", "ney", "␣loves"]


def test_csv(page: Page, server: Server) -> None:
    visit(page, server, f"?prompt={quote('=1+1 loves')}")
    with page.expect_download() as download:
        page.locator(".st-key-tokenizer_csv button").click()
    text = download.value.path().read_bytes().decode("utf-8-sig")
    rows = text.splitlines()
    assert rows[0].split(",")[:3] == ['"position"', '"id"', '"token"']
    assert '"\'="' in rows[1]
    assert rows[-1].split(",")[2] == '"Ġloves"'


@pytest.mark.parametrize("where", ["prompt", "tokenizer_word", "tokenizer_ids"])
def test_hostile_text_stays_text(page: Page, server: Server, where: str) -> None:
    visit(page, server, f"?{where}={quote(INJECTION)}")
    if where == "prompt":
        assert "".join(strip_labels(page)).replace("␣", " ") == INJECTION
        page.locator(".st-key-tokenizer_strip_box [data-i='1']").click()
        wait_until_idle(page)
    assert page.locator("[data-testid=stMain] img[src='x']").count() == 0
