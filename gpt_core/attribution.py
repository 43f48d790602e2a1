"""Who said so? What each head, each MLP and the embedding adds to one logit.

Direct logit attribution (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; nostalgebraist
2020): the vectors that enter the final norm are a sum of what the parts wrote, and with the norm's scale held at its
value in this pass, norm and head are one linear map. So the logit is a sum too, exactly. It says nothing of what a
part does through later parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gpt_core.capture import apply_head, head_outputs
from gpt_core.errors import InputError, UnsupportedError
from gpt_core.trace import Trace
from gpt_core.validation import check_integer
from gpt_core.writers import freeze_norm

if TYPE_CHECKING:
    from gpt_core.model import LanguageModel

#: Largest difference of a logit rebuilt here from the model's, relative to its largest logit.
TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class DirectContributions:
    """One logit, or the difference of two, as a sum. All in units of the logit."""

    position: int
    """Position after which the token would come, from 0."""
    token_id: int
    """The token whose logit it is."""
    versus_id: int | None
    """The token whose logit is taken off; None for the logit itself."""
    heads: np.ndarray
    """`(n_layers, n_heads)` float64, what each head adds."""
    mlps: np.ndarray
    """`(n_layers,)` float64, what each MLP adds."""
    token_embedding: float
    """What the token's own vector adds."""
    position_embedding: float
    """What its position's vector adds; 0 where the model has no position table."""
    rest: float
    """What the biases add: those of the output projections, of the norms and of the head."""
    logit: float
    """The model's own number, before any cap."""
    cap: float | None
    """Where this is set, the model's final logit is `cap * tanh(logit / cap)` (Gemma 2)."""

    def __post_init__(self) -> None:
        assert self.mlps.shape == self.heads.shape[:1]
        self.heads.setflags(write=False)
        self.mlps.setflags(write=False)

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return (
            float(self.heads.sum() + self.mlps.sum())
            + self.token_embedding
            + self.position_embedding
            + self.rest
        )

    @property
    def table(self) -> np.ndarray:
        """`(n_layers, n_heads + 1)` float64: the heads of each layer, and last its MLP."""
        return np.concatenate([self.heads, self.mlps[:, None]], axis=1)


