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
#: Tokens that show everything where no window has to be passed.
_SHORT = 24


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
    d_model: int
    """Width of the vectors between the blocks."""
    longest: int
    """Most tokens that may be looked at: what is proved here holds up to there; 0 for no bound of its own."""
    window: int
    """Width of the sliding window of some layer, in tokens; 0 where every token sees all before it."""
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

    Raises ModelLoadError where a number of the network itself is not finite, or where it reads what comes after.
    """
    config = network.config.get_text_config()
    name = type(network).__name__
    _check_weights(network)
    window = _window(config)
    wide = window > MAX_CANARY_TOKENS - 8
    context = int(getattr(config, "max_position_embeddings", 0) or 0) or 2048
    n_tokens = min(context, _SHORT if wide or window == 0 else window + 8)
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
            "The model's own logits are not finite on a short text: its weights are damaged. Copy its files again."
        )
    _check_causal(network, token_ids, eager.logits[0])
    if reads_interface:
        network.set_attn_implementation(ATTENTION_NAME)
    recording, last_hidden = recorded_pass(anatomy.decoder, token_ids)
    attention_difference = _attention_difference(
        recording, getattr(eager, "attentions", None), len(anatomy.blocks)
    )
    logits_difference = _logits_difference(network, last_hidden, eager.logits[0])

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
        d_model=recording.block_outputs[-1].shape[-1]
        if recording.block_outputs
        else anatomy.token_embedding.weight.shape[1],
        window=window,
        longest=_shortest(window if wide and reads_interface else 0, _stretched_from(config)),
        attention_difference=attention_difference,
        logits_difference=logits_difference,
        norm_difference=norm_difference,
        closed_views=tuple(closed.items()),
    )
    return canary, norm


def _check_weights(network: PreTrainedModel) -> None:
    for name, weight in network.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise ModelLoadError(
                f"The weight {name} holds numbers that are not finite: it is damaged. Copy the model's files again."
            )


def _check_causal(network: PreTrainedModel, token_ids: torch.Tensor, logits: torch.Tensor) -> None:
    """A shorter text with another last token must predict the same before it."""
    changed = token_ids[:_SHORT].clone()
    changed[-1] = (changed[-1] + 1) % logits.shape[-1]
    with torch.inference_mode():
        others = network(input_ids=changed[None], use_cache=False).logits[0]
    before = slice(0, len(changed) - 1)
    difference = (others[before] - logits[before]).abs() / max(1.0, float(logits.abs().max()))
    if not bool((difference <= TOLERANCE).all()):
        raise ModelLoadError(
            f"{type(network).__name__} reads what comes after a token, so it is no causal language model. "
            "Choose one that continues text."
        )


def _window(config: object) -> int:
    """Width of the sliding window or of the chunks that some layer looks at, in tokens; 0 for none."""
    kinds = getattr(config, "layer_types", None)
    widths = [
        int(getattr(config, name, 0) or 0)
        for name, kind in (("sliding_window", "sliding"), ("attention_chunk_size", "chunked"))
        if kinds is None or any(kind in str(k) for k in kinds)
    ]
    return max(widths, default=0)


def _stretched_from(config: object) -> int:
    """Longest text for which the rotary frequencies stay as they are; 0 for no bound.

    Beyond it "longrope" and "dynamic" models write other frequencies into the module that all readers share
    (transformers' modeling_rope_utils), so that two texts at once would get each other's.
    """
    parameters = getattr(config, "rope_parameters", None) or {}
    if not isinstance(parameters, dict):
        return 0
    kinds = (parameters, *(value for value in parameters.values() if isinstance(value, dict)))
    longest = getattr(config, "max_position_embeddings", 0)
    return _shortest(
        *(
            int(kind.get("original_max_position_embeddings") or longest or 0)
            for kind in kinds
            if kind.get("rope_type") in {"longrope", "dynamic"}
        )
    )


def _shortest(*bounds: int) -> int:
    return min((bound for bound in bounds if bound > 0), default=0)


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
            weight = getattr(candidate, "weight", None)
            if isinstance(weight, torch.Tensor) and weight.shape != recording.block_outputs[-1].shape[-1:]:
                continue  # it norms something else
            normed = candidate(recording.block_outputs[-1][None])[0]
            if normed.shape == last_hidden.shape:
                difference = float((normed - last_hidden).abs().max()) / scale
                if difference <= TOLERANCE:
                    return candidate, difference
    return None, float("nan")
