"""The Attention page through the router: its sections, what they refuse, and what stays closed."""

import base64
import html
import io
import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from streamlit.testing.v1 import AppTest
from transformers import AutoModelForCausalLM, AutoTokenizer

from dashboard.plots import bertviz
from gpt_core.attention import all_attention_maps, attention_maps, without_first
from gpt_core.attention_cell import explain_cell
from gpt_core.attention_measures import measure_heads
from gpt_core.attention_summaries import roll_out
from gpt_core.catalog import BUNDLED_FOLDER, list_models
from gpt_core.model import LanguageModel
from gpt_core.tokenizer import decode_ids
from gpt_core.trace import Trace, trace_text
from tests.conftest import make_network
from tests.dashboard.pages import errors, open_page, settle, texts

pytestmark = pytest.mark.usefixtures("bundled")

PROMPT = "The cat sat on the mat. The cat sat on the"
ANOTHER_MODEL = {
    "attention_section": "Compare",
    "attention_compare": "another model",
    "attention_layer": "1",
    "attention_head": "1",
}
SECTIONS = ("One cell", "Every head", "Summaries", "Compare", "Numbers", "BertViz")


@pytest.fixture
def trace(bundled: LanguageModel) -> Trace:
    return trace_text(bundled, PROMPT)


def chart(at: AppTest, key: str) -> dict[str, Any]:
    """The figure with that key."""
    for element in at.get("plotly_chart"):
        if f"-{key}" in element.proto.id or element.proto.id.endswith(key):
            spec: dict[str, Any] = json.loads(element.proto.spec)
            return spec
    raise AssertionError(f"no chart {key}: {[element.proto.id for element in at.get('plotly_chart')]}")


def channels(colour: str) -> list[int]:
    """Red, green and blue of `rgb(1,2,3)`."""
    return [int(part) for part in re.findall(r"\d+", colour)]


def continued(**query: str) -> AppTest:
    """The page after it continued PROMPT by 5 tokens."""
    at = open_page("attention", prompt=PROMPT, attention_new_tokens="5", attention_decoding="Greedy", **query)
    at.button(key="attention_continue").click()
    return settle(at.run())


def dashed(figure: dict[str, Any]) -> set[tuple[float, float]]:
    """Where the boundary between prompt and generated text begins, along the keys and along the queries."""
    shapes = figure["layout"].get("shapes", [])
    return {(shape["x0"], shape["y0"]) for shape in shapes if shape["line"].get("dash") == "dash"}


def numbers(array: dict[str, Any]) -> np.ndarray:
    """An array as Plotly's specification carries it."""
    values = np.frombuffer(base64.b64decode(array["bdata"]), dtype=np.dtype(array["dtype"]))
    shape = [int(part) for part in str(array["shape"]).split(",")] if "shape" in array else [-1]
    return values.reshape(shape)


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("prompt", [PROMPT, "a", "a a", " a" * 512], ids=["usual", "one", "two", "full"])
def test_every_section_opens_from_a_link(section: str, prompt: str) -> None:
    at = open_page("attention", prompt=prompt, attention_section=section)
    assert errors(at) == []
    assert at.query_params["attention_section"] == section
    # Plotly's specification is text: four bytes for three.
    assert max(len(element.proto.spec) for element in at.get("plotly_chart")) < 4 / 3 * 2 * 2**20 + 300_000


def test_the_first_token_can_be_hidden_and_its_share_is_always_said(trace: Trace) -> None:
    at = open_page("attention", prompt=PROMPT, attention_layer="5", attention_head="4")
    maps = attention_maps(trace, layer=5, heads=[4])
    share = f"**{maps.weights[0, 1:, 0].mean():.0%}** of their attention"
    assert share in texts(at)
    at.toggle(key="attention_hide_first").set_value(True)
    settle(at.run())
    assert share in texts(at)
    cells = numbers(chart(at, "attention_map")["data"][0]["z"])
    expected = without_first(maps)
    assert np.array_equal(np.isnan(cells), ~expected.allowed[0])
    np.testing.assert_allclose(np.nan_to_num(cells), expected.weights[0], atol=1e-6)
    assert at.query_params["attention_hide_first"] == "1"


