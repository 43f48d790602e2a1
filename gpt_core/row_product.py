"""The product of one row with a weight, at the speed at which this machine reads the weight.

A step of generation multiplies one row with every weight of a model, so it costs what reading them costs. Some BLAS
builds read a weight at a third of the memory's speed when it meets a single vector, and at all of it when it meets
two: there the weight `(n_out, n_in)` is taken as `(2 n_out, n_in / 2)`, the same memory, and multiplied with the two
halves of the row at once. Of the four products the two that belong together are added. Whether it pays is measured,
once in a process.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeVar

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

N = TypeVar("N", bound=nn.Module)

#: How much faster the halves must be to be used: what a busy machine shows of one is not a reason.
_LEAST_GAIN = 1.3
#: More bytes than a processor keeps to itself, as a model's weights are.
_PROBE_SHAPE = (6, 3072, 768)
_PROBE_ROUNDS = 5


def multiply_in_halves(row: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`row @ weight.T + bias`, `(n_out,)`, for `row` `(n_in,)` and a contiguous `weight` `(n_out, n_in)`.

    `n_in` must be even.
    """
    n_out, n_in = weight.shape
    products = torch.mm(weight.view(2 * n_out, n_in // 2), row.reshape(2, n_in // 2).t()).view(n_out, 4)
    product = products[:, 0] + products[:, 3]
    return product if bias is None else product.add_(bias)


def suits_halves(weight: torch.Tensor) -> bool:
    """Whether `multiply_in_halves` takes this weight, and pays here."""
    plain = weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.is_contiguous()
    return plain and weight.dim() == 2 and weight.shape[1] % 2 == 0 and halves_pay()


@cache
def halves_pay() -> bool:
    """Whether the halves beat a plain product on this machine by enough; measured at the first question."""
    with torch.inference_mode():
        weights = torch.ones(_PROBE_SHAPE)
        row = torch.ones(_PROBE_SHAPE[2])
        plain, halves = partial(torch.mv, vec=row), partial(multiply_in_halves, row, bias=None)
        # In turn, and the best of each: what else the machine does meets both.
        rounds = [(_seconds(plain, weights), _seconds(halves, weights)) for _ in range(_PROBE_ROUNDS)]
    return min(a for a, _ in rounds) > _LEAST_GAIN * min(b for _, b in rounds)


def _seconds(product: Callable[[torch.Tensor], Any], weights: torch.Tensor) -> float:
    start = time.perf_counter()
    for weight in weights:
        product(weight)
    return time.perf_counter() - start


def lay_out_for_rows(network: nn.Module) -> None:
    """Store GPT-2's weights, which are `(n_in, n_out)`, in the order of their transposes, where the halves pay.

    Each stays the same tensor with the same numbers; only the order in memory is another.
    """
    if not halves_pay():
        return
    for module in network.modules():
        if isinstance(module, Conv1D) and module.weight.device.type == "cpu":
            module.weight.data = module.weight.data.t().contiguous().t()


class RowProduct:
    """`row @ weight.T + bias`, `(n_out,)`, of rows `(n_in,)`, by the quickest product for this weight here."""

    __slots__ = ("bias", "in_halves", "weight")

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """`weight` `(n_out, n_in)` float32, any strides; `bias` `(n_out,)`."""
        self.weight, self.bias = weight, bias
        self.in_halves = suits_halves(weight)

    def of_one(self, row: torch.Tensor) -> torch.Tensor:
        """`(n_in,)` -> `(n_out,)`."""
        if self.in_halves:
            return multiply_in_halves(row, self.weight, self.bias)
        return torch.mv(self.weight, row) if self.bias is None else torch.addmv(self.bias, self.weight, row)


class _RowLinear(nn.Linear):
    """A linear map of which single rows are the usual case."""

    product: RowProduct

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rows `(..., n_in)` -> `(..., n_out)`."""
        if x.numel() != self.in_features:
            return super().forward(x)
        return self.product.of_one(x.reshape(-1)).view(*x.shape[:-1], -1)


def step_twin(network: N) -> N:
    """The same network over the same parameters, for steps of a single token: nobody records or replaces there.

    A tree of modules of its own, without the hooks of `network`; its linear maps take a row by the quickest product,
    and what does nothing outside training is left out. On a CPU.
    """
    tensors = [*network.parameters(), *network.buffers()]
    twin = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
    modules: list[Any] = list(twin.modules())
    for module in modules:
        module._forward_pre_hooks.clear()
        module._forward_hooks.clear()
        vars(module).pop("forward", None)  # the decoder's that can replay
        kind: type = type(module)
        if kind is nn.Linear:
            module.__class__ = _RowLinear
            module.product = RowProduct(module.weight, module.bias)
        elif kind is nn.Dropout:
            module.__class__ = nn.Identity
    return twin
