"""Ablate and see: what changes when parts of the model give something else than they would.

Heads are replaced before the output projection, MLPs where their result is added to the stream. Each gives nothing
(zero ablation), its mean over a named reference text (mean ablation: the same for every head, so that nothing of the
text looked at leaks in; Wang et al. 2022, arXiv:2211.00593), or what it gave in a second prompt (activation
patching; Vig et al. 2020, arXiv:2004.12265). The model itself is never changed: a replacement belongs to one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from gpt_core.anatomy import forward_arguments
from gpt_core.capture import Plan, apply_head, head_outputs, interruptible, intervening
from gpt_core.errors import InputError, UnsupportedError
from gpt_core.predictions import kl_bits, position_chunks
from gpt_core.trace import Trace, check_token_ids, logits_at, trace_tokens
from gpt_core.validation import check_integer

if TYPE_CHECKING:
    from gpt_core.control import Control
    from gpt_core.model import LanguageModel

Kind = Literal["zero", "mean", "patch"]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: What mean ablation takes the mean over: every position of this text, as this model cuts it into tokens.
REFERENCE_NAME = "a day at the market"
REFERENCE_TEXT = (
    "The market opens early in the morning, when the streets are still quiet. People come from the villages around "
    "the town to sell bread, fruit, vegetables and cheese. Some of them have had the same place for many years, and "
    "they know most of their customers by name. At noon it is often so full that one can hardly walk. A man plays "
    "the violin near the fountain, and two children stop to listen. In the afternoon the prices fall, because nobody "
    "wants to carry home what was not sold. By six the square is empty again, and a small green car sweeps up the "
    "leaves."
)
#: Longest greedy continuation that is compared.
MAX_NEW_TOKENS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Interventions:
    """Which parts give something else, and what. Part of the key of a trace. Without parts it is false."""

    kind: Kind = "zero"
    """`zero`: nothing; `mean`: the part's mean over REFERENCE_TEXT; `patch`: what it gives at the same position of
    `source_ids`."""
    heads: tuple[tuple[int, int], ...] = ()
    """(layer, head) pairs, in order."""
    mlps: tuple[int, ...] = ()
    """Layers, in order."""
    source_ids: tuple[int, ...] = ()
    """The second prompt; empty unless `kind` is `patch`."""

    def __post_init__(self) -> None:
        """Check the kind, and put the parts in order."""
        if self.kind not in KINDS:
            raise InputError(f"`kind` must be one of: {', '.join(KINDS)}. Given: {repr(self.kind)[:40]}.")
        object.__setattr__(self, "heads", tuple(sorted({(int(la), int(he)) for la, he in self.heads})))
        object.__setattr__(self, "mlps", tuple(sorted({int(layer) for layer in self.mlps})))
        object.__setattr__(self, "source_ids", tuple(self.source_ids) if self.kind == "patch" else ())

    def __bool__(self) -> bool:
        return bool(self.heads or self.mlps)

    def plan(self, lm: LanguageModel, token_ids: Sequence[int], *, control: Control | None = None) -> Plan:
        """What a pass over `token_ids` is to use; runs the reference text or the second prompt if it must.

        Raises UnsupportedError where the model's parts cannot be told apart, InputError for parts that it does not
        have and for a second prompt of another length.
        """
        if not lm.writers:
            raise UnsupportedError(lm.closed_views["writers"])
        g = lm.geometry
        for layer, head in self.heads:
            check_integer("layer", layer, low=0, high=g.n_layers - 1)
            check_integer("head", head, low=0, high=g.n_heads - 1)
        for layer in self.mlps:
            check_integer("layer", layer, low=0, high=g.n_layers - 1)
        if self.kind == "patch" and len(self.source_ids) != len(token_ids):
            raise InputError(
                f"The second prompt must have as many tokens as the first, {len(token_ids):,}, so that each position "
                f"has its counterpart. Given: {len(self.source_ids):,}. Change a word of one of them for another that "
                "is cut into as many tokens."
            )
        if self.kind == "zero":
            source = None
        elif self.kind == "patch":
            source = trace_tokens(lm, self.source_ids, control=control)
        else:
            source = trace_tokens(lm, reference_ids(lm), control=control)
        plan = Plan()
        for layer in sorted({layer for layer, _ in self.heads}):
            heads = torch.tensor([head for at, head in self.heads if at == layer])
            if source is None:
                d_value = _value_width(lm, layer)
                values = torch.zeros(1, len(heads), d_value)
            else:
                values = head_outputs(source.attention[layer])[:, heads]
            plan.heads[layer] = (heads.to(lm.device), self._over_positions(values).to(lm.device))
        for layer in self.mlps:
            written = torch.zeros(1, g.d_model) if source is None else mlp_writes(lm, source, layer)
            plan.mlps[layer] = self._over_positions(written).to(lm.device)
        return plan

    def _over_positions(self, values: torch.Tensor) -> torch.Tensor:
        return values.mean(dim=0, keepdim=True) if self.kind == "mean" else values


def parse_parts(
    text: str, *, n_layers: int, n_heads: int
) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Heads and MLPs written as `3.1 5.* 4.mlp`: layer, then head, `*` for all heads of the layer, or `mlp`.

    Raises InputError for anything else, and for parts that are not there.
    """
    heads: list[tuple[int, int]] = []
    mlps: list[int] = []
    for word in text.replace(",", " ").split():
        layer_text, _, part = word.partition(".")
        if not (layer_text.isascii() and layer_text.isdigit() and len(layer_text) < 7) or not part:
            raise InputError(
                f"A part is written as layer.head, layer.* or layer.mlp, such as 3.1. Given: {word[:40]!r}."
            )
        layer = check_integer("layer", int(layer_text), low=0, high=n_layers - 1)
        if part == "mlp":
            mlps.append(layer)
        elif part == "*":
            heads += [(layer, head) for head in range(n_heads)]
        elif part.isascii() and part.isdigit() and len(part) < 7:
            heads.append((layer, check_integer("head", int(part), low=0, high=n_heads - 1)))
        else:
            raise InputError(
                f"A part is written as layer.head, layer.* or layer.mlp, such as 3.1. Given: {word[:40]!r}."
            )
    return tuple(sorted(set(heads))), tuple(sorted(set(mlps)))


