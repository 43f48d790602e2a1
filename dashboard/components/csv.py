"""Tables as CSV files that a spreadsheet opens without running anything in them."""

import pandas as pd

#: A cell that begins so is a formula to a spreadsheet (owasp.org, CSV injection).
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def neutralise(cell: object) -> object:
    """`cell` with a ' in front where a spreadsheet would run its text; numbers stay numbers."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """`frame` without its index as UTF-8 CSV with a byte order mark, text cells and column names neutralised."""
    safe = frame.map(neutralise).rename(columns=neutralise)
    return b"\xef\xbb\xbf" + safe.to_csv(index=False).encode("utf-8")
