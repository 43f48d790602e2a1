"""A model comes from the hub whole and checked, or a sentence says why not; against a stand-in of the hub."""

import errno
import gc
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from gpt_core import acquire, hub_cache, hub_connection, hub_download
from gpt_core import hub as hub_module
from gpt_core.catalog import ModelId, default_model_id, find_model, list_models, load_name
from gpt_core.errors import (
    AbandonedError,
    CancelledError,
    DeadlineError,
    DownloadError,
    GptCoreError,
    InputError,
    MemoryLimitError,
    ModelLoadError,
)
from gpt_core.hub import look_up
from gpt_core.hub_download import download, find_partial
from gpt_core.leftovers import delete_leftover, list_leftovers
from gpt_core.model import load_model, release_model
from gpt_core.storage import delete_model, hub_folder
from gpt_core.tasks import HubDownloadTask
from gpt_core.trace import logits_at, trace_tokens
from tests.bad_names import NO_MODEL_NAMES
from tests.conftest import make_network
from tests.hub_stand_in import COMMIT, HubStandIn, Repository, read_model, run_hub

NAME = "someone/tiny"
IDS = (464, 9429, 10163, 1398, 373)
PLENTY = 2**40


class Control:
    """A control that stops when the test says so."""

    def __init__(
        self, stop: Callable[[], bool] = lambda: False, error: type[GptCoreError] = CancelledError
    ) -> None:
        self.stop, self.error = stop, error
        self.reports: list[tuple[float, str]] = []

    def check(self) -> None:
        if self.stop():
            raise self.error("Stopped.")

    def report(self, fraction: float, message: str) -> None:
        self.reports.append((fraction, message))


@pytest.fixture(scope="module")
def network() -> Any:
    return make_network("gpt2").eval()


