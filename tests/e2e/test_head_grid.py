"""The head grid in a browser: it shows eager attention, follows and leads the page, streams, and can be taken away."""

import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote_plus

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Locator, Page, WebSocket, expect
from transformers import AutoModelForCausalLM, AutoTokenizer

from dashboard.components.head_grid.page import head_grid_page, page_facts
from dashboard.components.head_grid.payload import GridMeasure, pack_cells, pack_frame
from gpt_core.attention_measures import measure_heads
from gpt_core.catalog import BUNDLED_FOLDER
from gpt_core.head_grid import LayerThumbnails, layer_thumbnails
from gpt_core.model import LanguageModel
from gpt_core.trace import trace_text
from tests.e2e.harness import PHONE, ROOT, Server, visit, wait_until_idle

PROMPT = "The cat sat on the mat. The cat sat on the"
HOSTILE = "</script><img src=x onerror=window.__pwned=1>"
APP = """
import threading, time
import numpy as np
import streamlit as st
from dashboard.components.head_grid import GridMeasure, HeadChoice, head_grid
from dashboard import cache
from gpt_core import head_grid as core
from gpt_core.catalog import bundled_model_id
from gpt_core.model import load_model
from gpt_core.tokenizer import tokenize_text

kept = core.kept_thumbnails
if not hasattr(core, "slow"):
    core.slow = True

    def slowly(lm, ids, *, layer, control=None):
        if control is not None and "slow" in lm.tokenizer.decode(ids):
            time.sleep(0.8)
        return kept(lm, ids, layer=layer, control=control)

    core.kept_thumbnails = slowly

lm = load_model(bundled_model_id())
tokens = tokenize_text(lm, st.query_params.get("prompt", "The cat sat on the mat."))
values = np.arange(36, dtype=np.float32).reshape(6, 6) * 7 % 36 / 10
values[1, 1] = np.nan
for name in ("layer", "head", "query", "key"):
    st.session_state.setdefault(name, 0)
choice = head_grid(
    str(lm.model_id), tokens.token_ids, tokens.labels, key="heads",
    selected=HeadChoice(**{name: st.session_state[name] for name in ("layer", "head", "query", "key")}),
    select_into={name: name for name in ("layer", "head", "query", "key")},
    measures=[
        GridMeasure(
            name="sevens", title="Sevens", definition="Seven times the head's number, modulo 36.", values=values
        )
    ],
)
for name in ("layer", "head", "query", "key"):
    st.number_input(name, 0, 500, key=name)
st.text(f"chosen {choice}")
"""
# Colours in the middle of each cell of the large picture, (n, n, 4).
LARGE = """(canvas, n) => {
  const context = canvas.getContext('2d'), size = canvas.width / n
  return Array.from({length: n}, (_, q) => Array.from({length: n}, (_, k) =>
    [...context.getImageData(Math.floor((k + .5) * size), Math.floor((q + .5) * size), 1, 1).data]))
}"""
# The same of a small picture; `box` is its head's button.
SMALL = """(button, n) => {
  const canvas = button.closest('.board').querySelector('canvas'), ratio = window.devicePixelRatio
  const from = canvas.getBoundingClientRect(), box = button.getBoundingClientRect()
  const size = (box.width - 4) / n, context = canvas.getContext('2d')
  const at = (start, i) => Math.floor((start + 2 + (i + .5) * size) * ratio)
  return Array.from({length: n}, (_, q) => Array.from({length: n}, (_, k) =>
    [...context.getImageData(at(box.x - from.x, k), at(box.y - from.y, q), 1, 1).data]))
}"""


