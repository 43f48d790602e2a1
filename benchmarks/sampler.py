"""Claim: the whole way of a distribution through every stage, with what each did, takes little more than the bare
stages of `generate`; and a slider's move repaints the page at once, without the model.

Ours: `apply_stages` with the cumulative curves, as the Predictions page calls it, over a vocabulary of 50,257. Peers,
in the same run and in turn: our `filter_logits` alone (what the generator runs), and transformers' LogitsProcessorList
of the same settings with the softmax. Before anything is timed, the probabilities are shown to be the same. Then a key
on the temperature slider in headless Chromium, until bars and cards are redrawn, and the server's part of that: the
page's script, run again by Streamlit's AppTest with a prompt of 11 tokens and with one of 484.

    python benchmarks/sampler.py [--quick]
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from playwright.sync_api import Page, sync_playwright
from transformers.generation import logits_process as peers

sys.path.insert(0, str(Path(__file__).parents[1]))

from gpt_core.catalog import bundled_model_id
from gpt_core.decoding import SamplingSettings
from gpt_core.model import load_model
from gpt_core.sampling import apply_stages, cumulative_curve, filter_logits
from gpt_core.trace import logits_at, trace_text
from tests.dashboard.pages import open_page
from tests.e2e.harness import DESKTOP, Server, open_browser, plotted, run_server, visit, wait_until_idle

QUICK = "--quick" in sys.argv
REPEATS = 15 if QUICK else 41
MOVES = 5 if QUICK else 20
TEXT = "Once upon a time, there was a little girl named"
#: Every filter at work, none of them so narrow that the next has nothing to do.
SETTINGS = SamplingSettings(
    logit_bias=((262, -2.0), (11, 1.5)),
    repetition_penalty=1.2,
    no_repeat_ngram=3,
    temperature=0.9,
    top_k=5000,
    top_p=0.95,
    min_p=0.001,
    typical_p=0.95,
)
QUERY = "predictions_temperature=0.9&predictions_top_k=200&predictions_top_p=0.95&predictions_typical_p=0.95"


def transformers_list() -> peers.LogitsProcessorList:
    """What `generate` makes of SETTINGS."""
    return peers.LogitsProcessorList(
        [
            peers.SequenceBiasLogitsProcessor({(token,): bias for token, bias in SETTINGS.logit_bias}),  # type: ignore[arg-type]
            peers.RepetitionPenaltyLogitsProcessor(SETTINGS.repetition_penalty),
            peers.NoRepeatNGramLogitsProcessor(SETTINGS.no_repeat_ngram),
            peers.TemperatureLogitsWarper(SETTINGS.temperature),
            peers.TopKLogitsWarper(SETTINGS.top_k),
            peers.TopPLogitsWarper(SETTINGS.top_p),
            peers.MinPLogitsWarper(SETTINGS.min_p),
            peers.TypicalLogitsWarper(SETTINGS.typical_p),
        ]
    )


def in_turn(functions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median milliseconds of each, run in turn, a first run of each left out."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(REPEATS + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if repeat:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def pipeline() -> dict[str, float]:
    """Milliseconds of the pipeline and of its peers on the bundled model's logits."""
    lm = load_model(bundled_model_id())
    trace = trace_text(lm, TEXT)
    logits = logits_at(lm, trace, [trace.n_tokens - 1])[0]
    ids = trace.token_ids
    start, context = torch.from_numpy(logits.copy())[None], torch.tensor([ids])
    chain = transformers_list()

    def page() -> np.ndarray:
        result = apply_stages(logits, ids, SETTINGS)
        for name in ("top_k", "top_p", "min_p", "typical_p"):
            cumulative_curve(result, name)
        return result.probs

    def generator() -> torch.Tensor:
        return filter_logits(start, context, SETTINGS).softmax(dim=-1)

    def theirs() -> torch.Tensor:
        return chain(context, start).softmax(dim=-1)

    with torch.inference_mode():
        assert torch.equal(generator(), theirs())
        difference = float(np.abs(page() - theirs()[0].numpy()).max())
        print(f"same probabilities: the page's differ from transformers' by at most {difference:.1e}")
        return in_turn({"page": page, "generator": generator, "transformers": theirs})