@pytest.fixture(scope="module")
def files(network: Any, gpt2_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small real model in GPT-2's format, as it lies on the hub."""
    folder = tmp_path_factory.mktemp("published")
    network.save_pretrained(folder)
    gpt2_tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return read_model(folder)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> Iterator[HubStandIn]:
    """A stand-in that has the model, an empty cache, and a network that loses patience soon."""
    monkeypatch.setattr(hub_connection, "STALL_SECONDS", 0.4)
    with run_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        running.repositories[NAME] = Repository(dict(files))
        release_model(f"hub:{NAME}@{COMMIT}")  # which another test may have loaded
        yield running


def fetched(name: str = NAME, control: Control | None = None, max_bytes: int = PLENTY) -> Path:
    control = control or Control()
    return download(look_up(name, max_bytes=max_bytes, control=control), control=control)


def blobs() -> list[Path]:
    return list(hub_folder().glob("models--*/blobs/*"))


def partials() -> list[Path]:
    return [blob for blob in blobs() if blob.name.endswith(".incomplete")]


def refusal(name: str = NAME, *, kind: type[GptCoreError], max_bytes: int = PLENTY) -> str:
    """The sentence; nothing half-made is left, and no weights were asked for."""
    with pytest.raises(kind) as e:
        fetched(name, max_bytes=max_bytes)
    assert len(str(e.value)) < 500
    assert list_hub() == []
    return str(e.value)


def list_hub() -> list[str]:
    return [str(entry.model_id) for entry in list_models() if entry.model_id.source == "hub"]


# What goes right


def test_what_is_told_before_the_first_byte(hub: HubStandIn, files: dict[str, bytes], network: Any) -> None:
    model = look_up(NAME, max_bytes=PLENTY, control=Control())
    assert model.model_id == ModelId("hub", NAME, COMMIT)
    assert model.size == sum(map(len, files.values()))
    assert model.n_parameters == pytest.approx(sum(p.numel() for p in network.parameters()), rel=0.01)
    assert (model.licence, model.architecture) == ("mit", "gpt2")
    assert hub.weights_sent() == []
    assert not hub_folder().exists()


def test_a_model_comes_whole_and_gives_its_own_logits(hub: HubStandIn, network: Any) -> None:
    control = Control()
    folder = fetched(control=control)
    assert folder == hub_folder() / "models--someone--tiny" / "snapshots" / COMMIT
    assert list_hub() == [f"hub:{NAME}@{COMMIT}"]
    assert partials() == []
    fractions = [fraction for fraction, _ in control.reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    lm = load_model(f"hub:{NAME}@{COMMIT}")
    with torch.inference_mode():
        expected = network(torch.tensor([IDS])).logits[0].numpy()
    assert abs(logits_at(lm, trace_tokens(lm, IDS), range(len(IDS))) - expected).max() < 1e-4
    assert load_name(f"hub:{NAME}@{COMMIT}") == NAME


def test_the_cache_is_the_hubs_own(hub: HubStandIn) -> None:
    """transformers finds by its name what was fetched here, without a network."""
    from transformers import AutoModelForCausalLM

    fetched()
    loaded = AutoModelForCausalLM.from_pretrained(NAME, cache_dir=hub_folder(), local_files_only=True)
    assert loaded.config.n_layer == 3


def test_what_another_program_fetched_is_not_fetched_again(hub: HubStandIn) -> None:
    fetched()
    hub.requests.clear()
    fetched()
    assert hub.weights_sent() == []
    assert list_hub() == [f"hub:{NAME}@{COMMIT}"]


def test_a_renamed_model_is_kept_under_its_new_name(hub: HubStandIn) -> None:
    hub.repositories["gpt2"] = hub.repositories["openai-community/gpt2"] = Repository(
        hub.repositories[NAME].files, name="openai-community/gpt2"
    )
    fetched("gpt2")
    assert list_hub() == [f"hub:openai-community/gpt2@{COMMIT}"]
    assert default_model_id() == f"hub:openai-community/gpt2@{COMMIT}"


def test_weights_in_several_files(hub: HubStandIn, network: Any, gpt2_tokenizer: Any, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path, max_shard_size="5MB")
    gpt2_tokenizer.save_pretrained(tmp_path)
    hub.repositories[NAME] = Repository(read_model(tmp_path))
    folder = fetched()
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    assert load_model(f"hub:{NAME}@{COMMIT}").geometry.n_layers == 3


def test_a_pinned_commit_is_asked_for_by_its_digits(hub: HubStandIn) -> None:
    look_up(NAME, revision=COMMIT, max_bytes=PLENTY, control=Control())
    assert f"/api/models/{NAME}/revision/{COMMIT}" in hub.requests[0]
    with pytest.raises(InputError, match="no such revision"):
        look_up(NAME, revision="0" * 40, max_bytes=PLENTY, control=Control())


# Broken connections


def test_a_cut_connection_goes_on_where_it_broke(hub: HubStandIn, files: dict[str, bytes]) -> None:
    hub.repositories[NAME].cut = len(files["model.safetensors"]) // 3
    fetched()
    ranges = [request.partition(" ")[2] for request in hub.weights_sent()]
    assert ranges[0] == ""
    assert len(ranges) > 2
    assert all(wanted.startswith("bytes=") for wanted in ranges[1:])
    assert list_hub() == [f"hub:{NAME}@{COMMIT}"]


def test_a_stalled_connection_is_given_up_and_what_came_is_kept(hub: HubStandIn) -> None:
    hub.repositories[NAME].stalls = True
    sentence = refusal(kind=DownloadError)
    assert "broke 4 times in a row" in sentence
    assert "are kept" in sentence
    assert len(partials()) == 1
    hub.repositories[NAME].stalls = False
    hub.requests.clear()
    fetched()
    assert hub.weights_sent()[0].partition(" ")[2].startswith("bytes=")
    assert partials() == []


def test_what_an_unfinished_download_left_is_told(hub: HubStandIn) -> None:
    model = look_up(NAME, max_bytes=PLENTY, control=Control())
    assert find_partial(model) == 0
    hub.repositories[NAME].stalls = True
    refusal(kind=DownloadError)
    assert 0 < find_partial(model) < model.size


@pytest.mark.parametrize(("error", "kept"), [(CancelledError, 0), (AbandonedError, 1)])
def test_a_stop_works_at_once_and_leaves_nothing_while_a_closed_tab_leaves_what_came(
    hub: HubStandIn, error: type[GptCoreError], kept: int
) -> None:
    hub.repositories[NAME].bytes_per_second = 2_000_000
    control = Control(lambda: bool(partials() and partials()[0].stat().st_size), error)
    began = time.monotonic()
    with pytest.raises(error):
        fetched(control=control)
    assert time.monotonic() - began < 20
    assert len(partials()) == kept
    assert list_hub() == []


def test_a_silent_hub_does_not_keep_a_reader_from_stopping(
    hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_connection, "STALL_SECONDS", 60.0)
    hub.repositories[NAME].stalls = True
    control = Control(lambda: bool(partials() and partials()[0].stat().st_size))
    began = time.monotonic()
    with pytest.raises(CancelledError):
        fetched(control=control)
    assert time.monotonic() - began < 20


def test_a_download_has_a_deadline(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_download, "DOWNLOAD_SECONDS", 0.5)
    hub.repositories[NAME].bytes_per_second = 1_000_000
    with pytest.raises(DeadlineError, match="is kept: start it again"):
        fetched()


@pytest.fixture
def sharded(hub: HubStandIn, network: Any, gpt2_tokenizer: Any, tmp_path: Path) -> Callable[[], list[Path]]:
    """The model in several files, slow; call for the shards that have come whole."""
    network.save_pretrained(tmp_path, max_shard_size="2MB")
    gpt2_tokenizer.save_pretrained(tmp_path)
    hub.repositories[NAME] = Repository(read_model(tmp_path))
    assert sum(name.startswith("model-") for name in hub.repositories[NAME].files) > 1
    hub.repositories[NAME].bytes_per_second = 3_000_000
    return lambda: list(hub_folder().glob("models--*/snapshots/*/model-*.safetensors"))


def left_over() -> list[str]:
    """Every file of the cache but empty locks."""
    return sorted(
        str(file.relative_to(hub_folder()))
        for file in hub_folder().rglob("*")
        if file.is_file() and file.stat().st_size
    )


def test_a_stop_removes_the_shards_that_came_before_it(sharded: Callable[[], list[Path]]) -> None:
    with pytest.raises(CancelledError):
        fetched(control=Control(lambda: bool(sharded())))
    assert left_over() == []
    assert list(hub_folder().glob("models--*")) == []


def test_a_stop_removes_what_an_earlier_download_had_begun(hub: HubStandIn) -> None:
    hub.repositories[NAME].stalls = True
    with pytest.raises(DownloadError):
        fetched()
    assert partials()
    with pytest.raises(CancelledError):
        fetched(control=Control(lambda: True))
    assert partials() == []


def test_a_stop_leaves_what_other_programs_brought(
    hub: HubStandIn, sharded: Callable[[], list[Path]], files: dict[str, bytes]
) -> None:
    """Another commit whose files are partly the same, and a tokenizer that somebody fetched alone."""
    whole = hub.repositories[NAME]
    hub.repositories[NAME] = Repository(dict(files), commit="1" * 40)
    other = fetched()
    before = left_over()
    assert before
    hub.repositories[NAME] = whole
    with pytest.raises(CancelledError):
        fetched(control=Control(lambda: bool(sharded())))
    assert left_over() == before
    assert list_hub() == [f"hub:{NAME}@{'1' * 40}"]
    assert other.is_dir()


def test_the_end_of_the_program_keeps_what_came(sharded: Callable[[], list[Path]]) -> None:
    """Ctrl-C closes the engine: the next start goes on from there."""
    from gpt_core.engine import Engine

    engine = Engine()
    job_id = engine.submit(HubDownloadTask(name=NAME, size=2**30), session="a")
    end = time.monotonic() + 30
    while not sharded():
        assert time.monotonic() < end
        time.sleep(0.01)
    engine.close(20)
    status = engine.poll(job_id)
    assert status is not None
    assert status.state == "cancelled"
    assert sharded()
    assert partials()


def test_what_nobody_went_on_with_is_listed_and_deleted(
    sharded: Callable[[], list[Path]], hub: HubStandIn
) -> None:
    assert list_leftovers() == ()
    with pytest.raises(AbandonedError):
        fetched(control=Control(lambda: len(sharded()) == 1 and bool(partials()), AbandonedError))
    (left,) = list_leftovers()
    assert (left.name, left.source) == (NAME, "hub")
    assert left.size >= sharded()[0].stat().st_size
    assert delete_leftover(left) == left.size
    assert list_leftovers() == ()
    assert left_over() == []
    hub.repositories[NAME].bytes_per_second = 0
    fetched()
    assert list_leftovers() == ()
    assert list_hub() == [f"hub:{NAME}@{COMMIT}"]


def test_what_is_on_its_way_is_no_leftover(sharded: Callable[[], list[Path]]) -> None:
    seen: list[Any] = []

    def look() -> bool:
        seen.append(list_leftovers())
        return False

    fetched(control=Control(look))
    assert any(sharded())
    assert set(seen) == {()}


def test_only_the_shards_that_the_index_names_are_fetched(
    hub: HubStandIn, sharded: Callable[[], list[Path]]
) -> None:
    hub.repositories[NAME].files["model-fp16.safetensors"] = b"x" * 1000
    hub.repositories[NAME].bytes_per_second = 0
    folder = fetched()
    assert not (folder / "model-fp16.safetensors").exists()
    assert [path for path in hub.requests if "fp16" in path] == []
    assert list_hub() == [f"hub:{NAME}@{COMMIT}"]


def test_an_index_that_names_what_is_not_there(hub: HubStandIn, sharded: Callable[[], list[Path]]) -> None:
    shard = next(name for name in hub.repositories[NAME].files if name.startswith("model-"))
    del hub.repositories[NAME].files[shard]
    assert f"lacks the weight file '{shard}'" in refusal(kind=ModelLoadError)


# Answers that are no models: rows 35 to 40, 47 and 48 of the bad inputs


@pytest.mark.parametrize(
    ("quirks", "kind", "said"),
    [
        (
            {"status": 401, "headers": {"X-Error-Message": "Invalid credentials in Authorization header"}},
            DownloadError,
            "token",
        ),
        ({"status": 401, "headers": {"X-Error-Code": "RepoNotFound"}}, InputError, "or it is private"),
        ({"status": 403, "headers": {"X-Error-Code": "GatedRepo"}}, DownloadError, "is gated"),
        ({"status": 403}, DownloadError, "refuses someone/tiny to this account"),
        (
            {"status": 404, "headers": {"X-Error-Code": "RepoNotFound"}},
            InputError,
            "no model called someone/tiny",
        ),
        ({"status": 404}, InputError, "does not have someone/tiny"),
        ({"status": 429, "headers": {"Retry-After": "300"}}, DownloadError, "Try again in 300 s"),
        ({"status": 429}, DownloadError, "Try again in a few minutes"),
        ({"status": 500}, DownloadError, "cannot answer now (500)"),
        ({"status": 503}, DownloadError, "cannot answer now (503)"),
        ({"file_status": 429, "headers": {"Retry-After": "300"}}, DownloadError, "Try again in 300 s"),
        ({"file_status": 503}, DownloadError, "cannot answer now (503)"),
        ({"portal": "api"}, DownloadError, "sign in first"),
        ({"portal": "files"}, DownloadError, "sign in first"),
        ({"endless": True}, DownloadError, "round in a circle"),
        ({"wrong": True}, DownloadError, "it was removed"),
        ({"commit": "main"}, DownloadError, "is not the hub"),
    ],
)
def test_an_answer_that_is_no_model(
    hub: HubStandIn, quirks: dict[str, Any], kind: type[GptCoreError], said: str
) -> None:
    for name, value in quirks.items():
        setattr(hub.repositories[NAME], name, value)
    began = time.monotonic()
    assert said in refusal(kind=kind)
    assert time.monotonic() - began < 15
    assert [blob for blob in blobs() if blob.stat().st_size > 20_000_000] == []


def test_a_wrong_hash_leaves_no_weights(hub: HubStandIn) -> None:
    hub.repositories[NAME].wrong = True
    refusal(kind=DownloadError)
    assert partials() == []
    hub.repositories[NAME].wrong = False
    fetched()
    assert list_hub() == [f"hub:{NAME}@{COMMIT}"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"config.json": None}, "has no config.json"),
        ({"config.json": b"[]"}, "must be an object"),
        ({"config.json": b"{"}, "cannot be read"),
        ({"config.json": b" " * 1_000_001}, "at most 1,000,000 bytes. Given: 1,000,001"),
        ({"config.json": b"[" * 100_000}, "cannot be read"),
        (
            {"config.json": b'{"model_type": "bert", "architectures": ["BertForMaskedLM"]}'},
            "saved as BertForMaskedLM",
        ),
        (
            {"config.json": b'{"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}'},
            "T5ForConditional",
        ),
        ({"config.json": b'{"model_type": "vit"}'}, "of the kind 'vit'"),
        ({"config.json": b"{}"}, "of the kind 'None'"),
        (
            {"config.json": b'{"model_type": "gpt2", "auto_map": {"AutoModel": "evil.Model"}}'},
            "which is never run",
        ),
        ({"model.safetensors": None}, "found: none"),
        ({"model.safetensors": None, "pytorch_model.bin": b"pickle"}, "can run code when it is opened"),
        ({"tokenizer.json": None}, "has no tokenizer files"),
        ({"added_tokens.json": b" " * 5_000_001}, "added_tokens.json of someone/tiny must be at most 5 MB"),
    ],
)
def test_a_repository_that_cannot_serve_is_refused_before_its_weights(
    hub: HubStandIn, change: dict[str, bytes | None], said: str
) -> None:
    for name, content in change.items():
        if content is None:
            hub.repositories[NAME].files.pop(name)
        else:
            hub.repositories[NAME].files[name] = content
    assert said in refusal(kind=ModelLoadError)
    assert hub.weights_sent() == []
    assert [request for request in hub.requests if "refs" in request] == []  # nor is a conversion asked for
    assert blobs() == []


