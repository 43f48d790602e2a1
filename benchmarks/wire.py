"""Claim: all heads of a text reach the browser in at most 1/50 of BertViz's bytes, and 1,024 tokens in under 4 MB.

Ours: everything that the head grid of the dashboard sends for a text: the cells of all heads, the frame with the
tokens, the frame again with the measures of all heads when they are there, and its scripts and style. Peer: the page
that BertViz's own `model_view` makes of the same maps; what that page fetches from a content network besides (about
0.4 MB of scripts) is left out. Random weights of GPT-2 small's geometry, 12 × 12 heads, q and k enlarged so that the
maps are far from uniform.

Before bytes are compared, ours are decoded from the payload and held against eager attention: up to 128 tokens each
cell must be there to 1/255, above that the largest weight of each block of cells. At 1,024 tokens BertViz's page would
have about 4 GB and is not made.

    python benchmarks/wire.py [--quick]
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from bertviz import model_view
from torch.nn import functional
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

sys.path.insert(0, str(Path(__file__).parents[1]))

from dashboard.components import head_grid as component
from dashboard.components.attention_measures import as_grid_measures
from dashboard.components.head_grid.payload import pack_cells, pack_frame, unpack
from gpt_core.attention_measures import measure_heads
from gpt_core.catalog import BUNDLED_FOLDER, ModelId
from gpt_core.head_grid import LayerThumbnails, decode_thumbnails, grid_step, layer_thumbnails
from gpt_core.model import LanguageModel, wrap_network
from gpt_core.trace import trace_tokens
from gpt_core.vocabulary import label_tokens

QUICK = "--quick" in sys.argv
COMPARED = (16, 32, 64, 128)
LONG = 1024


def networks() -> tuple[LanguageModel, GPT2LMHeadModel]:
    """GPT-2 small's geometry with random weights, once for us and once for the peer."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.random.default_generator.manual_seed(0)
        network = GPT2LMHeadModel(GPT2Config())
        for block in network.transformer.h:
            block.attn.c_attn.weight[:, : 2 * 768] *= 4
    peer = GPT2LMHeadModel(GPT2Config())
    peer.load_state_dict(network.state_dict())
    peer.set_attn_implementation("eager")
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_FOLDER)
    return wrap_network(network, tokenizer, model_id=ModelId("local", "gpt2-geometry")), peer.eval()


def payloads(lm: LanguageModel, ids: tuple[int, ...]) -> tuple[bytes, bytes, bytes]:
    """What travels for a text: its frame, its frame with the measures, and its cells."""
    trace = trace_tokens(lm, ids)
    layers = [layer_thumbnails(trace, layer=layer) for layer in range(trace.n_layers)]
    first, second = (
        pack_frame(
            label_tokens(lm, ids),
            key="heads",
            run="0" * 16,
            n_layers=12,
            n_heads=12,
            step=grid_step(144, len(ids)),
            measures=measures,
        )
        for measures in (None, as_grid_measures(measure_heads(trace)))
    )
    return first, second, pack_cells(layers, key="heads", run="0" * 16)


def static_bytes() -> int:
    """Bytes of the component's scripts and style."""
    folder = Path(component.__file__).parent
    names = ("../common.js", "head_grid.js", "head_grid.css", "cells.js", "selection.js")
    return sum((folder / name).stat().st_size for name in names)


def largest_error(frame: bytes, cells: bytes, attentions: tuple[torch.Tensor, ...]) -> float:
    """How far the decoded payload is from eager's maps: from each cell, or from the largest weight of each block."""
    said, _ = unpack(frame)
    head, codes = unpack(cells)
    assert (said["run"], said["n_heads"], head["n_layers"]) == (head["run"], head["n_heads"], 12)
    step, worst = said["step"], 0.0
    for layer, own in enumerate(codes.reshape(head["n_layers"], head["n_heads"], -1)):
        decoded = decode_thumbnails(
            LayerThumbnails(layer=layer, n_tokens=said["n_tokens"], step=step, cells=own)
        )
        eager = functional.max_pool2d(attentions[layer], step, ceil_mode=True)[0].numpy()
        below = np.tri(head["side"], dtype=bool)
        assert np.isfinite(decoded[:, below]).all()
        worst = max(worst, float(np.abs(decoded - eager)[:, below].max()))
    return worst


def main() -> None:
    """Print a table, and as the last line one JSON object."""
    lm, peer = networks()
    static = static_bytes()
    print(f"12 × 12 heads; ours includes {static:,} bytes of scripts and style")
    print(f"{'tokens':>7}{'ours bytes':>14}{'BertViz bytes':>16}{'ratio':>8}{'step':>6}{'largest error':>15}")
    found: dict[str, float | None] = {}
    for n_tokens in (*COMPARED, LONG):
        if QUICK and n_tokens == LONG:
            found[f"bytes_{n_tokens}"] = None
            continue
        ids = tuple(np.random.RandomState(n_tokens).randint(0, 50_000, n_tokens).tolist())
        frame, measured, cells = payloads(lm, ids)
        with torch.inference_mode():
            attentions = peer(torch.tensor([ids]), use_cache=False, output_attentions=True).attentions
        error = largest_error(frame, cells, attentions)
        assert error < 1 / 255, f"the bytes do not rebuild the maps: {error}"
        ours = len(frame) + len(measured) + len(cells) + static
        theirs = None
        if n_tokens in COMPARED:
            page = model_view(list(attentions), list(label_tokens(lm, ids)), html_action="return")
            theirs = len(page.data.encode())
        print(
            f"{n_tokens:>7}{ours:>14,}{'not made' if theirs is None else f'{theirs:,}':>16}"
            f"{'' if theirs is None else f'{theirs / ours:.1f}':>8}{grid_step(144, n_tokens):>6}{error:>15.5f}"
        )
        found[f"bytes_{n_tokens}"] = ours
        if theirs is not None:
            found[f"bytes_ratio_{n_tokens}"] = round(theirs / ours, 1)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
