"""One forward pass over a text, kept: the core idea of the project. Every view reads the same Trace.

Nothing of size layers × heads × tokens × tokens is kept, nor tokens × vocabulary: maps and logits are computed when
they are looked at.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gpt_core.capture import LayerCapture, apply_head, intervening, recorded_pass
from gpt_core.errors import ContextLengthError, InputError, MemoryLimitError, UnsupportedError
from gpt_core.registry import Registry
from gpt_core.tokenizer import tokenize_text
from gpt_core.validation import check_integer

if TYPE_CHECKING:
    from gpt_core.control import Control
    from gpt_core.interventions import Interventions
    from gpt_core.model import LanguageModel

#: Bytes of traces that are kept; the largest single trace may take half of it.
TRACE_BYTES_VARIABLE = "GPT_CORE_TRACE_BYTES"
#: Most bytes of logits that are asked for at once.
MAX_LOGITS_BYTES = 2**30


@dataclass(frozen=True, kw_only=True, eq=False, slots=True, weakref_slot=True)
class Trace:
    """What one pass left. Tensors on the CPU in float32, without batch axis; nobody changes them."""

    model_id: str
    """`source:name@revision`."""
    token_ids: tuple[int, ...]
    """The text, as ids."""
    token_vectors: torch.Tensor
    """`(n_tokens, d_model)`: rows of the token embedding (`wte`)."""
    position_vectors: torch.Tensor | None
    """`(n_tokens, d_model)`: rows of the position table (`wpe`); None where there is none."""
    residual: torch.Tensor
    """`(n_layers + 1, n_tokens, d_model)`: what enters block 0, then what leaves each block, before the final norm."""
    final: torch.Tensor
    """`(n_tokens, d_model)`: the model's last hidden state, after the final norm."""
    attention: tuple[LayerCapture, ...]
    """Per layer, q, k, v, scaling and mask; empty where the model does not let them be recorded."""
    block_arguments: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]
    """Per block, what it was given besides the hidden state (mask, positions), where it was given it: on the model's
    device, with batch axis."""
    interventions: Interventions | None = None
    """What was replaced inside the pass; None for the model as it is."""

    @property
    def n_tokens(self) -> int:
        """Length of the text in tokens."""
        return len(self.token_ids)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.residual.shape[0] - 1

    @property
    def n_bytes(self) -> int:
        """Bytes of the distinct storages kept."""
        tensors = [self.token_vectors, self.residual, self.final]
        if self.position_vectors is not None:
            tensors.append(self.position_vectors)
        for layer in self.attention:
            tensors += [layer.query, layer.key, layer.value]
            if layer.mask is not None:
                tensors.append(layer.mask)
        for args, kwargs in self.block_arguments:
            tensors += _tensors_in((*args, *kwargs.values()))
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        return sum(storages.values())


def trace_text(lm: LanguageModel, text: str, *, control: Control | None = None) -> Trace:
    """The Trace of `text`, special tokens read as such. See `trace_tokens`."""
    return trace_tokens(lm, tokenize_text(lm, text).token_ids, control=control)


def trace_tokens(
    lm: LanguageModel,
    token_ids: Sequence[int],
    *,
    interventions: Interventions | None = None,
    control: Control | None = None,
) -> Trace:
    """The Trace of `token_ids`: one forward pass, or the kept one if these ids were traced before.

    With `interventions`, of the pass in which they replace what parts of the model give. Raises InputError (no
    token, id out of range, interventions that do not fit), ContextLengthError (more tokens than the context holds),
    MemoryLimitError (the pass or the trace would take more than half the store), UnsupportedError (this model's
    parts cannot be told apart), and what `control` raises.
    """
    ids = check_token_ids(lm, token_ids)
    _admit(lm, len(ids))
    interventions = interventions or None
    key = (str(lm.model_id), str(lm.device), ids, interventions)
    return _traces.get_or_make(
        key, lambda: _run(lm, ids, interventions, control), check=None if control is None else control.check
    )


def kept_trace(lm: LanguageModel, token_ids: Sequence[int]) -> Trace | None:
    """The Trace of `token_ids` if it is kept; runs nothing."""
    return _traces.get((str(lm.model_id), str(lm.device), tuple(token_ids), None))


def check_token_ids(lm: LanguageModel, token_ids: Sequence[int]) -> tuple[int, ...]:
    """`token_ids` as a tuple that the model can look at; else InputError or ContextLengthError."""
    limit = lm.geometry.context_length
    if len(token_ids) == 0:
        raise InputError("The text has no token. Type at least one character.")
    if len(token_ids) > limit:
        raise ContextLengthError(
            f"The text must be at most {limit:,} tokens, the context length of {lm.model_id.name}. "
            f"Given: {len(token_ids):,}. Shorten it by {len(token_ids) - limit:,} tokens."
        )
    highest = lm.geometry.vocab_size - 1
    return tuple(check_integer("token id", token_id, low=0, high=highest) for token_id in token_ids)


