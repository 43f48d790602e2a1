"""The payloads of the head grid, what is believed of a choice, how layers stream, and the file to take away."""

import base64
import hashlib
import json
import re
import time
import tomllib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from dashboard.components.head_grid import HeadChoice, check_arrangement, check_choice
from dashboard.components.head_grid.page import COLOURS, head_grid_page, page_facts
from dashboard.components.head_grid.payload import GridMeasure, pack_cells, pack_frame, run_name, unpack
from gpt_core.attention_measures import MEASURE_NAMES
from gpt_core.control import Control
from gpt_core.errors import CancelledError, MemoryLimitError
from gpt_core.head_grid import LayerThumbnails
from gpt_core.model import LanguageModel
from gpt_core.tasks import MeasureHeadsTask
from tests.dashboard.pages import ROOT, errors, open_page, settle, texts

SHAPE = (3, 4, 10)


def make_layers(n_layers: int = 3, n_heads: int = 2, n_tokens: int = 4) -> list[LayerThumbnails]:
    rng = np.random.default_rng(0)
    n_cells = n_tokens * (n_tokens + 1) // 2
    return [
        LayerThumbnails(
            layer=layer,
            n_tokens=n_tokens,
            step=1,
            cells=rng.integers(0, 256, (n_heads, n_cells)).astype(np.uint8),
        )
        for layer in range(n_layers)
    ]


def make_frame(labels: list[str], measures: list[GridMeasure] | None = None, n_layers: int = 3) -> bytes:
    return pack_frame(labels, key="k", run="r", n_layers=n_layers, n_heads=2, step=1, measures=measures)


@settings(deadline=None)
@given(labels=st.lists(st.text(), min_size=1, max_size=8), n_measures=st.integers(0, 3))
def test_a_frame_comes_out_as_it_went_in(labels: list[str], n_measures: int) -> None:
    rng = np.random.default_rng(0)
    measures = [
        GridMeasure(
            name=f"m{i}",
            title=f"M {i} (bits)",
            definition=labels[0],
            values=rng.normal(size=(3, 2)).astype(np.float32),
        )
        for i in range(n_measures)
    ]
    text, numbers = unpack(make_frame(labels, measures))
    assert text["labels"] == labels
    assert text["n_tokens"] == len(labels)
    assert [(m["name"], m["title"]) for m in text["measures"]] == [(m.name, m.title) for m in measures]
    np.testing.assert_array_equal(
        numbers, np.concatenate([m.values.ravel() for m in measures] or [np.zeros(0)])
    )


def test_no_value_stays_no_value_and_a_surrogate_breaks_nothing() -> None:
    values = np.array([[np.nan, 1], [2, 3], [4, 5]], dtype=np.float64)
    text, numbers = unpack(
        make_frame(["\ud800"], [GridMeasure(name="a", title="A", definition="\ud800", values=values)])
    )
    assert text["labels"] == ["?"]
    assert np.isnan(numbers[0])
    assert numbers[1:].tolist() == [1, 2, 3, 4, 5]


def test_a_measure_of_another_shape_is_refused() -> None:
    with pytest.raises(AssertionError):
        make_frame(["a"], [GridMeasure(name="a", title="A", definition="", values=np.zeros((2, 3)))])


def test_cells_come_out_as_they_went_in() -> None:
    layers = make_layers()
    text, cells = unpack(pack_cells(layers[1:], key="k", run="r"))
    assert (text["layer"], text["n_layers"], text["n_heads"], text["side"]) == (1, 2, 2, 4)
    np.testing.assert_array_equal(cells.reshape(2, 2, 10), np.stack([layer.cells for layer in layers[1:]]))
    with pytest.raises(AssertionError):
        pack_cells([layers[0], layers[2]], key="k", run="r")
    with pytest.raises(ValueError, match="begins with"):
        unpack(b"TKS1" + bytes(8))


def test_another_text_or_model_is_another_run() -> None:
    names = {run_name("m", (1, 2)), run_name("m", (12,)), run_name("m", (2, 1)), run_name("n", (1, 2))}
    assert len(names) == 4
    assert run_name("m", [1, 2]) == run_name("m", (1, 2))