def table(at: AppTest, column: str) -> pd.DataFrame:
    """The table that has this column."""
    (found,) = (element.value for element in at.dataframe if column in element.value.columns)
    return found


def test_one_cell_is_explained_by_the_cores_numbers(trace: Trace, bundled: LanguageModel) -> None:
    at = open_page(
        "attention",
        prompt=PROMPT,
        attention_layer="5",
        attention_head="4",
        attention_query="8",
        attention_key="2",
    )
    assert errors(at) == []
    weights = attention_maps(trace, layer=5, heads=[4]).weights[0, 8]
    capture = trace.attention[5]
    products = (capture.key[4] @ capture.query[4, 8]).numpy()
    scores = products * capture.scaling
    log_sum = float(np.log(np.exp(scores[:9].astype(np.float64)).sum()))
    steps = table(at, "step")
    assert list(steps["step"]) == [
        "q·k",
        f"times {capture.scaling:.4g} = 1/√{capture.query.shape[2]}",
        "mask adds",
        "ln Σ exp over the row",
        "softmax: exp of the difference",
    ]
    expected = [products[2], scores[2], 0, log_sum, weights[2]]
    np.testing.assert_allclose([float(value) for value in steps["value"]], expected, atol=2e-4)
    assert weights[2] == pytest.approx(np.exp(scores[2] - log_sum), abs=1e-5)

    moved = explain_cell(bundled, trace, layer=5, head=4, query=8, key=2).moved
    shares = moved / moved.sum()
    row = table(at, "softmax")
    assert list(row["key"])[:3] == ["0 The", "1 ␣cat", "2 ␣sat"]
    np.testing.assert_allclose(row["q·k"], products, atol=1e-3)
    np.testing.assert_allclose(row["scaled"], scores, atol=1e-3)
    assert [value == "−∞" for value in row["masked"]] == [key > 8 for key in range(12)]
    np.testing.assert_allclose(row["softmax"], weights, atol=1e-6)
    np.testing.assert_allclose(row["share moved"], shares, atol=1e-6)

    bars = chart(at, "attention_moved")["data"]
    places = [int(name.split(" ")[0]) for name in bars[0]["text"]]
    assert 2 in places
    assert [bar["name"] for bar in bars] == ["weight", "share moved"]
    np.testing.assert_allclose(numbers(bars[0]["x"]), weights[places], atol=1e-6)
    np.testing.assert_allclose(numbers(bars[1]["x"]), shares[places], atol=1e-6)


def sliding_model(folder: Path, tokenizer: Any) -> str:
    """A saved model whose layers look at the last 8 tokens, as a link names it."""
    make_network("mistral").save_pretrained(folder / "tiny-mistral")
    tokenizer.save_pretrained(folder / "tiny-mistral")
    return next(str(entry.model_id) for entry in list_models() if entry.model_id.name == "tiny-mistral")


def strip(at: AppTest) -> tuple[dict[str, Any], np.ndarray]:
    """What the coloured text was sent: its words and its colours."""
    (payload,) = (
        element.proto.bytes
        for element in at.get("bidi_component")
        if element.proto.bytes.startswith(b"TKS1") and b'"attention_strip"' in element.proto.bytes
    )
    length, n_values = struct.unpack("<II", payload[4:12])
    return json.loads(payload[12 : 12 + length]), np.frombuffer(payload[-4 * n_values :], dtype="<f4")


