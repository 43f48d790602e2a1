"""The head grid as one HTML file that opens from a disk, without a network and without this program."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path

from dashboard.components import assets
from gpt_core.attention_export import origin_of

HERE = Path(__file__).parent

#: The page's colours, as in .streamlit/config.toml: the component takes them from variables of these names.
COLOURS = {
    "light": {
        "primary-color": "#0b5cad",
        "background-color": "#ffffff",
        "secondary-background-color": "#f2f5f8",
        "text-color": "#0f1720",
        "border-color": "#8a95a1",
    },
    "dark": {
        "primary-color": "#2f74c9",
        "background-color": "#12161c",
        "secondary-background-color": "#1d242d",
        "text-color": "#e6eaf0",
        "border-color": "#66727f",
    },
}
_STYLE = """
body { background: var(--st-background-color); color: var(--st-text-color); font: 16px/1.5 sans-serif;
  margin: 0 auto; max-width: 1200px; padding: 16px; }
h1 { font-size: 1.25rem; margin: 0 0 0.5rem; }
.prompt { font-family: monospace; max-height: 8em; overflow: auto; overflow-wrap: anywhere; white-space: pre-wrap; }
footer { border-top: 1px solid var(--st-border-color); font-size: 0.8125rem; margin-top: 1.5rem; padding-top: 0.5rem; }
footer dl { display: grid; gap: 0 1rem; grid-template-columns: max-content 1fr; margin: 0; }
footer dd { margin: 0; overflow-wrap: anywhere; }
"""


def head_grid_page(
    frame: bytes,
    cells: Sequence[bytes],
    *,
    text: str,
    facts: Mapping[str, str],
    title: str = "Attention heads",
) -> str:
    """A complete HTML document around a grid's payloads (`payload.pack_frame`, `payload.pack_cells`).

    text: the prompt, shown above the grid. facts: what the footer says, name to value, such as model, revision and
    dtype. The document fetches nothing: its policy forbids it, and lets its one script run by that script's hash.
    """
    script = _script()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    payloads = "\n".join(
        f'<template data-payload="{kind}">{base64.b64encode(payload).decode()}</template>'
        for kind, payload in (("frame", frame), *(("cells", one) for one in cells))
    )
    said = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'sha256-{digest}'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_variables("light")}@media (prefers-color-scheme: dark) {{ {_variables("dark")} }}{_STYLE}{_css()}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="prompt">{escape(text)}</p>
<div id="grid"></div>
<noscript>The pictures are drawn by a script inside this file, which this browser does not run.</noscript>
<footer><dl>{said}</dl></footer>
{payloads}
<script type="module">{script}</script>
</body>
</html>
"""
    return page.encode("utf-8", errors="replace").decode()


def page_facts(model: str) -> dict[str, str]:
    """What the footer says of a model `source:name@revision`, and of the programs that made the pictures."""
    origin = origin_of(model)
    return {
        "Model": origin.model,
        "Revision": origin.revision or "unknown",
        "Computed in": f"{origin.dtype}; pictures in 8 bits a cell",
        "Versions": origin.versions,
    }


def _variables(theme: str) -> str:
    names = "".join(f"--st-{name}: {value}; " for name, value in COLOURS[theme].items())
    return f":root {{ color-scheme: {theme}; {names}}}"


@cache
def _script() -> str:
    script = assets.script(HERE / "head_grid.js") + (HERE / "standalone.js").read_text(encoding="utf-8")
    assert "</" not in script, "a script cannot hold what would end it"
    return script


@cache
def _css() -> str:
    return (HERE / "head_grid.css").read_text(encoding="utf-8")
