"""The page about models: what is here, what may be typed, and what is said of it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from streamlit.testing.v1 import AppTest

from dashboard.components import download as download_component
from gpt_core.catalog import ModelId, bundled_model_id
from gpt_core.readers import shared_readers
from gpt_core.storage import hub_folder
from tests.bad_names import NO_MODEL_NAMES
from tests.conftest import make_network
from tests.dashboard.pages import ROOT, errors, open_page, settle, texts
from tests.hub_stand_in import COMMIT, HubStandIn, Repository, read_model, run_hub

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


# Folders that are none


@pytest.mark.parametrize("place", ["closed", "empty", "settings", "inside", "gone", "file"])
def test_a_folder_without_a_model_tells_nothing_of_what_is_in_it(
    with_folders: AppTest, tmp_path: Path, place: str
) -> None:
    """Row 32: one sentence, whether there is such a folder or not, and no name from it."""
    folder = tmp_path / "place"
    if place != "gone":
        folder.mkdir()
    if place == "settings":
        (folder / "config.json").write_text('{"auths": {"secret": 1}}')
    if place == "inside":
        (folder / "secret").mkdir()
        (folder / "secret" / "config.json").write_text('{"model_type": "secret"}')
    if place == "file":
        folder = folder / "secret"
        folder.write_text("secret")
    if place == "closed":
        folder.chmod(0)
    before = with_folders.session_state["model"]
    at = open_folder(with_folders, str(folder))
    assert errors(at) == []
    typed = repr(str(folder)[:100])
    assert (
        f"{typed} holds no model: no config.json with weights beside it, in it or in a folder in it. "
        "Write the whole path of another folder."
    ) in texts(at)
    assert "secret" not in texts(at).replace(typed, "")
    assert at.session_state["model"] == before
    assert len(at.selectbox(key="model").options) == 1


@pytest.mark.parametrize("typed", ["/etc", "~/.ssh"])
def test_places_that_are_no_models(with_folders: AppTest, typed: str) -> None:
    at = open_folder(with_folders, typed)
    assert f"{typed!r} holds no model: " in texts(at)


# The hub


def test_offline_is_what_the_hub_takes_for_it(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRANSFORMERS_OFFLINE counts, and HF_HUB_OFFLINE=false does not: both were read at the start."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set: nothing is fetched" in texts(page.run())
    monkeypatch.setenv("HF_HUB_OFFLINE", "false")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert "HF_HUB_OFFLINE is set" not in texts(page.run())


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpt2_tokenizer: Any) -> Iterator[HubStandIn]:
    make_network("gpt2").save_pretrained(tmp_path / "published")
    gpt2_tokenizer.save_pretrained(tmp_path / "published")
    with run_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        running.repositories["someone/tiny"] = Repository(read_model(tmp_path / "published"))
        yield running


def look_up(at: AppTest, name: str = "someone/tiny", revision: str = "") -> AppTest:
    at.text_input(key="models_name").set_value(name)
    at.text_input(key="models_revision").set_value(revision)
    next(button for button in at.button if button.label == "Look it up").click()
    return settle(at.run())


def until_over(at: AppTest) -> AppTest:
    """Run again until the download has ended."""
    end = time.monotonic() + 60
    while any(button.key == "download_stop" for button in at.button):
        assert time.monotonic() < end
        time.sleep(0.1)
        at.run()
    return at


def test_the_commit_that_was_looked_up_is_the_one_that_is_fetched(page: AppTest, hub: HubStandIn) -> None:
    at = look_up(page)
    hub.repositories["someone/tiny"].commit = "1" * 40
    at.button(key="models_get_found").click()
    at = until_over(at.run())
    assert "has no such revision any more" in texts(at)
    assert not any("/resolve/" + "1" * 40 in path for path in hub.requests)


def test_a_revision_that_is_no_commit_gets_a_sentence(page: AppTest, hub: HubStandIn) -> None:
    assert "A commit has 40 hexadecimal digits. Given: 'main'." in texts(look_up(page, revision="main"))


def test_a_second_try_names_the_size_again(page: AppTest, hub: HubStandIn) -> None:
    at = look_up(page)
    size = at.button(key="models_get_found").label.removeprefix("Download ")
    hub.repositories["someone/tiny"].file_status = 503
    at.button(key="models_get_found").click()
    at = until_over(at.run())
    assert at.button(key="download_again").label == f"Try again · {size}"
    hub.repositories["someone/tiny"].file_status = 200
    at.button(key="download_again").click()
    assert "is on this machine now" in texts(until_over(at.run()))


def test_what_an_unfinished_download_left_is_shown_and_deleted(page: AppTest) -> None:
    blobs = hub_folder() / "models--someone--tiny" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{'0' * 64}.incomplete").write_bytes(b"0" * 12_500)
    at = page.run()
    assert "someone/tiny: 12.5 kB of an unfinished or damaged download (hub)." in texts(at)
    at.button(key="models_left_hub_someone/tiny").click()
    at.run()
    assert errors(at) == []
    assert not blobs.exists()
    assert "What was left of someone/tiny was deleted: 12.5 kB are free again." in texts(at)


# Which model is chosen


def test_the_chosen_model_is_held_by_whoever_has_only_this_page_open(page: AppTest) -> None:
    shared_readers.cache_clear()
    page.run()
    assert shared_readers().count(bundled_model_id()) == 1


def test_a_chosen_model_that_went_away_is_said() -> None:
    gone = str(ModelId("hub", "someone/gone", COMMIT))
    at = AppTest.from_file(str(ROOT / "dashboard" / "app.py"), default_timeout=60)
    at.session_state["model"] = gone
    settle(at.run())
    assert errors(at) == []
    assert at.session_state["model"] is None
    assert (
        "The chosen model is not here any more as it was. hub:someone/gone is not on this machine"
        in texts(at)
    )
    assert any(button.label == "Ask the hub about someone/gone" for button in at.button)


def test_nothing_is_offered_where_all_is_here(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Stronger ones" in texts(page.run())
    monkeypatch.setattr(download_component, "is_here", lambda names: True)
    assert "Stronger ones" not in texts(page.run())
