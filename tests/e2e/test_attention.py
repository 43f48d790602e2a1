"""The Attention page as a reader sees it."""

import re
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import torch
from playwright.sync_api import Page, expect
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt_core.catalog import BUNDLED_FOLDER
from tests.e2e.harness import PHONE, Server, plotted, visit, wait_until_idle

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


def test_the_order_of_the_heads_is_in_the_link(page: Page, server: Server, other_server: Server) -> None:
    visit(page, server, f"attention?prompt={PROMPT.replace(' ', '+')}")
    first = page.locator(".heads .head").first
    expect(page.locator(".heads .measure option")).to_have_count(8, timeout=30_000)
    page.locator(".heads .measure").select_option(label="induction (probability)")
    page.locator(".heads .order").select_option(value="highest")
    expect(first).not_to_have_attribute("data-layer", "0")
    wait_until_idle(page)
    highest = first.get_attribute("aria-label")
    assert (link_value(page, "attention_grid_measure"), link_value(page, "attention_grid_order")) == (
        "induction",
        "highest",
    )
    visit(page, other_server, page.url.removeprefix(server.url).lstrip("/"))
    expect(first).to_have_attribute("aria-label", str(highest), timeout=30_000)
    expect(page.locator(".heads .measure")).to_have_value("4")
    expect(page.locator(".heads .order")).to_have_value("highest")


def hover(page: Page, chart: str, across: float, down: float) -> str:
    """Point at a place of a figure, in shares of its width and height; what its hover says."""
    page.locator(f".st-key-{chart} .js-plotly-plot").evaluate(
        "plot => plot.scrollIntoView({block: 'center'})"
    )
    page.wait_for_timeout(200)
    box = page.locator(f".st-key-{chart} .nsewdrag").first.bounding_box()
    assert box
    x, y = box["x"] + across * box["width"], box["y"] + down * box["height"]
    page.mouse.move(x - 4, y - 4)
    page.mouse.move(x, y)
    found = page.locator(f".st-key-{chart} .hoverlayer .hovertext").first
    found.wait_for()
    return found.text_content() or ""


def click(page: Page, chart: str, across: float, down: float) -> None:
    """Click there, and wait for the answer."""
    hover(page, chart, across, down)
    box = page.locator(f".st-key-{chart} .nsewdrag").first.bounding_box()
    assert box
    page.mouse.click(box["x"] + across * box["width"], box["y"] + down * box["height"])
    wait_until_idle(page)


def link_value(page: Page, key: str) -> str:
    return parse_qs(urlsplit(page.url).query)[key][0]


def test_a_hover_names_the_tokens_and_a_click_chooses_them(page: Page, server: Server) -> None:
    visit(page, server, f"attention?prompt={PROMPT.replace(' ', '+')}&attention_layer=5&attention_head=4")
    across, down = 2.5 / 12, 8.5 / 12  # query 8, key 2
    said = hover(page, "attention_map", across, down)
    weight = float(plain_attention(layer=5, head=4)[8, 2])
    assert said == f"query 8 ␣cat (id 3797)key 2 ␣sat (id 3332)attention {weight:.4g}"
    click(page, "attention_map", across, down)
    expect(page.locator(".st-key-attention_query input")).to_have_value("8 ␣cat")
    expect(page.locator(".st-key-attention_key input")).to_have_value("2 ␣sat")
    assert (link_value(page, "attention_query"), link_value(page, "attention_key")) == ("8", "2")
    expect(page.get_by_text(f"Query 8 pays key 2: {weight:.4f}")).to_be_visible()
    # The text is the same choice.
    page.locator(".st-key-attention_strip_box [data-i='5']").click()
    wait_until_idle(page)
    assert link_value(page, "attention_query") == "5"


def test_a_click_in_any_map_chooses_query_and_key(page: Page, server: Server) -> None:
    prompt = PROMPT.replace(" ", "+")
    visit(page, server, f"attention?prompt={prompt}&attention_section=Summaries")
    click(page, "attention_summary_map", 2.5 / 12, 8.5 / 12)
    assert (link_value(page, "attention_query"), link_value(page, "attention_key")) == ("8", "2")
    visit(page, server, f"attention?prompt={prompt}&attention_section=Compare")
    page.locator(".st-key-attention_compare_start button").click()
    wait_until_idle(page)
    for name, query, key in (("this", 7, 3), ("other", 9, 5), ("difference", 10, 4)):
        click(page, f"attention_compare_{name}", (key + 0.5) / 12, (query + 0.5) / 12)
        assert (link_value(page, "attention_query"), link_value(page, "attention_key")) == (
            str(query),
            str(key),
        )


def test_a_click_on_a_measure_opens_the_head(page: Page, server: Server) -> None:
    visit(
        page,
        server,
        f"attention?prompt={PROMPT.replace(' ', '+')}&attention_section=Every+head&attention_layer=0&attention_head=0",
    )
    click(page, "attention_measure_map", 4.3 / 6, 5.5 / 6)
    expect(page.locator(".st-key-attention_layer input")).to_have_value("layer 5")
    expect(page.locator(".st-key-attention_head input")).to_have_value("head 4")
    assert (link_value(page, "attention_layer"), link_value(page, "attention_head")) == ("5", "4")


