"""The Predictions page without a browser: what it computes and when, what it says, and what its link restores."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from dashboard import cache
from dashboard.components.stage_row import check_ask, row_payload
from gpt_core import trace
from gpt_core.decoding import STAGES, SamplingSettings
from gpt_core.model import LanguageModel
from gpt_core.sampling import apply_stages, cumulative_curve
from tests.dashboard.pages import errors, figure, open_page, settle, texts

TEXT = "Once upon a time, there was a little girl"


@pytest.fixture
def passes(bundled: LanguageModel) -> Iterator[list[int]]:
    """Length of each pass through the first block."""
    seen: list[int] = []
    handle = bundled.anatomy.blocks[0].register_forward_hook(
        lambda block, args, output: seen.append(output.shape[1])
    )
    trace._traces.clear()
    yield seen
    handle.remove()


def test_settings_stages_and_looks_run_no_model(passes: list[int]) -> None:
    at = open_page("predictions", prompt=TEXT)
    n_tokens = passes[0]
    assert len(passes) == 1
    for stage, value in (
        ("temperature", 0.5),
        ("top_k", 7),
        ("top_p", 0.5),
        ("min_p", 0.1),
        ("typical_p", 0.5),
    ):
        at.slider(key=f"predictions_{stage}").set_value(value).run()
    for stage, value in (("presence_penalty", 0.5), ("frequency_penalty", 0.5), ("repetition_penalty", 1.5)):
        at.slider(key=f"predictions_{stage}").set_value(value).run()
    at.session_state["predictions_order"] = STAGES[::-1]
    at.run()
    assert "Not the order of" in texts(at)
    for look in ("Logit lens", "Who said so?", "Ablate and see", "Which words mattered?"):
        at.segmented_control(key="predictions_view").set_value(look)
        settle(at.run())
        assert errors(at) == []
    assert passes == [n_tokens]
    # What needs passes of its own waits for a click.
    at.button(key="predictions_measure").click()
    settle(at.run())
    assert errors(at) == []
    assert passes == [n_tokens, n_tokens]


def test_a_link_restores_the_stages(bundled: LanguageModel) -> None:
    order = ",".join(("top_p", *(stage for stage in STAGES if stage != "top_p")))
    at = open_page(
        "predictions",
        prompt=TEXT,
        predictions_order=order,
        predictions_off="top_k,min_p",
        predictions_top_k="3",
        predictions_top_p="0.8",
        predictions_logit_bias="262:-5_11:2.5",
        predictions_typical_p="0.9",
    )
    assert errors(at) == []
    shape = SamplingSettings(
        order=tuple(order.split(",")),
        switched_off=("top_k", "min_p"),
        top_k=3,
        top_p=0.8,
        typical_p=0.9,
        logit_bias=((262, -5.0), (11, 2.5)),
    )
    ids = tuple(bundled.tokenizer(TEXT)["input_ids"])
    with torch.inference_mode():
        logits = bundled.network(torch.tensor([ids])).logits[0, -1].numpy().copy()
    expected = apply_stages(logits, ids, shape)
    own, after = figure(at)["data"]
    shown = [row[1] for row in after["customdata"]]
    np.testing.assert_allclose(_numbers(after["x"]), expected.probs[shown], atol=1e-5)
    np.testing.assert_allclose(_numbers(own["x"]), expected.model_probs[shown], atol=1e-5)
    assert _written(at, "predictions_order") == order
    assert _written(at, "predictions_off") == "top_k,min_p"
    assert _written(at, "predictions_logit_bias") == "11:2.5_262:-5"
    at.button(key="predictions_sampling_reset").click()
    at.run()
    assert "In the order of" in texts(at)
    assert "predictions_off" not in at.query_params
    own, after = figure(at)["data"]
    assert _numbers(own["x"]) == _numbers(after["x"])


def _written(at: AppTest, key: str) -> str:
    """What the address says; AppTest gives a list or a text."""
    value = at.query_params[key]
    return value if isinstance(value, str) else value[-1]


def _numbers(values: object) -> list[float]:
    import base64

    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"]).tolist()
    assert isinstance(values, list)
    return values


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("predictions_order", "top_k"),
        ("predictions_off", "nothing"),
        ("predictions_logit_bias", "262:500"),
        ("predictions_logit_bias", "abc"),
        ("predictions_logit_bias", "99999:1"),
        ("predictions_fate", "99999999"),
        ("predictions_fate", "-1"),
        ("predictions_view", "<b>"),
        ("predictions_parts", "99.1"),
        ("predictions_kind", "noise"),
    ],
)
def test_a_bad_link_is_said_or_left(name: str, value: str) -> None:
    at = open_page("predictions", prompt=TEXT, **{"predictions_view": "Ablate and see", name: value})
    assert errors(at) == []


def test_why_a_token_is_gone(bundled: LanguageModel) -> None:
    at = open_page("predictions", prompt=TEXT, predictions_top_k="1", predictions_fate="50000")
    assert errors(at) == []
    assert "Top-k 1: its logit" in texts(at)
    again = open_page("predictions", prompt=TEXT, predictions_fate="no number")
    assert "The link asks for" in texts(again)


@pytest.mark.parametrize(
    ("typed", "piece"),
    [(" time", "Ġtime"), ("time", "time"), ("girl", "girl"), ("Ġgirl", "Ġgirl"), ("#640", "Ġtime")],
)
def test_a_token_is_found_by_what_a_reader_types(bundled: LanguageModel, typed: str, piece: str) -> None:
    token_id = cache.token_by_text(str(bundled.model_id), typed)
    assert bundled.tokenizer.convert_ids_to_tokens(token_id) == piece


@pytest.mark.parametrize("typed", ["no such token at all", "#50257", "#999999999999", "#-1", "#²"])
def test_what_is_no_token(bundled: LanguageModel, typed: str) -> None:
    assert cache.token_by_text(str(bundled.model_id), typed) is None


def test_parts_are_replaced_on_a_click_and_compared(passes: list[int], bundled: LanguageModel) -> None:
    at = open_page(
        "predictions",
        prompt=TEXT,
        predictions_view="Ablate and see",
        predictions_parts="0.1_2.mlp",
        predictions_kind="mean",
    )
    assert len(passes) == 1
    assert at.multiselect(key="predictions_parts").value == ["0.1", "2.mlp"]
    at.button(key="predictions_ablate").click()
    settle(at.run())
    assert errors(at) == []
    assert len(passes) == 3  # the reference text, and the text with the parts replaced
    assert "a day at the market" in texts(at)
    assert "bits. 0 would mean that nothing changed" in texts(at)
    at.selectbox(key="predictions_position").select(3)
    settle(at.run())
    assert "as it is, after position 3:" in texts(at)
    assert len(passes) == 3  # looking at another position runs nothing again
    at.button(key="predictions_ablate_continue").click()
    settle(at.run())
    assert errors(at) == []
    assert "With parts replaced, always the most probable token" in texts(at)
    # Another reader's page of the same text is that of the model as it is.
    n_passes = len(passes)
    other = open_page("predictions", prompt=TEXT)
    assert errors(other) == []
    assert len(passes) == n_passes
    with torch.inference_mode():
        logits = bundled.network(torch.tensor([bundled.tokenizer(TEXT)["input_ids"]])).logits[0, -1]
    own = figure(other)["data"][0]
    np.testing.assert_allclose(_numbers(own["x"]), logits.double().softmax(-1).topk(15).values, atol=1e-5)


def test_a_second_prompt_of_another_length_is_refused() -> None:
    at = open_page(
        "predictions",
        prompt=TEXT,
        predictions_view="Ablate and see",
        predictions_parts="0.1",
        predictions_kind="patch",
        predictions_source="Too short",
    )
    assert errors(at) == []
    assert "The second prompt has 2 tokens and must have 10" in texts(at)
    at.text_input(key="predictions_source").set_value("Once upon a time, there was a little boy")
    at.run()
    at.button(key="predictions_ablate").click()
    settle(at.run())
    assert errors(at) == []
    assert "0 would mean that nothing changed" in texts(at)


def test_all_heads_of_a_layer_and_tokens_to_follow_are_in_the_link() -> None:
    at = open_page(
        "predictions",
        prompt=TEXT,
        predictions_view="Ablate and see",
        predictions_parts="1.*_2.mlp",
        predictions_position="3",
    )
    assert at.multiselect(key="predictions_parts").value == ["1.*", "2.mlp"]
    assert _written(at, "predictions_parts") == "1.*_2.mlp"
    lens = open_page("predictions", prompt=TEXT, predictions_view="Logit lens", predictions_followed="11-262")
    assert errors(lens) == []
    names = [line["name"] for line in figure(lens, 2)["data"]]
    assert names == [",", "␣the"]
    assert _written(lens, "predictions_followed") == "11-262"
    first = open_page("predictions", prompt=TEXT, predictions_view="Logit lens", predictions_followed="x-1")
    assert errors(first) == []
    assert len(figure(first, 2)["data"]) == 4


def test_contributions_add_up_on_the_page() -> None:
    at = open_page("predictions", prompt=TEXT, predictions_view="Who said so?", predictions_versus="262")
    assert errors(at) == []
    (line,) = (element.value for element in at.text if "The model's own number" in element.value)
    total = float(line.split("together ")[1].split(". The")[0])
    own = float(line.split("own number: ")[1].rstrip("."))
    assert total == pytest.approx(own, abs=2e-4)
    assert figure(at, 1)["data"][0]["type"] == "heatmap"


@pytest.mark.parametrize("look", ["Every position", "Logit lens", "Who said so?", "Which words mattered?"])
@pytest.mark.parametrize("prompt", ["Once", "word " * 512])
def test_one_token_and_a_full_context(look: str, prompt: str) -> None:
    at = open_page("predictions", prompt=prompt.strip(), predictions_view=look)
    assert errors(at) == []


# -- the row of stages -------------------------------------------------------------------------------------------------


def test_the_row_carries_what_the_stages_did() -> None:
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1])).astype(np.float32)
    result = apply_stages(logits, [0], SamplingSettings(temperature=0.5, top_p=0.6, switched_off=("top_k",)))
    row = row_payload(
        result,
        token_ids=[0, 1, 2],
        labels=["a", "<b>", "c"],
        curves={"top_p": cumulative_curve(result, "top_p")},
    )
    assert row["tokens"] == ["a", "<b>", "c"]
    assert [card["name"] for card in row["cards"]] == list(STAGES)
    top_p = row["cards"][STAGES.index("top_p")]
    heated = np.array([16, 9, 4]) / 30
    np.testing.assert_allclose(top_p["before"], heated, atol=1e-5)
    np.testing.assert_allclose(top_p["after"], [16 / 25, 9 / 25, 0], atol=1e-5)
    assert top_p["gone"] == [False, False, True]
    assert (top_p["n_before"], top_p["n_after"]) == (4, 2)
    assert top_p["mass"] == pytest.approx(5 / 30)
    assert top_p["curve"]["cut"] == 2
    assert top_p["curve"]["kept"] == pytest.approx(25 / 30)
    assert row["cards"][STAGES.index("top_k")]["off"]


@pytest.mark.parametrize(
    "sent",
    [
        None,
        3,
        "top_k",
        {"stage": "top_k"},
        {"stage": "x", "action": "switch"},
        {"stage": [], "action": {}},
        {"stage": "top_k", "action": "remove"},
    ],
    ids=str,
)
def test_what_is_no_request_is_ignored(sent: object) -> None:
    assert check_ask(sent) is None


def test_a_request() -> None:
    assert check_ask({"stage": "top_k", "action": "switch"}) == ("top_k", "switch")
