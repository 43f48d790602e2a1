"""A dashboard server and a browser, for the tests that look at what a reader sees and for the screenshots.

Nothing here asserts: `observe` notes what a page did, and the fixtures in conftest.py judge it.
"""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Dialog, Error, Page, Playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

ROOT = Path(__file__).parents[2]
APP = ROOT / "dashboard" / "app.py"
# Each page's address after the server's. Streamlit gives the default page none.
PAGES = {
    "tokenizer": "",
    "embeddings": "embeddings",
    "attention": "attention",
    "predictions": "predictions",
    "generation": "generation",
    "few_shot": "few_shot",
}
# The page about models has no prompt to look at, and is tested by itself.
MODELS = "models"
DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}

CHROMIUM_FLAGS = (
    "--no-sandbox",  # as root there is no other way
    "--disable-gpu",
    "--disable-quic",
    # The browser itself must not look like a page that calls home.
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# What would make a server differ from one on a fresh machine.
FOREIGN_SETTINGS = ("GPT_", "HF_", "HUGGINGFACE_", "OMP_", "PYTEST_", "STREAMLIT_", "TRANSFORMERS_", "XDG_")

# Idle: connected, no script running, no job shown, nothing waiting to be replaced, and all that for 300 ms: the
# server needs a moment to learn of a click.
IDLE = """() => {
  const app = document.querySelector('[data-testid="stApp"]');
  const idle = app
    && app.dataset.testScriptState === "notRunning"
    && app.dataset.testConnectionState === "CONNECTED"
    && !document.querySelector('.st-key-job_progress, [data-testid="stSkeleton"], [data-stale="true"]');
  if (!idle) { window.__idleSince = undefined; return false; }
  window.__idleSince ??= performance.now();
  return performance.now() - window.__idleSince > 300;
}"""


def chromium_path() -> Path | None:
    """Where Chromium is: the variable CHROMIUM, or Debian's place; None if it is not there."""
    path = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
    return path if path.exists() else None


@contextmanager
def open_browser(playwright: Playwright) -> Iterator[Browser]:
    """Chromium without a window. Raises FileNotFoundError where there is none."""
    path = chromium_path()
    if path is None:
        raise FileNotFoundError("Chromium is not installed (set CHROMIUM to its path)")
    browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
    try:
        yield browser
    finally:
        browser.close()


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running dashboard."""

    url: str
    """Address without a closing slash, such as http://127.0.0.1:34567."""
    log: Path
    """What the server wrote on its terminal."""

    @property
    def host(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc

    def log_text(self) -> str:
        """What the server has written so far, without its colours."""
        return re.sub(r"\x1b\[[\d;]*m", "", self.log.read_text(encoding="utf-8", errors="replace"))

    def tracebacks(self, *, since: int = 0) -> list[str]:
        """What it wrote after the first `since` characters, if a traceback is in it."""
        text = self.log_text()[since:]
        return [text] if "Traceback (most recent call last)" in text else []


@contextmanager
def run_server(
    folder: Path, *options: str, app: Path = APP, env: Mapping[str, str] | None = None, timeout: float = 60
) -> Iterator[Server]:
    """A server on a free port, as on a fresh machine: an empty home in `folder`, no settings of this shell, no hub.

    `options` go to `streamlit run`; what follows "--" goes to the app. `env` adds variables. Raises RuntimeError
    with the server's own words if it does not answer within `timeout` seconds.
    """
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_SETTINGS)}
    variables = {**kept, "HOME": str(home), "HF_HUB_OFFLINE": "1", **(env or {})}
    port = free_port()
    server = Server(url=f"http://127.0.0.1:{port}", log=folder / "server.log")
    started = ["dashboard"] if app == APP else ["streamlit", "run", str(app)]
    command = [sys.executable, "-m", *started]
    command += [f"--server.port={port}", "--server.headless=true", *options]
    with server.log.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            wait_for_health(server, process, timeout)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(timeout=3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_health(server: Server, process: subprocess.Popen[bytes], timeout: float) -> None:
    """Return when the server says that it is well."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and process.poll() is None:
        with (
            suppress(urllib.error.URLError, ConnectionError),
            opener.open(f"{server.url}/_stcore/health") as answer,
        ):
            if answer.read() == b"ok":
                return
        time.sleep(0.05)
    raise RuntimeError(f"{server.url} does not answer:\n{server.log_text()[-4000:]}")


@dataclass(kw_only=True)
class Observations:
    """What a page did that a reader does not see."""

    errors: list[str] = field(default_factory=list)
    """Console errors, uncaught exceptions and dialogs, each with its kind in front."""
    requests: list[str] = field(default_factory=list)
    """Every address that was asked for, sockets included."""

    def foreign_requests(self, hosts: Sequence[str]) -> list[str]:
        """The requests that left the page and went to none of `hosts`."""
        own = {"about", "blob", "data", "file"}
        parts = [(url, urlsplit(url)) for url in self.requests]
        return [url for url, part in parts if part.scheme not in own and part.netloc not in hosts]


def observe(page: Page) -> Observations:
    """Note from now on what `page` and its frames do."""
    seen = Observations()

    def note_console(message: ConsoleMessage) -> None:
        # At a deep link Streamlit looks for its server below the page's own address first, and finds 404.
        looked = urlsplit(message.location["url"]).path in {
            f"/{path}/_stcore/{what}"
            for path in (*PAGES.values(), MODELS)
            for what in ("health", "host-config")
        }
        if message.type == "error" and not looked:
            seen.errors.append(f"console: {message.text} {message.location['url']}")

    def note_dialog(dialog: Dialog) -> None:
        seen.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("console", note_console)
    page.on("pageerror", lambda error: seen.errors.append(f"exception: {error}"))
    page.on("dialog", note_dialog)
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("websocket", lambda socket: seen.requests.append(socket.url))
    return seen


def marks_of_injection(page: Page) -> list[str]:
    """The frames in which a text managed to run as a script: the tests' texts would set `window.__pwned`."""
    marked = []
    for frame in page.frames:
        with suppress(Error):  # a frame that went away meanwhile
            if frame.evaluate("window.__pwned !== undefined"):
                marked.append(frame.url)
    return marked


def wait_until_idle(page: Page, *, timeout: float = 60) -> None:
    """Return when the page shows the answer to all that was done to it.

    Raises TimeoutError after `timeout` seconds, with the text that the page shows then.
    """
    page.evaluate("window.__idleSince = undefined")
    try:
        page.wait_for_function(IDLE, timeout=timeout * 1000, polling=50)
    except PlaywrightTimeoutError as error:
        text = page.inner_text("body")
        raise TimeoutError(
            f"{page.url} is still busy after {timeout} s. It shows:\n{text[-2000:]}"
        ) from error


def visit(page: Page, server: Server, path: str = "", *, timeout: float = 60) -> None:
    """Open a page of the dashboard and wait until it is drawn.

    `path` is one of PAGES' values, and may carry a query: "attention?layer=2".
    """
    page.goto(f"{server.url}/{path}")
    wait_until_idle(page, timeout=timeout)


def plotted(page: Page, key: str, field_name: str, *, timeout: float = 30) -> list[Any]:
    """What Plotly draws in the chart with that key: `field_name` of each trace, as plain lists; NaN is None.

    Raises TimeoutError where no chart comes within `timeout` seconds.
    """
    chart = f"document.querySelector('.st-key-{key} .js-plotly-plot')"
    page.wait_for_function(f"() => {chart}?._fullData?.length > 0", timeout=timeout * 1000)
    found: list[Any] = page.evaluate(
        f"""() => {{
          const plain = value => ArrayBuffer.isView(value) || Array.isArray(value)
            ? Array.from(value, plain) : Number.isNaN(value) ? null : value;
          return {chart}._fullData.map(trace => plain(trace.{field_name}));
        }}"""
    )
    return found
