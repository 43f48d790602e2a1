"""BertViz's pages in a browser without a network: they draw, completely, and run no text of a reader."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page

from dashboard.plots.bertviz import TEXT, head_view_html, model_view_html
from tests.e2e.harness import DESKTOP, PHONE

N_LAYERS, N_HEADS = 3, 2
LABELS = [
    "The",
    "·fox",
    "</script><script>window.__pwned=1</script>",
    "<img src=x onerror=window.__pwned=2>",
    "·x",
]
# What the pages show of them: a label has room for 18 letters.
SHOWN = ["The", "·fox", "</script><script>…", "<img src=x onerro…", "·x"]
INJECTIONS = [
    "</script><img src=x onerror=__pwned=3>"[:18],
    "<svg onload=__p=4>",
    "'\"`${__p=5}",
    "&lt;b&gt;",
]


def attention(n_tokens: int = len(LABELS)) -> np.ndarray:
    weights = np.random.default_rng(3).random((N_LAYERS, N_HEADS, n_tokens, n_tokens)) * np.tri(n_tokens)
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def show(open_page: Callable[..., Page], tmp_path: Path) -> Callable[..., Page]:
    """Open an HTML text as a file, in a browser that reaches nothing."""

    def open_text(text: str, viewport: dict[str, int] = DESKTOP) -> Page:
        file = tmp_path / "view.html"
        file.write_text(text, encoding="utf-8")
        page = open_page(offline=True, viewport=viewport)
        page.goto(file.as_uri())
        return page

    return open_text


def opacities(page: Page, lines: str) -> np.ndarray:
    found = page.eval_on_selector_all(lines, "all => all.map(line => +line.getAttribute('stroke-opacity'))")
    return np.array(found)


@pytest.mark.parametrize("dark", [False, True])
def test_model_view_draws_every_weight_and_enlarges_a_head(show, dark):
    page = show(model_view_html(attention(), LABELS, dark=dark))
    np.testing.assert_allclose(opacities(page, "#vis line"), attention().ravel(), atol=5.01e-4)

    page.locator("#attn_background_1_1").locator("xpath=following-sibling::*[last()]").click()
    assert page.get_by_text("Layer 1, Head 1").is_visible()
    np.testing.assert_allclose(opacities(page, "#vis g.detail line"), attention()[1, 1].ravel(), atol=5.01e-4)
    assert page.locator("text.token").all_text_contents() == SHOWN * 2


@pytest.mark.parametrize("dark", [False, True])
def test_head_view_draws_the_chosen_layer(show, dark):
    page = show(head_view_html(attention(), LABELS, layer=1, dark=dark))
    # BertViz divides by the number of heads that are switched on.
    np.testing.assert_allclose(opacities(page, "#vis line"), attention()[1].ravel() / N_HEADS, atol=2.51e-4)
    page.locator("#layer").select_option("2")
    np.testing.assert_allclose(opacities(page, "#vis line"), attention()[2].ravel() / N_HEADS, atol=2.51e-4)
    page.locator("#vis > svg > g:last-child > rect").first.click()  # switches head 0 off
    drawn = opacities(page, "#vis line").reshape(N_HEADS, -1)
    assert drawn[0].max() == 0
    np.testing.assert_allclose(drawn[1], attention()[2, 1].ravel(), atol=5.01e-4)


def test_layers_that_were_chosen_keep_their_numbers(show):
    page = show(model_view_html(attention()[[2]], LABELS, layers=[2]))
    assert page.locator("#vis text").all_text_contents() == ["Heads", "0", "1", "Layers", "2"]
    np.testing.assert_allclose(opacities(page, "#vis line"), attention()[2].ravel(), atol=5.01e-4)


@pytest.mark.parametrize("view", [model_view_html, head_view_html])
def test_text_stays_text(show, view):
    labels = [*LABELS, *INJECTIONS]
    page = show(view(attention(len(labels)), labels))  # the fixture asserts that nothing ran
    assert page.locator("img, #vis script").count() == 0
    if view is head_view_html:
        assert page.locator("#left text").all_text_contents() == [*SHOWN, *INJECTIONS]


def test_axes_can_be_read_in_the_dark(show):
    page = show(model_view_html(attention(), LABELS, dark=True))
    colours = set(
        page.eval_on_selector_all("#vis text", "all => all.map(text => getComputedStyle(text).fill)")
    )
    red, green, blue = (int(TEXT["dark"][i : i + 2], 16) for i in (1, 3, 5))
    assert colours == {f"rgb({red}, {green}, {blue})"}


@pytest.mark.parametrize("view", [model_view_html, head_view_html])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
def test_everything_can_be_scrolled_to(show, view, viewport):
    page = show(view(attention(), ["·characteristically", "漢" * 9, *LABELS[2:]]), viewport)
    if view is model_view_html:
        page.locator("#attn_background_2_1").locator("xpath=following-sibling::*[last()]").click()
        assert page.locator("text.token").count() == 2 * len(LABELS)
    left, right, reach = page.evaluate(
        """() => {
            const boxes = [...document.querySelectorAll("#vis text, #vis line, #vis rect")]
              .map(shape => shape.getBoundingClientRect());
            return [
              Math.min(...boxes.map(box => box.left)) + scrollX,
              Math.max(...boxes.map(box => box.right)) + scrollX,
              document.documentElement.scrollWidth,
            ];
        }"""
    )
    assert left >= 0
    assert right <= reach


@pytest.mark.parametrize("view", [model_view_html, head_view_html])
@pytest.mark.parametrize(("width", "scrolls"), [(1400, False), (946, False), (700, False), (390, True)])
def test_page_fits_its_place_or_scrolls(show, view, width, scrolls):
    page = show(view(attention(), ["a"] * len(LABELS)), {"width": width, "height": 700})
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert (overflow > 1) == (scrolls and view is model_view_html)
    page.set_viewport_size({"width": 1400, "height": 700})
    page.wait_for_function("document.body.style.zoom == 1")