def test_each_closed_cell_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpt2_tokenizer: Any
) -> None:
    monkeypatch.setenv("GPT_CORE_MODELS", str(tmp_path))
    query = {
        "prompt": PROMPT,
        "model": sliding_model(tmp_path, gpt2_tokenizer),
        "attention_query": "10",
        "attention_key": "1",
        "attention_hide_first": "1",
    }
    at = open_page("attention", **query)
    assert errors(at) == []
    closed = "closed: outside this layer's window, or the row gives all to the hidden first token"
    assert f"Query 10 pays key 1: {closed}" in texts(at)
    hover = strip(at)[0]["hover"]
    assert hover[0] == "the first token is hidden"
    assert hover[1] == hover[2] == closed
    assert re.fullmatch(r"attention paid 0\.\d{4}", hover[3])
    assert hover[11] == "masked: the query cannot look there"
    at = open_page("attention", **query | {"attention_hide_first": "0", "attention_side": "received"})
    hover = strip(at)[0]["hover"]
    assert hover[9] == "masked: the query cannot look there"
    assert re.fullmatch(r"attention received 0\.\d{4}", hover[11])
    at = open_page("attention", **query | {"attention_hide_first": "0"})
    assert strip(at)[0]["hover"][0] == "closed: outside this layer's window"
    # In a summary, too, what the windows close is empty.
    at = open_page("attention", **query, attention_section="Summaries")
    cells = numbers(chart(at, "attention_summary_map")["data"][0]["z"])
    back = np.subtract.outer(np.arange(12), np.arange(12))
    assert np.array_equal(np.isnan(cells), (back < 0) | (back >= 8))


@pytest.mark.parametrize(
    ("scale", "side"), [("linear", "paid"), ("row maximum", "received"), ("logarithmic", "paid")]
)
def test_the_text_is_coloured_by_what_the_token_pays_or_receives(trace: Trace, scale: str, side: str) -> None:
    query = {"attention_layer": "5", "attention_head": "4", "attention_query": "6", "attention_side": side}
    at = open_page("attention", prompt=PROMPT, attention_scale=scale, **query)
    weights = attention_maps(trace, layer=5, heads=[4]).cells[0]
    expected = weights[6] if side == "paid" else weights[:, 6]
    if scale == "row maximum":
        expected = expected / np.nanmax(expected)
    if scale == "logarithmic":
        expected = 1 + np.log10(np.maximum(expected, 1e-5)) / 5
    np.testing.assert_allclose(strip(at)[1], expected, atol=1e-6)
    assert np.isfinite(expected).sum() == (7 if side == "paid" else 6)


def test_the_sinks_reason_is_given_where_it_is_one(trace: Trace) -> None:
    shares = {
        (layer, head): float(attention_maps(trace, layer=layer, heads=[head]).weights[0, 1:, 0].mean())
        for layer in range(6)
        for head in range(6)
    }
    for large in (True, False):
        layer, head = (max if large else min)(shares, key=lambda place: shares[place])
        assert (shares[layer, head] >= 0.5) == large
        at = open_page("attention", prompt=PROMPT, attention_layer=str(layer), attention_head=str(head))
        assert f"**{shares[layer, head]:.0%}** of their attention" in texts(at)
        assert ("a head that has nothing to look for" in texts(at)) == large


def test_where_nothing_is_hidden_the_page_says_so() -> None:
    for hidden in ("0", "1"):
        for section, said in (
            ("One cell", "Nothing is hidden here"),
            ("Summaries", "The first token is not hidden here"),
        ):
            at = open_page("attention", prompt=PROMPT, attention_section=section, attention_hide_first=hidden)
            assert (said in texts(at)) == (hidden == "1")


