"""An id means one model: it is read back as it is written, follows every byte, and reaches nothing by a trick."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_core import catalog
from gpt_core.catalog import (
    BUNDLED_FOLDER,
    BUNDLED_NAME,
    MODEL_FOLDERS_VARIABLE,
    ModelId,
    bundled_model_id,
    find_model,
    list_models,
    load_name,
    model_folders,
)
from gpt_core.errors import InputError
from tests.bad_names import NO_MODEL_NAMES

REVISION = "0123456789ab"


def make_model(folder: Path, *, weights: bytes = b"weights", **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"} | config))
    (folder / "model.safetensors").write_bytes(weights)
    return folder


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say which folders GPT_CORE_MODELS names."""

    def name(*folders: Path | str) -> None:
        monkeypatch.setenv(MODEL_FOLDERS_VARIABLE, os.pathsep.join(map(str, folders)))

    name()
    return name


def local_names() -> list[str]:
    return [entry.model_id.name for entry in list_models() if entry.model_id.source == "local"]


# Ids


@pytest.mark.parametrize(
    ("text", "model_id"),
    [
        ("bundled:small-gpt2", ModelId("bundled", "small-gpt2")),
        (f"local:x@{REVISION}", ModelId("local", "x", REVISION)),
        (f"local:a@b:c@{REVISION}", ModelId("local", "a@b:c", REVISION)),
        (f"local:/models/gpt2@{REVISION}", ModelId("local", "/models/gpt2", REVISION)),
        ("local:" + "x" * 1024, ModelId("local", "x" * 1024)),
    ],
)
def test_an_id_is_read(text: str, model_id: ModelId) -> None:
    assert ModelId.parse(text) == model_id


names = st.text(min_size=1, max_size=60).filter(lambda name: "\0" not in name and ".." not in name)


@settings(derandomize=True, deadline=None)
@given(st.sampled_from(["bundled", "local"]), names, st.text("0123456789abcdef", min_size=12, max_size=12))
def test_an_id_is_read_back_as_it_is_written(source: str, name: str, revision: str) -> None:
    model_id = ModelId(source, name, revision)
    assert ModelId.parse(str(model_id)) == model_id


@pytest.mark.parametrize(
    "text",
    [
        "hub:gpt2",
        f"hub:openai-community/gpt2@{'0a' * 20}",
        f"hub:a.b/c_d-e@{'f' * 40}",
        f"pypi:SmolLM2-135M-Instruct@{REVISION}",
    ],
)
def test_an_id_of_what_is_downloaded_is_read_back(text: str) -> None:
    assert str(ModelId.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        f"hub:gpt2@{REVISION}",
        "hub:a/b/c",
        "hub:a--b",
        "hub:/etc",
        "hub:~/x",
        "hub:a/..",
        "hub:" + "x" * 97,
        "hub:é",
        f"pypi:x@{'0' * 40}",
        "pypi:a/b",
        "ftp:x",
    ],
)
def test_an_id_of_what_cannot_be_downloaded_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="source:name@revision"):
        ModelId.parse(text)


@settings(derandomize=True, deadline=None)
@given(st.text(max_size=40) | st.text("local:bundled@./\\0", max_size=20).map(lambda text: f"local:{text}"))
def test_any_text_is_refused_or_is_the_one_way_to_write_its_id(text: str) -> None:
    try:
        model_id = ModelId.parse(text)
    except InputError:
        return
    assert model_id.source in catalog.SOURCES
    assert str(model_id) == text
    assert ModelId.parse(text) == model_id


