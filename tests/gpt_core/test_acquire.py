"""What a folder's configuration and headers tell is refused in one sentence, before any weight is touched."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from gpt_core import acquire
from gpt_core.acquire import acquire_model
from gpt_core.catalog import BUNDLED_FOLDER, ModelEntry, ModelId, bundled_model_id, find_model
from gpt_core.errors import MemoryLimitError, ModelLoadError
from gpt_core.manifest import write_manifest

DAMAGED = "model.safetensors of model is damaged or is no safetensors file. Copy it again."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that passes: two layers, ten numbers in three weights."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text('{"model_type": "gpt2", "n_layer": 2}')
    save_file(
        {"a": torch.zeros(2, 3), "b": torch.zeros(4), "c": torch.tensor(1.0)}, made / "model.safetensors"
    )
    return made


def acquired(folder: Path, max_bytes: int | None = None) -> Path:
    entry = ModelEntry(
        model_id=ModelId("local", folder.name), folder=str(folder), size=0, architecture="gpt2", licence=""
    )
    return acquire_model(entry, max_bytes=max_bytes)


def refusal(folder: Path, max_bytes: int | None = None) -> str:
    """The sentence; it names no place on this machine."""
    with pytest.raises(ModelLoadError) as e:
        acquired(folder, max_bytes)
    assert str(folder.parent) not in str(e.value)
    assert len(str(e.value)) < 400
    str(e.value).encode()  # it can be shown
    return str(e.value)


def put_config(folder: Path, config: Any) -> None:
    (folder / "config.json").write_text(json.dumps(config))


def put_header(folder: Path, header: Any, data: bytes = b"\0" * 64) -> None:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content + data)


def tensor(shape: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}


def test_a_folder_that_is_in_order_is_given_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert acquired(folder) == folder
    monkeypatch.chdir(folder.parent)
    assert acquired(Path("model")) == folder


def test_the_bundled_model_is_in_order() -> None:
    assert acquire_model(find_model(bundled_model_id())) == BUNDLED_FOLDER


# The configuration


def test_no_configuration(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert refusal(folder) == "model has no config.json. Choose a folder written by save_pretrained."


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\1\2",
        b"\xff\xfe{",
        b"not json",
        b'{"n_layer": ',
        b"[" * 100_000,
        b'{"n_layer": 1' + b"0" * 5000 + b"}",
    ],
    ids=["empty", "binary", "no-utf8", "text", "cut", "deep", "long-number"],
)
def test_a_configuration_that_cannot_be_read(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    assert refusal(folder).startswith("config.json of model cannot be read: ")


@pytest.mark.parametrize("config", [[], [{"n_layer": 1}], 3, None, "gpt2", float("nan"), True])
def test_a_configuration_that_is_no_object(folder: Path, config: Any) -> None:
    put_config(folder, config)
    assert refusal(folder) == "config.json of model must be an object with names and values."


def test_a_configuration_that_is_too_large_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_config(folder, {"n_layer": 2, "x": "x" * 1_000_000})
    monkeypatch.setattr(acquire, "_read_object", lambda file: pytest.fail("read"))
    assert "must be at most 1,000,000 bytes. Given: 1,000,0" in refusal(folder)


@pytest.mark.parametrize("value", [{"AutoModel": "evil.Model"}, {}, None])
def test_code_from_the_repository_is_never_run(folder: Path, value: Any) -> None:
    (folder / "evil.py").write_text("raise SystemExit")
    put_config(folder, {"n_layer": 2, "auto_map": value})
    assert "which is never run" in refusal(folder)


@pytest.mark.parametrize("name", ["n_layer", "num_hidden_layers", "num_layers"])
@pytest.mark.parametrize(
    "value", [4, 10**9, float("nan"), float("inf"), 2.0, "2", None, [2], {"n": 2}, "x" * 5000, 10**4000]
)
def test_layers_that_the_files_do_not_hold(folder: Path, name: str, value: Any) -> None:
    put_config(folder, {name: value})
    said = refusal(folder)
    assert said.startswith("config.json of model claims ")
    assert "its files hold only 3 weights" in said


@pytest.mark.parametrize("config", [{}, {"n_layer": 0}, {"num_layers": 3}])
def test_layers_that_the_files_may_hold(folder: Path, config: Any) -> None:
    put_config(folder, config)
    assert acquired(folder) == folder


# Which files


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.bin"])
def test_weights_that_can_run_code_are_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    (folder / name).write_bytes(b"\x80\x04")
    (folder / "other.safetensors").unlink()
    assert f"found: only {name}, which can run code when it is opened" in refusal(folder)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "found: none" in refusal(folder)
    (folder / "model.safetensors").mkdir()
    refusal(folder)


def test_weights_under_another_name(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    assert "found: other.safetensors" in refusal(folder)


def put_index(folder: Path, index: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_an_index_names_the_files_that_are_counted(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    save_file({"d": torch.zeros(10)}, folder / "two.safetensors")
    put_index(
        folder, {"weight_map": {"a": "one.safetensors", "b": "one.safetensors", "d": "two.safetensors"}}
    )
    put_config(folder, {"n_layer": 4})
    assert acquired(folder, max_bytes=84) == folder
    with pytest.raises(MemoryLimitError):
        acquired(folder, max_bytes=83)


@pytest.mark.parametrize(
    "index",
    [{}, {"weight_map": {}}, {"weight_map": []}, {"weight_map": {"a": 1}}, {"weight_map": {"a": ["x"]}}],
)
def test_an_index_that_names_nothing(folder: Path, index: Any) -> None:
    (folder / "model.safetensors").unlink()
    put_index(folder, index)
    assert refusal(folder) == "model.safetensors.index.json of model names no weights."


@pytest.mark.parametrize(
    "name",
    [
        "gone.safetensors",
        "",
        ".",
        "..",
        "../secret.safetensors",
        "./../secret.safetensors",
        "sub/one.safetensors",
        "/etc/passwd",
        "a\0b",
        "\ud800.safetensors",
        "x" * 300,
        "x" * 100_000,
    ],
    ids=lambda name: ascii(name[:30]),
)
def test_an_index_reaches_nothing_outside_the_folder(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder.parent / "secret.safetensors")
    (folder / "sub").mkdir()
    save_file({"a": torch.zeros(2)}, folder / "sub" / "one.safetensors")
    put_index(folder, {"weight_map": {"a": name}})
    assert "which its index names" in refusal(folder)


@pytest.mark.parametrize("content", ["", "[]", "nonsense", "{"])
def test_an_index_that_cannot_be_read(folder: Path, content: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    assert refusal(folder).startswith("model.safetensors.index.json of model ")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"n_layer": 4}, "`n_layer`"),
        ({"num_hidden_layers": "2"}, "`num_hidden_layers`"),
        ({"n_head": 5, "n_embd": 12}, "`n_head` of its config.json must divide `n_embd`. Given: 5 and 12"),
        (
            {"num_attention_heads": 5, "hidden_size": 12},
            "`num_attention_heads` of its config.json must divide `hidden_size`. Given: 5 and 12",
        ),
        ({"n_head": 0, "n_embd": 12}, "`n_head` of its config.json must be a whole number of at least 1"),
        ({"n_head": "4", "n_embd": 12}, "`n_head` of its config.json must be a whole number of at least 1"),
        ({"vocab_size": 9}, "`vocab_size` of its config.json is 9, but its token embedding has 6 rows"),
        ({"vocab_size": "6"}, "`vocab_size` of its config.json is 6, but"),
    ],
)
def test_sizes_that_contradict_each_other_are_named(folder: Path, config: dict[str, Any], said: str) -> None:
    save_file({"wte.weight": torch.zeros(6, 12), "b": torch.zeros(4)}, folder / "model.safetensors")
    put_config(folder, config)
    assert said in refusal(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"n_head": 4, "n_embd": 12, "vocab_size": 6},
        {"num_attention_heads": 5, "hidden_size": 12, "head_dim": 8},
        {"num_attention_heads": None, "hidden_size": 12},
    ],
)
def test_sizes_that_agree(folder: Path, config: dict[str, Any]) -> None:
    save_file({"wte.weight": torch.zeros(6, 12), "b": torch.zeros(4)}, folder / "model.safetensors")
    put_config(folder, config)
    assert acquired(folder) == folder


# Headers


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 40])
def test_a_file_that_ends_in_its_header(folder: Path, length: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    assert refusal(folder) == DAMAGED


@pytest.mark.parametrize("length", [0, 1, 73, 2**31, 2**63, 2**64 - 1])
def test_a_header_that_is_longer_than_the_file_or_empty(folder: Path, length: int) -> None:
    (folder / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{" + b" " * 70 + b"}")
    assert refusal(folder) == DAMAGED


def test_a_header_longer_than_the_format_allows_is_not_read(folder: Path) -> None:
    with (folder / "model.safetensors").open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little") + b"{}")
        file.truncate(200_000_000)  # takes no place on the disk
    assert refusal(folder) == DAMAGED


@pytest.mark.parametrize(
    "header",
    [
        b"no json",
        b"\xff\xff\xff",
        b"[" * 50_000,
        [],
        5,
        {"a": None},
        {"a": []},
        {"a": {}},
        {"a": {"shape": None}},
        {"a": {"shape": 3}},
        {"a": tensor(["3"])},
        {"a": tensor([1.5])},
        {"a": tensor([float("nan")])},
        {"a": tensor([-1])},
        {"a": tensor([[2]])},
        {"a": tensor([2**63])},
        {"a": tensor([2**62, 2])},
        {"a": tensor([10**4000])},
        {"a": tensor([2**40] * 60)},
        {"a": tensor([1] * 65)},
    ],
    ids=lambda header: ascii(header)[:30],
)
def test_a_header_that_makes_no_sense(folder: Path, header: Any) -> None:
    put_header(folder, header)
    assert refusal(folder, max_bytes=1000) == DAMAGED


@pytest.mark.parametrize(
    ("offsets", "n_bytes"),
    [
        ([[0, 4], [0, 4]], 4),
        ([[0, 4], [2, 6]], 6),
        ([[0, 4], [8, 12]], 12),
        ([[0, 4], [4, 8]], 7),
        ([[0, 4], [4, 8]], 9),
        ([[0, 4], [4, 12]], 12),
        ([[0, 4], [4, 4]], 4),
        ([[4, 8], [8, 12]], 12),
        ([[0, 4], [4, 2]], 4),
        ([[0, 4], [4]], 8),
        ([[0, 4], [4, 8.0]], 8),
        ([[0, 4], None], 8),
    ],
    ids=str,
)
def test_weights_that_overlap_or_do_not_fill_the_file(folder: Path, offsets: list[Any], n_bytes: int) -> None:
    header = {
        str(i): {"dtype": "F32", "shape": [1], "data_offsets": place} for i, place in enumerate(offsets)
    }
    put_config(folder, {})
    put_header(folder, header, b"\0" * n_bytes)
    assert refusal(folder) == DAMAGED


@pytest.mark.parametrize("change", [-1, 1, 1000])
def test_a_file_that_was_cut_or_grew(folder: Path, change: int) -> None:
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size + change)
    assert refusal(folder) == DAMAGED


@settings(derandomize=True, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda part: (
            st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just("shape"), part)
        ),
        max_leaves=12,
    )
)
def test_no_header_is_more_than_a_sentence(tmp_path_factory: pytest.TempPathFactory, header: Any) -> None:
    made = tmp_path_factory.getbasetemp() / "any-header"
    made.mkdir(exist_ok=True)
    put_config(made, {})
    put_header(made, json.dumps(header).encode())
    try:
        assert acquired(made, max_bytes=1000) == made
    except (ModelLoadError, MemoryLimitError):
        return


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.binary(max_size=200))
def test_no_file_is_more_than_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    made = tmp_path_factory.getbasetemp() / "any-file"
    made.mkdir(exist_ok=True)
    put_config(made, {})
    (made / "model.safetensors").write_bytes(content)
    try:
        acquired(made, max_bytes=1000)
    except (ModelLoadError, MemoryLimitError):
        with pytest.raises(SafetensorError), safe_open(made / "model.safetensors", "pt"):
            pass


def test_metadata_is_no_weight(folder: Path) -> None:
    save_file({"a": torch.zeros(3)}, folder / "model.safetensors", metadata={"format": "pt"})
    put_config(folder, {"n_layer": 1})
    assert acquired(folder, max_bytes=12) == folder
    put_config(folder, {"n_layer": 2})
    assert "hold only 1 weights" in refusal(folder)


# Memory


def test_the_memory_is_that_of_float32(folder: Path) -> None:
    weights = {"a": torch.zeros(5, 2, dtype=torch.float16), "b": torch.zeros(1, dtype=torch.bfloat16)}
    save_file(weights, folder / "model.safetensors")
    assert acquired(folder, max_bytes=44) == folder
    with pytest.raises(MemoryLimitError):
        acquired(folder, max_bytes=43)


def test_a_model_too_large_is_refused_with_both_numbers(folder: Path) -> None:
    each = 2**32
    put_header(
        folder,
        {
            name: {"dtype": "F32", "shape": [2**20, 2**10], "data_offsets": [i * each, (i + 1) * each]}
            for i, name in enumerate("abc")
        },
        b"",
    )
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size + 3 * each)
    assert acquired(folder) == folder
    with pytest.raises(
        MemoryLimitError, match=r"at most 1\.5 GiB of memory here\. model needs 12\.0 GiB as float32"
    ):
        acquired(folder, max_bytes=3 * 2**29)


def test_a_model_larger_than_what_is_free_is_refused_with_both_numbers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acquire, "available_memory", lambda: 40)
    save_file({"a": torch.zeros(11)}, folder / "model.safetensors")
    put_config(folder, {})
    with pytest.raises(MemoryLimitError, match=r"model needs .* GiB are free now"):
        acquired(folder, max_bytes=1000)
    monkeypatch.setattr(acquire, "available_memory", lambda: None)
    assert acquired(folder, max_bytes=1000) == folder


# What is no plain file of the folder


def test_a_link_out_of_the_folder_is_refused(folder: Path) -> None:
    outside = folder.parent / "elsewhere.safetensors"
    (folder / "model.safetensors").rename(outside)
    (folder / "model.safetensors").symlink_to(outside)
    assert refusal(folder) == (
        "model.safetensors of model is a link that leads out of the folder. Put the file itself there."
    )


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model"]
)
def test_a_configuration_or_tokenizer_out_of_the_folder_is_refused(folder: Path, name: str) -> None:
    outside = folder.parent / "elsewhere"
    outside.write_text('{"model_type": "gpt2", "n_layer": 2}')
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    assert (
        refusal(folder)
        == f"{name} of model is a link that leads out of the folder. Put the file itself there."
    )


def test_a_link_to_another_file_of_the_folder_is_none_of_ours(folder: Path) -> None:
    (folder / "vocab.json").write_text("{}")
    (folder / "added_tokens.json").symlink_to("vocab.json")
    assert acquired(folder) == folder


def test_a_link_into_the_hubs_store_is_the_hubs_way(folder: Path) -> None:
    blob = folder.parent / "cache" / "blobs" / "0"
    snapshot = folder.parent / "cache" / "snapshots" / "main"
    snapshot.parent.mkdir(parents=True)
    blob.parent.mkdir()
    folder.rename(snapshot)
    (snapshot / "model.safetensors").rename(blob)
    (snapshot / "model.safetensors").symlink_to(Path("../../blobs/0"))
    assert acquired(snapshot) == snapshot


def test_a_pipe_is_no_weight_file(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    assert "must hold its weights as model.safetensors" in refusal(folder)


def test_a_folder_with_a_changed_byte_is_refused_where_its_digests_are_known(folder: Path) -> None:
    write_manifest(folder)
    entry = ModelEntry(
        model_id=ModelId("pypi", "x", "0" * 12), folder=str(folder), size=0, architecture="gpt2", licence=""
    )
    assert acquire_model(entry) == folder
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(
        ModelLoadError, match=r"model\.safetensors of model is not the file that was published"
    ):
        acquire_model(entry)
