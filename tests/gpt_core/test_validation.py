"""What is out of bounds is refused, by name, with the bound and the value; nothing is clamped."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_core.errors import InputError
from gpt_core.validation import MAX_CHARACTERS, check_integer, check_number, check_text

NO_NUMBERS = [None, True, False, np.bool_(True), "1", b"1", [1], (), {}, 1j, Decimal(1), object()]


def name_of(value: Any) -> str:
    return type(value).__name__  # pytest cannot write out integers of 5,000 digits


anything = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.text(),
    st.none(),
    st.fractions(),
    st.complex_numbers(),
    st.lists(st.integers(), max_size=3),
)


@pytest.mark.parametrize("value", [1, 100, np.int64(7), np.uint8(7)])
def test_a_whole_number_in_the_range_is_an_int(value: Any) -> None:
    assert type(check_integer("top_k", value, low=1, high=100)) is int
    assert check_integer("top_k", value, low=1, high=100) == value


@pytest.mark.parametrize(
    "value",
    [*NO_NUMBERS, 0, 101, -1, 10**400, -(10**5000), 1.0, 1.5, math.nan, math.inf, Fraction(3, 2)],
    ids=name_of,
)
def test_what_is_no_whole_number_in_the_range_is_refused(value: Any) -> None:
    with pytest.raises(
        InputError, match=r"`top_k` must be a whole number from 1 to 100\. Given: .+\. Less\."
    ) as e:
        check_integer("top_k", value, low=1, high=100, remedy="Less.")
    assert len(str(e.value)) < 200


@pytest.mark.parametrize("value", [0, 0.0, 2, 1.5, np.float32(0.5), np.int16(1), Fraction(1, 3)])
def test_a_number_in_the_range_is_a_float(value: Any) -> None:
    number = check_number("top_p", value, low=0, high=2)
    assert type(number) is float
    assert number == float(value)


@pytest.mark.parametrize(
    "value",
    [
        *NO_NUMBERS,
        math.nan,
        math.inf,
        -math.inf,
        np.float32("nan"),
        -0.001,
        2.001,
        10**400,
        -(10**5000),
        5e-324 - 1,
    ],
    ids=name_of,
)
def test_what_is_no_number_in_the_range_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"`top_p` must be a number from 0 to 2\. Given: .+\. More\.") as e:
        check_number("top_p", value, low=0, high=2, remedy="More.")
    assert len(str(e.value)) < 200


def test_an_open_bound_is_not_reached() -> None:
    with pytest.raises(InputError, match=r"above 0 and at most 2\. Given: 0\.0\."):
        check_number("temperature", 0.0, low=0, high=2, low_open=True)
    assert check_number("temperature", 5e-324, low=0, high=2, low_open=True) == 5e-324
    assert check_number("temperature", 2, low=0, high=2, low_open=True) == 2.0


def test_a_message_writes_bounds_for_people() -> None:
    with pytest.raises(InputError) as e:
        check_integer("seed", -1, low=0, high=1_000_000)
    assert str(e.value) == "`seed` must be a whole number from 0 to 1,000,000. Given: -1."


def test_a_value_too_long_to_show_is_cut() -> None:
    with pytest.raises(InputError, match=r"Given: 'x{56}\.\.\.\."):
        check_integer("seed", "x" * 10_000, low=0, high=1)


def test_a_number_too_long_to_write_is_described() -> None:
    with pytest.raises(InputError, match=r"Given: a number of 16,610 bits\."):
        check_integer("seed", 10**5000, low=0, high=1)
    with pytest.raises(InputError, match=r"Given: Fraction\."):
        check_integer("seed", Fraction(10**5000, 3), low=0, high=1)


@settings(derandomize=True, deadline=None)
@given(anything, st.integers(-5, 5), st.integers(0, 10))
def test_whatever_comes_is_an_integer_of_the_range_or_refused(value: Any, low: int, span: int) -> None:
    high = low + span
    if type(value) is int and low <= value <= high:
        checked = check_integer("n", value, low=low, high=high)
        assert (type(checked), checked) == (int, value)
    else:
        with pytest.raises(InputError, match=f"`n` must be a whole number from {low} to {high}. Given: "):
            check_integer("n", value, low=low, high=high)


@settings(derandomize=True, deadline=None)
@given(anything, st.floats(-5, 5), st.floats(0, 10), st.booleans())
def test_whatever_comes_is_a_number_of_the_range_or_refused(
    value: Any, low: float, span: float, low_open: bool
) -> None:
    high = low + span
    good = type(value) in (int, float, Fraction) and low <= value <= high
    if good and not (low_open and float(value) <= low):
        checked = check_number("x", value, low=low, high=high, low_open=low_open)
        assert (type(checked), checked) == (float, float(value))
    else:
        with pytest.raises(InputError, match="`x` must be a number "):
            check_number("x", value, low=low, high=high, low_open=low_open)


@pytest.mark.parametrize("text", ["", "a", "\0", "\ud800", "e\u0301" * 50_000, "x" * MAX_CHARACTERS])
def test_a_text_within_the_bound_is_unchanged(text: str) -> None:
    assert check_text(text) is text


def test_a_text_too_long_is_refused_with_both_numbers() -> None:
    with pytest.raises(InputError, match=r"at most 100,000 characters\. Given: 100,001\. Shorten"):
        check_text("x" * (MAX_CHARACTERS + 1))


@pytest.mark.parametrize("value", [None, b"text", 5, ["text"], math.nan])
def test_what_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match=f"must be a string. Given: {type(value).__name__}"):
        check_text(value)
