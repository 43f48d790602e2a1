"""Laws that hold for every architecture: what the core computes is what a plain, eager copy of the network computes.

Each function raises AssertionError where its law is broken. The tests call them on the core as it is, and on the core
with one mistake put in, where they must raise.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gpt_core.attention import all_attention_maps, attention_maps
from gpt_core.model import LanguageModel
from gpt_core.predictions import logit_lens, next_token
from gpt_core.trace import Trace, logits_at
from tests.conftest import make_network

#: Longer than every window of the small models, so that a window that is lost shows.
TEXT = tuple(np.random.RandomState(7).randint(0, 50257, size=40).tolist())


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """What plain transformers says of TEXT, with eager attention and everything asked for at once."""

    attentions: np.ndarray
    """`(n_layers, n_heads, n_tokens, n_tokens)`: probability; empty where the model gives none."""
    hidden_states: np.ndarray
    """`(n_layers + 1, n_tokens, d_model)`; the last one after the final norm."""
    logits: np.ndarray
    """`(n_tokens, vocab_size)`."""
    windows: tuple[int, ...]
    """`(n_layers,)`: how many tokens back a token sees, itself included; 0 for all."""


def plain_reference(architecture: str, **options: Any) -> Reference:
    """Run a copy of the network that `tiny_lm` makes, which the core has never touched."""
    network = make_network(architecture, **options).eval()
    with torch.no_grad():
        output = network(
            torch.tensor([TEXT]), output_attentions=True, output_hidden_states=True, use_cache=False
        )
    attentions = [] if not output.get("attentions") else [a[0].numpy() for a in output.attentions]
    config = network.config
    n_layers = config.num_hidden_layers
    width = getattr(config, "sliding_window", None) or 0
    kinds = (
        getattr(config, "layer_types", None)
        or ["sliding_attention" if width else "full_attention"] * n_layers
    )
    return Reference(
        attentions=np.stack(attentions) if attentions else np.zeros(0),
        hidden_states=np.stack([h[0].numpy() for h in output.hidden_states]),
        logits=output.logits[0].numpy(),
        windows=tuple(width if kind == "sliding_attention" else 0 for kind in kinds),
    )


def check_rows(lm: LanguageModel, trace: Trace, reference: Reference) -> None:
    """Rows sum to 1; nothing after the query, nothing outside the window, and nothing else is closed."""
    query, key = np.arange(trace.n_tokens)[:, None], np.arange(trace.n_tokens)[None, :]
    for layer, window in enumerate(reference.windows):
        maps = attention_maps(trace, layer=layer)
        seen = (key <= query) & ((query - key < window) if window else True)
        assert np.array_equal(maps.allowed, np.broadcast_to(seen, maps.allowed.shape))
        assert (maps.weights[~maps.allowed] == 0).all()
        np.testing.assert_allclose(maps.weights.sum(axis=-1), 1, atol=1e-5)


def check_maps(lm: LanguageModel, trace: Trace, reference: Reference) -> None:
    """The maps are transformers' own eager maps."""
    np.testing.assert_allclose(all_attention_maps(trace), reference.attentions, atol=1e-5, rtol=0)


def check_sharp(lm: LanguageModel, trace: Trace, reference: Reference) -> None:
    """In every layer some row that sees many tokens puts more than half on one: a wrong map cannot hide."""
    late = reference.attentions[:, :, 7:]
    assert (late.max(axis=(1, 2, 3)) > 0.5).all(), late.max(axis=(1, 2, 3))


def check_logits(lm: LanguageModel, trace: Trace, reference: Reference) -> None:
    """Logits at every position, through the model's own head."""
    np.testing.assert_allclose(
        logits_at(lm, trace, range(trace.n_tokens)), reference.logits, atol=1e-4, rtol=1e-4
    )


def check_hidden(lm: LanguageModel, trace: Trace, reference: Reference) -> None:
    """The vectors between the blocks, and after the final norm."""
    # Mamba's tuple begins with what leaves the first block, the others' with what enters it.
    ours = trace.residual[1:] if lm.network.config.model_type == "mamba" else trace.residual[:-1]
    np.testing.assert_allclose(ours.numpy(), reference.hidden_states[:-1], atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(trace.final.numpy(), reference.hidden_states[-1], atol=1e-4, rtol=1e-4)


def check_lens(lm: LanguageModel, trace: Trace, reference: Reference) -> None:
    """The last row of the lens is the model's prediction: token, probability, entropy, and rank 1."""
    lens = logit_lens(lm, trace)
    logits = torch.from_numpy(reference.logits).double()
    probs = logits.softmax(dim=-1)
    assert (lens.token_ids[-1] == logits.argmax(dim=-1).numpy()).all()
    assert (lens.final_ranks[-1] == 1).all()
    np.testing.assert_allclose(lens.probs[-1], probs.max(dim=-1).values, rtol=2e-4)
    entropies = torch.special.entr(probs).sum(dim=-1) / np.log(2)
    np.testing.assert_allclose(lens.entropies[-1], entropies, atol=2e-4)
    assert (lens.kl_to_final[-1] == 0).all()
    last = next_token(lm, trace, position=trace.n_tokens - 1, k=1)
    assert last.token_ids[0] == lens.token_ids[-1, -1]
    np.testing.assert_allclose(last.probs[0], lens.probs[-1, -1], rtol=1e-5)


ATTENTION_LAWS = (check_rows, check_maps, check_sharp)
LAWS = (check_logits, check_hidden, check_lens)