def direct_contributions(
    lm: LanguageModel, trace: Trace, *, position: int, token_id: int, versus_id: int | None = None
) -> DirectContributions:
    """What each part adds to the logit of `token_id` after `position`, less that of `versus_id` where it is given.

    `logit` comes from the model's own head, the parts from what they wrote. Raises InputError (position or id out of
    range, the same token twice) and UnsupportedError (this model's parts, norm or head cannot be taken apart).
    """
    g = lm.geometry
    check_integer("position", position, low=0, high=trace.n_tokens - 1)
    for chosen in (token_id, *(() if versus_id is None else (versus_id,))):
        check_integer("token id", chosen, low=0, high=g.vocab_size - 1)
    if token_id == versus_id:
        raise InputError("The two tokens must be different ones. Choose another, or none, to compare with.")
    for view in ("writers", "logits", "lens"):
        if view in lm.closed_views:
            raise UnsupportedError(lm.closed_views[view])
    assert lm.anatomy.final_norm is not None
    direction, head_bias, logit, cap = _read_head(lm, trace, position, token_id, versus_id)
    norm = freeze_norm(lm.anatomy.final_norm, trace.residual[-1, position].to(lm.device))

    def share(vectors: torch.Tensor) -> torch.Tensor:
        """What vectors `(…, d_model)` of the stream add to the logit: `(…,)`."""
        return norm.apply(vectors) @ direction

    heads, mlps = np.zeros((g.n_layers, g.n_heads)), np.zeros(g.n_layers)
    rest = float(norm.bias @ direction) + head_bias
    for layer, writers in enumerate(lm.writers):
        outputs = head_outputs(trace.attention[layer], queries=slice(position, position + 1))[0].to(lm.device)
        n_heads, d_value = outputs.shape
        # One row for each head, all others at zero; then none, for the bias; then all.
        alone = torch.diag_embed(outputs.T).permute(1, 2, 0)  # (n_heads, n_heads, d_value)
        rows = torch.cat(
            [alone.flatten(1), torch.zeros(1, n_heads * d_value).to(outputs), outputs.reshape(1, -1)]
        )
        with torch.inference_mode():
            written = writers.projection(rows[None])[0].cpu()
        parts, bias, whole = written[:-2].double(), written[-2].double(), written[-1].double()
        parts -= bias
        if writers.post_norm is not None:
            post = freeze_norm(writers.post_norm, written[-1].to(lm.device))
            parts, bias = post.apply(parts), post.apply(bias) + post.bias
            whole = parts.sum(dim=0) + bias
        added = (trace.residual[layer + 1, position] - trace.residual[layer, position]).double()
        heads[layer] = share(writers.factor * parts).numpy()
        rest += float(share(writers.factor * bias))
        mlps[layer] = float(share(added - writers.factor * whole))
    entering = trace.residual[0, position].double()
    placed = None if trace.position_vectors is None else trace.position_vectors[position].double()
    found = DirectContributions(
        position=position,
        token_id=token_id,
        versus_id=versus_id,
        heads=heads,
        mlps=mlps,
        token_embedding=float(share(entering if placed is None else entering - placed)),
        position_embedding=0.0 if placed is None else float(share(placed)),
        rest=rest,
        logit=logit,
        cap=cap,
    )
    # Not to be shown where it is not so, whatever the architecture.
    size = float(np.abs(found.table).sum()) + abs(logit) + 1.0
    if not abs(found.total - logit) <= TOLERANCE * size:
        raise UnsupportedError(
            f"The parts of {lm.model_id.name} add up to {found.total:.5f} and its own logit is {logit:.5f}, so they "
            "are not shown."
        )
    return found


def _read_head(
    lm: LanguageModel, trace: Trace, position: int, token_id: int, versus_id: int | None
) -> tuple[torch.Tensor, float, float, float | None]:
    """The head as a linear map: its direction `(d_model,)` float64 for the logit asked for, its bias, the model's own
    logit before any cap, and that cap. Proved on the whole vocabulary at this position."""
    head: Any = lm.network.get_output_embeddings()  # type: ignore[no-untyped-call]
    hidden = trace.final[position : position + 1].to(lm.device)
    weight = getattr(head, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.shape[1] != hidden.shape[1]:
        raise UnsupportedError(f"The head of {lm.model_id.name} is no matrix, so no contribution is shown.")
    bias = getattr(head, "bias", None)
    with torch.inference_mode():
        logits = apply_head(lm.network, hidden)[0].cpu().double()
        plain = (hidden @ weight.T)[0].cpu().double() + (0 if bias is None else bias.cpu().double())
    config = lm.network.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None) or None
    scale = 1.0 if cap else float((plain * logits).sum() / (plain * plain).sum().clamp(min=1e-300))
    scale = 1.0 if abs(scale - 1) < 1e-6 else scale
    rebuilt = cap * torch.tanh(plain / cap) if cap else scale * plain
    if not float((rebuilt - logits).abs().max()) <= TOLERANCE * max(1.0, float(logits.abs().max())):
        raise UnsupportedError(
            f"The head of {lm.model_id.name} is no matrix with a scale or a cap, so no contribution is shown."
        )
    direction, offset = weight[token_id].cpu().double(), 0.0 if bias is None else float(bias[token_id])
    logit = float(plain[token_id]) if cap else float(logits[token_id])
    if versus_id is not None:
        direction = direction - weight[versus_id].cpu().double()
        offset -= 0.0 if bias is None else float(bias[versus_id])
        logit -= float(plain[versus_id]) if cap else float(logits[versus_id])
    return scale * direction, scale * offset, logit, cap
