"""BertViz's model view and head view as one HTML page that needs no network.

The pages are BertViz's own, made by its own functions (https://github.com/jessevig/bertviz, Apache-2.0). Three
things differ. Its scripts come from `vendor/` instead of a content network. The attention is written once, to three
decimals, where BertViz writes it twice, to up to eighteen. And no text can end the script that it stands in.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

VENDOR = Path(__file__).parent / "vendor"

#: A page up to this many bytes is drawn at once, a larger one after a click, a still larger one not at all: a browser
#: needs most of a minute and two million elements for 65 MB.
FREE_BYTES = 5_000_000
MAX_BYTES = 40_000_000

# The page's own colours, as in .streamlit/config.toml; the page is a document of its own and cannot inherit them.
BACKGROUND = {"light": "#ffffff", "dark": "#12161c"}
TEXT = {"light": "#0f1720", "dark": "#e6eaf0"}

# Widths in BertViz's scripts, in pixels.
MODEL_VIEW_WIDTH = 970
HEAD_VIEW_WIDTH = 335
HEAD_VIEW_SWITCH_WIDTH = 20
# Room that its scripts leave a label on the page's left and right, and what a letter of their type takes there: a
# wide letter where a label is cut off beyond the edge, a usual one where that would be rare and the page grows.
MODEL_VIEW_ROOM = (140, 11), (80, 8)
HEAD_VIEW_ROOM = (102, 13), (102, 13)
PADDING = 4
# A page that is a little too wide for its place is drawn a little smaller; below 0.7 its letters could not be read,
# and it scrolls.
FIT = """function fit() {
  document.body.style.zoom = Math.min(1, Math.max(0.7, document.documentElement.clientWidth / WIDTH));
}
addEventListener("resize", fit);
fit();"""
# A longer label is cut: GPT-2 has tokens of 66 dashes.
LABEL_COLUMNS = 18

# A weight of 0.5 is written as "0.5," and 0 as "0,": at most six characters for what is not masked.
BYTES_PER_WEIGHT = 6
BYTES_PER_MASKED_WEIGHT = 2
BYTES_PER_LABEL = 2 * 6 * LABEL_COLUMNS
THOUSANDTHS = tuple(f"{value / 1000:g}" for value in range(1001))


def model_view_html(
    attention: np.ndarray, labels: Sequence[str], *, layers: Sequence[int] | None = None, dark: bool = False
) -> str:
    """All heads of all layers as small drawings; a click enlarges one.

    attention: (n_shown_layers, n_heads, n_tokens, n_tokens), query by key, probabilities 0..1; NaN counts as 0.
    labels: n_tokens texts, whitespace already made visible.
    layers: what number each of these layers has in its model, from 0; 0, 1, 2, … by default.
    Returns a complete HTML document, 980 pixels wide or smaller to fit its place; below 700 it scrolls.
    Raises ValueError if the shapes or the numbers of layers disagree.
    """
    from bertviz import model_view

    shown, labels = _check(attention, labels, layers)
    theme = "dark" if dark else "light"
    page = model_view(
        _stand_in(attention, shown),
        [""],
        prettify_tokens=False,
        display_mode=theme,
        include_layers=shown,
        html_action="return",
    )
    return _document(
        page.data,
        attention,
        labels,
        title="BertViz model view",
        theme=theme,
        width=MODEL_VIEW_WIDTH,
        room=MODEL_VIEW_ROOM,
    )


def head_view_html(
    attention: np.ndarray,
    labels: Sequence[str],
    *,
    layer: int | None = None,
    layers: Sequence[int] | None = None,
    dark: bool = False,
) -> str:
    """One layer at a time as lines between two columns of tokens, a colour per head.

    As `model_view_html`; `layer` is the one shown first, by default the first of `layers`. Raises ValueError also
    if `layer` is not among `layers`.
    """
    from bertviz import head_view

    shown, labels = _check(attention, labels, layers)
    theme = "dark" if dark else "light"
    page = head_view(
        _stand_in(attention, shown),
        [""],
        prettify_tokens=False,
        layer=layer,
        include_layers=shown,
        html_action="return",
    )
    width = max(HEAD_VIEW_WIDTH, HEAD_VIEW_SWITCH_WIDTH * attention.shape[1])
    return _document(
        page.data,
        attention,
        labels,
        title="BertViz head view",
        theme=theme,
        width=width,
        room=HEAD_VIEW_ROOM,
    )


def estimated_bytes(n_layers: int, n_heads: int, n_tokens: int) -> int:
    """The size of either page for causal attention, in bytes, from above: the true size is 40 to 100 % of it."""
    weights = n_tokens * (n_tokens + 1) // 2
    masked = n_tokens * n_tokens - weights
    data = n_layers * n_heads * (BYTES_PER_WEIGHT * weights + BYTES_PER_MASKED_WEIGHT * masked + 4 * n_tokens)
    frame = sum(len(script) for script in _scripts()) + 25_000
    return frame + data + n_tokens * BYTES_PER_LABEL


def _check(
    attention: np.ndarray, labels: Sequence[str], layers: Sequence[int] | None
) -> tuple[list[int], list[str]]:
    """The layers to show, and the labels at a drawable length."""
    n_layers, _, n_queries, n_keys = attention.shape
    if not 0 < n_queries == n_keys == len(labels):
        raise ValueError(f"{n_queries} x {n_keys} weights do not fit {len(labels)} labels")
    shown = list(range(n_layers)) if layers is None else [int(layer) for layer in layers]
    if not len(set(shown)) == n_layers == len(shown) or min(shown) < 0:
        raise ValueError(f"layers must be a number, from 0, for each of {n_layers} layers: {shown}")
    return shown, [_shorten(label) for label in labels]


def _stand_in(attention: np.ndarray, layers: list[int]) -> list[Any]:
    """Attention over one token, for all layers up to the last shown: BertViz makes its page of it, and we fill it in.

    Given the real one, it would write it twice and as decimal expansions of float32.
    """
    import torch

    return [torch.zeros(1, attention.shape[1], 1, 1)] * (max(layers) + 1)


def _document(
    page: str,
    attention: np.ndarray,
    labels: list[str],
    *,
    title: str,
    theme: str,
    width: int,
    room: tuple[tuple[int, int], tuple[int, int]],
) -> str:
    """BertViz's page as a document of its own, with the true attention and without what it would fetch."""
    body, script = _split(page)
    before, marker, rest = script.partition("const params = ")
    params, end = json.JSONDecoder().raw_decode(rest)
    # The template's marker is also in the comment after it, so BertViz's data stands there a second time.
    after = rest[end:].partition("\n")[2]
    params["attention"][0] |= {"attn": [], "left_text": labels, "right_text": labels}
    data = (
        json.dumps(params).replace('"attn": []', f'"attn": {_weights(attention)}', 1).replace("<", "\\u003c")
    )
    left, right = (PADDING + _overhang(labels, *side) for side in room)
    libraries = "\n".join(f"<script>{text}</script>" for text in _scripts())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{escape(title)}</title>