def test_a_window_after_the_last_query_is_said_and_open_cells_are_counted() -> None:
    at = open_page("attention", prompt=" a" * 100, attention_rows="10-20", attention_keys="50-60")
    said = "The keys 50 to 60 come after the last of these queries, which cannot look there. Shown instead: 0 to 20."
    assert said in texts(at)
    assert numbers(chart(at, "attention_map")["data"][0]["z"]).shape == (11, 21)
    at = open_page("attention", prompt=" a" * 100, attention_rows="10-20", attention_keys="5-60")
    assert "The keys after 20, the last of these queries, are masked for all of them" in texts(at)
    assert numbers(chart(at, "attention_map")["data"][0]["z"]).shape == (11, 16)
    # 60 queries of 60 keys, all of them before: all are open, and more than there are markers.
    at = open_page("attention", prompt=" a" * 200, attention_rows="100-159", attention_keys="0-59")
    assert "A click chooses the strongest cell nearby" in texts(at)
    # 2,485 of 4,900 are open: each has its marker.
    at = open_page("attention", prompt=" a" * 70)
    assert "Click a cell to choose its query and key." in texts(at)
    assert len(numbers(chart(at, "attention_map")["data"][1]["x"])) == 70 * 71 // 2


def test_measures_are_the_cores_and_open_no_other_section(trace: Trace) -> None:
    at = open_page("attention", prompt=PROMPT, attention_section="Every head", attention_measure="entropy")
    z = numbers(chart(at, "attention_measure_map")["data"][0]["z"])
    np.testing.assert_allclose(z, measure_heads(trace).of("entropy"), rtol=1e-6)
    assert "_job_attention_summary" not in at.session_state
    assert "_job_attention_probe" not in at.session_state
    at.button(key="attention_probe").click()
    settle(at.run())
    assert errors(at) == []
    probe = at.session_state["_job_attention_probe"].status.result
    np.testing.assert_allclose(numbers(chart(at, "attention_probe_map")["data"][0]["z"]), probe.scores[0])


def test_a_text_without_repetition_says_why_there_is_no_induction() -> None:
    at = open_page("attention", prompt="One two three", attention_section="Every head")
    assert "none of its tokens stands in it twice" in texts(at)
    one = open_page("attention", prompt="a", attention_section="Every head", attention_measure="entropy")
    assert "one token only" in texts(one)


def test_summaries_are_the_cores(trace: Trace, bundled: LanguageModel) -> None:
    at = open_page("attention", prompt=PROMPT, attention_section="Summaries", attention_heads="5.4, 0.0-1")
    found = np.nan_to_num(numbers(chart(at, "attention_summary_map")["data"][0]["z"]))
    maps = [
        attention_maps(trace, layer=layer, heads=[head]).weights[0]
        for layer, head in ((5, 4), (0, 0), (0, 1))
    ]
    np.testing.assert_allclose(found, np.mean(maps, axis=0), atol=1e-6)
    at.text_input(key="attention_heads").set_value("9.9")
    settle(at.run())
    assert errors(at) == []
    assert "A layer must be a whole number from 0 to 5" in texts(at)
    for weighted, kind in enumerate(("rollout", "value-weighted rollout")):
        rolled = open_page("attention", prompt=PROMPT, attention_section="Summaries", attention_summary=kind)
        found = np.nan_to_num(numbers(chart(rolled, "attention_summary_map")["data"][0]["z"]))
        expected = roll_out(bundled, trace, value_weighted=bool(weighted)).weights
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert (
            f"{kind} of 36 heads"
            in chart(rolled, "attention_summary_map")["layout"]["xaxis2"]["title"]["text"]
        )


def test_the_prompt_is_continued_on_request_alone() -> None:
    at = open_page("attention", prompt=PROMPT, attention_new_tokens="5", attention_decoding="Greedy")
    n_tokens = 12
    assert numbers(chart(at, "attention_map")["data"][0]["z"]).shape == (n_tokens, n_tokens)
    at.button(key="attention_continue").click()
    settle(at.run())
    assert errors(at) == []
    figure = chart(at, "attention_map")
    assert numbers(figure["data"][0]["z"]).shape == (17, 17)
    dashed = [shape for shape in figure["layout"]["shapes"] if shape["line"].get("dash") == "dash"]
    assert {shape["x0"] for shape in dashed} == {n_tokens - 0.5, -0.5}
    at.button(key="attention_prompt_alone").click()
    settle(at.run())
    assert numbers(chart(at, "attention_map")["data"][0]["z"]).shape == (n_tokens, n_tokens)
    assert not [s for s in chart(at, "attention_map")["layout"]["shapes"] if s["line"].get("dash") == "dash"]