@pytest.mark.parametrize(
    "value",
    [
        {"layer": 0, "head": 0},
        {"layer": 2, "head": 3},
        {"layer": 2, "head": 3, "query": 9, "key": 9},
        {"layer": 2, "head": 3, "query": 9, "key": 0},
    ],
)
def test_a_head_and_a_cell_are_believed(value: dict[str, int]) -> None:
    assert check_choice(value, *SHAPE) == HeadChoice(**value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        3,
        "layer",
        [0, 0],
        {},
        {"layer": 0},
        {"layer": 3, "head": 0},
        {"layer": 0, "head": 4},
        {"layer": -1, "head": 0},
        {"layer": 0.0, "head": 0},
        {"layer": True, "head": 0},
        {"layer": "0", "head": 0},
        {"layer": None, "head": 0},
        {"layer": 0, "head": [0]},
        {"layer": 10**400, "head": 0},
        {"layer": float("nan"), "head": 0},
        {"layer": 0, "head": 0, "query": 1},
        {"layer": 0, "head": 0, "query": 1, "key": 2},
        {"layer": 0, "head": 0, "query": 10, "key": 2},
        {"layer": 0, "head": 0, "query": 1, "key": None},
        {"layer": 0, "head": 0, "query": 1, "key": 0, "more": 1},
        {"layer": 0, "head": 0, "</script>": 1},
    ],
)
def test_forged_choices_are_not(value: object) -> None:
    assert check_choice(value, *SHAPE) is None


def test_an_arrangement_is_believed() -> None:
    for value in ({"measure": "a", "order": "highest"}, {"measure": "none", "order": "layers"}):
        assert check_arrangement(value, ["a", "b"]) == value


@pytest.mark.parametrize(
    "value",
    [
        None,
        "a",
        {},
        {"measure": "a"},
        {"measure": "c", "order": "highest"},
        {"measure": "a", "order": "</script>"},
        {"measure": None, "order": "layers"},
        {"measure": ["a"], "order": "layers"},
        {"measure": "a", "order": {"a": 1}},
        {"measure": "a", "order": "highest", "more": 1},
    ],
)
def test_forged_arrangements_are_not(value: object) -> None:
    assert check_arrangement(value, ["a", "b"]) is None


def test_a_link_restores_the_arrangement_and_a_bad_one_is_said() -> None:
    name = "entropy"
    at = open_page("attention", attention_grid_measure=name, attention_grid_order="lowest")
    assert errors(at) == []
    assert (at.session_state["attention_grid_measure"], at.session_state["attention_grid_order"]) == (
        name,
        "lowest",
    )
    at = open_page("attention", attention_grid_measure="<b>", attention_grid_order="up")
    assert errors(at) == []
    assert at.session_state["attention_grid_measure"] == "none"
    assert "The link asks for something else here." in texts(at)
    assert "Possible: layers, highest, lowest. Shown instead: layers." in texts(at)


@pytest.mark.parametrize("failed", [True, False])
def test_measures_that_do_not_come_are_said_and_can_be_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, failed: bool
) -> None:
    measured = MeasureHeadsTask.work

    def work(self: MeasureHeadsTask, lm: LanguageModel, control: Control) -> object:
        if failed:
            raise MemoryLimitError("There is no room for measures. Shorten the text.")
        raise CancelledError("Stopped.")

    monkeypatch.setattr(MeasureHeadsTask, "work", work)
    at = open_page("attention", prompt="No room for these measures." if failed else "Stopped measures.")
    deadline = time.monotonic() + 30
    while not [b for b in at.button if b.key == "attention_grid_retry"] and time.monotonic() < deadline:
        time.sleep(0.05)
        at.run()
    assert errors(at) == []
    said = "There is no room for measures." if failed else "The measures of the heads were stopped"
    assert said in texts(at)
    monkeypatch.setattr(MeasureHeadsTask, "work", measured)
    at.button(key="attention_grid_retry").click().run()
    while not measures_in(at) and time.monotonic() < deadline:
        time.sleep(0.05)
        at.run()
    assert said not in texts(at)
    assert measures_in(at) == list(MEASURE_NAMES)


def measures_in(at: AppTest) -> list[str]:
    """Names of the measures that the grid was given."""
    (payload,) = (
        element.proto.bytes for element in at.get("bidi_component") if element.proto.bytes.startswith(b"HGF1")
    )
    return [measure["name"] for measure in unpack(payload)[0]["measures"]]