def logits_at(lm: LanguageModel, trace: Trace, positions: Sequence[int]) -> np.ndarray:
    """Logits `(n_positions, vocab_size)`, float32, by the model's own head with its bias, scale and cap.

    Raises InputError (position out of range) and UnsupportedError (the head cannot be applied exactly).
    """
    assert trace.model_id == str(lm.model_id), "a trace is read with the model that made it"
    return logits_of(lm, trace.final[_rows(trace, positions)])


def logits_of(lm: LanguageModel, hidden: torch.Tensor) -> np.ndarray:
    """Logits `(n, vocab_size)` of vectors `(n, d_model)` that the final norm has already been applied to.

    Raises UnsupportedError as `logits_at` does, and MemoryLimitError beyond MAX_LOGITS_BYTES.
    """
    if "logits" in lm.closed_views:
        raise UnsupportedError(lm.closed_views["logits"])
    n_rows, vocab_size = hidden.shape[0], lm.geometry.vocab_size
    if n_rows * vocab_size * 4 > MAX_LOGITS_BYTES:
        raise MemoryLimitError(
            f"Logits must take at most {MAX_LOGITS_BYTES / 2**20:,.0f} MiB of memory at once: "
            f"{MAX_LOGITS_BYTES // (4 * vocab_size):,} positions of {lm.model_id.name}. Given: {n_rows:,}."
        )
    if n_rows == 0:
        return np.zeros((0, vocab_size), dtype=np.float32)
    return apply_head(lm.network, hidden.to(lm.device)).float().cpu().numpy()


def _rows(trace: Trace, positions: Sequence[int]) -> list[int]:
    return [check_integer("position", p, low=0, high=trace.n_tokens - 1) for p in positions]


def _run(
    lm: LanguageModel, ids: tuple[int, ...], interventions: Interventions | None, control: Control | None
) -> Trace:
    plan = None if interventions is None else interventions.plan(lm, ids, control=control)
    with intervening(plan):
        recording, last_hidden = recorded_pass(
            lm.anatomy.decoder,
            torch.tensor(ids, dtype=torch.long, device=lm.device),
            None if control is None else control.check,
        )
    assert recording.token_vectors is not None
    n_layers = len(lm.anatomy.blocks)
    return Trace(
        model_id=str(lm.model_id),
        token_ids=ids,
        token_vectors=recording.token_vectors.cpu(),
        position_vectors=None if recording.position_vectors is None else recording.position_vectors.cpu(),
        residual=torch.stack([recording.block_inputs[0], *recording.block_outputs]).cpu(),
        final=last_hidden.cpu(),
        attention=tuple(_to_cpu(layer) for layer in recording.attention)
        if len(recording.attention) == n_layers and "attention" not in lm.closed_views
        else (),
        block_arguments=tuple(recording.block_arguments),
        interventions=interventions,
    )


def _to_cpu(layer: LayerCapture) -> LayerCapture:
    return LayerCapture(
        query=layer.query.cpu(),
        key=layer.key.cpu(),
        value=layer.value.cpu(),
        scaling=layer.scaling,
        mask=None if layer.mask is None else layer.mask.cpu(),
        softcap=layer.softcap,
    )


def estimated_bytes(lm: LanguageModel, n_tokens: int) -> int:
    """Bytes that a Trace of `n_tokens` takes, about."""
    g = lm.geometry
    per_token = (g.n_layers + 4) * g.d_model
    if "attention" not in lm.closed_views:
        per_token += g.n_layers * (g.n_heads + 2 * g.n_kv_heads) * g.d_head
    # Only where some layer has a window does a mask exist: one, boolean, for all of them.
    return 4 * per_token * n_tokens + (n_tokens**2 if lm.canary.window else 0)


def _pass_bytes(lm: LanguageModel, n_tokens: int) -> int:
    """Bytes that a pass takes besides, at its height: the scores of one layer where attention is not SDPA's."""
    return 3 * 4 * lm.geometry.n_heads * n_tokens**2 if "attention" in lm.closed_views else 0


def _admit(lm: LanguageModel, n_tokens: int) -> None:
    limit = _traces.capacity // 2
    needed = estimated_bytes(lm, n_tokens) + _pass_bytes(lm, n_tokens)
    if needed > limit:
        raise MemoryLimitError(
            f"Looking at {n_tokens:,} tokens of {lm.model_id.name} must take at most {limit / 2**20:,.0f} MiB of "
            f"memory. Needed: {needed / 2**20:,.0f} MiB. Shorten the text, or set {TRACE_BYTES_VARIABLE} higher."
        )


def _store_bytes() -> int:
    named = os.environ.get(TRACE_BYTES_VARIABLE, "")
    if named and not (named.isascii() and named.isdigit() and int(named) > 0):
        raise ValueError(
            f"{TRACE_BYTES_VARIABLE} must be a whole number of bytes, 1 or more. Given: {named!r}."
        )
    return int(named or 2**30)


def _tensors_in(values: Sequence[Any]) -> list[torch.Tensor]:
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found += _tensors_in(value)
    return found


_traces: Registry[tuple[str, str, tuple[int, ...], Interventions | None], Trace] = Registry(
    _store_bytes(), lambda trace: trace.n_bytes
)
