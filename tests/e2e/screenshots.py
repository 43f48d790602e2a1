"""Pictures of the six pages, as a desktop and a phone show them, in the light and the dark theme.

    python tests/e2e/screenshots.py                 all of them, into build/screenshots/
    python tests/e2e/screenshots.py --readme        the README's: desktop, light, into dashboard/screenshots/
    python tests/e2e/screenshots.py --whole         each as high as its content, to look a page over
    python tests/e2e/screenshots.py --page tokenizer --page attention

Writes <page>[-<window>-<theme>].png and prints each file's name and size. Exits with 1 if there was an error.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.e2e.harness import (  # noqa: E402  (a script knows only its own folder)
    DESKTOP,
    PAGES,
    PHONE,
    Server,
    observe,
    open_browser,
    run_server,
    visit,
    wait_until_idle,
)

WINDOWS = {"desktop": DESKTOP, "phone": PHONE}
THEMES = ("light", "dark")
README_FOLDER = ROOT / "dashboard" / "screenshots"
HIGHEST = 8000
# What is looked at where the default would say less.
QUERIES = {
    "attention": "?prompt=The+cat+sat+on+the+mat.+The+cat+sat+on+the&attention_layer=5&attention_head=4",
    "predictions": "?prompt=Once+upon+a+time,+there+was+a+little+girl+named&predictions_temperature=0.7"
    "&predictions_top_k=8",
    "generation": "?prompt=Once+upon+a+time,+there+was&generation_n_sequences=2&generation_temperature=0.7",
}


def picture(page: Page, *, whole: bool) -> bytes:
    """PNG of what is in the window, or of all that can be scrolled to."""
    if whole:
        height = page.evaluate(
            "Math.max(...[...document.querySelectorAll('[data-testid=stMain], [data-testid=stSidebarContent]')]"
            ".map(part => part.scrollHeight))"
        )
        size = page.viewport_size
        assert size
        page.set_viewport_size({"width": size["width"], "height": min(HIGHEST, max(size["height"], height))})
        wait_until_idle(page)
    # Figures fade in after the script is done.
    page.wait_for_timeout(700)
    return page.screenshot(animations="disabled")


def compress(png: bytes) -> bytes:
    """The same picture in 256 colours, which a page of text and flat figures hardly exceeds."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    small = image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def take(
    browser: Browser, server: Server, name: str, window: str, theme: str, *, whole: bool
) -> tuple[bytes, list[str]]:
    """One page's picture, and the errors on its console and in the server's log."""
    context = browser.new_context(viewport=WINDOWS[window], color_scheme=theme)  # type: ignore[arg-type]
    page = context.new_page()
    seen = observe(page)
    written = len(server.log_text())
    visit(page, server, f"{PAGES[name]}{QUERIES.get(name, '')}")
    start = page.locator(f".st-key-{name}_start button")
    if start.count():
        start.click()
        page.locator("[class*=_sequence_0], .st-key-generation_tree_box .token").first.wait_for()
        page.locator(f".st-key-{name}_stop button:disabled").wait_for(timeout=120_000)
        wait_until_idle(page)
        page.mouse.move(0, 0)
        page.locator("[data-testid=stMain]").evaluate("main => main.scrollTo(0, 0)")
    png = picture(page, whole=whole)
    context.close()
    return png, seen.errors + server.tracebacks(since=written)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder to write to")
    parser.add_argument(
        "--page", action="append", choices=list(PAGES), help="only this page (may be repeated)"
    )
    parser.add_argument(
        "--readme", action="store_true", help="only desktop and light, under the pages' names"
    )
    parser.add_argument("--whole", action="store_true", help="as high as the content")
    options = parser.parse_args()

    folder: Path = options.out or (README_FOLDER if options.readme else ROOT / "build" / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    looks = [("desktop", "light")] if options.readme else [(w, t) for w in WINDOWS for t in THEMES]
    failed = False
    with (
        tempfile.TemporaryDirectory() as home,
        run_server(Path(home)) as server,
        sync_playwright() as playwright,
        open_browser(playwright) as browser,
    ):
        for name in options.page or list(PAGES):
            for window, theme in looks:
                png, errors = take(browser, server, name, window, theme, whole=options.whole)
                file = folder / (f"{name}.png" if options.readme else f"{name}-{window}-{theme}.png")
                file.write_bytes(compress(png))
                print(f"{file}  {file.stat().st_size / 1000:.0f} kB", *errors, sep="\n  ", flush=True)
                failed |= bool(errors)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