def slider_ms(page: Page, server: Server) -> list[float]:
    """Milliseconds from a key on the temperature slider until bars and cards are redrawn."""
    visit(page, server, f"predictions?prompt={TEXT.replace(' ', '+')}&{QUERY}")
    plotted(page, "predictions_bars", "x")
    page.wait_for_timeout(1000)
    times = []
    for move in range(MOVES + 1):
        # The focus is lost where the page moves it; each move begins on the slider.
        page.locator(".st-key-predictions_temperature input[type=range]").focus()
        page.evaluate(
            """() => {
              const bars = () => document.querySelector('.st-key-predictions_bars .js-plotly-plot')._fullData[1].x[0]
              const box = document.querySelector('.st-key-predictions_stages_box')
              const row = () => {
                for (const node of box.querySelectorAll('*')) {
                  const found = node.classList.contains('row') ? node : node.shadowRoot?.querySelector('.row')
                  if (found?.dataset.draws) return found.dataset.draws
                }
              }
              const [bar, draws] = [bars(), row()]
              window.__repainted = new Promise(done => {
                addEventListener('keydown', () => { window.__moved = performance.now() }, { once: true, capture: true })
                const look = () => {
                  if (bars() !== bar && row() !== draws) done(performance.now() - window.__moved)
                  else requestAnimationFrame(look)
                }
                look()
              })
            }"""
        )
        page.keyboard.press("ArrowLeft" if move % 2 else "ArrowRight")  # there is no end to run into
        seconds = page.evaluate("window.__repainted")
        if move:
            times.append(seconds)
        wait_until_idle(page)
    return times


def server_ms(prompt: str) -> list[float]:
    """Milliseconds of the page's script after a move of the slider, nothing cached but the logits."""
    at = open_page("predictions", prompt=prompt, **dict(pair.split("=") for pair in QUERY.split("&")))
    times = []
    for move in range(MOVES + 1):
        at.slider(key="predictions_temperature").set_value(0.85 - 0.05 * (move % 15) - 0.001 * (move // 15))
        start = time.perf_counter()
        at.run()
        if move:
            times.append((time.perf_counter() - start) * 1e3)
    assert not at.exception
    return times


def main() -> None:
    """Print tables, and as the last line one JSON object."""
    print(f"{torch.get_num_threads()} threads, medians of {REPEATS}")
    medians = pipeline()
    for name, value in medians.items():
        print(f"{name:<14}{value:>8.1f} ms")
    found: dict[str, float | None] = {
        "pipeline_ms": round(medians["page"], 1),
        "generator_ms": round(medians["generator"], 1),
        "transformers_ms": round(medians["transformers"], 1),
        "pipeline_vs_transformers": round(medians["page"] / medians["transformers"], 2),
    }
    for name, words in (("server_ms", 1), ("server_long_ms", 44)):
        if QUICK and words > 1:
            found[name] = None
            continue
        times = server_ms(" ".join([TEXT] * words))
        found[name] = round(statistics.median(times), 1)
        print(f"{name}: median {statistics.median(times):.0f}, of {min(times):.0f} to {max(times):.0f} ms")
    with (
        sync_playwright() as playwright,
        open_browser(playwright) as browser,
        tempfile.TemporaryDirectory() as folder,
        run_server(Path(folder)) as server,
    ):
        page = browser.new_page(viewport=DESKTOP)
        times = slider_ms(page, server)
        page.context.close()
    found["slider_ms"] = round(statistics.median(times))
    print(
        f"slider to repainted page: median {statistics.median(times):.0f}, of {min(times):.0f} to {max(times):.0f} ms"
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
