"""An animated picture of the Generation page: a text streams in, a token is looked at, another one is taken.

    python tests/e2e/recording.py [--out FILE]

Writes dashboard/screenshots/generation.gif, and prints its size. Exits with 1 if there was an error on the page.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.e2e.harness import observe, open_browser, run_server, visit, wait_until_idle  # noqa: E402

WINDOW = {"width": 1280, "height": 760}
WIDTH = 880
LINK = (
    "generation?prompt=Once+upon+a+time,+there+was+a+little+girl+named&generation_seed=3"
    "&generation_max_new_tokens=48&generation_temperature=0.8"
)
TREE = ".st-key-generation_tree_box"


class Film:
    """Frames and how long each is shown, in milliseconds."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.frames: list[Image.Image] = []
        self.times: list[int] = []

    def shoot(self, milliseconds: int) -> None:
        """What the page shows now."""
        image = Image.open(io.BytesIO(self.page.screenshot(animations="disabled"))).convert("RGB")
        height = round(image.height * WIDTH / image.width)
        self.frames.append(image.resize((WIDTH, height), Image.Resampling.LANCZOS))
        self.times.append(milliseconds)

    def shoot_until_done(self) -> None:
        """Frame after frame until nothing runs any more."""
        done = self.page.locator(".st-key-generation_stop button:disabled")
        for _ in range(40):
            self.shoot(160)
            if done.count() and self.page.locator(f"{TREE} .token").count():
                break
            self.page.wait_for_timeout(60)
        wait_until_idle(self.page)

    def save(self, file: Path) -> None:
        """All frames in the colours of one palette, so that only what changes is stored."""
        palette = self.frames[-1].quantize(128, method=Image.Quantize.MAXCOVERAGE)
        small = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self.frames]
        small[0].save(
            file,
            save_all=True,
            append_images=small[1:],
            duration=self.times,
            loop=0,
            optimize=True,
            disposal=1,
        )


def main() -> int:
    """Make the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "dashboard" / "screenshots" / "generation.gif",
        help="file to write",
    )
    file: Path = parser.parse_args().out
    with (
        tempfile.TemporaryDirectory() as home,
        run_server(Path(home)) as server,
        sync_playwright() as playwright,
        open_browser(playwright) as browser,
    ):
        page = browser.new_context(viewport=WINDOW).new_page()  # type: ignore[arg-type]
        seen = observe(page)
        visit(page, server, LINK)
        film = Film(page)
        film.shoot(900)
        page.locator(".st-key-generation_start button").click()
        film.shoot_until_done()
        page.locator("[data-testid=stMain]").evaluate("main => main.scrollTo(0, 0)")
        film.shoot(1200)
        token = page.locator(f"{TREE} .token").nth(3)
        token.hover()
        page.wait_for_timeout(200)
        film.shoot(1800)
        token.click()
        page.wait_for_timeout(200)
        film.shoot(900)
        other = page.locator(f"{TREE} .menu [data-id]").nth(1)
        other.hover()
        film.shoot(900)
        other.click()
        page.mouse.move(5, 400)
        film.shoot_until_done()
        page.locator("[data-testid=stMain]").evaluate("main => main.scrollTo(0, 0)")
        film.shoot(2500)
        film.save(file)
        print(
            f"{file}  {len(film.frames)} frames, {file.stat().st_size / 1000:.0f} kB",
            *seen.errors,
            sep="\n  ",
        )
    return int(bool(seen.errors))


if __name__ == "__main__":
    sys.exit(main())
