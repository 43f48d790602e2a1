"""The Embeddings page in Chromium: numbers as plain transformers has them, texts as texts, links on another server."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
from playwright.sync_api import Page
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from transformers import AutoModelForCausalLM

from gpt_core.catalog import BUNDLED_FOLDER
from tests.conftest import make_network
from tests.e2e.harness import Server, visit, wait_until_idle

PROMPT = "Agney loves to train DL models"
IDS = [10262, 1681, 10408, 284, 4512, 23641, 4981]
MAPS, SIMILARITY = "embeddings_maps", "embeddings_similarity"


def plot(page: Page, key: str, what: str) -> Any:
    """What JavaScript reads from the drawn figure `gd`."""
    page.wait_for_selector(f".st-key-{key} .js-plotly-plot .main-svg")
    return page.evaluate(
        f"() => {{ const gd = document.querySelector('.st-key-{key} .js-plotly-plot'); return {what}; }}"
    )


def choose(page: Page, key: str, text: str) -> None:
    """Choose the entry that begins with `text`. A list closes when the page moves under it, so it is moved first."""
    field = page.locator(f".st-key-{key} input")
    field.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    entry = page.get_by_role("option", name=re.compile("^" + re.escape(text))).first
    for _ in range(10):
        field.click()
        with suppress(PlaywrightTimeoutError):
            entry.click(timeout=2000)
            break
    wait_until_idle(page)


def printed(page: Page) -> str:
    """The block of text that repeats the notebook's print."""
    block = page.locator('[data-testid="stCode"]').filter(has_text="in_ip.shape").first
    return block.inner_text()


@pytest.fixture(scope="module")
def in_ip() -> torch.Tensor:
    """What enters block 0, by the notebook's lines."""
    plain = AutoModelForCausalLM.from_pretrained(BUNDLED_FOLDER, dtype=torch.float32)
    with torch.inference_mode():
        return plain.transformer.wte(torch.tensor([IDS])) + plain.transformer.wpe(torch.arange(7)[None])


def test_first_paint(page: Page, server: Server, in_ip: torch.Tensor) -> None:
    visit(page, server, f"embeddings?prompt={quote(PROMPT)}")
    assert page.locator("h1").inner_text() == "Embeddings"
    text = printed(page)
    assert text.count("torch.Size([1, 7, 192])") == 3
    rows = [[float(number) for number in re.findall(r"-?\d+\.\d+", line)] for line in text.splitlines()[4:]]
    rows = [row for row in rows if row]
    shown = [0, 1, 2, 4, 5, 6]
    expected = torch.cat([in_ip[0, shown, :3], in_ip[0, shown, -3:]], dim=1)
    assert np.abs(np.array(rows) - expected.numpy()).max() < 6e-5  # four decimals
    cells = plot(page, MAPS, "gd.calcdata.map(trace => trace[0].z.map(row => Array.from(row)))")
    assert len(cells) == 3
    assert np.abs(np.array(cells[2]) - in_ip[0].numpy()).max() < 1e-6


def test_hover_says_token_id_and_value(page: Page, server: Server, in_ip: torch.Tensor) -> None:
    visit(page, server, f"embeddings?prompt={quote(PROMPT)}&embeddings_dimensions=0-9")
    page.wait_for_selector(f".st-key-{MAPS} .js-plotly-plot .main-svg")
    cell = plot(
        page,
        MAPS,
        "(() => { const l = gd._fullLayout, b = gd.getBoundingClientRect();"
        " return [b.left + l.xaxis3._offset + l.xaxis3.d2p(4), b.top + l.yaxis3._offset + l.yaxis3.d2p(2)]; })()",
    )
    page.evaluate("y => document.querySelector('[data-testid=stMain]').scrollBy(0, y)", max(0, cell[1] - 450))
    page.wait_for_timeout(300)
    cell = plot(
        page,
        MAPS,
        "(() => { const l = gd._fullLayout, b = gd.getBoundingClientRect();"
        " return [b.left + l.xaxis3._offset + l.xaxis3.d2p(4), b.top + l.yaxis3._offset + l.yaxis3.d2p(2)]; })()",
    )
    page.mouse.move(cell[0] - 3, cell[1] - 3)
    page.mouse.move(*cell)
    label = page.locator(f".st-key-{MAPS} .hoverlayer .hovertext").first
    label.wait_for()
    said = label.text_content() or ""
    assert "␣loves" in said
    assert "id 10408" in said
    assert "dimension 4" in said
    assert f"{float(in_ip[0, 2, 4]):.4f}".replace("-", "−") in said.replace("-", "−")


def test_another_token_has_other_neighbours(page: Page, server: Server) -> None:
    visit(page, server, f"embeddings?prompt={quote(PROMPT)}")
    before = plot(page, "embeddings_neighbours", "Array.from(gd.calcdata[0].map(bar => bar.s))")
    choose(page, "embeddings_token", "4 ␣train")
    table = AutoModelForCausalLM.from_pretrained(BUNDLED_FOLDER, dtype=torch.float32).transformer.wte.weight
    cosines = torch.nn.functional.cosine_similarity(table, table[[IDS[4]]], dim=-1)
    cosines[IDS[4]] = -2
    after = plot(page, "embeddings_neighbours", "Array.from(gd.calcdata[0].map(bar => bar.s))")
    assert after != before
    assert np.abs(np.array(after) - cosines.topk(20).values.detach().numpy()).max() < 1e-5
    assert "embeddings_token=4" in page.url


