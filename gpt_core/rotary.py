"""What a model without a position table does instead: it turns q and k by angles that grow with the position.

Su et al. 2021, RoFormer (arXiv:2104.09864): a pair of dimensions (a, b) of q and of k at position p becomes
(a cos pθ - b sin pθ, b cos pθ + a sin pθ), so that q·k depends on the distance of the two positions alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gpt_core.errors import UnsupportedError
from gpt_core.validation import check_integer

if TYPE_CHECKING:
    from gpt_core.model import LanguageModel

_SUFFIX = "inv_freq"


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RotaryAngles:
    """By how much each pair of dimensions of q and k is turned at each position."""

    kind: str
    """The kind of layer that these are for (`sliding_attention`); empty where the model has one set of them."""
    frequencies: np.ndarray
    """`(n_pairs,)`: radians per position."""
    cosines: np.ndarray
    """`(n_tokens, n_pairs)`: cosine of position times frequency, -1..1."""
    scaling: float
    """What cosine and sine are both multiplied by: 1, except where a context was stretched (YaRN, LongRoPE)."""

    def __post_init__(self) -> None:
        assert self.cosines.shape[1:] == self.frequencies.shape
        self.frequencies.flags.writeable = False
        self.cosines.flags.writeable = False


def rotary_angles(lm: LanguageModel, n_tokens: int) -> tuple[RotaryAngles, ...]:
    """The angles at the first `n_tokens` positions of a text of that length, one entry per kind of layer.

    A copy of the model's own module is asked: some change their frequencies with the length of the text.
    Raises UnsupportedError where the model has no rotary frequencies, or turns q and k otherwise than by position
    times frequency; InputError where n_tokens is out of range.
    """
    check_integer("n_tokens", n_tokens, low=1, high=lm.geometry.context_length)
    found: list[RotaryAngles] = []
    # Falcon builds its rotary module even where it uses ALiBi instead (arXiv:2108.12409).
    unused = bool(getattr(lm.network.config, "alibi", False))
    for module, kind in () if unused else _rotary_modules(lm.anatomy.decoder):
        angles = _angles(copy.deepcopy(module), kind, n_tokens)
        if not any(np.array_equal(angles.frequencies, other.frequencies) for other in found):
            found.append(angles)
    if not found:
        raise UnsupportedError(
            f"No rotary frequencies were found in {lm.model_id.name}: how it tells positions apart is not shown here."
        )
    return tuple(found)


def _rotary_modules(decoder: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str]]:
    """Modules that hold frequencies, each with the kind of layer that they are for."""
    for module in decoder.modules():
        for name, _ in module.named_buffers(recurse=False):
            if name.endswith(_SUFFIX) and "original" not in name:
                yield module, name.removesuffix(_SUFFIX).rstrip("_")


def _angles(module: torch.nn.Module, kind: str, n_tokens: int) -> RotaryAngles:
    prefix = f"{kind}_" if kind else ""
    device = module.get_buffer(f"{prefix}{_SUFFIX}").device
    options: dict[str, Any] = {"layer_type": kind} if kind else {}
    with torch.inference_mode():
        try:
            turned = module(
                torch.zeros(1, device=device), torch.arange(n_tokens, device=device)[None], **options
            )
        except TypeError as error:
            raise UnsupportedError(
                f"{type(module).__name__} is asked for its angles in its own way."
            ) from error
        frequencies = module.get_buffer(f"{prefix}{_SUFFIX}").float().cpu().numpy().copy()
    scaling = float(getattr(module, f"{prefix}attention_scaling", 1.0))
    expected = np.cos(np.arange(n_tokens, dtype=np.float32)[:, None] * frequencies)
    # Each angle comes twice, for the two dimensions of its pair: all pairs and again, or pair by pair.
    known = [np.concatenate([expected, expected], axis=1), expected.repeat(2, axis=1)]
    cosines = turned[0] if isinstance(turned, tuple) else turned
    if not any(_agree(cosines, twice * scaling) for twice in known):
        raise UnsupportedError(f"{type(module).__name__} turns q and k in a way that is not known here.")
    return RotaryAngles(kind=kind, frequencies=frequencies, cosines=expected, scaling=scaling)


def _agree(cosines: torch.Tensor, expected: np.ndarray) -> bool:
    if cosines.is_complex() or cosines.shape != (1, *expected.shape):
        return False
    return float(np.abs(cosines[0].float().cpu().numpy() - expected).max()) < 1e-3
