"""Claim: from the command to the first picture in seconds, and small pages; a slider repaints at once.

Starts the dashboard as a reader does, opens the Attention page in headless Chromium, and times until its heatmap is
drawn: the first start of the run with the file cache emptied where that is allowed ("cold"), then others ("warm").
Then the bytes that each page fetches (a fresh browser profile: scripts and data; again in the same profile: data),
and the time from a key on the temperature slider to the redrawn bars, with the server's part of it.

    python benchmarks/first_picture.py [--quick]
"""

import json
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.e2e.harness import DESKTOP, PAGES, Server, open_browser, plotted, run_server, visit

QUICK = "--quick" in sys.argv
STARTS = 1 if QUICK else 5
MOVES = 5 if QUICK else 20
TEXT = "Once upon a time, there was a little girl named"


def empty_file_cache() -> bool:
    """Whether the kernel let us empty its file cache."""
    with suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3")
        return True
    return False


def first_picture(browser: Browser) -> float:
    """Seconds from starting the server to the drawn heatmap."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with run_server(Path(folder)) as server:
            page = browser.new_page(viewport=DESKTOP)
            page.goto(f"{server.url}/attention")
            plotted(page, "attention_map", "z", timeout=120)
            seconds = time.perf_counter() - start
            page.context.close()
    return seconds


def page_bytes(browser: Browser, server: Server) -> dict[str, tuple[int, int]]:
    """Bytes fetched by each page in a fresh profile, and when it is opened again."""
    found = {}
    for name, path in PAGES.items():
        context = browser.new_context(viewport=DESKTOP)
        counts = []
        for _ in range(2):
            page = context.new_page()
            session = context.new_cdp_session(page)
            session.send("Network.enable")
            total = [0]

            def add(event: dict[str, object], total: list[int] = total) -> None:
                total[0] += int(event["encodedDataLength"])  # type: ignore[call-overload]

            def add_frame(event: dict[str, object], total: list[int] = total) -> None:
                data = event["response"]["payloadData"]  # type: ignore[index]
                total[0] += len(data) * 3 // 4 if event["response"]["opcode"] == 2 else len(data)  # type: ignore[index]

            session.on("Network.loadingFinished", add)
            session.on("Network.webSocketFrameReceived", add_frame)
            visit(page, server, path)
            page.wait_for_timeout(1500)
            counts.append(total[0])
            page.close()
        context.close()
        found[name] = (counts[0], counts[1])
    return found


def slider_ms(page: Page, server: Server) -> list[float]:
    """Milliseconds from a key on the temperature slider to the redrawn bars."""
    visit(page, server, f"predictions?prompt={TEXT.replace(' ', '+')}")
    plotted(page, "predictions_bars", "x")
    page.wait_for_timeout(1000)
    page.locator(".st-key-predictions_temperature input[type=range]").focus()
    times = []
    for _ in range(MOVES):
        before = plotted(page, "predictions_bars", "x")[1][0]
        page.evaluate("window.__moved = performance.now()")
        page.keyboard.press("ArrowLeft")
        times.append(
            page.evaluate(
                f"""() => new Promise(done => {{
                  const look = () => {{
                    const chart = document.querySelector('.st-key-predictions_bars .js-plotly-plot');
                    if (chart._fullData[1].x[0] !== {before}) done(performance.now() - window.__moved);
                    else requestAnimationFrame(look);
                  }};
                  look();
                }})"""
            )
        )
        page.wait_for_timeout(300)
    return times


def server_ms() -> list[float]:
    """Milliseconds that the server needs for one move of a slider: all stages over the whole vocabulary."""
    from gpt_core.catalog import bundled_model_id
    from gpt_core.decoding import SamplingSettings
    from gpt_core.model import load_model
    from gpt_core.sampling import apply_stages
    from gpt_core.trace import logits_at, trace_text

    lm = load_model(bundled_model_id())
    trace = trace_text(lm, TEXT)
    logits = logits_at(lm, trace, [trace.n_tokens - 1])[0]
    times = []
    for move in range(MOVES + 1):
        settings = SamplingSettings(
            temperature=1 - move / 100, top_k=200, top_p=0.9, min_p=0.01, repetition_penalty=1.1
        )
        start = time.perf_counter()
        apply_stages(logits, trace.token_ids, settings)
        times.append((time.perf_counter() - start) * 1e3)
    return times[1:]


def main() -> None:
    """Print tables, and as the last line one JSON object."""
    found: dict[str, float | None] = {}
    with sync_playwright() as playwright, open_browser(playwright) as browser:
        emptied = not QUICK and empty_file_cache()
        cold = first_picture(browser) if emptied else None
        print(f"first picture, file cache emptied: {f'{cold:.1f} s' if cold else 'not measured'}")
        warm = [first_picture(browser) for _ in range(STARTS)]
        print(f"first picture, warm: {', '.join(f'{s:.1f}' for s in warm)} s")
        found |= {
            "first_picture_cold_s": cold and round(cold, 1),
            "first_picture_warm_s": round(statistics.median(warm), 1),
        }
        with tempfile.TemporaryDirectory() as folder, run_server(Path(folder)) as server:
            page = browser.new_page(viewport=DESKTOP)
            times = slider_ms(page, server)
            page.context.close()
            print(
                f"slider to repaint: median {statistics.median(times):.0f} ms, of {min(times):.0f} to {max(times):.0f}"
            )
            found["slider_ms"] = round(statistics.median(times))
            if QUICK:
                found |= {f"bytes_{name}": None for name in PAGES}
            else:
                print(f"{'page':<14}{'first visit KB':>16}{'again KB':>12}")
                for name, (first, again) in page_bytes(browser, server).items():
                    print(f"{name:<14}{first / 1e3:>16,.0f}{again / 1e3:>12,.0f}")
                    found[f"bytes_{name}"] = again
    pipeline = server_ms()
    print(f"all stages over 50,257 tokens: median {statistics.median(pipeline):.1f} ms")
    found["pipeline_ms"] = round(statistics.median(pipeline), 1)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
