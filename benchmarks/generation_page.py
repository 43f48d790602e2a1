"""The rate that the Generation page itself shows in Chromium, for generation.py."""

import os
import statistics
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlencode

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from gpt_core.catalog import MODEL_FOLDERS_VARIABLE, ModelId, list_models
from gpt_core.decoding import GenerationSettings
from gpt_core.generation import generate_tokens
from gpt_core.model import wrap_network


def page_overhead(
    network: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, repeats: int
) -> tuple[float, float] | None:
    """Tokens a second of the bare loop and of the same run on the page, medians of `repeats`."""
    try:
        from playwright.sync_api import sync_playwright

        from tests.e2e.harness import chromium_path, open_browser, run_server, visit, wait_until_idle
    except ImportError as error:
        print(f"\nthe page: {error}")
        return None
    if chromium_path() is None:
        print("\nthe page: no Chromium was found")
        return None
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "models" / "gpt2-geometry"
        network.generation_config.eos_token_id = None
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        os.environ[MODEL_FOLDERS_VARIABLE] = str(folder.parent)
        found = next(entry.model_id for entry in list_models() if entry.model_id.name == folder.name)
        lm = wrap_network(network, tokenizer, model_id=ModelId("local", "bare"))
        text = "Once upon a time, there was a little girl named"
        ids = tokenizer.encode(text)
        settings = GenerationSettings(max_new_tokens=128, seed=1)
        bare: list[float] = []
        paged: list[float] = []

        def run_bare() -> None:
            steps = list(generate_tokens(lm, ids, settings, keep=True))
            bare.append((len(steps) - 1) / (steps[-1].elapsed - steps[0].elapsed))

        with (
            run_server(
                Path(home) / "server",
                env={
                    "GPT_CORE_MODELS": str(folder.parent),
                    "OMP_NUM_THREADS": str(torch.get_num_threads()),
                },
                timeout=120,
            ) as server,
            sync_playwright() as playwright,
            open_browser(playwright) as browser,
        ):
            page = browser.new_page()
            link = {
                "model": str(found),
                "prompt": text,
                "generation_seed": "1",
                "generation_max_new_tokens": str(settings.max_new_tokens),
            }
            visit(page, server, f"generation?{urlencode(link)}", timeout=120)
            for repeat in range(repeats + 1):
                # In threads of their own, both: a second thread's pool of workers costs the same.
                thread = threading.Thread(target=run_bare)
                thread.start()
                thread.join()
                page.locator(".st-key-generation_start button").click()
                page.wait_for_function(
                    "() => document.querySelector('.st-key-generation_stop button')?.disabled === false",
                    timeout=60_000,
                )
                page.wait_for_function(
                    "() => document.querySelector('.st-key-generation_stop button')?.disabled === true",
                    timeout=120_000,
                )
                wait_until_idle(page)
                head = page.locator(".st-key-generation_tree_box header").first.inner_text()
                paged.append(float(head.split("then ")[1].split(" tokens/s")[0].replace(",", "")))
                if not repeat:
                    bare.clear()
                    paged.clear()
        return statistics.median(bare), statistics.median(paged)
