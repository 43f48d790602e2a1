"""Claim: our loop, with everything that the page shows captured at each step, is not slower than `generate`.

Tokens a second while 64 tokens are added to prompts of 16 and 512 tokens, after the first token, and the time to that
first token, on one geometry after the other: GPT-2 small's (random weights) and SmolLM2's (its own weights where
SMOLLM2 or `--smollm2` names a folder, else random ones of its geometry), and a GPT-NeoX (random weights), which the
fast loop does not serve: there our loop is the plain one, and int8 is null. In one run and in turn: our loop in
float32 and in int8, `model.generate`, the pipeline, and ctranslate2 and llama-cpp-python where a Python that has them
is named (PEERS_PYTHON or `--peers-python`; llama.cpp also needs LLAMA_GGUF).

Two limits, each the best of 5 in each round: `limit` is one row times every matrix of the model, by the quickest
product that we know here, and one read of the keys and values that a token needs; `read limit` is a bare read of all
these bytes, which is what the memory gives. They and the rates are medians over the rounds, and ratios are those of
the ratios within a round. What is generated is random for random weights; greedy, so that all do the same work.

`page_overhead` is what the dashboard costs: the rate that the Generation page itself shows in Chromium, against the
bare loop in a thread of its own, on GPT-2 small's geometry.

    python benchmarks/generation.py [--quick] [--part gpt2] [--length 16] [--smollm2 FOLDER] [--peers-python PYTHON]
"""

import argparse
import copy
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    pipeline,
)
from transformers.generation.streamers import BaseStreamer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.generation_page import page_overhead  # noqa: E402  (a script knows only its own folder)
from benchmarks.generation_peers import peer_names, time_peers  # noqa: E402
from gpt_core.catalog import BUNDLED_FOLDER, ModelId  # noqa: E402
from gpt_core.decode_fast import fast_decoder, int8_shift  # noqa: E402
from gpt_core.decoding import GenerationSettings  # noqa: E402
from gpt_core.generation import generate_tokens  # noqa: E402
from gpt_core.model import LanguageModel, wrap_network  # noqa: E402
from gpt_core.reading import key_value_bytes  # noqa: E402
from gpt_core.row_product import RowProduct, halves_pay  # noqa: E402

QUICK = "--quick" in sys.argv
NEW_TOKENS = 16 if QUICK else 64
REPEATS = 5
LENGTHS = (16, 512)
PARTS = ("gpt2", "smollm2", "gpt_neox", "peers", "page")
#: The geometries that the fast loop serves.
FAST = ("gpt2", "smollm2")
GEOMETRIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "smollm2": (
        "llama",
        {
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
            "tie_word_embeddings": True,
        },
    ),
    # Pythia-160m's.
    "gpt_neox": (
        "gpt_neox",
        {
            "vocab_size": 50304,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "max_position_embeddings": 2048,
        },
    ),
}


class Clock(BaseStreamer):
    """Notes when each token comes."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        """A token, or at first the prompt."""
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing more comes."""


def make_model(name: str, folder: Path | None) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, str]:
    """A network, a tokenizer for it, and where its weights are from."""
    if folder is not None:
        network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        return network, AutoTokenizer.from_pretrained(folder, local_files_only=True), "its own weights"
    architecture, options = GEOMETRIES[name]
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        network = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **options))
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_FOLDER)
    if network.config.vocab_size < len(tokenizer):
        # A tokenizer of the right size, for the pipeline; what it says does not matter here.
        from tokenizers import Tokenizer, models

        words = {f"t{i}": i for i in range(network.config.vocab_size)}
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="t0")),
            unk_token="t0",
            eos_token="t1",
        )
    return network, tokenizer, "random weights"


def rate(times: list[float]) -> float:
    """Tokens a second after the first, from the times at which tokens came."""
    return (len(times) - 1) / (times[-1] - times[0])


def measure(run: Callable[[], list[float]]) -> tuple[float, float]:
    """Tokens a second after the first token, and seconds to it."""
    start = time.perf_counter()
    times = run()
    return rate(times), times[0] - start


