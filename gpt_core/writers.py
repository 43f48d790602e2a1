"""What writes into the stream of vectors between the blocks: in each block the heads, through one projection, and the
MLP. Found by structure on a short text, and proved there.

What a block adds must be `factor * (attention + MLP)`, where `attention` is the projection of the heads' outputs, or
one norm of it (Gemma 2, OLMo 2), one after the other or side by side (GPT-NeoX, Phi). Does not know any architecture
by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from gpt_core.anatomy import Anatomy
from gpt_core.capture import LayerCapture, head_outputs, recorded_pass
from gpt_core.errors import UnsupportedError

#: Largest difference of what a block adds from the sum of its parts, relative to the largest value of the stream.
TOLERANCE = 1e-4
_N_TOKENS = 16


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class LayerWriters:
    """The parts of one block that write."""

    projection: torch.nn.Module
    """Takes the outputs of all heads side by side, `(…, n_heads * d_value)`, to `(…, d_model)`."""
    post_norm: torch.nn.Module | None
    """The norm between the projection and the stream; None where there is none."""
    mlp: torch.nn.Module
    """The module whose output is added as the MLP's: the MLP, its last matrix or the norm after it."""
    factor: float
    """What the block multiplies both by before it adds them (1 nearly everywhere)."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class FrozenNorm:
    """A norm as the linear map that it is for one vector, its scale held at that vector's: y -> gain * (y - mean).

    On the CPU, wherever the norm is.
    """

    gain: torch.Tensor
    """`(d_model,)` float64: the learned gain times the scale."""
    centred: bool
    """Whether the mean of the vector is taken off first (LayerNorm; RMSNorm does not)."""
    bias: torch.Tensor
    """`(d_model,)` float64: what the norm adds."""

    def apply(self, vectors: torch.Tensor) -> torch.Tensor:
        """The linear part, without the bias, of `(…, d_model)`: float64."""
        vectors = vectors.cpu().double()
        if self.centred:
            vectors = vectors - vectors.mean(dim=-1, keepdim=True)
        return vectors * self.gain


@dataclass(slots=True)
class _Seen:
    """What a module of a block was given and gave, in the order of the calls."""

    module: torch.nn.Module
    given: torch.Tensor
    gave: torch.Tensor


def find_writers(network: PreTrainedModel, anatomy: Anatomy) -> tuple[LayerWriters, ...]:
    """The writing parts of each block, `(n_layers,)`.

    The network must be nobody else's yet: hooks watch it for one pass. Raises UnsupportedError, with the sentence
    for the reader, where a block adds something else.
    """
    rng = np.random.RandomState(1)
    token_ids = torch.from_numpy(rng.randint(0, anatomy.token_embedding.weight.shape[0], _N_TOKENS))
    seen: list[list[_Seen]] = [[] for _ in anatomy.blocks]
    handles = [
        module.register_forward_hook(partial(_note, seen[layer]), with_kwargs=True)
        for layer, block in enumerate(anatomy.blocks)
        for module in block.modules()
        if module is not block
    ]
    try:
        recording, _ = recorded_pass(anatomy.decoder, token_ids.to(network.device))
    finally:
        for handle in handles:
            handle.remove()
    if len(recording.attention) != len(anatomy.blocks):
        raise UnsupportedError(_sentence(network, "not every block has heads"))
    found = []
    for layer, calls in enumerate(seen):
        added = (recording.block_outputs[layer] - recording.block_inputs[layer]).cpu()
        scale = max(1.0, float(recording.block_outputs[layer].abs().max()))
        order = {id(module): place for place, module in enumerate(anatomy.blocks[layer].modules())}
        calls.sort(key=lambda call: order[id(call.module)])  # what holds others comes before them
        found.append(_find_layer(network, recording.attention[layer], calls, added, scale))
    return tuple(found)


def _note(
    calls: list[_Seen], module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> None:
    given = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)
    gave = output[0] if isinstance(output, (tuple, list)) and output else output
    if given is not None and isinstance(gave, torch.Tensor):
        # On the CPU: not every device knows float64.
        calls.append(_Seen(module, given.detach().cpu(), gave.detach().cpu()))


def _find_layer(
    network: PreTrainedModel,
    capture: LayerCapture,
    calls: Sequence[_Seen],
    added: torch.Tensor,
    scale: float,
) -> LayerWriters:
    heads = head_outputs(capture).flatten(1).cpu()
    writing = [
        call
        for call in calls
        if call.gave.numel() == added.numel() and call.gave.shape[-1] == added.shape[-1]
    ]
    projection = next((c for c in writing if _equal(c.given, heads, float(heads.abs().max()))), None)
    if projection is None:
        raise UnsupportedError(_sentence(network, "no projection takes its heads' outputs as they are"))
    projected = projection.gave.reshape(added.shape)
    norms = [c for c in writing if c.module is not projection.module and _equal(c.given, projected, scale)]
    for attention in (projection, *norms):
        for mlp in writing:
            if mlp.module in (projection.module, attention.module):
                continue
            total = (attention.gave.reshape(added.shape) + mlp.gave.reshape(added.shape)).double()
            factor = float((total * added).sum() / (total * total).sum().clamp(min=1e-300))
            factor = 1.0 if abs(factor - 1) < 1e-5 else factor
            if _equal(factor * total, added, scale):
                norm = (
                    None
                    if attention is projection or _equal(attention.gave, projected, scale)
                    else attention.module
                )
                return LayerWriters(
                    projection=projection.module, post_norm=norm, mlp=mlp.module, factor=factor
                )
    raise UnsupportedError(_sentence(network, "a block adds something else than its attention and its MLP"))


def _equal(one: torch.Tensor, other: torch.Tensor, scale: float) -> bool:
    if one.numel() != other.numel():
        return False
    return float((one.reshape(other.shape) - other).abs().max()) <= TOLERANCE * max(scale, 1e-30)


def _sentence(network: PreTrainedModel, reason: str) -> str:
    return (
        f"What each part of {type(network).__name__} contributes cannot be told apart exactly here: {reason}. "
        "The other parts of the page work."
    )


def freeze_norm(norm: torch.nn.Module, vector: torch.Tensor) -> FrozenNorm:
    """The linear map that `norm` is for `vector` (d_model,) while its scale stays as it is there.

    Found by looking at what it does, and proved on `vector`; raises UnsupportedError where it is no such norm.
    """
    with torch.inference_mode():
        probe = torch.ones_like(vector)
        probe[1::2] = -1
        stack = torch.stack([torch.zeros_like(vector), probe, vector])
        nothing, probed, normed = (row.cpu().double() for row in norm(stack[None])[0])
    value, whole, probe = vector.cpu().double(), normed - nothing, probe.cpu().double()
    for centred in (False, True):
        off = 1.0 if centred else 0.0
        shape = (probed - nothing) / (probe - off * probe.mean())
        line = shape * (value - off * value.mean())
        size = float((line * whole).sum() / (line * line).sum().clamp(min=1e-300))
        if float((size * line - whole).abs().max()) <= 1e-5 * max(1.0, float(whole.abs().max())):
            return FrozenNorm(gain=size * shape, centred=centred, bias=nothing)
    raise UnsupportedError(
        f"{type(norm).__name__} is no norm that is a linear map once its scale is known, so contributions cannot be "
        "told apart exactly. The other parts of the page work."
    )
