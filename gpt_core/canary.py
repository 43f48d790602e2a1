"""Prove on a short text, when a model is loaded, that what the views compute is what the model computes.

The reference is transformers' own eager attention. A view whose numbers do not agree is closed by a sentence; the
model loads all the same. Never a wrong map.
"""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from gpt_core.anatomy import Anatomy
from gpt_core.capture import (
    ATTENTION_NAME,
    Recording,
    apply_head,
    attention_scores,
    recorded_pass,
)
from gpt_core.errors import ModelLoadError

#: Largest difference of an attention weight from eager's, and of a logit relative to the largest logit.
TOLERANCE = 1e-4
#: Longest canary, in tokens: a wider attention window than this is not proved, so texts stop at its width.
MAX_CANARY_TOKENS = 1056


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Canary:
    """What was measured, and what follows from it."""

    n_tokens: int
    """Length of the text looked at."""
    n_heads: int
    """Query heads per layer."""
    n_kv_heads: int
    """Key and value heads per layer."""
    d_head: int
    """Width of a query."""
    longest: int
    """Most tokens for which the maps are proved; 0 for no bound of its own."""
    attention_difference: float
    """Largest difference of an attention weight from eager's; NaN where not measured."""
    logits_difference: float
    """Largest difference of a logit from eager's, relative to the largest logit."""
    norm_difference: float
    """Largest difference of final norm (last block's output) from the last hidden state, relative to the largest."""
    closed_views: tuple[tuple[str, str], ...]
    """(view, sentence) pairs."""


def run_canary(network: PreTrainedModel, anatomy: Anatomy) -> tuple[Canary, torch.nn.Module | None]:
    """Measure `network`, leave it with the attention that can be recorded, and name its final norm.

    Raises ModelLoadError where a number of the network itself is not finite.
    """
    config = network.config.get_text_config()
    window = _window(config)
    wide = window > MAX_CANARY_TOKENS - 8
    context = int(getattr(config, "max_position_embeddings", 0) or 0) or 2048
    n_tokens = min(context, 24 if wide or window == 0 else window + 8)
    rng = np.random.RandomState(0)
    token_ids = torch.from_numpy(
        rng.randint(0, anatomy.token_embedding.weight.shape[0], size=n_tokens).astype(np.int64)
    ).to(network.device)

    reads_interface = bool(getattr(network, "_supports_attention_backend", False))
    if reads_interface:
        network.set_attn_implementation("eager")
    with torch.inference_mode():
        eager = network(input_ids=token_ids[None], use_cache=False, output_attentions=reads_interface)
    if not bool(torch.isfinite(eager.logits).all()):
        raise ModelLoadError(
            "The model's own logits are not finite on a short text: its weights are damaged."
        )
    if reads_interface:
        network.set_attn_implementation(ATTENTION_NAME)
    recording, last_hidden = recorded_pass(anatomy.decoder, token_ids)
    attention_difference = _attention_difference(
        recording, getattr(eager, "attentions", None), len(anatomy.blocks)
    )
    logits_difference = _logits_difference(network, last_hidden, eager.logits[0])

    name = type(network).__name__
    closed: dict[str, str] = {}
    if not (reads_interface and attention_difference <= TOLERANCE and logits_difference <= TOLERANCE):
        measured = (
            f"its maps here differ from its own by {attention_difference:.1e}, more than {TOLERANCE:.0e}"
            if attention_difference > TOLERANCE
            else "they cannot be recorded exactly here"
        )
        closed["attention"] = (
            f"{name} computes attention weights in its own way and {measured}, so no map is shown. "
            "The other pages work."
        )
        if reads_interface:
            network.set_attn_implementation("eager")
            recording, last_hidden = recorded_pass(anatomy.decoder, token_ids)
            logits_difference = _logits_difference(network, last_hidden, eager.logits[0])
    if not logits_difference <= TOLERANCE:
        closed["logits"] = (
            f"The predictions of {name} could not be rebuilt from its last hidden state, so none is shown."
        )
    norm, norm_difference = _find_final_norm(anatomy, recording, last_hidden)
    if norm is None:
        closed["lens"] = (
            f"The final norm of {name} was not found, so its intermediate predictions are not shown."
        )
        closed["walk"] = f"The final norm of {name} was not found, so the walk cannot be compared."
    shapes = recording.attention[0] if recording.attention else None
    n_heads = int(getattr(config, "num_attention_heads", 0) or 0)
    canary = Canary(
        n_tokens=n_tokens,
        n_heads=shapes.query.shape[0] if shapes else n_heads,
        n_kv_heads=shapes.key.shape[0] if shapes else n_heads,
        d_head=shapes.query.shape[-1]
        if shapes
        else anatomy.token_embedding.weight.shape[1] // max(1, n_heads),
        longest=window if wide and reads_interface else 0,
        attention_difference=attention_difference,
        logits_difference=logits_difference,
        norm_difference=norm_difference,
        closed_views=tuple(closed.items()),
    )
    return canary, norm


def _window(config: object) -> int:
    """Width of the sliding window that some layer uses, in tokens; 0 for none."""
    window = int(getattr(config, "sliding_window", 0) or 0)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and not any("sliding" in str(kind) for kind in kinds):
        return 0
    return window


def _attention_difference(
    recording: Recording, attentions: tuple[torch.Tensor | None, ...] | None, n_layers: int
) -> float:
    if not attentions or len(recording.attention) != n_layers or len(attentions) != n_layers:
        return float("nan")
    largest = 0.0
    for layer, reference in zip(recording.attention, attentions, strict=True):
        heads = torch.arange(layer.query.shape[0], device=layer.query.device)
        maps = attention_scores(layer, heads=heads, queries=slice(None)).softmax(dim=-1)
        if reference is None or reference.shape[1:] != maps.shape:
            return float("nan")
        largest = max(largest, float((maps - reference[0]).abs().max()))
    return largest


def _logits_difference(network: PreTrainedModel, last_hidden: torch.Tensor, reference: torch.Tensor) -> float:
    logits = apply_head(network, last_hidden)
    if logits.shape != reference.shape:
        return float("nan")
    return float((logits - reference).abs().max()) / max(1.0, float(reference.abs().max()))


def _find_final_norm(
    anatomy: Anatomy, recording: Recording, last_hidden: torch.Tensor
) -> tuple[torch.nn.Module | None, float]:
    if len(recording.block_outputs) != len(anatomy.blocks):
        return None, float("nan")
    scale = max(1.0, float(last_hidden.abs().max()))
    with torch.inference_mode():
        for candidate in (*anatomy.norm_candidates, torch.nn.Identity()):
            normed = candidate(recording.block_outputs[-1][None])[0]
            if normed.shape == last_hidden.shape:
                difference = float((normed - last_hidden).abs().max()) / scale
                if difference <= TOLERANCE:
                    return candidate, difference
    return None, float("nan")