def sweep_seconds(lm: LanguageModel, n_tokens: int) -> tuple[float, float]:
    """Seconds of one row times every matrix and a read of all keys and values, and of reading all that; best of 5."""
    embedding = lm.anatomy.token_embedding.weight
    head = lm.network.get_output_embeddings().weight
    matrices = [p for p in lm.network.parameters() if p.dim() == 2 and p is not embedding and p is not head]
    if lm.anatomy.position_embedding is not None:  # of which a token reads one row
        matrices = [p for p in matrices if p is not lm.anatomy.position_embedding.weight]
    matrices = [p if p.is_contiguous() else p.t() for p in (*matrices, head)]
    products_of = [(RowProduct(matrix, None), torch.ones(matrix.shape[1])) for matrix in matrices]
    keys_and_values = torch.ones(n_tokens * key_value_bytes(lm) // 4)

    def products() -> None:
        for product, row in products_of:
            product.of_one(row)
        keys_and_values.sum()

    def reads() -> None:
        for matrix in matrices:
            matrix.sum()
        keys_and_values.sum()

    def seconds(sweep: Callable[[], None]) -> float:
        start = time.perf_counter()
        sweep()
        return time.perf_counter() - start

    with torch.inference_mode():
        return min(seconds(products) for _ in range(5)), min(seconds(reads) for _ in range(5))


def contenders(
    lm: LanguageModel, peer: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, ids: list[int]
) -> dict[str, Callable[[], list[float]]]:
    """What is timed: each makes NEW_TOKENS greedily and gives the times at which they came."""
    prompt = torch.tensor([ids])
    call: dict[str, Any] = {
        "max_new_tokens": NEW_TOKENS,
        "min_new_tokens": NEW_TOKENS,
        "do_sample": False,
        "pad_token_id": 0,
    }
    settings = GenerationSettings(max_new_tokens=NEW_TOKENS, do_sample=False)
    pipe = pipeline("text-generation", model=peer, tokenizer=tokenizer)

    def ours(precision: Any) -> list[float]:
        start = time.perf_counter()
        return [start + step.elapsed for step in generate_tokens(lm, ids, settings, precision=precision)]

    def generate() -> list[float]:
        clock = Clock()
        with torch.inference_mode():
            peer.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), streamer=clock, **call)
        return clock.times[1:]  # the first is the prompt

    text = tokenizer.decode(ids)

    def piped() -> list[float]:
        clock = Clock()
        pipe(text, streamer=clock, **call)
        return clock.times[1:]

    runs = {"ours float32": lambda: ours("float32"), "generate": generate, "pipeline": piped}
    if fast_decoder(lm) is not None:
        runs["ours int8"] = lambda: ours("int8")
    return runs


