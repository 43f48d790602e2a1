"""Checks of values that come from readers, links and components. None of them clamps silently."""

import math
from numbers import Integral, Real
from typing import Any

from gpt_core.errors import InputError

#: Longest text, in characters, that reaches a tokenizer: byte-pair encoding is superlinear on long runs.
MAX_CHARACTERS = 100_000


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python does not write out integers of more than 4,300 digits
        text = f"a number of {value.bit_length():,} bits" if isinstance(value, int) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def _added(remedy: str) -> str:
    return f" {remedy}" if remedy else ""


def check_integer(name: str, value: Any, *, low: int, high: int, remedy: str = "") -> int:
    """`value` as an int in low..high, else InputError naming both and the remedy."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
        raise InputError(
            f"`{name}` must be a whole number from {low:,} to {high:,}. Given: {_shown(value)}.{_added(remedy)}"
        )
    return int(value)


def check_number(
    name: str, value: Any, *, low: float, high: float, low_open: bool = False, remedy: str = ""
) -> float:
    """`value` as a finite float in low..high (above low when `low_open`), else InputError."""
    number = _finite(value)
    if number is None or not (low < number if low_open else low <= number) or number > high:
        bound = f"above {low:g} and at most {high:g}" if low_open else f"from {low:g} to {high:g}"
        raise InputError(f"`{name}` must be a number {bound}. Given: {_shown(value)}.{_added(remedy)}")
    return number


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the largest float
        return None
    return number if math.isfinite(number) else None


def check_text(text: Any) -> str:
    """`text` as a str of at most MAX_CHARACTERS characters, else InputError; before any tokenizer sees it."""
    if not isinstance(text, str):
        raise InputError(f"The text must be a string. Given: {type(text).__name__}.")
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"The text must be at most {MAX_CHARACTERS:,} characters. Given: {len(text):,}. Shorten it and run again."
        )
    return text
