"""Claim: a Trace gives all attention of a text faster than eager attention, in a fifth of the memory.

Three questions, on random weights of GPT-2 small's geometry (12 × 12 heads), `use_cache` off for all:

(a) the pass and one layer's maps. Ours: `trace_tokens` (q, k, v and the residual stream under SDPA), then
    `attention_maps` of one layer. Peers: `model(..., output_attentions=True, output_hidden_states=True)` with eager
    attention, as it is and with `logits_to_keep=1` (ours makes no logits until they are asked for), and
    TransformerLens' `run_with_cache`.
(b) all heads, reduced to measures and thumbnails. Ours: the pass, then each layer's maps a block of queries at a time.
    Peers: the pass with all its maps, then the same reductions by the same code: `HeadMeter` and
    `head_grid.thin_weights`. Counted is one walk over the maps for both; the dashboard, where the pictures must not
    wait for the measures, walks over them in two jobs.
(c) bytes of the distinct storages that are kept; beside eager also without its logits, which ours does not make.

Before anything is timed, all maps, measures and thumbnails are shown to equal the peers'. Peers run in turn with ours
in one process; one that is not installed (`pip install transformer-lens`) is named.

    python benchmarks/trace.py [--quick]
"""

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from gpt_core import trace
from gpt_core.attention import BLOCK_BYTES, attention_blocks, attention_maps
from gpt_core.attention_measures import HeadMeter
from gpt_core.catalog import BUNDLED_FOLDER, ModelId
from gpt_core.head_grid import grid_step, layer_thumbnails, thin_weights
from gpt_core.model import LanguageModel, wrap_network

QUICK = "--quick" in sys.argv
LENGTHS = (16, 128, 512, 1024)
REPEATS = 5
#: The layer whose maps are looked at in (a).
LAYER = 5

Blocks = Iterator[tuple[range, torch.Tensor]]


def networks() -> tuple[LanguageModel, GPT2LMHeadModel]:
    """The same random weights, once for us and once for eager attention."""
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        network = GPT2LMHeadModel(GPT2Config())
        with torch.no_grad():
            for block in network.transformer.h:
                block.attn.c_attn.weight.mul_(2)  # attention that is not uniform
    eager = GPT2LMHeadModel(GPT2Config())
    eager.load_state_dict(network.state_dict())
    eager.set_attn_implementation("eager")
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_FOLDER)
    return wrap_network(network, tokenizer, model_id=ModelId("local", "gpt2-geometry")), eager.eval()