def time_model(name: str, folder: Path | None, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Time every contender on one model, in turn, and print a table."""
    network, tokenizer, source = make_model(name, folder)
    # The same memory for both where we read it as it lies: a copy on other pages can be a fifth faster or slower.
    shared = () if halves_pay() else network.parameters()
    peer = copy.deepcopy(network, {id(parameter): parameter for parameter in shared}).eval()
    peer.set_attn_implementation("sdpa")
    for one in (peer, network):
        one.generation_config.eos_token_id = None
    lm = wrap_network(network, tokenizer, model_id=ModelId("local", name))
    served = fast_decoder(lm) is not None
    assert served == (name in FAST), "the fast loop does not agree with this model, or serves one more"
    if served:
        fast_decoder(lm, int8=True)
    shift = int8_shift(lm) if served and source != "random weights" else None
    print(f"\n{name} ({source}), {lm.geometry.n_parameters / 1e6:.0f} M parameters, fp32")
    print(
        f"{'prompt':>7}  {'':<14}{'tokens/s':>10}{'first token ms':>16}{'of the limit':>14}{'of the read limit':>19}"
    )
    found: dict[str, Any] = {}
    for length in lengths:
        ids = np.random.RandomState(length).randint(2, lm.geometry.vocab_size, length).tolist()
        runs = contenders(lm, peer, tokenizer, ids)
        limits: list[float] = []
        read_limits: list[float] = []
        rates: dict[str, list[float]] = {label: [] for label in runs}
        firsts: dict[str, list[float]] = {label: [] for label in runs}
        for repeat in range(REPEATS + 1):
            by_product, by_reading = sweep_seconds(lm, length + NEW_TOKENS // 2)
            limits.append(1 / by_product)
            read_limits.append(1 / by_reading)
            for label, run in runs.items():
                speed, first = measure(run)
                if repeat:  # the first of each warms up
                    rates[label].append(speed)
                    firsts[label].append(first)
        limit, read_limit = statistics.median(limits[1:]), statistics.median(read_limits[1:])

        def ratio(one: str, others: list[float], rates: dict[str, list[float]] = rates) -> float:
            # Within a round: what else the machine does slows both.
            return statistics.median(a / b for a, b in zip(rates[one], others, strict=True))

        speeds = {label: statistics.median(values) for label, values in rates.items()}
        for label, speed in speeds.items():
            print(
                f"{length:>7}  {label:<14}{speed:>10.1f}{statistics.median(firsts[label]) * 1e3:>16.0f}"
                f"{ratio(label, limits[1:]):>14.2f}{ratio(label, read_limits[1:]):>19.2f}"
            )
        for label, value in (("limit", limit), ("read limit", read_limit)):
            print(f"{length:>7}  {label:<14}{value:>10.1f}")
        found[str(length)] = {
            **speeds,
            "limit": limit,
            "read limit": read_limit,
            "fp32_vs_generate": ratio("ours float32", rates["generate"]),
            "fp32_vs_limit": ratio("ours float32", limits[1:]),
            "fp32_vs_read_limit": ratio("ours float32", read_limits[1:]),
            "int8_vs_generate": ratio("ours int8", rates["generate"]) if served else None,
        }
    if shift is not None:
        print(
            f"int8 shifts probabilities by {shift.total_variation:.2%} on average, {shift.kl_bits:.4f} bits a token; "
            f"same favourite for {shift.same_favourite:.0%} of {shift.n_positions}"
        )
    return found


def main() -> None:
    """Print tables, and as the last line one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--smollm2", type=Path, default=os.environ.get("SMOLLM2"))
    parser.add_argument("--peers-python", default=os.environ.get("PEERS_PYTHON"))
    parser.add_argument("--part", choices=PARTS, action="append", help="only this (may be repeated)")
    parser.add_argument(
        "--length", type=int, choices=LENGTHS, action="append", help="only this prompt length"
    )
    options = parser.parse_args()
    parts: list[str] = ["gpt2"] if QUICK else options.part or list(PARTS)
    lengths: tuple[int, ...] = (16,) if QUICK else tuple(sorted(options.length or LENGTHS))
    print(
        f"{torch.get_num_threads()} threads, {NEW_TOKENS} new tokens, medians of {REPEATS}, greedy, in turn"
    )
    folder = Path(options.smollm2) if options.smollm2 else None
    models = {
        name: time_model(name, folder if name == "smollm2" else None, lengths)
        for name in GEOMETRIES
        if name in parts
    }
    peers: dict[str, float | None] = dict.fromkeys(peer_names(LENGTHS))
    overhead = None
    if "peers" in parts or "page" in parts:
        network, tokenizer, _ = make_model("gpt2", None)
        if "peers" in parts:
            peers |= time_peers(
                options.peers_python, network, tokenizer, lengths=lengths, new_tokens=NEW_TOKENS
            )
        if "page" in parts:
            overhead = page_overhead(network, tokenizer, repeats=REPEATS)
    if overhead is not None:
        print(
            f"\nbare loop {overhead[0]:.1f} tokens/s, on the page {overhead[1]:.1f} tokens/s, captured and drawn"
        )
    left_out = [part for part in PARTS if part not in parts]
    if left_out:
        print(f"\nleft out: {', '.join(left_out)}")
    of_gpt2 = list(models.get("gpt2", {}).values())
    every = [found for model in models.values() for found in model.values()]

    def smallest(key: str, among: list[dict[str, Any]]) -> float | None:
        values = [found[key] for found in among if found[key] is not None]
        return round(min(values), 2) if values else None

    rates: dict[str, Any] = {f"{name} {n}": None for name in GEOMETRIES for n in LENGTHS}
    rates |= {
        f"{name} {length}": {
            label: None if value is None else round(value, 2) for label, value in found.items()
        }
        for name, model in models.items()
        for length, found in model.items()
    }
    print(
        json.dumps(
            {
                "fp32_vs_generate": smallest("fp32_vs_generate", every),
                "fp32_vs_limit": smallest("fp32_vs_limit", of_gpt2),
                "fp32_vs_read_limit": smallest("fp32_vs_read_limit", of_gpt2),
                "int8_vs_generate": smallest("int8_vs_generate", every),
                "page_overhead": None if overhead is None else round(1 - overhead[1] / overhead[0], 2),
                "tokens_per_second": rates | peers,
            }
        )
    )


if __name__ == "__main__":
    main()