def test_a_dataset_is_called_one(hub: HubStandIn) -> None:
    hub.datasets.add("someone/texts")
    assert "someone/texts is a dataset on the hub, not a model" in refusal("someone/texts", kind=InputError)


def test_a_gated_model_that_may_be_looked_at(hub: HubStandIn) -> None:
    hub.repositories[NAME].gated = True
    assert "is gated: its owners ask you" in refusal(kind=DownloadError)


@pytest.mark.parametrize("revision", ["main", "refs/pr/1", COMMIT[:12], COMMIT.upper(), "x" * 40])
def test_a_revision_that_is_no_commit_is_refused_as_the_field_says(hub: HubStandIn, revision: str) -> None:
    with pytest.raises(InputError, match="A commit has 40 hexadecimal digits"):
        look_up(NAME, revision=revision, max_bytes=PLENTY, control=Control())
    assert hub.requests == []


def test_an_empty_repository(hub: HubStandIn) -> None:
    hub.repositories[NAME].files.clear()
    assert "found: none" in refusal(kind=ModelLoadError)


def test_seventy_billion_parameters_are_refused_before_their_weights(hub: HubStandIn) -> None:
    hub.repositories[NAME].parameters = 70_000_000_000
    sentence = refusal(kind=MemoryLimitError, max_bytes=8 * 2**30)
    assert "at most 8.0 GiB" in sentence
    assert "260.8 GiB" in sentence
    assert hub.weights_sent() == []


