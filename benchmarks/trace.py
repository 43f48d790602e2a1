"""Claim: keeping a Trace costs no more time than eager attention with all its outputs, and a fraction of the memory.

Ours: `gpt_core` records q, k, v and the residual stream under SDPA. Peer, in the same run and in turn:
`model(..., output_attentions=True, output_hidden_states=True)` with eager attention, use_cache off. Both on the
bundled model and on random weights of GPT-2 small's geometry. Before anything is timed, our maps are shown to equal
the peer's. Bytes are those of the distinct storages kept.

    python benchmarks/trace.py [--quick]
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from gpt_core import trace
from gpt_core.attention import attention_maps
from gpt_core.catalog import BUNDLED_FOLDER, ModelId, bundled_model_id
from gpt_core.model import LanguageModel, load_model, wrap_network

QUICK = "--quick" in sys.argv
LENGTHS = (15, 128) if QUICK else (15, 128, 512)
REPEATS = 5 if QUICK else 9


def gpt2_small() -> tuple[LanguageModel, GPT2LMHeadModel]:
    """GPT-2 small's geometry with random weights, once for us and once for the peer."""
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        network = GPT2LMHeadModel(GPT2Config())
    peer = GPT2LMHeadModel(GPT2Config())
    peer.load_state_dict(network.state_dict())
    peer.set_attn_implementation("eager")
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_FOLDER)
    return wrap_network(network, tokenizer, model_id=ModelId("local", "gpt2-geometry")), peer.eval()


def bundled() -> tuple[LanguageModel, GPT2LMHeadModel]:
    """The model in the box."""
    peer = GPT2LMHeadModel.from_pretrained(BUNDLED_FOLDER, dtype=torch.float32, attn_implementation="eager")
    return load_model(bundled_model_id()), peer.eval()


def in_turn(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of each, run in turn, a first run of each left out."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(REPEATS + 1):
        for function, seconds in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            function()
            if repeat:
                seconds.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def distinct_bytes(tensors: list[torch.Tensor]) -> int:
    """Bytes of the distinct storages of `tensors`."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def main() -> None:
    """Print a table, and as the last line one JSON object."""
    print(f"{torch.get_num_threads()} threads, medians of {REPEATS}")
    print(
        f"{'model':<16}{'tokens':>7}{'ours ms':>10}{'eager ms':>10}{'ours MB':>10}{'eager MB':>10}{'maps differ':>13}"
    )
    found: dict[str, float | None] = {}
    for name, (lm, peer) in (("bundled", bundled()), ("gpt2 geometry", gpt2_small())):
        for n_tokens in (15, 128, 512):
            key = f"{name.split()[0]}_{n_tokens}"
            if n_tokens not in LENGTHS:
                found |= {f"speedup_{key}": None, f"memory_ratio_{key}": None}
                continue
            ids = np.random.RandomState(n_tokens).randint(0, 50_000, n_tokens).tolist()
            batch = torch.tensor([ids])

            def theirs(peer: GPT2LMHeadModel = peer, batch: torch.Tensor = batch) -> object:
                with torch.inference_mode():
                    return peer(batch, use_cache=False, output_attentions=True, output_hidden_states=True)

            def ours(lm: LanguageModel = lm, ids: list[int] = ids) -> trace.Trace:
                trace._traces.clear()
                return trace.trace_tokens(lm, ids)

            mine, output = ours(), theirs()
            difference = max(
                float(np.abs(attention_maps(mine, layer=layer).weights - maps[0].numpy()).max())
                for layer, maps in enumerate(output.attentions)  # type: ignore[attr-defined]
            )
            bytes_theirs = distinct_bytes([*output.attentions, *output.hidden_states, output.logits])  # type: ignore[attr-defined]
            seconds, seconds_theirs = in_turn(ours, theirs)
            print(
                f"{name:<16}{n_tokens:>7}{seconds * 1e3:>10.1f}{seconds_theirs * 1e3:>10.1f}"
                f"{mine.n_bytes / 1e6:>10.2f}{bytes_theirs / 1e6:>10.2f}{difference:>13.1e}"
            )
            found |= {
                f"speedup_{key}": round(seconds_theirs / seconds, 2),
                f"memory_ratio_{key}": round(bytes_theirs / mine.n_bytes, 1),
            }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