def test_two_prompts_are_compared_where_they_align(bundled: LanguageModel) -> None:
    other = PROMPT.replace("mat", "dog")
    at = open_page(
        "attention",
        prompt=PROMPT,
        attention_section="Compare",
        attention_other_prompt=other,
        attention_layer="2",
        attention_head="3",
    )
    assert "until you press Compare" in texts(at)
    compare(at)
    found = np.nan_to_num(numbers(chart(at, "attention_compare_difference")["data"][0]["z"]))
    one, two = (
        attention_maps(trace_text(bundled, text), layer=2, heads=[3]).weights[0] for text in (PROMPT, other)
    )
    np.testing.assert_allclose(found, two - one, atol=1e-6)
    assert np.abs(found).max() > 0
    # Blue, at the upper end of the colours, is where the other pays more.
    figure = chart(at, "attention_compare_difference")
    assert "Blue: the other pays more. Red: this pays more." in texts(at)
    low, high = (colour for _, colour in (figure["data"][0]["colorscale"][end] for end in (0, -1)))
    assert channels(high)[2] > channels(high)[0]
    assert channels(low)[0] > channels(low)[2]
    assert figure["data"][0]["zmax"] == pytest.approx(np.abs(found).max())
    note = html.unescape(figure["layout"]["xaxis2"]["title"]["text"]).replace("<br>", " ")
    assert "difference, layer 2, head 3: the other less this<" in note
    assert f"the other: “{other}”, bundled:small-gpt2@" in note
    assert f"this: “{PROMPT}”, bundled:small-gpt2@" in note
    at.text_area(key="attention_other_prompt").set_value(PROMPT + " a")
    settle(at.run())
    assert "until you press Compare" in texts(at)
    compare(at)
    assert "the same number of tokens" in texts(at)
    assert "12 and 13" in texts(at)


def compare(at: AppTest) -> None:
    at.button(key="attention_compare_start").click()
    settle(at.run())
    assert errors(at) == []


def test_a_full_context_is_compared_in_the_windows_chosen() -> None:
    at = open_page(
        "attention",
        prompt=" a" * 512,
        attention_section="Compare",
        attention_other_prompt=" a" * 511 + " b",
        attention_rows="500-511",
        attention_keys="400-509",
    )
    compare(at)
    found = numbers(chart(at, "attention_compare_difference")["data"][0]["z"])
    assert found.shape == (12, 110)
    assert np.nanmax(np.abs(found[:11])) == 0  # the texts differ in the last token only
    assert np.abs(found[11]).max() > 0
    at.slider(key="attention_rows").set_value((0, 511))
    settle(at.run())
    assert errors(at) == []
    assert numbers(chart(at, "attention_compare_difference")["data"][0]["z"]).shape == (512, 110)


def test_two_models_are_compared_where_they_align(tiny_llama: Path) -> None:
    at = open_page(
        "attention",
        prompt=PROMPT,
        **ANOTHER_MODEL,
    )
    compare(at)
    assert numbers(chart(at, "attention_compare_difference")["data"][0]["z"]).shape == (12, 12)
    note = chart(at, "attention_compare_difference")["layout"]["xaxis2"]["title"]["text"]
    assert "the other: local:tiny-llama@" in note
    assert "this: bundled:small-gpt2@" in note
    # Each map is its own model's.
    for side, folder in (("this", BUNDLED_FOLDER), ("other", tiny_llama)):
        found = np.nan_to_num(numbers(chart(at, f"attention_compare_{side}")["data"][0]["z"]))
        np.testing.assert_allclose(found, eager_map(folder, PROMPT, layer=1, head=1), atol=1e-5)
    assert not np.allclose(
        eager_map(BUNDLED_FOLDER, PROMPT, layer=1, head=1),
        eager_map(tiny_llama, PROMPT, layer=1, head=1),
        atol=0.01,
    )
    at.selectbox(key="attention_layer").select(5)
    settle(at.run())
    assert errors(at) == []
    assert "The other model has layers 0–2 and heads 0–3. Chosen: layer 5, head 1." in texts(at)


