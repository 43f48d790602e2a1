"""The vectors of a text: where they come from, who their neighbours are, and how they walk through the blocks.

What a model without a position table does instead is in `rotary`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from gpt_core.errors import InputError, UnsupportedError
from gpt_core.validation import check_integer
from gpt_core.vocabulary import PerModel

if TYPE_CHECKING:
    from gpt_core.control import Control
    from gpt_core.model import LanguageModel
    from gpt_core.trace import Trace

#: The vectors of a text that can be compared: rows of the token table, these plus the position vectors, and what
#: the last block and the final norm make of them.
SPACES = ("token vectors", "with positions", "last hidden state")

#: Largest |factor · sum - block input|, relative to the largest number, for which the factor explains the input.
TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class InputEmbeddings:
    """What enters the first block."""

    token_vectors: np.ndarray
    """`(n_tokens, d_model)`: rows of the token table (`wte`), no unit."""
    position_vectors: np.ndarray | None
    """`(n_tokens, d_model)`: rows of the position table (`wpe`), no unit; None where the model has none."""
    total: np.ndarray
    """`(n_tokens, d_model)`: token + position vectors, no unit; the token vectors where there is no table."""
    block_input: np.ndarray
    """`(n_tokens, d_model)`: what entered block 0 in the recorded pass, no unit."""
    scale: float
    """The factor for which scale · total is the block input: 1 in GPT-2, √d_model in Gemma; NaN where there is none
    (Bloom norms its embeddings)."""
    difference: float
    """Largest |scale · total - block input|; of |total - block input| where the scale is NaN."""

    def __post_init__(self) -> None:
        assert self.token_vectors.shape == self.total.shape == self.block_input.shape
        assert self.position_vectors is None or self.position_vectors.shape == self.total.shape
        for array in (self.token_vectors, self.position_vectors, self.total, self.block_input):
            if array is not None:
                array.flags.writeable = False


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Neighbours:
    """The tokens whose vectors point most nearly the same way."""

    token_id: int
    """The token whose neighbours these are; not one of them."""
    token_ids: np.ndarray
    """`(k,)`: int64, nearest first, equal cosines by id."""
    cosines: np.ndarray
    """`(k,)`: cosine similarity, -1..1."""
    mean_cosine: float
    """Mean cosine with all tokens that were compared: what is near stands out against this; NaN where none was."""
    n_compared: int
    """Tokens compared: the vocabulary without this token and without rows that point nowhere (zero, or damaged)."""

    def __post_init__(self) -> None:
        assert self.token_ids.shape == self.cosines.shape
        self.token_ids.flags.writeable = False
        self.cosines.flags.writeable = False


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Walk:
    """The text carried through the blocks one by one, outside the model's own forward pass."""

    hidden: np.ndarray
    """`(n_tokens, d_model)`: the last hidden state that the walk arrives at, no unit."""
    reference: np.ndarray
    """`(n_tokens, d_model)`: the model's own last hidden state, no unit."""
    lengths: np.ndarray
    """`(n_layers + 1, n_tokens)`: Euclidean length of each token's vector before block 0 and after each block."""
    block_differences: np.ndarray
    """`(n_layers,)`: largest |walk - model| after each block, no unit."""
    difference: float
    """Largest |walk - model| after the final norm."""
    equal: bool
    """Whether every number is the same (the notebook's `==`)."""

    def __post_init__(self) -> None:
        assert self.hidden.shape == self.reference.shape
        assert self.lengths.shape == (len(self.block_differences) + 1, len(self.hidden))
        for array in (self.hidden, self.reference, self.lengths, self.block_differences):
            array.flags.writeable = False