<style>{_style(theme, width, left, right)}</style>
{libraries}
</head>
<body>
{body}
<script>
function requirejs(modules, start) {{ start(jQuery, d3); }}
{_without_paths(before)}{marker}{data};
{after}
{FIT.replace("WIDTH", str(left + width + right))}
</script>
</body>
</html>
"""


def _split(page: str) -> tuple[str, str]:
    """The elements and the script of a BertViz page, without the tag that loads require.js."""
    found = re.fullmatch(
        r'<script src="[^"]*require\.min\.js"></script>(.*)<script type="text/javascript">(.*)</script>\s*',
        page,
        re.DOTALL,
    )
    assert found, "bertviz makes its page in another way than the version in requirements.txt"
    return found[1].strip(), found[2].strip()


def _without_paths(script: str) -> str:
    """The script without the addresses of d3 and jQuery, which are already there."""
    rest, n_found = re.subn(r"require\.config\(\{.*?\n\}\);\n", "", script, count=1, flags=re.DOTALL)
    assert n_found, "bertviz names its libraries in another way than the version in requirements.txt"
    return rest


@cache
def _scripts() -> tuple[str, str]:
    """jQuery and d3, which make themselves known as `jQuery` and `d3`."""
    names = ("jquery.slim.min.js", "d3.min.js")
    jquery, d3 = ((VENDOR / name).read_text(encoding="utf-8") for name in names)
    return jquery, d3


def _weights(attention: np.ndarray) -> str:
    """JSON of an array of weights 0..1 to three decimals."""
    thousandths = np.rint(np.nan_to_num(attention.astype(np.float64)).clip(0, 1) * 1000).astype(int)
    layers = (
        ",".join(
            "[" + ",".join("[" + ",".join([THOUSANDTHS[w] for w in row]) + "]" for row in head) + "]"
            for head in layer.tolist()
        )
        for layer in thousandths
    )
    return "[" + ",".join(f"[{layer}]" for layer in layers) + "]"


def _columns(text: str) -> int:
    """How many letters' room a text takes: East Asian ones are twice as wide."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _shorten(label: str) -> str:
    """The label, cut with an ellipsis where it would take more than LABEL_COLUMNS."""
    if _columns(label) <= LABEL_COLUMNS:
        return label
    kept = label[: LABEL_COLUMNS - 1]
    while _columns(kept) > LABEL_COLUMNS - 1:
        kept = kept[:-1]
    return kept + "…"


def _overhang(labels: list[str], room: int, letter: int) -> int:
    """How far the longest label may reach out of the room that BertViz gives it, in pixels."""
    return max(0, letter * max(_columns(label) for label in labels) - room)


def _style(theme: str, width: int, left: int, right: int) -> str:
    """Room for what BertViz draws, and in the dark theme letters that can be read: it draws the axes in black."""
    background, text = BACKGROUND[theme], TEXT[theme]
    common = (
        f":root {{ color-scheme: {theme}; background: {background}; color: {text}; }}"
        f"body {{ margin: 0; padding: {PADDING}px {right}px {PADDING}px {left}px; width: {width}px; }}"
        f"#vis svg {{ display: block; width: {width}px; overflow: visible; }}"
    )
    if theme == "light":
        return common
    return common + (
        f"#vis svg[fill=black], #vis rect[fill=black] {{ fill: {background}; }}"
        f"#vis text {{ fill: {text}; }}"
        "#vis rect.background { fill: #4a5563; }"
    )