def eager_map(folder: Path, text: str, *, layer: int, head: int) -> np.ndarray:
    """`(n_tokens, n_tokens)` by plain transformers."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.inference_mode():
        output = network.eval()(**tokenizer(text, return_tensors="pt"), output_attentions=True)
    weights: np.ndarray = output.attentions[layer][0, head].numpy()
    return weights


@pytest.mark.parametrize("aligned", [True, False])
def test_generated_tokens_are_compared_where_they_mean_the_same_in_the_other_model(
    tiny_llama: Path, aligned: bool
) -> None:
    if not aligned:  # the same pieces, and so as many tokens, under other numbers
        file = tiny_llama / "tokenizer.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        pieces = content["model"]["vocab"]
        content["model"]["vocab"] = {
            piece: number if number >= 50256 else (number + 1) % 50256 for piece, number in pieces.items()
        }
        file.write_text(json.dumps(content), encoding="utf-8")
    at = continued(
        **ANOTHER_MODEL,
    )
    compare(at)
    said = "The generated tokens are other tokens in the other model"
    assert (said in texts(at)) != aligned
    if aligned:
        for name in ("this", "other", "difference"):
            figure = chart(at, f"attention_compare_{name}")
            assert numbers(figure["data"][0]["z"]).shape == (17, 17)
            assert dashed(figure) == {(11.5, -0.5), (-0.5, 11.5)}


def test_the_boundary_is_drawn_beside_another_prompt() -> None:
    at = continued(attention_section="Compare", attention_other_prompt="The" + " cat" * 16)
    compare(at)
    for name, drawn in (("this", True), ("other", False), ("difference", True)):
        assert bool(dashed(chart(at, f"attention_compare_{name}"))) == drawn


def test_what_is_taken_away_is_of_the_whole_text(
    bundled: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr(
        "dashboard.components.head_grid.download_grid", lambda *given, **_: made.update(text=given[3])
    )
    monkeypatch.setattr(
        "dashboard.components.explain.show_sources", lambda *_, snippet, **__: made.update(code=snippet())
    )
    at = continued(attention_section="Numbers")
    assert errors(at) == []
    steps = at.session_state["_job_attention_continuation"].status.items
    ids = (*trace_text(bundled, PROMPT).token_ids, *(step.token_id for _, step in steps))
    assert made["text"] == decode_ids(bundled, ids).text
    assert len(made["text"]) > len(PROMPT)
    assert str(list(ids)) in made["code"]


def test_a_file_is_made_on_request_and_its_size_is_said(trace: Trace) -> None:
    at = open_page("attention", prompt=PROMPT, attention_section="Numbers", attention_file_what="all layers")
    assert "36 maps of 12 × 12" in texts(at)
    assert "_job_attention_file" not in at.session_state
    at.button(key="attention_file_make").click()
    settle(at.run())
    assert errors(at) == []
    file = np.load(io.BytesIO(at.session_state["_job_attention_file"].status.result))
    assert np.array_equal(file["layer_3"][2], attention_maps(trace, layer=3, heads=[2]).weights[0])
    full = open_page(
        "attention",
        prompt=" a" * 512,
        attention_section="Numbers",
        attention_file_what="all layers",
        attention_file_kind="csv",
    )
    assert "what a spreadsheet reads" in texts(full)
    assert not [button for button in full.button if button.key == "attention_file_make"]


def bertviz_pages(at: AppTest) -> list[str]:
    """BertViz's pages that are shown."""
    return [element.proto.srcdoc for element in at.get("iframe")]


def bertviz_parameters(page: str) -> dict[str, Any]:
    found: dict[str, Any] = json.JSONDecoder().raw_decode(page.split("const params = ")[1])[0]
    return found


