"""What a reader sees of text and bytes."""

import pytest

from gpt_core.visible import replace_surrogates, show_bytes, show_graphemes, show_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" loves", "␣loves"),
        ("\n\n\t\r", "⏎⏎⇥\\r"),
        ("\x00\x1b\x7f\x85", "\\x00\\x1B\\x7F\\x85"),
        ("\u202e\ufeff\u2028\u200d", "\\u202E\\uFEFF\\u2028\\u200D"),
        ("\u00a0\u3000\u00ad", "\\xA0\\u3000\\xAD"),
        ("\U000e0041\ufe0f", "\\U000E0041\\uFE0F"),
        ("\u3164\u2800", "\\u3164\\u2800"),
        ("\u0301", "◌\u0301"),
        ("é日👩", "é日👩"),
        ("</script>", "</script>"),
        ("", ""),
    ],
    ids=ascii,
)
def test_text(text: str, shown: str) -> None:
    assert show_text(text) == shown


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"abc", "abc"),
        (b"\xe2\x82", "<E2 82>"),
        (b" \xf0\x9f", "␣<F0 9F>"),
        (b"\xac\xe2\x82\xac!", "<AC>€!"),
        (b"\xff\xfe\x80", "<FF FE 80>"),
        (b"\x82\xcc\x81", "<82>◌\u0301"),
        (b"", ""),
    ],
)
def test_bytes(data: bytes, shown: str) -> None:
    assert show_bytes(data) == shown


def test_surrogates() -> None:
    assert replace_surrogates("a\ud800\ud83d\ude00z") == ("a\ufffd\ufffd\ufffdz", 3)
    assert replace_surrogates("a😀") == ("a😀", 0)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" 👩‍👩‍👧", "␣👩‍👩‍👧"),
        ("e\u0301 \u202e\x00", "e\u0301␣\\u202E\\x00"),
        ("❤️", "❤️"),
        ("\r\n", "\\r⏎"),
        ("", ""),
    ],
    ids=ascii,
)
def test_graphemes(text: str, shown: str) -> None:
    assert show_graphemes(text) == shown
