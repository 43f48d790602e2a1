"""Checks of values that come from readers, links and components. None of them clamps silently."""

import math
from numbers import Integral, Real
from typing import Any

from gpt_core.errors import InputError

#: Longest text, in characters, that reaches a tokenizer: byte-pair encoding is superlinear on long runs.
MAX_CHARACTERS = 100_000


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def check_integer(name: str, value: Any, *, low: int, high: int, remedy: str = "") -> int:
    """`value` as an int in low..high, else InputError naming both and the remedy."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
        raise InputError(
            f"`{name}` must be a whole number from {low:,} to {high:,}. Given: {_shown(value)}.{' ' + remedy if remedy else ''}"
        )
    return int(value)


def check_number(
    name: str, value: Any, *, low: float, high: float, low_open: bool = False, remedy: str = ""
) -> float:
    """`value` as a finite float in low..high (above low when `low_open`), else InputError."""
    valid = (
        isinstance(value, Real)
        and not isinstance(value, bool)
        and math.isfinite(float(value))
        and (float(value) > low if low_open else float(value) >= low)
        and float(value) <= high
    )
    if not valid:
        bound = f"above {low:g} and at most {high:g}" if low_open else f"from {low:g} to {high:g}"
        raise InputError(
            f"`{name}` must be a number {bound}. Given: {_shown(value)}.{' ' + remedy if remedy else ''}"
        )
    return float(value)


def check_text(text: Any) -> str:
    """`text` as a str of at most MAX_CHARACTERS characters, else InputError; before any tokenizer sees it."""
    if not isinstance(text, str):
        raise InputError(f"The text must be a string. Given: {type(text).__name__}.")
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"The text must be at most {MAX_CHARACTERS:,} characters. Given: {len(text):,}. Shorten it and run again."
        )
    return text
