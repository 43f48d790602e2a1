"""Text and bytes made visible: what a reader can tell apart at a glance. Knows no tokenizer."""

import functools
import re

import regex

SPACE = "␣"

# Everything that draws nothing, draws a blank, or changes the order of its neighbours.
_INVISIBLE = regex.compile(
    r"[\p{Cc}\p{Cf}\p{Cn}\p{Co}\p{Zs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]"
)
_NAMED = {" ": SPACE, "\n": "⏎", "\t": "⇥", "\r": "\\r"}
_LEADING_MARK = regex.compile(r"\p{M}")
_SURROGATE = re.compile("[\ud800-\udfff]")


def replace_surrogates(text: str) -> tuple[str, int]:
    """`text` with each lone surrogate, which has no UTF-8, replaced by U+FFFD; and how many there were."""
    return _SURROGATE.subn("\ufffd", text)


def show_text(text: str) -> str:
    r"""`text` with every character visible: ␣ space, ⏎ newline, ⇥ tab, and escapes such as \x00, \u202E, \U000E0041.

    A combining mark at the start stands on a dotted circle.
    """
    if text.isascii() and text.isprintable():
        return text.replace(" ", SPACE)
    shown: str = _INVISIBLE.sub(lambda match: _escape(match[0]), text)
    return "◌" + shown if _LEADING_MARK.match(shown) else shown


def show_graphemes(text: str) -> str:
    """`text` as it is read, joined emoji and accents whole; only what would not be seen becomes visible as in
    `show_text`."""
    return "".join(
        grapheme if regex.sub(_INVISIBLE, "", grapheme) else show_text(grapheme)
        for grapheme in regex.findall(r"\X", text)
    )


def show_bytes(data: bytes) -> str:
    """`data` as visible text; bytes that are no whole UTF-8 character are hex chips such as <E2 82>."""
    try:
        return show_text(data.decode())
    except UnicodeDecodeError:
        return "".join(
            show_text(part) if isinstance(part, str) else f"<{part.hex(' ').upper()}>"
            for part in _split_utf8(data)
        )


def _split_utf8(data: bytes) -> list[str | bytes]:
    parts: list[str | bytes] = []
    while data:
        try:
            parts.append(data.decode())
            break
        except UnicodeDecodeError as error:
            if error.start:
                parts.append(data[: error.start].decode())
            broken = data[error.start : error.end]
            if parts and isinstance(parts[-1], bytes):
                parts[-1] += broken
            else:
                parts.append(broken)
            data = data[error.end :]
    return parts


@functools.lru_cache(maxsize=4096)
def _escape(character: str) -> str:
    if character in _NAMED:
        return _NAMED[character]
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02X}"
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"
