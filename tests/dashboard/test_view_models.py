"""The page about models: what is here, what may be typed, and what is said of it."""

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from gpt_core.catalog import bundled_model_id
from tests.bad_names import NO_MODEL_NAMES
from tests.conftest import make_network
from tests.dashboard.pages import errors, open_page, settle, texts

pytestmark = pytest.mark.usefixtures("bundled")


@pytest.fixture
def page() -> AppTest:
    return open_page("models")


def open_folder(at: AppTest, typed: str) -> AppTest:
    at.text_input(key="models_folder").set_value(typed)
    next(button for button in at.button if button.label == "Open" and button.key != "models_open").click()
    return settle(at.run())


@pytest.fixture
def with_folders(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    page.session_state["models_from"] = "From a folder"
    return page.run()


def test_what_is_here(page: AppTest) -> None:
    assert errors(page) == []
    (row,) = page.dataframe[0].value.to_dict("records")
    assert row["Model"] == "small-gpt2 · in the box"
    assert row["Source"] == "bundled"
    assert bundled_model_id().endswith(row["Revision"])
    assert row["Size (MB)"] == pytest.approx(24.8, abs=6)


def test_every_download_names_its_size(page: AppTest) -> None:
    labels = [
        button.label for button in page.button if "from the hub" in button.label or "PyPI" in button.label
    ]
    assert len(labels) >= 6
    assert all(" MB " in label or " GB " in label for label in labels)


def test_what_came_with_the_project_is_not_deleted(page: AppTest) -> None:
    next(box for box in page.checkbox if box.label == "Yes, delete its files").check().run()
    page.button(key="models_delete").click().run()
    assert "small-gpt2 · in the box" in texts(page)
    assert "it is not deleted here" in texts(page) or "while one reader works with it" in texts(page)


@pytest.mark.parametrize("typed", [*NO_MODEL_NAMES, "~nobody-here/x"])
def test_a_folder_that_is_no_model_gets_a_sentence(with_folders: AppTest, typed: str) -> None:
    before = with_folders.session_state["model"]
    at = open_folder(with_folders, typed)
    assert errors(at) == []
    assert at.session_state["model"] == before
    said = ("not on this machine", "holds no model", "is named", "No folder can be opened there")
    assert any(sentence in texts(at) for sentence in said)


def test_a_folder_of_models_is_opened_whole(
    with_folders: AppTest, tmp_path: Path, gpt2_tokenizer: Any
) -> None:
    for name in ("one", "two"):
        make_network("gpt2").save_pretrained(tmp_path / name)
        gpt2_tokenizer.save_pretrained(tmp_path / name)
    at = open_folder(with_folders, str(tmp_path))
    assert errors(at) == []
    assert "/one@" in at.session_state["model"]
    assert [row["Source"] for row in at.dataframe[0].value.to_dict("records")].count("bundled") == 1
    assert sum("two · folder" in option for option in at.selectbox(key="model").options) == 1
    at.switch_page("views/tokenizer.py")
    assert errors(settle(at.run())) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b/c", "x" * 150])
def test_a_name_that_cannot_be_one_gets_a_sentence(page: AppTest, name: str) -> None:
    page.text_input(key="models_name").set_value(name)
    next(button for button in page.button if button.label == "Look it up").click()
    at = settle(page.run())
    assert errors(at) == []
    assert "named `name` or `owner/name`" in texts(at)