@pytest.fixture(scope="module")
def grids(start_server: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    app = tmp_path_factory.mktemp("grids") / "app.py"
    app.write_text(APP, encoding="utf-8")
    return start_server(app=app, env={"PYTHONPATH": str(ROOT)})


def grid(page: Page) -> Locator:
    return page.locator(".heads")


def head(page: Page, layer: int, number: int) -> Locator:
    return grid(page).locator(f".head[data-layer='{layer}'][data-head='{number}']")


def wait_until_drawn(page: Page, n_heads: int = 36) -> None:
    expect(grid(page)).to_have_attribute("data-drawn", str(n_heads), timeout=30_000)


def eager() -> torch.Tensor:
    """`(n_layers, n_heads, n_tokens, n_tokens)` by plain transformers."""
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_FOLDER)
    model = AutoModelForCausalLM.from_pretrained(
        BUNDLED_FOLDER, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.inference_mode():
        output = model(**tokenizer(PROMPT, return_tensors="pt"), output_attentions=True)
    return torch.cat(output.attentions)


def check_picture(colours: list[list[list[int]]], weights: torch.Tensor, *, dark: bool) -> None:
    """Every open cell is drawn, the rest is empty, and a larger weight is never further from the text's colour."""
    n = len(weights)
    rgba = np.array(colours, dtype=float)
    below = np.tri(n, dtype=bool)
    assert (rgba[~below][:, 3] == 0).all()
    assert (rgba[below][:, 3] == 255).all()
    light = rgba[..., :3] @ [0.2126, 0.7152, 0.0722]
    order = np.argsort(weights.numpy()[below])
    steps = np.diff(light[below][order]) * (1 if dark else -1)
    assert steps.min() >= -1.5  # a unit of each channel is rounding
    assert abs(light[below][order][-1] - light[below][order][0]) > 100


def test_all_heads_are_drawn_as_eager_attention_has_them(
    page: Page, server: Server, bundled: LanguageModel
) -> None:
    visit(page, server, f"attention?prompt={quote_plus(PROMPT)}")
    wait_until_drawn(page)
    trace = trace_text(bundled, PROMPT)
    cells = b"".join(layer_thumbnails(trace, layer=layer).cells.tobytes() for layer in range(6))
    # A second look finds all layers computed, and they come at once.
    page.reload()
    wait_until_idle(page)
    wait_until_drawn(page)
    assert grid(page).get_attribute("data-cells") == f"{zlib.crc32(cells):08x}"
    weights = eager()
    n = weights.shape[-1]
    for layer, number in ((0, 0), (2, 3), (5, 1)):
        check_picture(head(page, layer, number).evaluate(SMALL, n), weights[layer, number], dark=False)
        head(page, layer, number).hover()
        expect(grid(page).locator(".title")).to_have_text(f"Layer {layer}, head {number}")
        check_picture(grid(page).locator(".large").evaluate(LARGE, n), weights[layer, number], dark=False)


def test_a_click_leads_the_page_and_the_page_leads_the_grid(page: Page, server: Server) -> None:
    visit(page, server, f"attention?prompt={quote_plus(PROMPT)}")
    wait_until_drawn(page)
    head(page, 3, 2).click()
    wait_until_idle(page)
    assert page.locator(".st-key-attention_layer input").input_value() == "layer 3"
    assert page.locator(".st-key-attention_head input").input_value() == "head 2"
    assert "attention_layer=3" in page.url
    assert "attention_head=2" in page.url
    page.locator(".st-key-attention_head input").fill("head 4")
    page.keyboard.press("Enter")
    wait_until_idle(page)
    expect(head(page, 3, 4)).to_have_attribute("aria-selected", "true")
    assert grid(page).locator("[aria-selected=true]").count() == 1
    # The pointer away from the grid, the page's head is the one that is large.
    page.mouse.move(5, 5)
    expect(grid(page).locator(".title")).to_have_text("Layer 3, head 4")


def test_hover_shows_and_goes_back_to_what_was_clicked(page: Page, grids: Server) -> None:
    visit(page, grids)
    wait_until_drawn(page)
    head(page, 2, 2).click()
    head(page, 4, 1).hover()
    expect(grid(page).locator(".title")).to_contain_text("Layer 4, head 1")
    page.mouse.move(2, 2)
    expect(grid(page).locator(".title")).to_contain_text("Layer 2, head 2")


def listen(page: Page) -> list[bytes]:
    """What the server sends from now on."""
    frames: list[bytes] = []

    def note(frame: bytes | str) -> None:
        frames.append(frame if isinstance(frame, bytes) else frame.encode())

    def attend(socket: WebSocket) -> None:
        socket.on("framereceived", note)

    page.on("websocket", attend)
    return frames


def times_sent(frames: list[bytes], lm: LanguageModel, text: str) -> list[int]:
    """How often each layer's cells are in `frames`."""
    trace = trace_text(lm, text)
    layers = [layer_thumbnails(trace, layer=layer).cells.tobytes() for layer in range(6)]
    return [sum(layer in frame for frame in frames) for layer in layers]


def test_a_click_sends_no_cell_again(page: Page, grids: Server, bundled: LanguageModel) -> None:
    frames = listen(page)
    text = "No cell travels twice. " * 12
    visit(page, grids, f"?prompt={quote_plus(text)}")
    wait_until_drawn(page)
    wait_until_idle(page)
    assert times_sent(frames, bundled, text) == [1] * 6
    frames.clear()
    head(page, 4, 4).click()
    expect(page.get_by_label("layer", exact=True)).to_have_value("4")
    wait_until_idle(page)
    assert frames
    assert times_sent(frames, bundled, text) == [0] * 6
    assert sum(map(len, frames)) < 20_000
    assert grid(page).get_attribute("data-frames") == "1"


def test_the_first_layer_is_drawn_before_the_last_is_computed(
    page: Page, grids: Server, bundled: LanguageModel
) -> None:
    frames = listen(page)
    text = "This one is slow. " * 12
    page.goto(f"{grids.url}/?prompt={quote_plus(text)}")
    expect(grid(page)).not_to_have_attribute("data-drawn", "0", timeout=30_000)
    drawn = int(grid(page).get_attribute("data-drawn") or 0)
    assert 0 < drawn < 36
    expect(grid(page).locator(".board")).to_have_attribute("aria-busy", "true")
    wait_until_drawn(page)
    expect(grid(page).locator(".board")).to_have_attribute("aria-busy", "false")
    assert len((grid(page).get_attribute("data-cells") or "").split()) > 1
    wait_until_idle(page)
    page.wait_for_timeout(1000)  # the page has looked once more, and stopped looking
    assert times_sent(frames, bundled, text) == [1] * 6
    frames.clear()
    page.wait_for_timeout(1000)
    assert frames == []


def test_another_prompt_leaves_nothing_of_the_one_before(page: Page, server: Server) -> None:
    visit(page, server, "attention?prompt=One+two+three")
    wait_until_drawn(page)
    before = grid(page).get_attribute("data-run"), grid(page).get_attribute("data-cells")
    page.locator("textarea").first.fill("Four five six")
    page.keyboard.press("Control+Enter")
    wait_until_idle(page)
    wait_until_drawn(page)
    after = grid(page).get_attribute("data-run"), grid(page).get_attribute("data-cells")
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_keyboard(page: Page, grids: Server) -> None:
    visit(page, grids)
    wait_until_drawn(page)
    board = grid(page).locator(".board")
    assert board.locator("[tabindex='0']").count() == 1
    head(page, 0, 0).focus()
    for key, place in (
        ("ArrowRight", (0, 1)),
        ("ArrowDown", (1, 1)),
        ("ArrowLeft", (1, 0)),
        ("ArrowUp", (0, 0)),
        ("ArrowUp", (0, 0)),
        ("End", (0, 5)),
        ("Control+End", (5, 5)),
        ("ArrowRight", (5, 5)),
        ("Home", (5, 0)),
        ("ArrowUp", (4, 0)),
    ):
        page.keyboard.press(key)
        active = board.locator("[tabindex='0']")
        assert (
            int(active.get_attribute("data-layer") or -1),
            int(active.get_attribute("data-head") or -1),
        ) == place
        assert active.evaluate("e => e === e.getRootNode().activeElement")
        expect(grid(page).locator(".title")).to_contain_text(f"Layer {place[0]}, head {place[1]}")
    assert active.evaluate("e => getComputedStyle(e).outlineWidth") == "3px"
    page.keyboard.press("Enter")
    expect(page.get_by_label("layer", exact=True)).to_have_value("4")
    expect(page.get_by_label("head", exact=True)).to_have_value("0")
    # On to the large picture, and a cell of it.
    page.keyboard.press("Tab")
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    expect(page.get_by_label("query", exact=True)).to_have_value("3")
    expect(page.get_by_label("key", exact=True)).to_have_value("1")


def test_a_cell_that_is_clicked_becomes_query_and_key(page: Page, grids: Server) -> None:
    visit(page, grids)
    wait_until_drawn(page)
    head(page, 1, 3).click()
    large = grid(page).locator(".large")
    large.scroll_into_view_if_needed()
    box = large.bounding_box()
    assert box is not None
    n = 7  # tokens of "The cat sat on the mat."
    at = {"x": box["width"] * 2.5 / n, "y": box["height"] * 5.5 / n}
    large.hover(position=at)
    assert grid(page).locator(".where").inner_text().split("\n") == ["query 5 ␣mat", "key 2 ␣sat"]
    large.click(position=at)
    for name, value in (("layer", 1), ("head", 3), ("query", 5), ("key", 2)):
        expect(page.get_by_label(name, exact=True)).to_have_value(str(value))
    # A masked cell is nothing to choose.
    large.click(position={"x": box["width"] * 5.5 / n, "y": box["height"] * 2.5 / n})
    wait_until_idle(page)
    expect(page.get_by_label("query", exact=True)).to_have_value("5")


def test_sorted_and_marked_by_a_measure(page: Page, grids: Server) -> None:
    visit(page, grids)
    wait_until_drawn(page)
    values = np.arange(36) * 7 % 36 / 10
    known = [i for i in range(36) if i != 7]
    assert grid(page).locator(".order").is_disabled()
    head(page, 0, 2).hover()  # 2 * 7 / 10
    assert grid(page).locator(".values").inner_text().split() == ["Sevens", "1.4"]
    grid(page).locator(".measure").select_option(label="Sevens")
    expect(grid(page).locator(".definition")).to_have_text("Seven times the head's number, modulo 36.")
    shares = (
        grid(page)
        .locator(".mark")
        .evaluate_all("all => all.map(e => e.hidden ? NaN : parseFloat(e.style.getPropertyValue('--share')))")
    )
    np.testing.assert_allclose(np.array(shares)[known], values[known] / values[known].max(), atol=1e-3)
    assert np.isnan(shares[7])
    for order, sign in (("highest", -1), ("lowest", 1)):
        grid(page).locator(".order").select_option(value=order)
        found = (
            grid(page)
            .locator(".head")
            .evaluate_all("all => all.map(e => 6 * Number(e.dataset.layer) + Number(e.dataset.head))")
        )
        assert found == [*sorted(known, key=lambda i: sign * values[i]), 7]
    # The pictures moved with their heads: layer 0, head 0 has the lowest value and stands first.
    first = grid(page).locator(".head").first
    first.hover()
    expect(grid(page).locator(".title")).to_have_text("Layer 0, head 0Sevens: 0")
    assert first.get_attribute("aria-label") == "layer 0, head 0, Sevens 0"
    for place in (1, 20):
        button = grid(page).locator(".head").nth(place)
        button.hover()
        large = grid(page).locator(".large").evaluate(LARGE, 7)
        assert button.evaluate(SMALL, 7) == large
    grid(page).locator(".head[data-layer='1'][data-head='1']").hover()
    expect(grid(page).locator(".title")).to_contain_text("Sevens: none")
    grid(page).locator(".order").select_option(value="layers")
    head(page, 2, 5).click()
    expect(page.get_by_label("layer", exact=True)).to_have_value("2")


def test_marks_begin_at_zero_as_the_figure_does(page: Page, server: Server, bundled: LanguageModel) -> None:
    visit(page, server, f"attention?prompt={quote_plus(PROMPT)}&attention_grid_measure=entropy")
    wait_until_drawn(page)
    expect(grid(page).locator(".mark")).to_have_count(36, timeout=30_000)
    shares = (
        grid(page)
        .locator(".mark")
        .evaluate_all("all => all.map(e => parseFloat(e.style.getPropertyValue('--share')))")
    )
    values = measure_heads(trace_text(bundled, PROMPT)).of("entropy").ravel()
    assert values.min() > 0.02 * values.max(), "a mark that begins at the lowest value would look the same"
    np.testing.assert_allclose(shares, values / values.max(), atol=1e-3)


def test_a_phone_shows_it_without_scrolling_sideways(open_page: Callable[..., Page], server: Server) -> None:
    page = open_page(viewport=PHONE)
    visit(page, server, f"attention?prompt={quote_plus(PROMPT)}")
    wait_until_drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    boxes = [grid(page).locator(".head").nth(i).bounding_box() for i in (0, 35)]
    large = grid(page).locator(".large").bounding_box()
    for box in (*boxes, large):
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
        assert min(box["width"], box["height"]) >= 24
    head(page, 5, 5).tap() if page.evaluate("'ontouchstart' in window") else head(page, 5, 5).click()
    wait_until_idle(page)
    assert page.locator(".st-key-attention_layer input").input_value() == "layer 5"


def test_dark_is_dark_and_a_change_of_theme_is_followed(
    open_page: Callable[..., Page], server: Server
) -> None:
    page = open_page(color_scheme="dark")
    visit(page, server, f"attention?prompt={quote_plus(PROMPT)}")
    wait_until_drawn(page)
    weights = eager()
    n = weights.shape[-1]
    check_picture(head(page, 2, 3).evaluate(SMALL, n), weights[2, 3], dark=True)
    page.emulate_media(color_scheme="light")
    page.wait_for_timeout(1000)
    check_picture(head(page, 2, 3).evaluate(SMALL, n), weights[2, 3], dark=False)


@pytest.mark.parametrize("prompt", ["a", HOSTILE], ids=["one token", "tags"])
def test_any_prompt(page: Page, server: Server, prompt: str) -> None:
    visit(page, server, f"attention?prompt={quote_plus(prompt)}")
    wait_until_drawn(page)
    head(page, 0, 1).click()
    wait_until_idle(page)
    assert grid(page).locator("img").count() == 0


# The file to take away


@pytest.fixture
def open_file(open_page: Callable[..., Page], tmp_path: Path) -> Callable[..., Page]:
    """Open a file from disk where every request but the file itself is refused."""

    def open_it(html: str | bytes, **options: object) -> Page:
        path = tmp_path / "heads.html"
        path.write_bytes(html.encode("utf-8") if isinstance(html, str) else html)
        page = open_page(**options)
        page.context.set_offline(True)
        page.route(lambda url: not url.startswith("file:"), lambda route: route.abort())
        page.goto(path.as_uri())
        return page

    return open_it


def test_the_file_opens_from_disk(page: Page, server: Server, open_file: Callable[..., Page]) -> None:
    text = f"The cat {HOSTILE} sat"
    visit(page, server, f"attention?prompt={quote_plus(text)}&attention_section=Numbers")
    with page.expect_download() as download:
        page.get_by_role("button", name="All heads as one HTML file").click()
    alone = open_file(Path(download.value.path()).read_bytes())
    wait_until_drawn(alone)
    assert alone.locator(".prompt").inner_text() == text
    head(alone, 3, 3).click()
    head(alone, 1, 1).hover()
    expect(grid(alone).locator(".title")).to_have_text("Layer 1, head 1")
    footer = alone.locator("footer").inner_text()
    assert "bundled:small-gpt2" in footer
    assert "26b4a81e6939" in footer or "Revision" in footer
    assert "float32" in footer
    assert alone.locator("img").count() == 0


def test_text_in_the_file_never_runs_and_labels_show_it(open_file: Callable[..., Page]) -> None:
    rng = np.random.default_rng(0)
    labels = [HOSTILE, "</template><script>window.__pwned=1</script>", "&amp;", "'\"`${1}"]
    cells = [
        LayerThumbnails(layer=layer, n_tokens=4, step=1, cells=rng.integers(1, 256, (2, 10)).astype(np.uint8))
        for layer in range(2)
    ]
    measures = [
        GridMeasure(name=HOSTILE, title=HOSTILE, definition=HOSTILE, values=np.ones((2, 2), np.float32))
    ]
    frame = pack_frame(labels, key="grid", run="r", n_layers=2, n_heads=2, step=1, measures=measures)
    page = open_file(
        head_grid_page(
            frame,
            [pack_cells(cells[:1], key="grid", run="r"), pack_cells(cells[1:], key="grid", run="r")],
            text=HOSTILE,
            facts=page_facts(f"local:{HOSTILE}@0123456789ab") | {HOSTILE: HOSTILE},
            title=HOSTILE,
        )
    )  # the fixture asserts that nothing ran and nothing was asked for
    wait_until_drawn(page, 4)
    grid(page).locator(".measure").select_option(label=HOSTILE)
    assert grid(page).locator(".definition").inner_text() == HOSTILE
    head(page, 1, 0).click()
    large = grid(page).locator(".large")
    box = large.bounding_box()
    assert box is not None
    for position, label in enumerate(labels):
        large.hover(position={"x": 5, "y": box["height"] * (position + 0.5) / 4})
        assert grid(page).locator(".where bdi").first.inner_text() == label
    assert page.locator("img").count() == 0
    assert page.title() == HOSTILE


def test_the_policy_of_the_file_stops_what_is_not_its_own(browser: Browser, tmp_path: Path) -> None:
    frame = pack_frame(["a"], key="grid", run="r", n_layers=1, n_heads=1, step=1)
    cells = LayerThumbnails(layer=0, n_tokens=1, step=1, cells=np.full((1, 1), 255, dtype=np.uint8))
    html = head_grid_page(frame, [pack_cells([cells], key="grid", run="r")], text="", facts={})
    path = tmp_path / "heads.html"
    path.write_text(html.replace("</body>", "<script>window.__pwned = 1</script></body>"), encoding="utf-8")
    page = browser.new_page()  # not one that is judged: what is tried here is refused with an error
    page.goto(path.as_uri())
    wait_until_drawn(page, 1)
    assert page.evaluate("window.__pwned") is None
    refused = page.evaluate(
        """() => new Promise(done => {
          document.addEventListener('securitypolicyviolation', event => done(event.violatedDirective))
          new Image().src = 'data:image/gif;base64,R0lGODlhAQABAAAAACw='
          setTimeout(() => done('nothing'), 2000)
        })"""
    )
    page.context.close()
    assert refused == "img-src"


def test_a_thin_diagonal_survives_where_there_are_more_cells_than_pixels(
    open_file: Callable[..., Page],
) -> None:
    n = 400
    square = np.ones((n, n), dtype=np.uint8)
    square[np.arange(n), np.maximum(0, np.arange(n) - 1)] = 255
    cells = LayerThumbnails(layer=0, n_tokens=n, step=1, cells=square[None, np.tri(n, dtype=bool)])
    frame = pack_frame(["a"] * n, key="grid", run="r", n_layers=1, n_heads=1, step=1)
    page = open_file(
        head_grid_page(frame, [pack_cells([cells], key="grid", run="r")], text="", facts={}), viewport=PHONE
    )
    wait_until_drawn(page, 1)
    head(page, 0, 0).click()
    for picture in (".pictures", ".large"):
        # Of each row of pixels that is drawn: its colours, as numbers, from left to right.
        rows = page.locator(picture).evaluate(
            """canvas => {
              const {width, height} = canvas
              const data = new Uint32Array(canvas.getContext('2d').getImageData(0, 0, width, height).data.buffer)
              return Array.from({length: height}, (_, y) => [...data.subarray(y * width, (y + 1) * width)]
                .filter(pixel => pixel)).filter(row => row.length)
            }"""
        )
        assert 60 < len(rows) < n
        strongest = rows[0][0]
        assert all(strongest in row for row in rows)
        assert sum(pixel == strongest for pixel in rows[-1]) <= 2
