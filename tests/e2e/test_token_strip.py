"""The token strip in a browser: the payload arrives whole, a click sends no token again, and all of it can be read."""

import itertools
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, WebSocket

from dashboard.components.token_strip import pack_tokens
from gpt_core.model import LanguageModel
from gpt_core.tokenizer import tokenize_text
from tests.e2e.harness import DESKTOP, PHONE, ROOT, Server, visit, wait_until_idle

TEXT = (
    "Agney loves 👩‍👩‍👧 and שלום עולם\nnew line\t日本語 </script><img src=x onerror=window.__pwned=1> "
    "\u202eabc a" + "\u0301" * 300 + " end"
)
MANY = 10_000
APP = """
import numpy as np
import streamlit as st
from dashboard.components.token_strip import token_strip
from gpt_core.catalog import bundled_model_id
from gpt_core.model import load_model
from gpt_core.tokenizer import tokenize_text

tokens = tokenize_text(load_model(bundled_model_id()), {text!r})
st.session_state.setdefault("position", 2)
token_strip(
    tokens.labels, key="first", ids=tokens.token_ids, groups=tokens.groups, graphemes=tokens.group_texts,
    hover=[data.hex(" ") for data in tokens.token_bytes], selected=st.session_state["position"],
    select_into="position",
)
st.text(f"position {{st.session_state['position']}}")
n = int(st.query_params.get("n", 40))
clicked = token_strip(
    [f"␣w{{i}}" for i in range(n)], key="second", values=[np.nan, *np.linspace(0, 1, n - 1)], scale="sequential",
    on_select=lambda: None,
)
st.text(f"clicked {{clicked}}")
st.number_input("Position", 0, tokens.n_tokens - 1, key="position")
"""

# Text and background colour of elements. A canvas gives them in sRGB, however the style sheet mixed them.
COLOURS = """all => {
  const context = document.createElement('canvas').getContext('2d', {willReadFrequently: true})
  const read = colour => {
    context.clearRect(0, 0, 1, 1); context.fillStyle = colour; context.fillRect(0, 0, 1, 1)
    return [...context.getImageData(0, 0, 1, 1).data]
  }
  return all.map(e => [read(getComputedStyle(e).color), read(getComputedStyle(e).backgroundColor)])
}"""
# Milliseconds for 50 steps to the right and a frame.
STEPS = """async () => {
  const start = performance.now()
  for (let i = 0; i < 50; i++) {
    document.activeElement.shadowRoot.activeElement.dispatchEvent(
      new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}))
  }
  await new Promise(requestAnimationFrame)
  return performance.now() - start
}"""


