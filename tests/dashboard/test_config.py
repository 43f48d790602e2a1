"""The settings in .streamlit/config.toml that a reader's safety and eyes depend on."""

import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

CONFIG = Path(__file__).parents[2] / ".streamlit" / "config.toml"
SETTINGS = tomllib.loads(CONFIG.read_text(encoding="utf-8"))


def luminance(colour: str) -> float:
    """Relative luminance, https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio, https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_of_black_and_white_is_21():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    ("foreground", "background", "least"),
    [
        ("textColor", "backgroundColor", 4.5),
        ("textColor", "secondaryBackgroundColor", 4.5),
        ("linkColor", "backgroundColor", 4.5),
        ("linkColor", "secondaryBackgroundColor", 4.5),
        ("codeTextColor", "secondaryBackgroundColor", 4.5),
        ("borderColor", "backgroundColor", 3),
        ("primaryColor", "backgroundColor", 3),
    ],
)
def test_colours_can_be_told_apart(theme, foreground, background, least):
    colours = SETTINGS["theme"][theme]
    assert contrast(colours[foreground], colours[background]) >= least


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("background", ["backgroundColor", "secondaryBackgroundColor"])
def test_captions_can_be_read(theme, background):
    """Streamlit draws captions in the text's colour at an opacity of 0.6."""
    text, page = SETTINGS["theme"][theme]["textColor"], SETTINGS["theme"][theme][background]
    mixed = [round(0.6 * int(text[i : i + 2], 16) + 0.4 * int(page[i : i + 2], 16)) for i in (1, 3, 5)]
    assert contrast("#" + bytes(mixed).hex(), page) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_white_text_is_readable_on_the_accent(theme):
    assert contrast("#ffffff", SETTINGS["theme"][theme]["primaryColor"]) >= 4.5


def test_only_this_machine_reaches_the_dashboard():
    assert SETTINGS["server"]["address"] == "127.0.0.1"
    assert set(SETTINGS["server"]["allowedHosts"]) == {"127.0.0.1", "localhost"}
    assert SETTINGS["server"]["enableCORS"]
    assert SETTINGS["server"]["enableXsrfProtection"]
    assert not SETTINGS["server"]["enableStaticServing"]


def test_nothing_is_sent_or_asked_at_the_first_start():
    assert not SETTINGS["browser"]["gatherUsageStats"]
    assert not SETTINGS["server"]["showEmailPrompt"]


def test_no_traceback_reaches_the_reader():
    assert SETTINGS["client"]["showErrorDetails"] == "none"


def test_every_setting_has_its_reason_above_it():
    lines = [line for line in CONFIG.read_text(encoding="utf-8").splitlines() if line]
    shared = {"enableXsrfProtection", "secondaryBackgroundColor"}  # may share the reason of the line above
    bare = [
        line
        for above, line in pairwise(lines)
        if " = " in line and not line.startswith("#") and not above.startswith("#")
    ]
    assert {line.split(" = ")[0] for line in bare} <= shared
