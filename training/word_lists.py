"""The lists of words that the made texts draw on, read from plain files."""

from __future__ import annotations

from pathlib import Path


def read_lists(name: str) -> dict[str, list[str]]:
    """The sections of a file beside this one, each a list: split at semicolons where it has any, else at line ends."""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    lists = {}
    for section in text.split("\n== ")[1:]:
        title, _, body = section.partition("\n")
        items = body.replace("\n", " ").split(";") if ";" in body else body.splitlines()
        lists[title] = [item.strip() for item in items if item.strip()]
    return lists


def read_pairs(items: list[str]) -> list[tuple[str, str]]:
    """`left = right` of each item."""
    return [(left, right) for left, _, right in (item.partition(" = ") for item in items)]
