"""What a head's values become on their way out of the attention: the part of the output projection that reads them.

No architecture is known by name here. The projection is the matrix that the block multiplies the heads' own outputs
with: a block is run once more, and the matrix whose input equals those outputs is it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from gpt_core.attention import attention_maps
from gpt_core.trace import Trace

if TYPE_CHECKING:
    from gpt_core.model import LanguageModel

#: Largest difference, relative to the largest number, at which two inputs are the same.
_TOLERANCE = 1e-4
#: Queries by which an input is recognised.
_ROWS = 4


def output_matrix(lm: LanguageModel, trace: Trace, *, layer: int) -> torch.Tensor | None:
    """W_O of `layer`, `(n_heads, d_value, d_model)`: head h adds its weighted values times W_O[h] to what leaves.

    Without the bias, which belongs to no head, and before any norm that the block applies afterwards. None where the
    block does not multiply the heads' outputs, side by side, by a matrix. Runs the block once. Errors as in
    `attention.attention_maps`.
    """
    assert trace.model_id == str(lm.model_id), "a trace is read with the model that made it"
    rows = range(max(0, trace.n_tokens - _ROWS), trace.n_tokens)
    weights = torch.from_numpy(attention_maps(trace, layer=layer, queries=rows).weights.copy())
    value = trace.attention[layer].value.float()
    n_heads = weights.shape[0]
    groups = n_heads // value.shape[0]
    with torch.inference_mode():
        # (n_heads, n_rows, d_value) -> (n_rows, n_heads * d_value)
        outputs = (weights @ value.repeat_interleave(groups, dim=0)).transpose(0, 1).flatten(1)
        args, kwargs = trace.block_arguments[layer]
        with _Watch(outputs) as watch:
            lm.anatomy.blocks[layer](trace.residual[layer][None].to(lm.device), *args, **kwargs)
        if watch.found is None:
            return None
        matrix: torch.Tensor = watch.found.float().cpu().reshape(n_heads, value.shape[-1], -1).clone()
    return matrix


class _Watch(TorchFunctionMode):
    """Sees the products of one thread; keeps the matrix, `(n_in, n_out)`, that `outputs` is multiplied with."""

    def __init__(self, outputs: torch.Tensor) -> None:
        super().__init__()
        self.found: torch.Tensor | None = None
        self._outputs = outputs
        self._scale = max(float(outputs.abs().max()), torch.finfo(torch.float32).tiny)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name == "linear" and len(args) > 1:
            self._look(args[0], args[1].T)
        elif name == "addmm" and len(args) > 2:
            self._look(args[1], args[2])
        return func(*args, **(kwargs or {}))

    def _look(self, given: torch.Tensor, matrix: torch.Tensor) -> None:
        if self.found is not None or given.shape[-1] != self._outputs.shape[-1]:
            return
        last = given.reshape(-1, given.shape[-1])[-len(self._outputs) :].float().cpu()
        if last.shape == self._outputs.shape:
            difference = float((last - self._outputs).abs().max())
            if difference <= _TOLERANCE * self._scale:
                self.found = matrix