def input_embeddings(lm: LanguageModel, trace: Trace) -> InputEmbeddings:
    """Rows of the token table, rows of the position table, their sum, and what entered block 0."""
    table = lm.anatomy.token_embedding.weight.detach()
    tokens = table[list(trace.token_ids)].cpu().numpy()
    positions = None if trace.position_vectors is None else trace.position_vectors.numpy().copy()
    total = tokens if positions is None else tokens + positions
    block_input = trace.residual[0].numpy().copy()
    scale, difference = _scale_between(total, block_input)
    return InputEmbeddings(
        token_vectors=tokens,
        position_vectors=positions,
        total=total,
        block_input=block_input,
        scale=scale,
        difference=difference,
    )


def _scale_between(total: np.ndarray, block_input: np.ndarray) -> tuple[float, float]:
    wide, target = total.astype(np.float64), block_input.astype(np.float64)
    allowed = TOLERANCE * float(np.abs(target).max())
    plain = float(np.abs(wide - target).max())
    if plain <= allowed:
        return 1.0, plain
    scale = float((wide * target).sum() / max((wide * wide).sum(), 1e-300))  # least squares
    difference = float(np.abs(scale * wide - target).max())
    return (scale, difference) if difference <= allowed else (float("nan"), plain)


def print_vectors(vectors: np.ndarray) -> str:
    """`vectors` (n_tokens, d_model) as the notebook prints them: a batch of one text, four decimals, the first and
    last three values of each row, and of more than six rows the first and last three.

    PyTorch itself prints less than 1,000 numbers whole, and changes to exponents where one of them is very small.
    """
    n_tokens, d_model = vectors.shape
    rows = [*range(3), -1, *range(n_tokens - 3, n_tokens)] if n_tokens > 6 else list(range(n_tokens))
    columns = [*range(3), *range(d_model - 3, d_model)] if d_model > 6 else list(range(d_model))
    largest = np.abs(vectors[np.isfinite(vectors)]).max(initial=0)
    form = ".4f" if largest == 0 or 1e-3 <= largest < 1e5 else ".4e"
    cells = {
        (row, column): format(vectors[row, column], form) for row in rows if row >= 0 for column in columns
    }
    width = max(len(cell) for cell in cells.values())
    lines = []
    for row in rows:
        if row < 0:
            lines.append("...")
            continue
        line = [cells[row, column].rjust(width) for column in columns]
        if d_model > 6:
            line.insert(3, " ...")
        lines.append(f"[{', '.join(line)}]")
    return "tensor([[" + ",\n         ".join(lines) + "]])"


