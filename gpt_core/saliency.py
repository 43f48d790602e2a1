"""Which words mattered? How much each token of a text did for the log-probability of a chosen next token.

Gradient x input (Denil et al. 2014, arXiv:1412.6815): the slope of the log-probability along each token's own vector,
times that vector: what a first-order guess says that the vector adds. Leave-one-out (Li et al. 2016,
arXiv:1612.08220): the text is read again without the token. Each is a pass of its own, outside inference mode for the
gradient, which flows to the embeddings alone: the weights stay as they are, and need none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gpt_core.anatomy import forward_arguments
from gpt_core.capture import apply_head, interruptible
from gpt_core.errors import MemoryLimitError, UnsupportedError
from gpt_core.trace import check_token_ids
from gpt_core.validation import check_integer

if TYPE_CHECKING:
    from gpt_core.control import Control
    from gpt_core.model import LanguageModel

#: Texts that are read at once: all have the same length.
_BATCH_TOKENS = 512
#: Most bytes that the backward pass may keep.
MAX_GRADIENT_BYTES = 4 * 2**30


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Saliency:
    """What each token did for one log-probability, in nats."""

    method: str
    """`gradient` or `leave one out`."""
    position: int
    """Position after which the chosen token would come; later tokens are not looked at."""
    token_id: int
    """The chosen token."""
    log_prob: float
    """Its log-probability there, nats."""
    scores: np.ndarray
    """`(position + 1,)` float32, nats: positive where the token makes the chosen one more probable; NaN for the only
    token of a text, without which nothing is left."""

    def __post_init__(self) -> None:
        assert self.scores.shape == (self.position + 1,)
        self.scores.setflags(write=False)


def gradient_times_input(
    lm: LanguageModel,
    token_ids: Sequence[int],
    *,
    position: int,
    token_id: int,
    control: Control | None = None,
) -> Saliency:
    """Gradient x input of the log-probability of `token_id` after `position`, for each token up to there.

    The input is the token's vector, as the embedding gives it. Raises InputError (out of range),
    UnsupportedError (logits closed, or no gradient reaches the embeddings), MemoryLimitError, and what `control`
    raises.
    """
    ids = _check(lm, token_ids, position, token_id)
    g = lm.geometry
    # About what the blocks keep for the way back: a few vectors and the MLP's width, and the maps.
    needed = 4 * g.n_layers * len(ids) * (40 * g.d_model + 3 * g.n_heads * len(ids))
    if needed > MAX_GRADIENT_BYTES:
        raise MemoryLimitError(
            f"The gradient over {len(ids):,} tokens must take at most {MAX_GRADIENT_BYTES / 2**20:,.0f} MiB of memory. "
            f"Needed: about {needed / 2**20:,.0f} MiB. Choose an earlier position, or leave-one-out."
        )
    if control is not None:
        control.report(0.1, "Forwards and back")
    batch = torch.tensor([ids], device=lm.device)
    check = None if control is None else control.check
    with torch.inference_mode(False), torch.enable_grad(), interruptible(check):
        vectors = lm.anatomy.token_embedding(batch).detach().clone().requires_grad_(True)
        log_probs = _log_probs(lm, vectors, len(ids))
        (gradient,) = torch.autograd.grad(log_probs[token_id], vectors)
    scores = (gradient[0].cpu().double() * vectors[0].detach().cpu().double()).sum(dim=-1)
    return Saliency(
        method="gradient",
        position=position,
        token_id=token_id,
        log_prob=float(log_probs[token_id].detach()),
        scores=scores.numpy().astype(np.float32),
    )


def _log_probs(lm: LanguageModel, vectors: torch.Tensor, n_tokens: int) -> torch.Tensor:
    """Log-probabilities `(vocab_size,)` float64 after the last of vectors `(1, n, d)`, with their graph."""
    network: Any = lm.network
    accepted = forward_arguments(network)
    arguments: dict[str, Any] = {
        "position_ids": torch.arange(n_tokens, device=vectors.device)[None],
        "use_cache": False,
        "logits_to_keep": 1,
    }
    arguments = {name: value for name, value in arguments.items() if name in accepted}
    logits = network(inputs_embeds=vectors, **arguments).logits[0, -1]
    if not logits.requires_grad:
        raise UnsupportedError(
            f"No gradient reaches the embeddings of {lm.model_id.name}. Use leave-one-out."
        )
    log_probs: torch.Tensor = logits.cpu().double().log_softmax(dim=-1)
    return log_probs


def leave_one_out(
    lm: LanguageModel,
    token_ids: Sequence[int],
    *,
    position: int,
    token_id: int,
    control: Control | None = None,
) -> Saliency:
    """By how much the log-probability of `token_id` after `position` falls when one token before it is left out.

    The tokens after the gap move up by one position. One pass for each token; later tokens are not read. Raises
    InputError (out of range), UnsupportedError (logits closed), and what `control` raises.
    """
    ids = _check(lm, token_ids, position, token_id)
    n = len(ids)
    whole = _last_log_probs(lm, [ids], token_id, control)[0]
    scores = np.full(n, np.nan)
    if n > 1:
        step = max(1, _BATCH_TOKENS // (n - 1))
        for start in range(0, n, step):
            if control is not None:
                control.report(start / n, f"Without token {start} of 0–{n - 1}")
            without = [ids[:gap] + ids[gap + 1 :] for gap in range(start, min(n, start + step))]
            scores[start : start + step] = whole - _last_log_probs(lm, without, token_id, control)
    return Saliency(
        method="leave one out",
        position=position,
        token_id=token_id,
        log_prob=float(whole),
        scores=scores.astype(np.float32),
    )


def _last_log_probs(
    lm: LanguageModel, texts: Sequence[tuple[int, ...]], token_id: int, control: Control | None
) -> np.ndarray:
    """Log-probability `(n_texts,)` of `token_id` after the end of texts of one length: float64, nats."""
    check = None if control is None else control.check
    with torch.inference_mode(), interruptible(check):
        hidden = lm.anatomy.decoder(input_ids=torch.tensor(texts, device=lm.device), use_cache=False)[0][
            :, -1
        ]
        logits = apply_head(lm.network, hidden).cpu().double()
        return np.asarray(logits.log_softmax(dim=-1)[:, token_id].numpy())


def _check(lm: LanguageModel, token_ids: Sequence[int], position: int, token_id: int) -> tuple[int, ...]:
    """The text up to `position`."""
    ids = check_token_ids(lm, token_ids)
    check_integer("position", position, low=0, high=len(ids) - 1)
    check_integer("token id", token_id, low=0, high=lm.geometry.vocab_size - 1)
    if "logits" in lm.closed_views:
        raise UnsupportedError(lm.closed_views["logits"])
    return ids[: position + 1]
