"""Tables as CSV files that a spreadsheet shows but does not run."""

import csv
from collections.abc import Sequence

import pandas as pd

#: A spreadsheet runs a cell that starts with one of these. Some tokens do.
#: Source: https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def neutralise_cell(text: str) -> str:
    """`text`, with an apostrophe in front where a spreadsheet would run it; a lone surrogate becomes "?"."""
    text = text.encode("utf-8", errors="replace").decode()
    return "'" + text if text.startswith(_FORMULA_STARTS) else text


def csv_bytes(frame: pd.DataFrame, *, notes: Sequence[str] = ()) -> bytes:
    """`frame` without its index as CSV in UTF-8, every string in it and in its header neutralised.

    `notes` are lines before the header, each after a `#`: what made the numbers.
    Starts with a byte order mark, without which Excel takes UTF-8 for another encoding. Numbers stay numbers.
    """
    safe = frame.rename(columns=lambda name: neutralise_cell(str(name))).map(
        lambda cell: neutralise_cell(cell) if isinstance(cell, str) else cell
    )
    # One line each, whatever a note says; `#` begins no formula.
    comments = "".join(f"# {' '.join(note.split())}\n" for note in notes)
    return (comments + safe.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)).encode("utf-8-sig", "replace")