def test_a_full_context_still_answers(page: Page, server: Server) -> None:
    visit(page, server, "attention?prompt=" + "+cat+dog+bird+fish" * 128, timeout=120)
    assert re.fullmatch(
        r"query \d+ ␣(cat|dog|bird|fish) \(id \d+\)key \d+ ␣(cat|dog|bird|fish) \(id \d+\)attention [\d.e-]+",
        hover(page, "attention_map", 0.2, 0.7),
    )
    before = link_value(page, "attention_query"), link_value(page, "attention_key")
    # Somewhere in the lower triangle; the nearest marker may be a few pixels away.
    for step in range(8):
        click(page, "attention_map", 0.2 + 0.004 * step, 0.7)
        chosen = link_value(page, "attention_query"), link_value(page, "attention_key")
        if chosen != before:
            break
    query, key = int(chosen[0]), int(chosen[1])
    assert abs(query - 358) < 24
    assert abs(key - 102) < 24
    for section in ("Every head", "Summaries"):
        page.get_by_text(section, exact=True).first.click()
        wait_until_idle(page, timeout=120)
    assert len(plotted(page, "attention_summary_map", "z")[0]) == 512


def test_on_a_phone_nothing_is_wider_than_the_screen(open_page: Callable[..., Page], server: Server) -> None:
    page = open_page(viewport=PHONE, color_scheme="dark")
    for section in ("One+cell", "Every+head", "Summaries", "Compare", "Numbers"):
        visit(page, server, f"attention?attention_section={section}")
        width = page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth")
        assert width <= PHONE["width"], section


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_picture_says_what_made_it(page: Page, server: Server, kind: str) -> None:
    visit(page, server, f"attention?attention_picture={kind}&attention_layer=5&attention_head=4")
    page.locator(".st-key-attention_map").hover()
    with page.expect_download() as download:
        page.locator(".st-key-attention_map .modebar-btn[data-title*='Download plot']").click()
    name = download.value.suggested_filename
    assert re.fullmatch(rf"attention_[0-9a-f]{{12}}_layer5_head4\.{kind}", name)
    data = download.value.path().read_bytes()
    if kind == "png":
        assert data.startswith(b"\x89PNG")
        assert len(data) > 10_000
    else:
        for part in (
            b"<svg",
            b"bundled:small-gpt2@",
            b"layer 5, head 4",
            b"float32",
            b"torch 2",
            b"transformers 5",
        ):
            assert part in data


def test_the_prompt_is_continued_and_the_boundary_drawn(page: Page, server: Server) -> None:
    visit(page, server, f"attention?prompt={PROMPT.replace(' ', '+')}&attention_new_tokens=5")
    assert len(plotted(page, "attention_map", "z")[0]) == 12
    page.get_by_text("Continue the text").click()
    page.locator(".st-key-attention_continue button").click()
    wait_until_idle(page)
    page.wait_for_function(
        "() => document.querySelector('.st-key-attention_map .js-plotly-plot')?._fullData?.[0]?.z.length === 17"
    )
    expect(page.get_by_text("Continued by 5 tokens")).to_be_visible()
    dashed = page.evaluate(
        "document.querySelector('.st-key-attention_map .js-plotly-plot')._fullLayout.shapes"
        ".filter(shape => shape.line.dash === 'dash').map(shape => [shape.x0, shape.y0])"
    )
    assert [11.5, -0.5] in dashed
    assert [-0.5, 11.5] in dashed


def test_a_file_of_all_maps_is_saved(page: Page, server: Server) -> None:
    visit(
        page,
        server,
        f"attention?prompt={PROMPT.replace(' ', '+')}&attention_section=Numbers&attention_file_what=all+layers",
    )
    page.locator(".st-key-attention_file_make button").click()
    wait_until_idle(page)
    with page.expect_download() as download:
        page.locator(".st-key-attention_file_save button").click()
    file = np.load(download.value.path())
    expected = plain_attention(layer=5, head=4).numpy()
    np.testing.assert_allclose(file["layer_5"][4], expected, atol=1e-5)
    assert str(file["model"]) == "bundled:small-gpt2"


def test_bertviz_draws(page: Page, server: Server) -> None:
    visit(page, server, "attention?attention_section=BertViz")
    frame = page.frame_locator(".st-key-attention_bertviz iframe, iframe[title^=BertViz]").first
    frame.locator("svg line, svg path, svg rect").first.wait_for(timeout=30_000)
    page.get_by_text("Head view", exact=True).click()
    wait_until_idle(page)
    page.frame_locator("iframe[title='BertViz Head view']").locator("svg line").first.wait_for(
        timeout=30_000, state="attached"
    )


def test_steps_add_up(page: Page, server: Server) -> None:
    visit(page, server, f"attention?prompt={PROMPT.replace(' ', '+')}&attention_query=3&attention_key=1")
    expect(page.locator(".st-key-attention_contributions .js-plotly-plot")).to_be_visible()
    said = page.inner_text("[data-testid=stMain]")
    product = float(re.search(r"add up to q·k = (-?[\d.]+)\.", said)[1])  # type: ignore[index]
    parts = plotted(page, "attention_contributions", "x")[0]
    assert abs(sum(parts) - product) < 1e-3