def transformer_lens(eager: GPT2LMHeadModel) -> tuple[Any, str]:
    """TransformerLens' model with the same weights as they are; or None and the reason."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from transformer_lens.model_bridge import TransformerBridge
    except ImportError as error:
        return None, f"TransformerLens 4 is not installed here ({error})"
    own = GPT2LMHeadModel(GPT2Config())
    own.load_state_dict(eager.state_dict())
    bridge = TransformerBridge.boot_transformers(
        "gpt2", hf_model=own.eval(), tokenizer=AutoTokenizer.from_pretrained(BUNDLED_FOLDER), device="cpu"
    )
    return bridge.eval(), ""


def pattern(cache: Any, layer: int) -> torch.Tensor:
    """A layer's maps `(n_heads, n_tokens, n_tokens)` in TransformerLens' cache."""
    maps: torch.Tensor = cache[f"blocks.{layer}.attn.hook_pattern"][0]
    return maps


def reduce_layer(token_ids: list[int], blocks: Blocks, n_heads: int) -> tuple[np.ndarray, np.ndarray]:
    """Measures `(n_measures, n_heads)` and thumbnails `(n_heads, cells of the triangle)` of one layer."""
    meter = HeadMeter(token_ids)
    step = grid_step(144, len(token_ids))
    side = -(-len(token_ids) // step)
    pictures = np.zeros((n_heads, side, side), dtype=np.uint8)
    for queries, weights in blocks:
        meter.add(queries, weights)
        codes = thin_weights(weights, step)
        place = queries.start // step
        pictures[:, place : place + codes.shape[1], : codes.shape[2]] = codes
    return meter.values(), pictures[:, np.tri(side, dtype=bool)]


def block_rows(n_heads: int, n_tokens: int) -> int:
    """Queries of a block: what BLOCK_BYTES hold, and a multiple of a thumbnail's step."""
    step = grid_step(144, n_tokens)
    return max(step, BLOCK_BYTES // (4 * n_heads * n_tokens) // step * step)


def whole(maps: torch.Tensor) -> Blocks:
    """A layer's maps `(n_heads, n_tokens, n_tokens)` that are there already, in blocks as ours."""
    n_heads, n_tokens, _ = maps.shape
    rows = block_rows(n_heads, n_tokens)
    for start in range(0, n_tokens, rows):
        stop = min(n_tokens, start + rows)
        yield range(start, stop), maps[:, start:stop, :stop]


def in_turn(functions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each, run in turn, a first run of each left out."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(REPEATS + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            result = function()
            if repeat:
                times[name].append(time.perf_counter() - start)
            del result
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def distinct_bytes(tensors: list[torch.Tensor]) -> int:
    """Bytes of the distinct storages of `tensors`."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def compare(
    lm: LanguageModel, eager: GPT2LMHeadModel, lens: Any, n_tokens: int
) -> tuple[dict[str, float], dict[str, float], dict[str, int]]:
    """Seconds of (a), seconds of (b) and bytes of (c), by name."""
    ids = np.random.RandomState(n_tokens).randint(0, 50_000, n_tokens).tolist()
    ids[n_tokens // 2 :] = ids[: n_tokens - n_tokens // 2]  # something to repeat
    batch = torch.tensor([ids])

    def run_ours() -> trace.Trace:
        trace._traces.clear()
        return trace.trace_tokens(lm, ids)

    def run_eager(**options: Any) -> Any:
        with torch.inference_mode():
            return eager(batch, use_cache=False, output_attentions=True, output_hidden_states=True, **options)

    def run_lens() -> Any:
        with torch.inference_mode():
            return lens.run_with_cache(batch, use_cache=False)

    def reduce_ours() -> Any:
        mine = run_ours()
        n_bytes = 4 * 12 * n_tokens * block_rows(12, n_tokens)
        with torch.inference_mode():
            return [
                reduce_layer(ids, attention_blocks(mine, layer=layer, max_bytes=n_bytes), 12)
                for layer in range(12)
            ]

    def reduce_eager(**options: Any) -> Any:
        attentions = run_eager(**options).attentions
        with torch.inference_mode():
            return [reduce_layer(ids, whole(maps[0]), 12) for maps in attentions]

    def reduce_lens() -> Any:
        _, cache = run_lens()
        with torch.inference_mode():
            return [reduce_layer(ids, whole(pattern(cache, layer)), 12) for layer in range(12)]

    # The same work, shown before it is timed.
    mine, output = run_ours(), run_eager()
    differences = [
        float(np.abs(attention_maps(mine, layer=layer).weights - maps[0].numpy()).max())
        for layer, maps in enumerate(output.attentions)
    ]
    assert max(differences) < 1e-5, differences
    for layer, (found, found_eager) in enumerate(zip(reduce_ours(), reduce_eager(), strict=True)):
        np.testing.assert_allclose(found[0], found_eager[0], rtol=1e-3, atol=1e-4)
        # To one code of 255: a weight may lie between two. And they are the dashboard's.
        for pictures in (found_eager[1], layer_thumbnails(mine, layer=layer).cells):
            assert np.abs(found[1].astype(int) - pictures).max() <= 1
    sizes = {
        "ours": mine.n_bytes,
        "eager": distinct_bytes([*output.attentions, *output.hidden_states, output.logits]),
        "eager without logits": distinct_bytes([*output.attentions, *output.hidden_states]),
    }
    if lens is not None:
        logits, cache = run_lens()
        theirs = np.stack([pattern(cache, layer).numpy() for layer in range(12)])
        eagers = np.stack([maps[0].numpy() for maps in output.attentions])
        assert np.abs(theirs - eagers).max() < 1e-4
        sizes["TransformerLens"] = distinct_bytes([logits, *cache.values()])
        del logits, cache, theirs, eagers
    del mine, output

    looks: dict[str, Callable[[], object]] = {
        "ours": lambda: attention_maps(run_ours(), layer=LAYER),
        "eager": run_eager,
        "eager, last logits only": lambda: run_eager(logits_to_keep=1),
    }
    reductions: dict[str, Callable[[], object]] = {
        "ours": reduce_ours,
        "eager": reduce_eager,
        "eager, last logits only": lambda: reduce_eager(logits_to_keep=1),
    }
    if lens is not None:
        looks["TransformerLens"] = run_lens
        reductions["TransformerLens"] = reduce_lens
    return in_turn(looks), in_turn(reductions), sizes


def main() -> None:
    """Print a table, and as the last line one JSON object."""
    lm, eager = networks()
    lens, missing = transformer_lens(eager)
    print(f"{torch.get_num_threads()} threads, medians of {REPEATS}, torch {torch.__version__}")
    if missing:
        print(missing)
    print(f"{'tokens':>6}  {'':<24}{'(a) ms':>10}{'(b) ms':>10}{'(c) MB':>10}")
    found: dict[str, float | None] = {}
    for n_tokens in LENGTHS:
        if QUICK and n_tokens > 128:
            names = (
                "speedup",
                "speedup_last_logits",
                "all_heads_speedup",
                "memory_ratio",
                "memory_ratio_no_logits",
                "lens_speedup",
            )
            found |= {f"{name}_{n_tokens}": None for name in names}
            continue
        looks, reductions, sizes = compare(lm, eager, lens, n_tokens)
        for name, seconds in looks.items():
            size = f"{sizes[name] / 1e6:.1f}" if name in sizes else ""
            print(
                f"{n_tokens:>6}  {name:<24}{seconds * 1e3:>10.1f}{reductions[name] * 1e3:>10.1f}{size:>10}",
                flush=True,
            )
        print(f"{n_tokens:>6}  {'eager without logits':<44}{sizes['eager without logits'] / 1e6:>10.1f}")
        found |= {
            f"speedup_{n_tokens}": round(looks["eager"] / looks["ours"], 2),
            f"speedup_last_logits_{n_tokens}": round(looks["eager, last logits only"] / looks["ours"], 2),
            f"all_heads_speedup_{n_tokens}": round(reductions["eager"] / reductions["ours"], 2),
            f"memory_ratio_{n_tokens}": round(sizes["eager"] / sizes["ours"], 1),
            f"memory_ratio_no_logits_{n_tokens}": round(sizes["eager without logits"] / sizes["ours"], 1),
            f"lens_speedup_{n_tokens}": None
            if lens is None
            else round(looks["TransformerLens"] / looks["ours"], 2),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