def test_the_page_shows_all_heads_and_one_token_works(bundled: LanguageModel) -> None:
    for prompt in ("The cat sat on the mat.", "a"):
        at = open_page("attention", prompt=prompt)
        assert errors(at) == []
        assert "All heads" in [element.value for element in at.subheader]
        stream = at.session_state["_stream_attention_grid"]
        deadline = time.monotonic() + 30
        while not stream.ended and time.monotonic() < deadline:
            time.sleep(0.05)
            at.run()
        assert stream.sent == bundled.geometry.n_layers
        assert stream.error is None


def test_another_prompt_is_another_stream_and_a_picker_is_none() -> None:
    at = open_page("attention", prompt="The cat sat.")
    stream = at.session_state["_stream_attention_grid"]
    at.selectbox(key="attention_head").select(2).run()
    assert at.session_state["_stream_attention_grid"] is stream
    at.text_area(key="prompt").set_value("The dog ran.").run()
    settle(at)
    assert errors(at) == []
    assert at.session_state["_stream_attention_grid"] is not stream


def selection(at: AppTest) -> dict[str, Any]:
    """What the grid was told of the head and the cell that the page shows."""
    said = [json.loads(element.proto.json) for element in at.get("bidi_component") if element.proto.json]
    (found,) = (one for one in said if one.get("grid") == "attention_grid")
    return dict(found)


def test_a_cell_of_a_longer_text_is_not_marked() -> None:
    at = open_page("attention", prompt="One two three four five", attention_query="4", attention_key="3")
    settle(at.run())  # the grid stands above the fields that take a link's cell
    assert (selection(at)["query"], selection(at)["key"]) == (4, 3)
    at.text_area(key="prompt").set_value("The cat").run()
    assert errors(at) == []
    assert (selection(at)["layer"], selection(at)["query"], selection(at)["key"]) == (5, None, None)
    # The fields under the grid have taken a cell of the shorter text meanwhile.
    settle(at.run())
    assert (selection(at)["query"], selection(at)["key"]) == (1, 0)


# The file to take away

HOSTILE = "</script><img src=x onerror=window.__pwned=1><!-- ' \" & \u2028 \ud800"


def make_page() -> str:
    frame = make_frame([HOSTILE, "b", "c", "d"])
    cells = pack_cells(make_layers(), key="k", run="r")
    return head_grid_page(frame, [cells], text=HOSTILE, facts={"Model": HOSTILE}, title=HOSTILE)


def test_the_file_lets_only_its_own_script_run_and_fetches_nothing() -> None:
    page = make_page()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    script = re.search(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert policy[1] == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert page.count("<script") == 1
    assert not re.search(r"https?:|src=[^x]|@import|url\(", page.replace(script[1], ""))


def test_text_stays_text_in_the_file() -> None:
    page = make_page()
    assert "<img" not in page
    assert page.count("&lt;/script&gt;&lt;img src=x onerror=window.__pwned=1&gt;") == 4
    assert page.encode()  # no lone surrogate


def test_the_file_holds_the_same_bytes() -> None:
    frame, cells = make_frame(["a", "b", "c", "d"]), pack_cells(make_layers(), key="k", run="r")
    page = head_grid_page(frame, [cells], text="", facts={})
    held = [base64.b64decode(text) for text in re.findall(r"<template[^>]*>([^<]*)<", page)]
    assert held == [frame, cells]


def test_the_file_says_what_made_it() -> None:
    facts = page_facts("bundled:small-gpt2@0123456789ab")
    assert facts["Model"] == "bundled:small-gpt2"
    assert facts["Revision"] == "0123456789ab"
    assert "float32" in facts["Computed in"]
    for package in ("torch", "transformers", "gpt-dashboard"):
        assert re.search(rf"{package} \d", facts["Versions"])


def test_the_colours_of_the_file_are_those_of_the_themes() -> None:
    theme = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))["theme"]
    for name, colours in COLOURS.items():
        for variable, colour in colours.items():
            first, *rest = variable.split("-")
            assert colour == theme[name][first + "".join(map(str.title, rest))], (name, variable)