def test_the_walk_on_request(page: Page, server: Server) -> None:
    visit(page, server, f"embeddings?prompt={quote(PROMPT)}")
    assert page.locator(".st-key-embeddings_walk_figure").count() == 0
    page.locator(".st-key-embeddings_walk button").click()
    wait_until_idle(page)
    metric = page.locator('[data-testid="stMetric"]').filter(has_text="Largest difference")
    assert float(metric.locator('[data-testid="stMetricValue"]').inner_text()) < 1e-5
    differences = plot(page, "embeddings_walk_figure", "gd.data[2].text")
    assert len(differences) == 6
    # What stands below the walk is there still.
    assert page.get_by_text("The GPT family").is_visible()


def test_parameters(page: Page, server: Server) -> None:
    visit(page, server, "embeddings")
    plain = AutoModelForCausalLM.from_pretrained(BUNDLED_FOLDER)
    total = sum(parameter.numel() for parameter in plain.parameters())
    metric = page.locator('[data-testid="stMetric"]').filter(has_text="Parameters")
    assert metric.locator('[data-testid="stMetricValue"]').inner_text() == f"{total:,}"


@pytest.mark.parametrize(
    "prompt",
    [
        "<img src=x onerror=window.__pwned=1>",
        "</script><script>window.__pwned=1</script>",
        "a $x$ <b>bold</b> %{y} :red[b] &lt;",
    ],
)
def test_a_prompt_is_text(prompt: str, page: Page, server: Server) -> None:
    visit(page, server, f"embeddings?prompt={quote(prompt)}&embeddings_token=1")
    assert page.locator("main img[src='x'], [data-testid=stMain] img[src='x']").count() == 0
    ticks = plot(
        page,
        SIMILARITY,
        "Array.from(gd.querySelectorAll('.yaxislayer-above text, .ytick text')).map(t => t.textContent)",
    )
    assert ticks
    assert "".join(ticks).replace("␣", " ") == prompt
    assert plot(page, SIMILARITY, "gd.querySelectorAll('.ytick [style*=bold], .ytick tspan').length") == 0


def test_a_link_restores_the_view_on_another_server(
    open_page: Callable[..., Page], server: Server, start_server: Callable[..., Server], tmp_path: Path
) -> None:
    page = open_page()
    visit(page, server, f"embeddings?prompt={quote(PROMPT)}")
    page.get_by_role("radio", name="last hidden state").click()
    wait_until_idle(page)
    choose(page, "embeddings_token", "5 ␣DL")
    handle = page.locator(".st-key-embeddings_dimensions input[type=range]").first
    handle.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    wait_until_idle(page)
    link = page.url.removeprefix(server.url)
    assert "embeddings_dimensions=3-191" in link
    cosines = plot(page, SIMILARITY, "gd.calcdata[0][0].z.map(row => Array.from(row))")

    other = start_server("--theme.base=dark", env={"GPT_CORE_MODELS": str(tmp_path)})
    second = open_page()
    visit(second, other, link.lstrip("/"))
    assert second.url.removeprefix(other.url) == link
    # Each process measures for itself in which order products are summed fastest: float32's last digits may differ.
    assert plot(second, SIMILARITY, "gd.calcdata[0][0].z.map(row => Array.from(row))") == [
        pytest.approx(row, abs=1e-6) for row in cosines
    ]
    assert plot(second, MAPS, "gd.data[0].x0") == 3
    assert second.locator(".st-key-embeddings_token input").input_value().startswith("5 ")


def test_a_rotary_model(
    open_page: Callable[..., Page], start_server: Callable[..., Server], tmp_path: Path, gpt2_tokenizer: Any
) -> None:
    network = make_network("llama", num_hidden_layers=2).eval()
    network.save_pretrained(tmp_path / "tiny-llama")
    gpt2_tokenizer.save_pretrained(tmp_path / "tiny-llama")
    server = start_server(env={"GPT_CORE_MODELS": str(tmp_path)})
    page = open_page()
    visit(page, server, f"embeddings?prompt={quote(PROMPT)}")
    choose(page, "model", "tiny-llama")
    assert page.get_by_text("no position table").is_visible()
    cosines = np.array(plot(page, "embeddings_rotary_0", "gd.calcdata[1][0].z.map(row => Array.from(row))"))
    with torch.inference_mode():
        cos, _ = network.model.rotary_emb(torch.zeros(1), torch.arange(64)[None])
    assert np.abs(cosines - cos[0, :, :4].numpy()).max() < 1e-5
    page.locator(".st-key-embeddings_walk button").click()
    wait_until_idle(page)
    metric = page.locator('[data-testid="stMetric"]').filter(has_text="Largest difference")
    assert float(metric.locator('[data-testid="stMetricValue"]').inner_text()) < 1e-5


def test_a_phone(open_page: Callable[..., Page], server: Server) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    visit(page, server, f"embeddings?prompt={quote(PROMPT)}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    widths = json.loads(json.dumps(plot(page, MAPS, "gd.getBoundingClientRect().width")))
    assert 250 < widths <= 390