def reference_ids(lm: LanguageModel) -> tuple[int, ...]:
    """REFERENCE_TEXT as this model's tokens, as many as its context holds."""
    from gpt_core.tokenizer import tokenize_text

    return tokenize_text(lm, REFERENCE_TEXT).token_ids[: lm.geometry.context_length]


def _value_width(lm: LanguageModel, layer: int) -> int:
    """Width of what one head gives to the projection."""
    weight = lm.writers[layer].projection.weight
    assert isinstance(weight, torch.Tensor)
    return int(weight.numel() // lm.geometry.d_model // lm.geometry.n_heads)


def attention_writes(lm: LanguageModel, trace: Trace, layer: int) -> torch.Tensor:
    """What the heads of a block write together, `(n_tokens, d_model)`, before the block's factor."""
    writers = lm.writers[layer]
    with torch.inference_mode():
        written = writers.projection(head_outputs(trace.attention[layer]).flatten(1).to(lm.device)[None])
        if writers.post_norm is not None:
            written = writers.post_norm(written)
    assert isinstance(written, torch.Tensor)
    return written[0].cpu()


def mlp_writes(lm: LanguageModel, trace: Trace, layer: int) -> torch.Tensor:
    """What the MLP of a block writes, `(n_tokens, d_model)`, before the block's factor: all that the heads do not."""
    added = (trace.residual[layer + 1] - trace.residual[layer]) / lm.writers[layer].factor
    return added - attention_writes(lm, trace, layer)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class PredictionChange:
    """What is expected after one position, by the model as it is and with parts replaced."""

    position: int
    """From 0."""
    token_ids: np.ndarray
    """`(k,)` int64: the most probable tokens of either, most probable first."""
    probs: np.ndarray
    """`(k,)` float32, the model as it is, over the whole vocabulary."""
    changed_probs: np.ndarray
    """`(k,)` float32, with parts replaced."""
    logit_differences: np.ndarray
    """`(k,)` float32, changed minus intact."""
    kl_bits: np.ndarray
    """`(n_tokens,)` float32: at every position, the bits that the changed model loses on what the intact one expects
    next, KL(intact || changed)."""

    def __post_init__(self) -> None:
        arrays = (self.token_ids, self.probs, self.changed_probs, self.logit_differences)
        assert len({array.shape for array in arrays}) == 1
        for array in (*arrays, self.kl_bits):
            array.setflags(write=False)


def compare_predictions(
    lm: LanguageModel,
    intact: Trace,
    changed: Trace,
    *,
    position: int,
    k: int = 10,
    control: Control | None = None,
) -> PredictionChange:
    """What both traces of one text expect after `position`: the `k` most probable tokens of each; and how far they are
    from each other everywhere.

    Raises InputError (position or k out of range), UnsupportedError (logits cannot be rebuilt), and what `control`
    raises.
    """
    assert intact.token_ids == changed.token_ids, "two traces of one text are compared"
    check_integer("k", k, low=1, high=lm.geometry.vocab_size)
    logits = np.stack([logits_at(lm, trace, [position])[0] for trace in (intact, changed)]).astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    best = {int(i) for row in logits for i in np.argpartition(-row, k - 1)[:k]}
    ids = np.array(sorted(best, key=lambda i: -max(log_probs[0, i], log_probs[1, i])), dtype=np.int64)
    probs = np.exp(log_probs)
    distances = np.zeros(intact.n_tokens, dtype=np.float32)
    for rows in position_chunks(intact.n_tokens, lm.geometry.vocab_size):
        if control is not None:
            control.check()
        distances[rows.start : rows.stop] = kl_bits(logits_at(lm, intact, rows), logits_at(lm, changed, rows))
    return PredictionChange(
        position=position,
        token_ids=ids,
        probs=probs[0, ids].astype(np.float32),
        changed_probs=probs[1, ids].astype(np.float32),
        logit_differences=(logits[1, ids] - logits[0, ids]).astype(np.float32),
        kl_bits=distances,
    )


def continue_greedily(
    lm: LanguageModel,
    token_ids: Sequence[int],
    *,
    interventions: Interventions | None = None,
    max_new_tokens: int = 20,
    control: Control | None = None,
) -> tuple[int, ...]:
    """The most probable continuation, token by token, with parts replaced in every pass.

    Patched parts are so at the prompt's positions only: the second prompt has no others. Stops at the model's end
    token, or where the context is full. Raises what `Interventions.plan` does.
    """
    from transformers import DynamicCache

    from gpt_core.generation import end_token_ids

    ids = list(check_token_ids(lm, token_ids))
    n_prompt = len(ids)
    check_integer("max_new_tokens", max_new_tokens, low=1, high=MAX_NEW_TOKENS)
    plan = interventions.plan(lm, ids, control=control) if interventions else None
    network: Any = lm.network
    past = DynamicCache(config=network.config.get_text_config(decoder=True))
    ends = end_token_ids(lm)
    check = None if control is None else control.check
    n_read = 0
    while len(ids) < min(n_prompt + max_new_tokens, lm.geometry.context_length):
        if control is not None:
            control.check()
            control.report((len(ids) - n_prompt) / max_new_tokens, f"Token {len(ids) - n_prompt + 1}")
        if plan is not None:
            plan.offset = n_read
        new = torch.tensor([ids[n_read:]], device=lm.device)
        positions = torch.arange(n_read, len(ids), device=lm.device)[None]
        with torch.inference_mode(), intervening(plan), interruptible(check):
            hidden = lm.anatomy.decoder(
                input_ids=new, past_key_values=past, use_cache=True, **_positions(lm, positions)
            )[0][0, -1:]
            token_id = int(apply_head(network, hidden)[0].argmax())
        n_read = len(ids)
        ids.append(token_id)
        if token_id in ends:
            break
    return tuple(ids[n_prompt:])


def _positions(lm: LanguageModel, positions: torch.Tensor) -> dict[str, torch.Tensor]:
    takes_positions = "position_ids" in forward_arguments(lm.anatomy.decoder)
    return {"position_ids": positions} if takes_positions else {}