@pytest.fixture(scope="module")
def strips(start_server: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    app = tmp_path_factory.mktemp("strips") / "app.py"
    app.write_text(APP.format(text=TEXT), encoding="utf-8")
    return start_server(app=app, env={"PYTHONPATH": str(ROOT)})


def strip(page: Page, key: str) -> Locator:
    return page.locator(f".st-key-{key}_box .strip")


def token(page: Page, key: str, position: int) -> Locator:
    return strip(page, key).locator(f"[data-i='{position}']")


def expected_payload(lm: LanguageModel) -> bytes:
    tokens = tokenize_text(lm, TEXT)
    return pack_tokens(
        tokens.labels,
        key="first",
        ids=tokens.token_ids,
        groups=tokens.groups,
        graphemes=tokens.group_texts,
        hover=[data.hex(" ") for data in tokens.token_bytes],
    )


def test_payload_arrives_whole(page: Page, strips: Server, bundled: LanguageModel) -> None:
    visit(page, strips)
    payload = expected_payload(bundled)
    assert strip(page, "first").get_attribute("data-checksum") == f"{zlib.crc32(payload):08x}"
    assert strip(page, "first").get_attribute("data-bytes") == str(len(payload))
    assert strip(page, "first").locator(".token").all_text_contents() == list(
        tokenize_text(bundled, TEXT).labels
    )
    values = (
        strip(page, "second")
        .locator(".token")
        .evaluate_all("all => all.map(e => parseFloat(e.style.getPropertyValue('--value')))")
    )
    np.testing.assert_allclose(values[1:], np.linspace(0, 1, 39), atol=1e-4)
    assert np.isnan(values[0])


def test_a_click_sends_no_token_again(page: Page, strips: Server, bundled: LanguageModel) -> None:
    frames: list[bytes] = []

    def listen(socket: WebSocket) -> None:
        socket.on(
            "framereceived",
            lambda frame: frames.append(frame if isinstance(frame, bytes) else frame.encode()),
        )

    page.on("websocket", listen)
    visit(page, strips)
    payload = expected_payload(bundled)
    assert sum(payload in frame for frame in frames) == 1
    frames.clear()
    token(page, "first", 7).click()
    page.get_by_text("position 7").wait_for()
    wait_until_idle(page)
    assert frames
    assert sum(map(len, frames)) < len(payload) / 2
    assert strip(page, "first").get_attribute("data-draws") == "1"
    assert strip(page, "first").locator("[aria-selected=true]").get_attribute("data-i") == "7"
    token(page, "second", 3).click()
    page.get_by_text("clicked 3").wait_for()
    assert not any(payload[:100] in frame for frame in frames)


def test_another_widget_selects(page: Page, strips: Server) -> None:
    visit(page, strips)
    page.get_by_label("Position").fill("5")
    page.keyboard.press("Enter")
    page.get_by_text("position 5").wait_for()
    wait_until_idle(page)
    assert strip(page, "first").locator("[aria-selected=true]").get_attribute("data-i") == "5"


def test_keyboard(page: Page, strips: Server) -> None:
    visit(page, strips)
    first = strip(page, "first")
    assert first.locator("[tabindex='0']").count() == 1
    token(page, "first", 2).focus()
    for key, position in (
        ("ArrowRight", 3),
        ("ArrowLeft", 2),
        ("Home", 0),
        ("ArrowLeft", 0),
        ("End", None),
        ("ArrowRight", None),
    ):
        page.keyboard.press(key)
        last = first.locator(".token").count() - 1
        active = first.locator("[tabindex='0']")
        assert active.get_attribute("data-i") == str(last if position is None else position)
        assert active.evaluate("e => e === e.getRootNode().activeElement")
    page.keyboard.press("Home")
    before = token(page, "first", 0).bounding_box()
    page.keyboard.press("ArrowDown")
    below = first.locator("[tabindex='0']").bounding_box()
    assert before is not None
    assert below is not None
    assert below["y"] > before["y"] + 10
    assert abs(below["x"] - before["x"]) < 40
    position = first.locator("[tabindex='0']").get_attribute("data-i")
    page.keyboard.press("Enter")
    page.get_by_text(f"position {position}", exact=True).wait_for()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_hover_tells_all_and_stays_on_the_screen(
    open_page: Callable[..., Page], strips: Server, bundled: LanguageModel, viewport: dict[str, int]
) -> None:
    page = open_page(viewport=viewport)
    visit(page, strips)
    tokens = tokenize_text(bundled, TEXT)
    tip = page.locator(".st-key-first_box .tip")
    for position in (0, 1, 3, 12, 20):
        token(page, "first", position).hover()
        assert tip.inner_text().split("\n") == [
            tokens.labels[position],
            f"position {position}, id {tokens.token_ids[position]}",
            tokens.token_bytes[position].hex(" "),
        ]
        box = tip.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["y"] >= 0
        assert box["x"] + box["width"] <= viewport["width"]
        assert box["y"] + box["height"] <= viewport["height"]
    page.mouse.move(1, 1)
    assert not tip.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_newlines_break_lines_and_neighbours_keep_their_order(
    page: Page, strips: Server, bundled: LanguageModel
) -> None:
    visit(page, strips)
    labels = tokenize_text(bundled, TEXT).labels
    newline = labels.index("⏎")
    boxes = [token(page, "first", i).bounding_box() for i in range(newline + 2)]
    assert boxes[newline + 1]["y"] > boxes[newline]["y"]  # type: ignore[index]
    # Right-to-left letters and a bidi override turn nothing around: each token starts right of the one before it.
    for before, after in itertools.pairwise(boxes):
        assert before is not None
        assert after is not None
        assert after["x"] > before["x"] or after["y"] > before["y"]
    family = strip(page, "first").locator(".grapheme").first
    assert family.inner_text() == "␣👩‍👩‍👧"


def test_a_letter_with_many_accents_stays_in_its_box(page: Page, strips: Server) -> None:
    visit(page, strips)
    heights = (
        strip(page, "first")
        .locator(".token, .grapheme")
        .evaluate_all("all => all.map(e => e.getBoundingClientRect().height)")
    )
    assert max(heights) < 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(open_page: Callable[..., Page], strips: Server, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    visit(page, strips)
    page_colour = {"light": [255, 255, 255, 255], "dark": [18, 22, 28, 255]}[scheme]
    colours = {
        key: [
            (text, background if background[3] == 255 else page_colour)
            for text, background in page.locator(f".st-key-{key}_box :is(.token, .tip)").evaluate_all(COLOURS)
        ]
        for key in ("first", "second")
    }
    assert len(colours["first"]) > 80
    assert min(contrast(*pair) for pairs in colours.values() for pair in pairs) >= 4.5
    # The strongest colour is told from the weakest.
    weakest, strongest = colours["second"][1][1], colours["second"][39][1]
    assert max(abs(a - b) for a, b in zip(weakest, strongest, strict=True)) > 60


def contrast(a: list[int], b: list[int]) -> float:
    """WCAG 2's contrast of two sRGB colours."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: list[int]) -> float:
    channels = [c / 255 for c in colour[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_many_tokens(page: Page, strips: Server) -> None:
    visit(page, strips, f"?n={MANY}")
    assert strip(page, "second").locator(".token").count() == MANY
    token(page, "second", 100).click()
    page.get_by_text("clicked 100").wait_for()
    token(page, "second", 0).focus()
    took = page.evaluate(STEPS)
    assert strip(page, "second").locator("[tabindex='0']").get_attribute("data-i") == "50"
    assert took < 5000  # 50 steps; a tenth of a second each would be felt
