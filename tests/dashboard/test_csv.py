"""Downloaded tables hold the values that are on the screen, and nothing that a spreadsheet runs."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dashboard.components.csv import csv_bytes, neutralise_cell
from gpt_core.model import LanguageModel


def read(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))


@pytest.mark.parametrize("text", ["=1+1", "+1", "-2+3", "@SUM", "\tx", "\rx", '=HYPERLINK("http://x")', "-"])
def test_formulas_are_neutralised(text: str) -> None:
    assert neutralise_cell(text) == "'" + text
    assert read(csv_bytes(pd.DataFrame({"token": [text]})))[1] == ["'" + text]


@pytest.mark.parametrize("text", ["", "a", "1", "'=", " =1", "🙂", '"', "a,b", "a\nb"])
def test_other_texts_stay(text: str) -> None:
    assert neutralise_cell(text) == text


def test_header_too() -> None:
    frame = pd.DataFrame([[1.5, "a"]], columns=["=cmd", "@b"])
    assert read(csv_bytes(frame)) == [["'=cmd", "'@b"], ["1.5", "a"]]


def test_numbers_stay_numbers() -> None:
    frame = pd.DataFrame({"n": [-1, 2], "x": np.float32([-0.5, 0.25]), "t": ["-1", "b"]})
    assert read(csv_bytes(frame)) == [["n", "x", "t"], ["-1", "-0.5", "'-1"], ["2", "0.25", "b"]]


def test_every_token_of_gpt2(bundled: LanguageModel) -> None:
    pieces = list(bundled.tokenizer.get_vocab())
    rows = read(csv_bytes(pd.DataFrame({"token": pieces})))[1:]
    assert [
        row[0].removeprefix("'") if row[0] != p else p for row, p in zip(rows, pieces, strict=True)
    ] == pieces
    assert sum(row[0] != piece for row, piece in zip(rows, pieces, strict=True)) > 80


@settings(deadline=None)
@example(["\ud800", "=\udfff"])
@given(st.lists(st.text(st.characters(), min_size=1), min_size=1, max_size=5))
def test_any_text_comes_back(cells: list[str]) -> None:
    rows = read(csv_bytes(pd.DataFrame({"token": cells}, dtype=object)))[1:]
    clean = [cell.encode("utf-8", "replace").decode() for cell in cells]
    assert [row[0] for row in rows] == [neutralise_cell(cell) for cell in clean]
    assert not any(row[0].startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows)


def test_notes_stand_before_the_header_one_line_each() -> None:
    data = csv_bytes(pd.DataFrame({"token": ["a"]}), notes=("model: x\n=1+1", "dtype: float32")).decode(
        "utf-8-sig"
    )
    assert data.splitlines() == ["# model: x =1+1", "# dtype: float32", '"token"', '"a"']
