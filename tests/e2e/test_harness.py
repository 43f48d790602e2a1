"""The harness can fail: a page that misbehaves is noticed, and a page that works is not finished too early."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.e2e.harness import Server, marks_of_injection, observe, run_server, visit, wait_until_idle

MISBEHAVES = """<script>
console.error("written on the console");
window.__pwned = true;
fetch("http://elsewhere.invalid/a").catch(() => {});
new WebSocket("ws://elsewhere.invalid/b");
setTimeout(() => alert("a dialog"), 0);
setTimeout(() => { throw new Error("nobody caught it"); }, 0);
setTimeout(() => { document.title = "done"; }, 200);
</script><iframe srcdoc="<script>window.__pwned = 1</script>"></iframe>"""

APP = """
import time
import streamlit as st

if st.button("Fail", key="fail"):
    raise ValueError("nobody foresaw this")
if st.button("Count", key="count"):
    time.sleep(1)
    st.write("Counted")
"""


def test_what_a_page_does_behind_the_readers_back_is_noticed(browser: Browser):
    page = browser.new_context().new_page()
    seen = observe(page)
    page.set_content(MISBEHAVES)
    page.wait_for_function("document.title === 'done'")
    assert len(marks_of_injection(page)) == 2
    page.context.close()
    assert set(seen.foreign_requests(["127.0.0.1:1"])) == {
        "http://elsewhere.invalid/a",
        "ws://elsewhere.invalid/b",
    }
    said = "\n".join(seen.errors)
    assert "console: written on the console" in said
    assert "dialog: a dialog" in said
    assert "nobody caught it" in said


def test_a_traceback_in_the_servers_log_is_noticed(browser: Browser, tmp_path: Path):
    app = tmp_path / "app.py"
    app.write_text(APP, encoding="utf-8")
    with run_server(tmp_path, app=app) as server:
        page = browser.new_context().new_page()
        visit(page, server)
        assert server.tracebacks() == []
        page.get_by_role("button", name="Fail").click()
        wait_until_idle(page)
        page.context.close()
        assert "nobody foresaw this" in server.tracebacks()[0]
        assert server.tracebacks(since=len(server.log_text())) == []


def test_a_page_is_idle_when_the_answer_is_there(start_server, page: Page, tmp_path: Path):
    app = tmp_path / "app.py"
    app.write_text(APP, encoding="utf-8")
    server: Server = start_server(app=app)
    visit(page, server)
    page.get_by_role("button", name="Count").click()
    wait_until_idle(page)
    assert page.get_by_text("Counted").is_visible()


def test_a_server_that_cannot_start_says_why(tmp_path: Path):
    with (
        pytest.raises(RuntimeError, match="does not exist"),
        run_server(tmp_path, app=tmp_path / "nothing.py"),
    ):
        pass
