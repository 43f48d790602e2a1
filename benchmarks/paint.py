"""Claim: all heads are on the screen at least 50 times sooner than in BertViz at 128 tokens; a hover at 512 in a frame.

Both are HTML files that a headless Chromium opens from disk, in turn, without a network: ours as the dashboard's
"All heads as one HTML file", and the page that BertViz's own `model_view` makes, with its data as it writes them, twice
and in full, where only the tag that fetches its libraries is replaced by the libraries themselves. The maps are the
same: random causal softmax, 12 × 12 heads.

Timed are, for each file, from the start of the navigation to the end of the first frame after everything is drawn, and
then from a pointer's move onto a small picture to the end of the next frame: in ours that frame shows the head large,
in BertViz a pointer changes its shape (a click enlarges, and is timed too). A frame ends when the main thread is free
again; what the compositor does after that is left out on both sides. The ratio is of draw and hover together.

    python benchmarks/paint.py [--quick] [number of tokens ...]
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from bertviz import model_view
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from dashboard.components.head_grid.page import head_grid_page
from dashboard.components.head_grid.payload import pack_cells, pack_frame
from dashboard.plots import bertviz
from gpt_core.head_grid import LARGEST_CODE, LayerThumbnails, grid_step
from tests.e2e.harness import DESKTOP, open_browser

QUICK = "--quick" in sys.argv
COMPARED = (15, 50, 128)
LONG = 512
CHOSEN = tuple(int(word) for word in sys.argv[1:] if word.isdigit())
N_LAYERS = N_HEADS = 12
REPEATS = 5

# When the load event, and the frame after it, are over.
WHEN_DRAWN = """
window.__frame = () => new Promise(done => requestAnimationFrame(() => {
  const after = new MessageChannel()
  after.port1.onmessage = () => done(performance.now())
  after.port2.postMessage(0)
}))
window.__drawn = new Promise(done => addEventListener('load', () => __frame().then(done)))
"""
# From the event, as the browser stamped it, to the end of its frame.
WHEN_ANSWERED = """type => {
  window.__answered = new Promise(done => addEventListener(type, event =>
    __frame().then(end => done(end - event.timeStamp)), {capture: true, once: true}))
}"""


def random_attention(n_tokens: int) -> np.ndarray:
    """`(n_layers, n_heads, n_tokens, n_tokens)`: softmax over what each query may see."""
    rng = np.random.default_rng(n_tokens)
    scores = rng.normal(scale=2, size=(N_LAYERS, N_HEADS, n_tokens, n_tokens)).astype(np.float32)
    scores[..., ~np.tri(n_tokens, dtype=bool)] = -np.inf
    return torch.from_numpy(scores).softmax(dim=-1).numpy()


def our_page(attention: np.ndarray, labels: list[str]) -> str:
    """The dashboard's file."""
    n = len(labels)
    step = grid_step(N_LAYERS * N_HEADS, n)
    side = -(-n // step)
    padded = np.zeros((N_LAYERS, N_HEADS, side * step, side * step), dtype=np.float32)
    padded[..., :n, :n] = attention
    largest = padded.reshape(N_LAYERS, N_HEADS, side, step, side, step).max(axis=(3, 5))
    codes = (largest * (LARGEST_CODE - 1) + 1.5).astype(np.uint8)[..., np.tri(side, dtype=bool)]
    layers = [
        LayerThumbnails(layer=i, n_tokens=n, step=step, cells=np.ascontiguousarray(c))
        for i, c in enumerate(codes)
    ]
    frame = pack_frame(labels, key="grid", run="r", n_layers=N_LAYERS, n_heads=N_HEADS, step=step)
    return head_grid_page(frame, [pack_cells(layers, key="grid", run="r")], text=" ".join(labels), facts={})


def bertviz_page(attention: np.ndarray, labels: list[str]) -> str:
    """BertViz's page with its libraries inside, and otherwise as BertViz makes it."""
    made = model_view(
        [torch.from_numpy(layer)[None] for layer in attention], labels, html_action="return"
    ).data
    body, script = bertviz._split(made)
    libraries = "".join(f"<script>{text}</script>" for text in bertviz._scripts())
    return f"""<!doctype html><html><head><meta charset="utf-8">{libraries}</head><body>{body}<script>
function requirejs(modules, start) {{ start(jQuery, d3); }}
{bertviz._without_paths(script)}</script></body></html>"""


def middle(page: Page, selector: str) -> tuple[float, float]:
    """The middle of an element."""
    x, y = page.locator(selector).evaluate(
        "e => { const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2] }"
    )
    return x, y


def answer_ms(page: Page, place: tuple[float, float], *, click: bool = False) -> float:
    """Milliseconds from a pointer's move, or a click, to the end of its frame."""
    page.evaluate(WHEN_ANSWERED, "click" if click else "pointermove")
    if click:
        page.mouse.click(*place)
    else:
        page.mouse.move(*place)
    return float(page.evaluate("window.__answered"))


def open_file(browser: Browser, path: Path) -> Page:
    """The file in a fresh profile."""
    page = browser.new_context(viewport=DESKTOP, offline=True).new_page()
    page.set_default_timeout(300_000)
    page.set_default_navigation_timeout(300_000)
    page.add_init_script(WHEN_DRAWN)
    page.goto(path.as_uri())
    return page


def times(browser: Browser, path: Path, *, ours: bool) -> dict[str, float]:
    """Milliseconds until drawn, of the next hover, and of a click after it."""
    page = open_file(browser, path)
    drawn = float(page.evaluate("window.__drawn"))
    if ours:
        assert page.locator(".heads").get_attribute("data-drawn") == str(N_LAYERS * N_HEADS)
        place = middle(page, ".head[data-layer='2'][data-head='3']")
    else:
        place = middle(page, "#attn_background_0_3")
    hover = answer_ms(page, place)
    if ours:
        assert page.locator(".heads").get_attribute("data-shown") == str(2 * N_HEADS + 3)
    click = answer_ms(page, place, click=True)
    page.context.close()
    return {"drawn": drawn, "hover": hover, "click": click}


def hovers(browser: Browser, path: Path) -> list[float]:
    """Milliseconds of a hover over each of the heads of some layers, after all are drawn."""
    page = open_file(browser, path)
    page.evaluate("window.__drawn")
    found = []
    for layer in range(3):
        for head in range(N_HEADS):
            found.append(answer_ms(page, middle(page, f".head[data-layer='{layer}'][data-head='{head}']")))
            assert page.locator(".heads").get_attribute("data-shown") == str(layer * N_HEADS + head)
    page.context.close()
    return found[1:]


def main() -> None:
    """Print tables, and as the last line one JSON object."""
    found: dict[str, float | None] = {}
    chosen = CHOSEN or ((15, LONG) if QUICK else (*COMPARED, LONG))
    print(f"12 × 12 heads, headless Chromium, medians of {REPEATS}, milliseconds")
    print(
        f"{'tokens':>7}{'':>10}{'drawn':>10}{'hover':>8}{'click':>8}{'MB':>8}{'ratio of drawn + hover':>24}"
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        sync_playwright() as playwright,
        open_browser(playwright) as browser,
    ):
        for n_tokens in COMPARED:
            if n_tokens not in chosen:
                found |= {f"paint_ratio_{n_tokens}": None, f"drawn_ms_{n_tokens}": None}
                continue
            attention, labels = random_attention(n_tokens), [f"token{i}" for i in range(n_tokens)]
            files = {}
            for name, make in (("ours", our_page), ("BertViz", bertviz_page)):
                files[name] = Path(folder) / f"{name}_{n_tokens}.html"
                files[name].write_text(make(attention, labels), encoding="utf-8")
            taken: dict[str, list[dict[str, float]]] = {name: [] for name in files}
            for _ in range(REPEATS):
                for name, path in files.items():
                    taken[name].append(times(browser, path, ours=name == "ours"))
            medians = {
                name: {what: statistics.median(one[what] for one in runs) for what in runs[0]}
                for name, runs in taken.items()
            }
            total = {name: median["drawn"] + median["hover"] for name, median in medians.items()}
            ratio = total["BertViz"] / total["ours"]
            for name, median in medians.items():
                print(
                    f"{n_tokens:>7}{name:>10}{median['drawn']:>10,.0f}{median['hover']:>8,.0f}"
                    f"{median['click']:>8,.0f}{files[name].stat().st_size / 1e6:>8,.2f}"
                    f"{f'{ratio:.1f}' if name == 'BertViz' else '':>24}"
                )
            found[f"paint_ratio_{n_tokens}"] = round(ratio, 1)
            found[f"drawn_ms_{n_tokens}"] = round(medians["ours"]["drawn"])
        if LONG in chosen:
            path = Path(folder) / "long.html"
            path.write_text(our_page(random_attention(LONG), ["token"] * LONG), encoding="utf-8")
            found[f"drawn_ms_{LONG}"] = round(times(browser, path, ours=True)["drawn"])
            taken_ms = hovers(browser, path)
            print(
                f"{LONG:>7}{'ours':>10}{found[f'drawn_ms_{LONG}']:>10,}{statistics.median(taken_ms):>8,.1f}"
                f"   hover of {len(taken_ms)} heads: {min(taken_ms):.1f} to {max(taken_ms):.1f}"
            )
            found[f"hover_ms_{LONG}"] = round(statistics.median(taken_ms), 1)
        else:
            found |= {f"drawn_ms_{LONG}": None, f"hover_ms_{LONG}": None}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
