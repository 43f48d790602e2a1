"""The payload of a token strip, and what is believed of a click."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from dashboard.components.token_strip import MAX_TOKENS, check_position, pack_tokens


def unpack(payload: bytes) -> tuple[dict[str, object], np.ndarray]:
    magic, n_text, n_values = struct.unpack("<4sII", payload[:12])
    assert magic == b"TKS1"
    start = 12 + n_text + (-n_text % 4)
    assert len(payload) == start + 4 * n_values
    return json.loads(payload[12 : 12 + n_text]), np.frombuffer(payload[start:], dtype="<f4")


@settings(deadline=None)
@given(labels=st.lists(st.text(), max_size=8), seed=st.integers(0, 9))
def test_what_is_packed_comes_out(labels: list[str], seed: int) -> None:
    values = np.random.default_rng(seed).random(len(labels)).astype(np.float32)
    payload = pack_tokens(
        labels, key="k", ids=range(len(labels)), values=values, scale="sequential", hover=labels
    )
    text, numbers = unpack(payload)
    assert text["labels"] == text["hover"] == labels
    assert text["ids"] == list(range(len(labels)))
    np.testing.assert_array_equal(numbers, values)


def test_no_value_stays_no_value() -> None:
    _, numbers = unpack(pack_tokens(["a", "b"], key="k", values=[np.nan, 0.5], scale="sequential"))
    assert np.isnan(numbers[0])
    assert numbers[1] == 0.5


def test_surrogates_do_not_break_it() -> None:
    text, _ = unpack(pack_tokens(["a"], key="k", hover=["\ud800"]))
    assert text["hover"] == ["?"]


def test_only_groups_of_several_tokens_say_what_they_are() -> None:
    text, _ = unpack(pack_tokens(["a", "<E2>", "<82>"], key="k", groups=[0, 1, 1], graphemes=["a", "\u202e"]))
    assert text["graphemes"] == {"1": "\\u202E"}


@pytest.mark.parametrize("part", ["ids", "groups", "hover", "values"])
def test_lengths_must_agree(part: str) -> None:
    with pytest.raises(AssertionError):
        pack_tokens(["a", "b"], key="k", **{part: [1]})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, 1, 2])
def test_positions_are_believed(value: int) -> None:
    assert check_position(value, 3) == value


@pytest.mark.parametrize(
    "value", [None, -1, 3, 10**30, True, 1.0, "1", [1], {"i": 1}, float("nan"), "</script>", [0] * 10**6]
)
def test_forged_clicks_are_not(value: object) -> None:
    assert check_position(value, 3) is None


def test_in_an_app_without_a_browser() -> None:
    def app() -> None:
        import streamlit as st

        from dashboard.components.token_strip import token_strip

        st.session_state["clicked"] = token_strip(
            ["a"] * 3, key="strip", values=[0, 0.5, 1], scale="sequential", selected=2
        )
        token_strip([], key="empty")
        token_strip(["x"] * 10_001, key="long")

    test = AppTest.from_function(app).run()
    assert not test.exception
    assert test.session_state["clicked"] is None
    assert [caption.value for caption in test.caption] == [
        f"The first {MAX_TOKENS:,} of 10,001 tokens are drawn."
    ]
    test.run()
    assert not test.exception
