"""The server itself asks nobody for anything: each attempt of its process to connect is noted, and refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.e2e.harness import MODELS, PAGES, Server, visit

#: Imported by Python at its start, before anything of the dashboard.
SITECUSTOMIZE = """
import os, socket

def note(what):
    with open(os.environ["ATTEMPTS"], "a") as file:
        file.write(f"{what}\\n")

def guard(name):
    original = getattr(socket.socket, name)
    def connect(self, address, *rest):
        here = not isinstance(address, tuple) or address[0] in {"127.0.0.1", "::1", "localhost"}
        if not here:
            note(f"{name} {address}")
            raise OSError(101, "Network is unreachable")
        return original(self, address, *rest)
    setattr(socket.socket, name, connect)

def look_up(host, *rest, original=socket.getaddrinfo, **more):
    if host not in {None, "", "127.0.0.1", "::1", "localhost", b"127.0.0.1", b"localhost"}:
        note(f"getaddrinfo {host}")
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return original(host, *rest, **more)

guard("connect")
guard("connect_ex")
socket.getaddrinfo = look_up
note("guarded")
"""


@pytest.fixture
def attempts(tmp_path: Path) -> Path:
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(SITECUSTOMIZE)
    return tmp_path / "attempts.txt"


@pytest.fixture
def guarded(start_server: Callable[..., Server], attempts: Path) -> Server:
    """A server that would be free to ask the hub, if it wanted to."""
    env = {"PYTHONPATH": str(attempts.parent / "guard"), "ATTEMPTS": str(attempts), "HF_HUB_OFFLINE": "0"}
    return start_server(env=env)


def noted(attempts: Path) -> set[str]:
    return set(attempts.read_text().splitlines())


def test_all_seven_pages_come_up_without_a_word_to_the_network(
    page: Page, guarded: Server, attempts: Path
) -> None:
    assert len(PAGES) + 1 == 7
    for path in (*PAGES.values(), MODELS):
        visit(page, guarded, path)
        assert page.locator("h1").first.is_visible()
    assert noted(attempts) == {"guarded"}


def test_a_click_that_asks_the_hub_is_noted(page: Page, guarded: Server, attempts: Path) -> None:
    """Else the test above would see nothing."""
    visit(page, guarded)
    page.locator(".st-key-get_gpt2 button").first.click()
    page.locator(".st-key-download").get_by_text("The hub cannot be reached").wait_for(timeout=60_000)
    assert any("huggingface.co" in attempt for attempt in noted(attempts))
