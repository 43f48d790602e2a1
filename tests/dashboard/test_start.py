"""The model stack is imported while the server starts, before a first reader has come."""

import sys
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from streamlit.web import cli

from dashboard import __main__ as start
from gpt_core import warmup
from gpt_core.catalog import DEVICE_VARIABLE
from tests.dashboard.pages import ROOT

pytestmark = pytest.mark.usefixtures("bundled")


@pytest.mark.parametrize("options", [[], ["--server.port=1", "--", "--device", "cpu"]])
def test_the_imports_begin_before_the_server(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[Any] = []
    monkeypatch.setenv(DEVICE_VARIABLE, "cpu")
    monkeypatch.setattr(sys, "argv", ["dashboard", *options])
    monkeypatch.setattr(start, "start_warmup", lambda: happened.append("warm-up"))
    monkeypatch.setattr(cli, "main", lambda prog_name: happened.append(sys.argv))
    start.main()
    app = str(ROOT / "dashboard" / "app.py")
    assert happened == ["warm-up", ["streamlit", "run", app, *options]]


def test_they_begin_with_the_first_reader_where_streamlit_was_started_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[bool] = []
    monkeypatch.setattr(warmup, "start_warmup", lambda: begun.append(True))
    AppTest.from_file(str(ROOT / "dashboard" / "app.py"), default_timeout=60).run()
    assert begun