def cosine_similarity(vectors: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows of `vectors` (n, d): `(n, n)`, float32, -1..1.

    A zero row has cosine 0 with all; a row with a number that is not finite has NaN.
    """
    damaged = ~np.isfinite(vectors).all(axis=1)
    rows = np.where(damaged[:, None], 0, vectors).astype(np.float64)  # squares of any float32 fit
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    cosines: np.ndarray = np.clip(units @ units.T, -1, 1).astype(np.float32)
    cosines[damaged, :] = cosines[:, damaged] = np.nan
    return cosines


def token_similarity(lm: LanguageModel, trace: Trace, *, space: str) -> np.ndarray:
    """Cosine of each pair of the text's tokens, `(n_tokens, n_tokens)`, in one of SPACES.

    Raises InputError (no such space) and UnsupportedError (`with positions` where there is no position table).
    """
    if space not in SPACES:
        raise InputError(f"`space` must be one of: {', '.join(SPACES)}. Given: {space!r}.")
    if space == "last hidden state":
        return cosine_similarity(trace.final.numpy())
    found = input_embeddings(lm, trace)
    if space == "token vectors":
        return cosine_similarity(found.token_vectors)
    if found.position_vectors is None:
        raise UnsupportedError(
            f"{lm.model_id.name} has no position table. Compare its token vectors or its last hidden state."
        )
    return cosine_similarity(found.total)


def nearest_tokens(lm: LanguageModel, token_id: int, *, k: int = 20) -> Neighbours:
    """The `k` tokens of the whole vocabulary whose rows of the token table have the largest cosine with `token_id`'s.

    The token itself is left out, as are rows that no token uses and rows without a direction; so there may be fewer.
    Raises InputError (id or k out of range) and UnsupportedError (the token's own row has no direction).
    """
    table = lm.anatomy.token_embedding.weight.detach()
    check_integer("token id", token_id, low=0, high=table.shape[0] - 1)
    check_integer("k", k, low=1, high=1000)
    vector = table[token_id].double()
    length = vector.norm()
    if not bool(torch.isfinite(length)) or float(length) == 0:
        raise UnsupportedError(
            f"The vector of token {token_id} is zero or damaged, so it points nowhere and has no neighbours. "
            "Choose another token."
        )
    unit = vector / length
    with torch.inference_mode():
        lengths = table.norm(dim=1)
        cosines = (table @ unit.float()).double() / lengths.double()
        # Squares of very small or large numbers do not fit float32; such rows are few, if any.
        odd = torch.nonzero(~((lengths > 1e-15) & (lengths < 1e15)) | ~torch.isfinite(cosines))[:, 0]
        rows = table[odd].double()
        cosines[odd] = (rows @ unit) / rows.norm(dim=1)
        cosines = cosines.cpu().clamp(-1, 1)
    usable = torch.isfinite(cosines) & _used_rows.get(lm)
    usable[token_id] = False
    n_compared = int(usable.sum())
    best = torch.topk(cosines.masked_fill(~usable, float("-inf")), min(k, n_compared))
    by_id = np.lexsort((best.indices.numpy(), -best.values.numpy()))
    return Neighbours(
        token_id=int(token_id),
        token_ids=best.indices.numpy()[by_id],
        cosines=best.values.numpy()[by_id].astype(np.float32),
        mean_cosine=float(cosines[usable].mean()) if n_compared else float("nan"),
        n_compared=n_compared,
    )


def _find_used_rows(lm: LanguageModel) -> torch.Tensor:
    """`(vocab_size,)` whether some token has that row; tables are often padded to a round number."""
    n_rows = lm.anatomy.token_embedding.weight.shape[0]
    used = torch.zeros(n_rows, dtype=torch.bool)
    used[[token_id for token_id in lm.tokenizer.get_vocab().values() if token_id < n_rows]] = True
    return used


_used_rows: PerModel[torch.Tensor] = PerModel(_find_used_rows)


def walk_blocks(lm: LanguageModel, trace: Trace, *, control: Control | None = None) -> Walk:
    """Carry the text through the blocks by hand: embeddings → each block with the model's own mask and positions →
    final norm, and compare with the model's last hidden state.

    Runs every block once more, outside the recorded pass. Raises UnsupportedError (final norm not found).
    """
    if "walk" in lm.closed_views or lm.anatomy.final_norm is None:
        raise UnsupportedError(lm.closed_views.get("walk", "The final norm of this model was not found."))
    blocks = lm.anatomy.blocks
    differences = []
    with torch.inference_mode():
        hidden = trace.residual[0][None].to(lm.device)
        for layer, (block, (args, kwargs)) in enumerate(zip(blocks, trace.block_arguments, strict=True)):
            if control is not None:
                control.check()
                control.report(layer / len(blocks), f"Block {layer} of 0–{len(blocks) - 1}")
            output = block(hidden, *args, **kwargs)
            hidden = output[0] if isinstance(output, (tuple, list)) else output
            differences.append(float((hidden[0].cpu() - trace.residual[layer + 1]).abs().max()))
        final = lm.anatomy.final_norm(hidden)[0].cpu()
    return Walk(
        hidden=final.numpy().copy(),
        reference=trace.final.numpy().copy(),
        lengths=trace.residual.norm(dim=-1).numpy().copy(),
        block_differences=np.array(differences, dtype=np.float32),
        difference=float((final - trace.final).abs().max()),
        equal=bool((final == trace.final).all()),
    )
