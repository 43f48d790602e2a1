"""The Attention page through the router: its sections, what they refuse, and what stays closed."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from gpt_core.attention import attention_maps, without_first
from gpt_core.attention_measures import measure_heads
from gpt_core.attention_summaries import roll_out
from gpt_core.model import LanguageModel
from gpt_core.trace import Trace, trace_text
from tests.conftest import make_network
from tests.dashboard.pages import errors, open_page, settle, texts

pytestmark = pytest.mark.usefixtures("bundled")

PROMPT = "The cat sat on the mat. The cat sat on the"
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
    rolled = open_page("attention", prompt=PROMPT, attention_section="Summaries", attention_summary="rollout")
    found = np.nan_to_num(numbers(chart(rolled, "attention_summary_map")["data"][0]["z"]))
    np.testing.assert_allclose(found, roll_out(bundled, trace).weights, atol=1e-6)


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
    at.button(key="attention_compare_start").click()
    settle(at.run())
    assert errors(at) == []
    found = np.nan_to_num(numbers(chart(at, "attention_compare_difference")["data"][0]["z"]))
    one, two = (
        attention_maps(trace_text(bundled, text), layer=2, heads=[3]).weights[0] for text in (PROMPT, other)
    )
    np.testing.assert_allclose(found, two - one, atol=1e-6)
    assert np.abs(found).max() > 0
    at.text_area(key="attention_other_prompt").set_value(PROMPT + " a")
    settle(at.run())
    assert "until you press Compare" in texts(at)
    at.button(key="attention_compare_start").click()
    settle(at.run())
    assert errors(at) == []
    assert "the same number of tokens" in texts(at)
    assert "12 and 13" in texts(at)


def test_a_full_context_is_compared_in_the_windows_chosen() -> None:
    at = open_page(
        "attention",
        prompt=" a" * 512,
        attention_section="Compare",
        attention_other_prompt=" a" * 511 + " b",
        attention_rows="500-511",
        attention_keys="400-509",
    )
    at.button(key="attention_compare_start").click()
    settle(at.run())
    assert errors(at) == []
    found = numbers(chart(at, "attention_compare_difference")["data"][0]["z"])
    assert found.shape == (12, 110)
    assert np.nanmax(np.abs(found[:11])) == 0  # the texts differ in the last token only
    assert np.abs(found[11]).max() > 0
    at.slider(key="attention_rows").set_value((0, 511))
    settle(at.run())
    assert errors(at) == []
    assert numbers(chart(at, "attention_compare_difference")["data"][0]["z"]).shape == (512, 110)


def test_two_models_are_compared_where_they_align(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpt2_tokenizer: Any
) -> None:
    make_network("llama").save_pretrained(tmp_path / "tiny-llama")
    gpt2_tokenizer.save_pretrained(tmp_path / "tiny-llama")
    monkeypatch.setenv("GPT_CORE_MODELS", str(tmp_path))
    at = open_page(
        "attention",
        prompt=PROMPT,
        attention_section="Compare",
        attention_compare="another model",
        attention_layer="1",
        attention_head="1",
    )
    at.button(key="attention_compare_start").click()
    settle(at.run())
    assert errors(at) == []
    assert numbers(chart(at, "attention_compare_difference")["data"][0]["z"]).shape == (12, 12)
    at.selectbox(key="attention_layer").select(5)
    settle(at.run())
    assert errors(at) == []
    assert "The other model has layers 0–2 and heads 0–3. Chosen: layer 5, head 1." in texts(at)


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