@pytest.mark.parametrize("name", [*NO_MODEL_NAMES, "", ".", "a/..", "x.git", "a b", "é/x", "file:///etc"])
def test_a_name_that_cannot_be_one_is_refused_by_its_letters(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touch(*_: Any, **__: Any) -> None:
        raise AssertionError("something was asked")

    for place, attribute in (
        (hub_module, "HfApi"),
        (hub_connection, "get_session"),
        (os, "stat"),
        (Path, "exists"),
    ):
        monkeypatch.setattr(place, attribute, touch)
    with pytest.raises(InputError, match="named `name` or `owner/name`"):
        look_up(name, max_bytes=PLENTY, control=Control())


def test_a_folder_called_gpt2_is_not_the_hubs(
    hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 33: the hub's gpt2 is asked for, although a folder of that name lies here."""
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    hub.repositories["gpt2"] = hub.repositories[NAME]
    folder = fetched("gpt2")
    assert hub_folder() in folder.parents
    assert find_model("hub:gpt2").folder == str(folder)


# Disk


def test_a_full_disk_is_said_before_the_first_byte(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=16_000_000))
    sentence = refusal(kind=DownloadError)
    assert "16 MB are free" in sentence
    assert hub.weights_sent() == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    original = Path.open

    def refuse(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if "a" in mode:
            raise OSError(number, os.strerror(number))
        return original(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    sentence = refusal(kind=DownloadError)
    assert os.strerror(number) in sentence
    assert partials() == []
    monkeypatch.setattr(Path, "open", original)
    fetched()


# Offline


def test_offline_is_said_and_what_is_here_works(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set"):
        look_up(NAME, max_bytes=PLENTY, control=Control())
    assert hub.requests == []
    assert load_model(f"hub:{NAME}").geometry.n_layers == 3


def test_a_certificate_that_is_none(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("http:", "https:"))
    with pytest.raises(DownloadError, match="certificate cannot be checked"):
        look_up(NAME, max_bytes=PLENTY, control=Control())


def test_no_hub_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match="cannot be reached"):
        look_up(NAME, max_bytes=PLENTY, control=Control())


# Later


def test_a_byte_that_changed_on_the_disk_is_noticed(hub: HubStandIn) -> None:
    folder = fetched()
    blob = (folder / "model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    release_model(f"hub:{NAME}@{COMMIT}")
    gc.collect()
    with pytest.raises(ModelLoadError, match="its bytes have changed on this disk"):
        load_model(f"hub:{NAME}@{COMMIT}")


def test_a_damaged_file_is_set_aside_and_fetched_anew(hub: HubStandIn, files: dict[str, bytes]) -> None:
    """Row 41."""
    hub.repositories["openai-community/gpt2"] = Repository(dict(files))
    model = f"hub:openai-community/gpt2@{COMMIT}"
    folder = fetched("openai-community/gpt2")
    assert default_model_id() == model
    blob = (folder / "model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(ModelLoadError, match="Fetch the model again on the Models page, or delete there"):
        load_model(model)
    assert list_hub() == []
    assert default_model_id().startswith("bundled:")
    assert [left.size >= len(content) for left in list_leftovers()] == [True]
    fetched("openai-community/gpt2")
    assert list_leftovers() == ()
    assert load_model(model).geometry.n_layers == 3
    assert default_model_id() == model


def test_a_damaged_file_can_be_deleted_instead(hub: HubStandIn) -> None:
    blob = (fetched() / "model.safetensors").resolve()
    blob.write_bytes(bytes(blob.stat().st_size))
    with pytest.raises(ModelLoadError):
        load_model(f"hub:{NAME}@{COMMIT}")
    (left,) = list_leftovers()
    delete_leftover(left)
    assert list_leftovers() == ()
    assert left_over() == []


def test_a_cache_that_is_closed_to_us_is_a_sentence(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 46: its files are another user's."""
    fetched()

    def closed(file: Path, *, sha256: bool) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(hub_cache, "kept_digest", closed)
    with pytest.raises(
        ModelLoadError, match=r"someone/tiny cannot be read \(Permission denied\)\. Check who owns"
    ):
        load_model(f"hub:{NAME}@{COMMIT}")
    assert list_hub() == [f"hub:{NAME}@{COMMIT}"]


def test_a_model_without_its_tokenizer_is_not_whole(hub: HubStandIn, files: dict[str, bytes]) -> None:
    """Another program may have fetched the weights alone: the first page would fail on them."""
    hub.repositories["openai-community/gpt2"] = Repository(dict(files))
    folder = fetched("openai-community/gpt2")
    for name in ("tokenizer.json", "vocab.json", "tokenizer.model"):
        (folder / name).unlink(missing_ok=True)
    assert list_hub() == []
    assert default_model_id().startswith("bundled:")
    hub.requests.clear()
    fetched("openai-community/gpt2")
    assert hub.weights_sent() == []
    assert default_model_id() == f"hub:openai-community/gpt2@{COMMIT}"


def test_the_commit_that_was_looked_at_is_fetched_and_is_the_newest(hub: HubStandIn) -> None:
    """Its reference moves on, so that `from_pretrained` finds by its name what was fetched."""
    fetched()
    found = "2" * 40
    hub.repositories[NAME].commit = found
    steps = HubDownloadTask(name=NAME, size=2**30, revision=found, newest=True).run(Control())  # type: ignore[arg-type]
    with pytest.raises(StopIteration):
        next(steps)
    assert load_name(f"hub:{NAME}@{found}") == NAME
    hub.repositories[NAME].commit = "3" * 40
    steps = HubDownloadTask(name=NAME, size=2**30, revision=found, newest=True).run(Control())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no such revision"):
        next(steps)


def test_a_model_is_deleted_unless_somebody_works_with_it(hub: HubStandIn) -> None:
    from gpt_core.readers import shared_readers

    fetched()
    entry = find_model(f"hub:{NAME}")
    there = [True]
    shared_readers().open(str(entry.model_id), session="one", alive=lambda: there[0])
    with pytest.raises(InputError, match="cannot be deleted while one reader works with it"):
        delete_model(entry)
    there[0] = False
    assert delete_model(entry) > 0
    assert list_hub() == []
    assert [blob for blob in blobs() if blob.exists()] == []


def test_a_model_that_was_not_whole_is_not_listed(hub: HubStandIn) -> None:
    folder = fetched()
    (folder / "model.safetensors").unlink()
    assert list_hub() == []


def test_a_model_larger_than_was_named_is_not_fetched(hub: HubStandIn) -> None:
    steps = HubDownloadTask(name=NAME, size=1_000_000).run(Control())  # type: ignore[arg-type]
    with pytest.raises(DownloadError, match="more than the 1 MB that were named"):
        next(steps)
    assert hub.weights_sent() == []


def test_a_model_a_little_larger_than_was_named_is_not_fetched_either(hub: HubStandIn) -> None:
    size = look_up(NAME, max_bytes=PLENTY, control=Control()).size
    steps = HubDownloadTask(name=NAME, size=size - 1).run(Control())  # type: ignore[arg-type]
    with pytest.raises(DownloadError, match="that were named"):
        next(steps)
    assert hub.weights_sent() == []


def test_a_model_larger_than_the_free_memory_is_not_fetched(
    hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acquire, "available_memory", lambda: 1000)
    steps = HubDownloadTask(name=NAME, size=2**30).run(Control())  # type: ignore[arg-type]
    with pytest.raises(MemoryLimitError, match="are free now"):
        next(steps)
    assert hub.weights_sent() == []


def test_one_download_whoever_asks(hub: HubStandIn) -> None:
    from gpt_core.engine import Engine

    engine = Engine()
    try:
        size = sum(map(len, hub.repositories[NAME].files.values()))
        jobs = {engine.submit(HubDownloadTask(name=NAME, size=size), session=f"reader {i}") for i in range(8)}
        assert len(jobs) == 1
        status = engine.wait(jobs.pop(), 60)
        assert status is not None
        assert status.result == f"hub:{NAME}@{COMMIT}"
        assert len(hub.weights_sent()) == 1
    finally:
        engine.close()
