"""Servers and pages for the browser tests. Whatever a test looks at, its page is also judged when it closes."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from gpt_core.catalog import BUNDLED_FOLDER
from tests.e2e.harness import (
    DESKTOP,
    Observations,
    Server,
    chromium_path,
    marks_of_injection,
    observe,
    open_browser,
    run_server,
)

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder drives a browser. It runs last, so that what is quick fails first; or first, where
    all else runs beside it."""
    first = "PYTEST_XDIST_WORKER" in os.environ
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)
    items.sort(key=lambda item: (HERE in item.path.parents) != first)


@pytest.fixture(scope="session")
def servers() -> list[Server]:
    """Every server that was started, so that a page may speak with each of them and with no other host."""
    return []


@pytest.fixture(scope="session")
def start_server(
    servers: list[Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Server]]:
    """Start one more server: `start_server(*options, app=..., env={...})`, as `harness.run_server`."""
    with ExitStack() as running:

        def start(*options: str, **settings: object) -> Server:
            folder = tmp_path_factory.mktemp("server")
            server = running.enter_context(run_server(folder, *options, **settings))  # type: ignore[arg-type]
            servers.append(server)
            return server

        yield start


@pytest.fixture(scope="session")
def server(start_server: Callable[..., Server]) -> Server:
    """The dashboard as a reader starts it."""
    return start_server()


@pytest.fixture(scope="session")
def other_server(start_server: Callable[..., Server]) -> Server:
    """A second dashboard whose defaults differ: another theme, another list of models. For links."""
    return start_server("--theme.base=dark", env={"GPT_CORE_MODELS": str(BUNDLED_FOLDER)})


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests of this folder: Playwright's event loop in this thread ends with it."""
    if chromium_path() is None:
        pytest.skip("Chromium is not installed (set CHROMIUM to its path)")
    with sync_playwright() as playwright, open_browser(playwright) as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser, servers: list[Server]) -> Iterator[Callable[..., Page]]:
    """Open a page in a profile of its own: `open_page(viewport=..., color_scheme="dark")`.

    When the test ends, each page must have been quiet: no error on its console, no request to any host but the
    servers, no text of a test that ran as a script, and no traceback in the servers' logs.
    """
    opened: list[tuple[Page, Observations]] = []
    read_before = {server.log: len(server.log_text()) for server in servers}

    def open_one(**options: object) -> Page:
        context = browser.new_context(**{"viewport": DESKTOP, **options})  # type: ignore[arg-type]
        page = context.new_page()
        opened.append((page, observe(page)))
        return page

    yield open_one

    hosts = [server.host for server in servers]
    injected = [mark for page, _ in opened for mark in marks_of_injection(page)]
    for page, _ in opened:
        page.context.close()
    found = {
        "errors": [error for _, seen in opened for error in seen.errors],
        "requests to other hosts": [url for _, seen in opened for url in seen.foreign_requests(hosts)],
        "texts that ran as a script": injected,
        "tracebacks": [
            text for server in servers for text in server.tracebacks(since=read_before.get(server.log, 0))
        ],
    }
    assert {kind: what for kind, what in found.items() if what} == {}


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """A page in a desktop's window, judged when the test ends (see `open_page`)."""
    return open_page()
