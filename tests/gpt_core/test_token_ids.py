"""Ids pasted, text returned."""

import numpy as np
import pytest

from gpt_core.errors import InputError
from gpt_core.model import LanguageModel
from gpt_core.token_ids import decode_ids, parse_ids


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("15496, 2159 13", (15496, 2159, 13)),
        ("[15496, 2159, 13]", (15496, 2159, 13)),
        ("[[15496, 2159, 13]]", (15496, 2159, 13)),
        (" 1\n2\t3;4 ", (1, 2, 3, 4)),
        ("", ()),
        ("  \n", ()),
        ("[]", ()),
        ("007", (7,)),
    ],
)
def test_ids_are_read(text: str, ids: tuple[int, ...]) -> None:
    assert parse_ids(text) == ids


@pytest.mark.parametrize(
    "text",
    [
        "Hello",
        "1.5",
        "-1",
        "1e5",
        "[1, 2",
        "[1.5]",
        "[true]",
        "[null]",
        "[NaN]",
        "[[1], [2]]",
        "[" * 100_000,
        "9" * 5000,
        "[" + "9" * 5000 + "]",
        "١٢",
        '["a"]',
        "0x1F",
    ],
    ids=lambda text: text[:12],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="15496, 2159, 13"):
        parse_ids(text)


def test_at_most_the_limit() -> None:
    assert len(parse_ids("1 " * 10, limit=10)) == 10
    with pytest.raises(InputError, match=r"At most 10 .* Given: 11"):
        parse_ids("1 " * 11, limit=10)


def test_text_of_ids(bundled: LanguageModel) -> None:
    decoded = decode_ids(bundled, [15496, 2159, 13, 50256, 447])
    assert decoded.text == "Hello World.<|endoftext|>\ufffd"
    assert decoded.text == bundled.tokenizer.decode([15496, 2159, 13, 50256, 447])
    assert decoded.labels == ("Hello", "␣World", ".", "<|endoftext|>", "<E2 80>")
    assert decoded.token_bytes == (b"Hello", b" World", b".", b"<|endoftext|>", b"\xe2\x80")
    assert decoded.pieces == ("Hello", "ĠWorld", ".", "<|endoftext|>", "âĢ")
    assert decode_ids(bundled, []).text == ""
    assert decode_ids(bundled, np.array([13])).token_ids == (13,)  # type: ignore[arg-type]


@pytest.mark.parametrize("token_id", [-1, 50257, 10**12, True, 2.5, "5", None])
def test_ids_outside_the_vocabulary_are_refused(bundled: LanguageModel, token_id: object) -> None:
    with pytest.raises(InputError, match="from 0 to 50,256"):
        decode_ids(bundled, [13, token_id])  # type: ignore[list-item]