def test_bertviz_shows_every_layer_where_that_is_small(trace: Trace) -> None:
    at = open_page("attention", prompt=PROMPT, attention_section="BertViz", attention_layer="4")
    assert "Model view of all layers: up to 0." in texts(at)
    at.segmented_control(key="attention_bertviz_view").select("Head view")
    settle(at.run())
    assert errors(at) == []
    assert "Head view of all layers: up to 0." in texts(at)
    (page,) = bertviz_pages(at)
    shown = bertviz_parameters(page)
    assert shown["layer"] == 4
    assert shown["include_layers"] == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(
        np.array(shown["attention"][0]["attn"]), all_attention_maps(trace), atol=0.0005 + 1e-6
    )


def test_a_large_bertviz_page_is_announced_and_drawn_after_a_click(
    bundled: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = " a" * 200
    at = open_page("attention", prompt=prompt, attention_section="BertViz", attention_layer="4")
    n_bytes = bertviz.estimated_bytes(6, 6, 200)
    assert f"Model view of all layers: up to {n_bytes / 1e6:,.1f} MB." in texts(at)
    assert at.toggle(key="attention_bertviz_large").label == f"Draw up to {n_bytes / 1e6:,.1f} MB"
    assert bertviz_pages(at) == []
    at.toggle(key="attention_bertviz_large").set_value(True)
    settle(at.run())
    (page,) = bertviz_pages(at)
    assert bertviz.FREE_BYTES * 0.4 < len(page.encode()) <= n_bytes
    # The head view of one layer is small enough to be drawn at once.
    at = open_page(
        "attention",
        prompt=prompt,
        attention_section="BertViz",
        attention_layer="4",
        attention_bertviz_view="Head view",
    )
    assert f"layer 4 alone, because all layers would take up to {n_bytes / 1e6:,.1f} MB: up to 1." in texts(
        at
    )
    (page,) = bertviz_pages(at)
    shown = bertviz_parameters(page)
    assert (shown["layer"], shown["include_layers"]) == (4, [4])
    np.testing.assert_allclose(
        np.array(shown["attention"][0]["attn"][0]),
        attention_maps(trace_text(bundled, prompt), layer=4).weights,
        atol=0.0005 + 1e-6,
    )
    monkeypatch.setattr(bertviz, "MAX_BYTES", n_bytes - 1)
    at = open_page("attention", prompt=prompt, attention_section="BertViz")
    assert "BertViz pages are drawn up to" in texts(at)
    assert bertviz_pages(at) == []
    assert not [toggle for toggle in at.toggle if toggle.key == "attention_bertviz_large"]


def test_maps_that_bertviz_cannot_be_given_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt_core.attention.MAX_MAP_BYTES", 4 * 6 * 13 * 13)  # one layer of 13 tokens
    at = open_page("attention", prompt=PROMPT + " red", attention_section="BertViz")
    assert errors(at) == []
    assert "Attention maps must take at most" in texts(at)


@pytest.mark.parametrize(
    "query",
    [
        {"attention_section": "<b>"},
        {"attention_hide_first": "2", "attention_scale": "cubic", "attention_key": "-1"},
        {"attention_rows": "9-3", "attention_keys": "x", "attention_picture": "exe"},
        {"attention_section": "Summaries", "attention_heads": "</script><b>", "attention_summary": "flow"},
        {"attention_section": "Every head", "attention_measure": "x", "attention_probe_tokens": "10000000"},
        {
            "attention_section": "Compare",
            "attention_other_model": "hub:x",
            "attention_compare": "another model",
        },
        {"attention_section": "Numbers", "attention_file_what": "everything", "attention_file_kind": "exe"},
        {"attention_new_tokens": "100000", "attention_decoding": "Beam"},
    ],
    ids=lambda query: next(iter(query)),
)
def test_bad_links_are_said(query: dict[str, str]) -> None:
    at = open_page("attention", prompt=" a" * 100, **query)
    assert errors(at) == []
    assert "<b>" not in texts(at)
