"""The Embeddings page without a browser: numbers, links, and models of another kind."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest
from transformers import AutoModelForCausalLM

from gpt_core.catalog import BUNDLED_FOLDER, MODEL_FOLDERS_VARIABLE, list_models
from gpt_core.model import LanguageModel
from tests.conftest import make_network
from tests.dashboard.pages import errors, figure, open_page, settle, texts

pytestmark = pytest.mark.usefixtures("bundled")

PROMPT = "Agney loves to train DL models"
IDS = [10262, 1681, 10408, 284, 4512, 23641, 4981]


def array(packed: dict[str, Any]) -> np.ndarray:
    """A typed array of a Plotly figure."""
    kind = {"f4": "<f4", "f8": "<f8", "i4": "<i4", "i2": "<i2", "i1": "<i1"}[packed["dtype"]]
    shape = [int(side) for side in str(packed["shape"]).split(",")] if "shape" in packed else [-1]
    return np.frombuffer(base64.b64decode(packed["bdata"]), dtype=kind).reshape(shape)


def show(**query: str) -> AppTest:
    at = open_page("embeddings", **({"prompt": PROMPT} | query))
    assert errors(at) == []
    return at


def metric(at: AppTest, label: str) -> str:
    (found,) = [element.value for element in at.metric if element.label == label]
    return str(found)


def test_the_maps_are_the_notebooks_vectors() -> None:
    """wte(encoded), wpe(positions) and their sum, by plain transformers."""
    plain = AutoModelForCausalLM.from_pretrained(BUNDLED_FOLDER, dtype=torch.float32)
    with torch.inference_mode():
        wte = plain.transformer.wte(torch.tensor([IDS]))
        wpe = plain.transformer.wpe(torch.tensor([0, 1, 2, 3, 4, 5, 6]).reshape(1, 7))
        in_ip = wte + wpe
    at = show()
    drawn = figure(at, 0)["data"]
    for trace, expected in zip(drawn, (wte, wpe, in_ip), strict=True):
        assert np.array_equal(array(trace["z"]), expected[0].numpy())
    printed = next(code.value for code in at.code if "in_ip" in code.value)
    first, last = in_ip[0, 0, :3], in_ip[0, 6, -3:]
    assert "[" + ", ".join(f"{x: .4f}" for x in first) + ",  ..., " in printed
    assert ",  ..., " + ", ".join(f"{x: .4f}" for x in last) + "]]])" in printed
    for name in ("wte", "wpe", "in_ip"):
        assert f"{name}.shape".ljust(13) + "torch.Size([1, 7, 192])" in printed


@pytest.mark.parametrize("space", ["token vectors", "with positions", "last hidden state"])
def test_similarity_in_each_space(space: str) -> None:
    plain = AutoModelForCausalLM.from_pretrained(BUNDLED_FOLDER, dtype=torch.float32).eval()
    with torch.inference_mode():
        output = plain(torch.tensor([IDS]), output_hidden_states=True)
        vectors = {
            "token vectors": plain.transformer.wte(torch.tensor(IDS)),
            "with positions": output.hidden_states[0][0],
            "last hidden state": output.hidden_states[-1][0],
        }[space]
        cosines = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=-1)
    at = show(embeddings_space=space)
    drawn = array(figure(at, 1)["data"][0]["z"])
    assert np.abs(drawn - cosines.numpy()).max() < 1e-5


def test_neighbours_of_the_chosen_token() -> None:
    table = AutoModelForCausalLM.from_pretrained(BUNDLED_FOLDER, dtype=torch.float32).transformer.wte.weight
    at = show()
    at.selectbox(key="embeddings_token").select(2)
    settle(at.run())
    assert at.query_params["embeddings_token"] in ("2", ["2"])
    cosines = torch.nn.functional.cosine_similarity(table, table[[IDS[2]]], dim=-1)
    cosines[IDS[2]] = -2
    best = cosines.topk(20)
    frame = next(
        frame.value for frame in at.dataframe if list(frame.value.columns) == ["token", "id", "cosine"]
    )
    assert frame["id"].tolist() == best.indices.tolist()
    assert np.abs(frame["cosine"].to_numpy() - best.values.detach().numpy()).max() < 1e-5


@pytest.fixture
def passes(bundled: LanguageModel) -> Iterator[list[int]]:
    """Tokens of each run of the last block."""
    seen: list[int] = []
    handle = bundled.anatomy.blocks[-1].register_forward_hook(
        lambda block, args, output: seen.append(output.shape[1])
    )
    yield seen
    handle.remove()


def test_the_walk_runs_on_request_and_once(passes: list[int]) -> None:
    at = show(prompt="A walk that nobody asked for does not run")
    assert len(passes) == 1
    assert not [element for element in at.metric if "difference" in element.label]
    at.button(key="embeddings_walk").click()
    settle(at.run())
    assert errors(at) == []
    assert len(passes) == 2
    assert float(metric(at, "Largest difference after the final norm")) < 1e-5
    at.selectbox(key="embeddings_token").select(0)
    settle(at.run())
    assert float(metric(at, "Largest difference after the final norm")) < 1e-5
    assert len(passes) == 2
    at.text_area(key="prompt").set_value("Another text has another walk").run()
    settle(at)
    assert not [element for element in at.metric if "difference" in element.label]
    assert len(passes) == 3


def test_the_notebooks_line_stands_beside_todays() -> None:
    at = show()
    shown = [code.value for code in at.code]
    assert any("in_ip = module(in_ip)[0]" in code for code in shown)
    assert any("in_ip = module(in_ip)\n" in code for code in shown)
    said = texts(at)
    assert "The notebook says that it is not learnable. In GPT-2 it is" in said
    assert "IndexError" in said


def test_parameters_and_family(bundled: LanguageModel) -> None:
    at = show()
    total = sum(parameter.numel() for parameter in bundled.network.parameters())
    assert metric(at, "Parameters") == f"{total:,}"
    frames = {tuple(frame.value.columns): frame.value for frame in at.dataframe}
    parts = frames["part", "parameters", "in the module tree"]
    assert parts["parameters"].iloc[:-1].sum() == parts["parameters"].iloc[-1] == total
    (family,) = [frame for columns, frame in frames.items() if "shown" in columns]
    assert family.loc[family["model"] == "gpt2", "parameters"].item() == 124_439_808
    assert family.loc[family["shown"] != "", "model"].tolist() == ["small-gpt2"]


def test_closed_expanders_cost_nothing() -> None:
    at = show()
    assert "GPT2Block(" not in texts(at)
    assert "from_pretrained" not in texts(at)


def test_a_link_restores_the_view() -> None:
    at = show(embeddings_dimensions="10-41", embeddings_space="with positions", embeddings_token="5")
    assert at.slider(key="embeddings_dimensions").value == (10, 41)
    assert figure(at, 0)["data"][0]["x0"] == 10
    assert array(figure(at, 0)["data"][2]["z"]).shape == (7, 32)
    assert at.selectbox(key="embeddings_token").value == 5
    assert at.query_params["embeddings_space"] in ("with positions", ["with positions"])
    assert at.query_params["embeddings_dimensions"] in ("10-41", ["10-41"])


@pytest.mark.parametrize(
    "written", ["0-192", "5-4", "-1-3", "NaN", "1", "1-2-3", "<b>x</b>", "9999999-1", ""]
)
def test_a_bad_range_is_said(written: str) -> None:
    at = show(embeddings_dimensions=written)
    assert at.slider(key="embeddings_dimensions").value == (0, 191)
    assert "two whole numbers, 0-191" in texts(at)
    assert "<b>" not in texts(at)


@pytest.mark.parametrize(
    ("key", "written", "said"),
    [
        ("embeddings_token", "7", "Possible: 0 to 6. Shown instead: 3."),
        ("embeddings_token", "x", "Possible: 0 to 6. Shown instead: 3."),
        ("embeddings_space", "logits", "token vectors, with positions, last hidden state"),
    ],
)
def test_other_bad_values_are_said(key: str, written: str, said: str) -> None:
    assert said in texts(show(**{key: written}))


def test_a_long_text_is_shown_a_block_at_a_time() -> None:
    at = show(prompt=" a" * 100, embeddings_block="2")
    drawn = figure(at, 0)["data"][0]
    assert array(drawn["z"]).shape == (4, 192)
    assert array(figure(at, 1)["data"][0]["z"]).shape == (4, 4)
    at.text_area(key="prompt").set_value(PROMPT).run()
    settle(at)
    assert errors(at) == []
    assert array(figure(at, 0)["data"][0]["z"]).shape == (7, 192)
    assert "Possible: 0 to 2" in texts(show(prompt=" a" * 100, embeddings_block="3"))


# --- other models ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, gpt2_tokenizer: Any) -> Path:
    """Small random models without a position table, and with another kind of one."""
    parent = tmp_path_factory.mktemp("models")
    for name, options in (
        ("llama", {}),
        ("bloom", {}),
        ("opt", {}),
        ("gemma3_text", {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
    ):
        make_network(name, **options).save_pretrained(parent / name)
        gpt2_tokenizer.save_pretrained(parent / name)
    return parent


def show_model(name: str, folders: Path, monkeypatch: pytest.MonkeyPatch, **query: str) -> AppTest:
    monkeypatch.setenv(MODEL_FOLDERS_VARIABLE, str(folders))
    (model,) = [str(entry.model_id) for entry in list_models() if entry.model_id.name == name]
    return show(model=model, **query)


def test_a_rotary_model(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = show_model("llama", folders, monkeypatch)
    assert "no position table" in texts(at)
    assert [trace["type"] for trace in figure(at, 0)["data"]] == ["heatmap"]
    periods, cosines = figure(at, 1)["data"]
    frequencies = 10000.0 ** (-np.arange(4) / 4)
    assert np.allclose(array(periods["y"]), 2 * np.pi / frequencies, rtol=1e-5)
    assert np.allclose(array(cosines["z"]), np.cos(np.outer(np.arange(64), frequencies)), atol=1e-5)
    at.button(key="embeddings_walk").click()
    settle(at.run())
    assert errors(at) == []
    assert float(metric(at, "Largest difference after the final norm")) < 1e-5


def test_a_link_to_a_space_that_the_model_lacks(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = show_model("llama", folders, monkeypatch, embeddings_space="with positions")
    assert "Possible: token vectors, last hidden state." in texts(at)


def test_two_kinds_of_layers(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = texts(show_model("gemma3_text", folders, monkeypatch))
    assert "Layers of the kind sliding_attention:" in said
    assert "Layers of the kind full_attention:" in said
    assert "multiplies its vectors by 5.6569" in said


def test_neither_table_nor_rotation(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = texts(show_model("bloom", folders, monkeypatch))
    assert "No rotary frequencies were found in bloom" in said
    assert "is no multiple of these vectors" in said
    assert "nothing is added" not in said


def test_a_change_of_model_keeps_or_resets_the_range(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODEL_FOLDERS_VARIABLE, str(folders))
    models = {entry.model_id.name: str(entry.model_id) for entry in list_models()}
    at = show()
    at.selectbox(key="model").select(models["opt"])
    settle(at.run())
    assert at.slider(key="embeddings_dimensions").value == (0, 31)  # all of another width is all
    at.slider(key="embeddings_dimensions").set_value((3, 20))
    settle(at.run())
    at.selectbox(key="model").select(models["small-gpt2"])
    settle(at.run())
    assert at.slider(key="embeddings_dimensions").value == (3, 20)
    at.slider(key="embeddings_dimensions").set_value((100, 120))
    settle(at.run())
    at.selectbox(key="model").select(models["llama"])
    settle(at.run())
    assert errors(at) == []
    assert at.slider(key="embeddings_dimensions").value == (0, 31)
    assert "100 to 120 are not all among 0 to 31" in texts(at)
