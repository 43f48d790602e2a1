"""Pages without a browser: Streamlit's AppTest, always through the router."""

import json
import time
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).parents[2]
NAMES = ("tokenizer", "embeddings", "attention", "predictions", "generation", "few_shot")
DEFAULT_PROMPT = "The CS123 class was very intresting. I learned a lot."


def open_page(name: str, *, timeout: float = 60, **query: str) -> AppTest:
    """The page `name` as its link with `query` opens it, its jobs done."""
    at = AppTest.from_file(str(ROOT / "dashboard" / "app.py"), default_timeout=timeout)
    for key, value in query.items():
        at.query_params[key] = value
    at.run()
    if name != "tokenizer":
        at.switch_page(f"views/{name}.py")
        # A switch drops the address, as in a browser; a link is opened on its own page.
        for key, value in query.items():
            at.query_params[key] = value
    return settle(at.run(), timeout=timeout)


def settle(at: AppTest, *, timeout: float = 60) -> AppTest:
    """Run again until no job is shown as running."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if not any((button.key or "").startswith("_stop_") for button in at.button):
            return at
        time.sleep(0.1)
        at.run()
    raise TimeoutError("a job is still running")


def errors(at: AppTest) -> list[str]:
    """What went wrong on the page."""
    raised = [f"{element.message}\n{''.join(element.stack_trace or [])}" for element in at.exception]
    return raised + [element.value for element in at.text if "Something went wrong" in element.value]


def texts(at: AppTest) -> str:
    """Everything that the page says in words."""
    kinds = ("title", "subheader", "markdown", "caption", "text", "info", "code")
    return "\n".join(str(element.value) for kind in kinds for element in getattr(at, kind))


def figure(at: AppTest, place: int = 0) -> dict[str, Any]:
    """The Plotly figure number `place` of the page."""
    spec: dict[str, Any] = json.loads(at.get("plotly_chart")[place].proto.spec)
    return spec