REFUSED = [
    "",
    "gpt2",
    ":",
    "local:",
    "local:@" + REVISION,
    "bundled:",
    "ftp:gpt2",
    "Local:x",
    " local:x",
    *NO_MODEL_NAMES,
    "file:///etc/passwd",
    "http://example.org",
    "local:..",
    "local:../../etc/passwd",
    "local:/models/../etc",
    "local:a/..",
    "local:a\0b",
    "\0",
    "local:" + "x" * 1025,
    "local:x@0123456789a",
    "local:x@0123456789abc",
    "local:x@0123456789AB",
    "local:x@０123456789ab",
    "local:x@main",
    "local:x@",
    "local:x@@",
    "local:x@../../../../x",
]


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: ascii(text[:25]))
def test_what_is_no_id_is_refused_before_the_disk_is_touched(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for function in ("_candidates", "_resolved", "_is_model_folder", "_describe"):
        monkeypatch.setattr(catalog, function, lambda *args: pytest.fail("touched the disk"))
    for ask in (ModelId.parse, find_model, load_name):
        with pytest.raises(InputError, match="A model is named source:name@revision") as e:
            ask(text)
        assert len(str(e.value)) < 250
        assert "\0" not in str(e.value)


@pytest.mark.parametrize(
    "text",
    ["local:~/.ssh", "local:/etc", "local:a/b/c", "local:x", "local:\\\\host\\s", "local:C:\\x", "local:.", "local:/",
     "bundled:gpt2", "bundled:/etc", f"bundled:{BUNDLED_FOLDER}", "local:" + "x" * 1000, "local:/" + "x" * 1000],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_what_is_not_here_is_refused_with_what_is(text: str, here: Callable[..., None]) -> None:
    with pytest.raises(InputError, match=r"is not on this machine\. Here: bundled:small-gpt2") as e:
        find_model(text)
    assert len(str(e.value)) < 250


# The bundled model


def test_the_bundled_model_comes_first_and_is_whole(here: Callable[..., None]) -> None:
    (entry,) = list_models()
    assert str(entry.model_id) == bundled_model_id()
    assert entry.model_id.name == BUNDLED_NAME
    assert entry.folder == str(BUNDLED_FOLDER)
    assert entry.size == (BUNDLED_FOLDER / "model.safetensors").stat().st_size
    assert entry.architecture == "gpt2"
    assert entry.title == "small-gpt2 · in the box"
    assert find_model("bundled:small-gpt2") == find_model(bundled_model_id()) == entry
    assert load_name(bundled_model_id()) == "gpt_core/bundled"


# Folders


def test_a_folder_of_models_and_a_folder_that_is_one(tmp_path: Path, here: Callable[..., None]) -> None:
    make_model(tmp_path / "many" / "b")
    make_model(tmp_path / "many" / "a", model_type="llama")
    (tmp_path / "many" / "no-model").mkdir()
    (tmp_path / "many" / "file").write_text("")
    make_model(tmp_path / "many" / "deep" / "er")
    one = make_model(tmp_path / "one", weights=b"12345")
    make_model(one / "inside")
    here(tmp_path / "many", tmp_path / "gone", one)
    assert model_folders() == (tmp_path / "many", tmp_path / "gone", one)
    assert local_names() == ["a", "b", "one"]
    entry = find_model("local:one")
    assert (entry.folder, entry.size, entry.architecture, entry.title) == (
        str(one),
        5,
        "gpt2",
        "one · folder",
    )
    assert load_name("local:one") == str(one)
    assert find_model("local:a").architecture == "llama"


def test_nothing_named_is_nothing_found(here: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    here("", "", "")
    assert model_folders() == ()
    monkeypatch.delenv(MODEL_FOLDERS_VARIABLE)
    assert model_folders() == ()
    monkeypatch.setenv("HOME", "/home/somebody")
    here("~/models")
    assert model_folders() == (Path("/home/somebody/models"),)


def test_two_folders_of_one_name_are_two_models(tmp_path: Path, here: Callable[..., None]) -> None:
    first = make_model(tmp_path / "1" / "gpt2", weights=b"first")
    second = make_model(tmp_path / "2" / "gpt2", weights=b"second")
    here(tmp_path / "1", tmp_path / "2")
    assert local_names() == ["gpt2", str(second)]
    assert load_name("local:gpt2") == str(first)
    assert load_name(f"local:{second}") == str(second)
    assert len({entry.model_id for entry in list_models()}) == 3


def test_a_folder_named_twice_is_one_model(tmp_path: Path, here: Callable[..., None]) -> None:
    made = make_model(tmp_path / "models" / "x")
    (tmp_path / "link").symlink_to(made)
    here(made.parent, made, tmp_path / "link", made.parent)
    assert local_names() == ["x"]
    ids = {find_model(f"local:{name}").model_id for name in ("x", made, tmp_path / "link")}
    assert {model_id.name for model_id in ids} == {"x"}


def test_a_local_folder_called_like_the_bundled_model_is_not_it(
    tmp_path: Path, here: Callable[..., None]
) -> None:
    made = make_model(tmp_path / BUNDLED_NAME)
    here(tmp_path)
    assert find_model(f"local:{BUNDLED_NAME}").folder == str(made)
    assert find_model(f"bundled:{BUNDLED_NAME}").folder == str(BUNDLED_FOLDER)
    assert find_model(f"local:{BUNDLED_NAME}").model_id != find_model(f"bundled:{BUNDLED_NAME}").model_id


def test_a_full_path_is_found_wherever_it_is(tmp_path: Path, here: Callable[..., None]) -> None:
    made = make_model(tmp_path / "elsewhere")
    entry = find_model(f"local:{made}")
    assert (entry.folder, entry.model_id.name) == (str(made), str(made))
    assert entry.title == "elsewhere · folder"
    assert local_names() == []


def test_a_path_within_the_working_folder_is_not_found(
    tmp_path: Path, here: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tmp_path / "gpt2")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is not on this machine"):
        find_model("local:gpt2")


@pytest.mark.parametrize("name", ["a@b", f"a@{REVISION}", "a:b", "with space", "ünï", "x\ny", "-rf"])
def test_a_folder_of_any_name_is_found_by_its_id(
    tmp_path: Path, here: Callable[..., None], name: str
) -> None:
    made = make_model(tmp_path / name)
    here(tmp_path)
    (_, entry) = list_models()
    assert entry.folder == str(made)
    assert find_model(str(entry.model_id)) == entry


def test_a_folder_whose_name_cannot_be_shown_is_left_out(tmp_path: Path, here: Callable[..., None]) -> None:
    make_model(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")))
    make_model(tmp_path / "good")
    here(tmp_path)
    assert local_names() == ["good"]


def test_a_link_out_of_the_model_folder_is_no_model_of_it(tmp_path: Path, here: Callable[..., None]) -> None:
    outside = make_model(tmp_path / "elsewhere" / "secret")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "secret").symlink_to(outside)
    make_model(tmp_path / "models" / "good")
    (tmp_path / "models" / "alias").symlink_to(tmp_path / "models" / "good")
    here(tmp_path / "models")
    assert local_names() == ["alias"]  # one model, under the first of its names
    with pytest.raises(InputError, match="is not on this machine"):
        find_model("local:secret")


def test_links_that_go_in_a_circle_are_left_out(tmp_path: Path, here: Callable[..., None]) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    make_model(tmp_path / "good")
    here(tmp_path, tmp_path / "a")
    assert local_names() == ["good"]


@pytest.mark.parametrize("config", ["", "[]", "no json", "null", "[" * 100_000, '{"model_type": null}'])
def test_a_damaged_configuration_does_not_hide_the_others(
    tmp_path: Path, here: Callable[..., None], config: str
) -> None:
    (make_model(tmp_path / "bad") / "config.json").write_text(config)
    make_model(tmp_path / "good")
    here(tmp_path)
    assert local_names() == ["bad", "good"]


def test_a_folder_that_cannot_be_read_is_a_sentence(
    tmp_path: Path, here: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tmp_path / "closed")
    here(tmp_path)

    def closed(folder: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(catalog, "_identity_files", closed)
    assert list_models() == ()
    with pytest.raises(InputError, match=r"local:closed cannot be read \(Permission denied\)") as e:
        find_model("local:closed")
    assert str(tmp_path) not in str(e.value)


# Licences


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlanguage: en\nlicense: mit\n---\n", "mit"),
        ("---\nlanguage: en\n---\nlicense: mit\n", ""),
        ("# Model\nlicense: mit\n", ""),
        ("---\n" + "x: y\n" * 60 + "license: mit\n---\n", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_the_licence_is_that_of_the_model_card(
    tmp_path: Path, here: Callable[..., None], card: str | None, licence: str
) -> None:
    made = make_model(tmp_path / "x")
    if card is not None:
        (made / "README.md").write_text(card)
    here(tmp_path)
    assert find_model("local:x").licence == licence


# Revisions

IDENTITY_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-00002-of-00002.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "tokenizer.model",
)


@pytest.fixture
def full(tmp_path: Path, here: Callable[..., None]) -> Iterator[Path]:
    """A folder with each kind of file that decides a number, written long ago."""
    made = make_model(tmp_path / "full")
    for name in IDENTITY_FILES:
        (made / name).write_bytes(b'{"a": 1}')
        os.utime(made / name, ns=(10**18, 10**18))
    here(tmp_path)
    yield made
    shutil.rmtree(made)


def revision(folder: Path) -> str:
    return find_model(f"local:{folder.name}").model_id.revision


@pytest.mark.parametrize("name", IDENTITY_FILES)
def test_a_revision_follows_every_byte(full: Path, name: str) -> None:
    before = revision(full)
    content = (full / name).read_bytes()
    for place in (0, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        (full / name).write_bytes(changed)
        # As a copy that keeps times would: neither size nor time tells.
        os.utime(full / name, ns=(10**18, 10**18))
        assert revision(full) != before
    (full / name).write_bytes(content)
    assert revision(full) == before


def test_a_revision_follows_names_and_nothing_else(full: Path) -> None:
    before = revision(full)
    (full / "README.md").write_text("New words.")
    (full / "training.log").write_text("0.1")
    (full / "checkpoint").mkdir()
    (full / "checkpoint" / "config.json").write_text("{}")
    assert revision(full) == before
    (full / "vocab.json").rename(full / "vocab2.json")
    assert revision(full) != before
    (full / "vocab2.json").rename(full / "vocab.json")
    assert revision(full) == before
    (full / "vocab.json").unlink()
    assert revision(full) != before


def test_a_revision_does_not_depend_on_the_place(full: Path, here: Callable[..., None]) -> None:
    copy = full.parent / "copy"
    shutil.copytree(full, copy)
    assert revision(copy) == revision(full)


def test_files_that_have_not_changed_are_read_once(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time_ns() + 10 * catalog._SETTLED_NS
    monkeypatch.setattr(catalog.time, "time_ns", lambda: later)
    before = revision(full)
    monkeypatch.setattr(catalog.hashlib, "file_digest", lambda *args: pytest.fail("read again"))
    assert revision(full) == before


def test_files_just_put_there_are_read_again_whatever_time_they_carry(
    full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = max((full / name).stat().st_ctime_ns for name in IDENTITY_FILES)
    monkeypatch.setattr(catalog.time, "time_ns", lambda: now)
    revision(full)
    monkeypatch.setattr(catalog.hashlib, "file_digest", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        revision(full)


def test_a_revision_that_is_not_here_is_refused_with_both(full: Path) -> None:
    here_now = revision(full)
    assert find_model(f"local:full@{here_now}").model_id.revision == here_now
    with pytest.raises(InputError) as e:
        find_model(f"local:full@{REVISION}")
    assert here_now in str(e.value)
    assert REVISION in str(e.value)
    with pytest.raises(InputError, match=REVISION):
        load_name(f"bundled:{BUNDLED_NAME}@{REVISION}")


def test_finding_one_model_reads_no_others_files(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model(full.parent / "huge")
    described: list[str] = []
    describe = catalog._describe
    monkeypatch.setattr(
        catalog,
        "_describe",
        lambda model_id, folder: (described.append(folder.name), describe(model_id, folder))[1],
    )
    find_model("local:full")
    assert described == ["full"]
