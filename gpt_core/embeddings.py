"""The vectors of a text: where they come from, who their neighbours are, and how they walk through the blocks."""

from dataclasses import dataclass

import numpy as np
import torch

from gpt_core.errors import UnsupportedError
from gpt_core.model import Control, LanguageModel
from gpt_core.trace import Trace
from gpt_core.validation import check_integer


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class InputEmbeddings:
    """What enters the first block."""

    token_vectors: np.ndarray
    """`(n_tokens, d_model)`: rows of the token table (`wte`), no unit."""
    position_vectors: np.ndarray | None
    """`(n_tokens, d_model)`: rows of the position table (`wpe`), no unit; None where the model has none."""
    block_input: np.ndarray
    """`(n_tokens, d_model)`: what enters block 0, no unit."""
    difference: float
    """Largest |token + position - block input|; not 0 where a model scales or norms its embeddings."""

    def __post_init__(self) -> None:
        assert self.token_vectors.shape == self.block_input.shape
        for array in (self.token_vectors, self.position_vectors, self.block_input):
            if array is not None:
                array.flags.writeable = False


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Neighbours:
    """The tokens whose vectors point most nearly the same way."""

    token_ids: np.ndarray
    """`(k,)`: int64, nearest first."""
    cosines: np.ndarray
    """`(k,)`: cosine similarity, -1..1."""

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
    block_differences: np.ndarray
    """`(n_layers,)`: largest |walk - model| after each block, no unit."""
    difference: float
    """Largest |walk - model| after the final norm."""
    equal: bool
    """Whether every number is the same bit for bit (the notebook's `==`)."""

    def __post_init__(self) -> None:
        assert self.hidden.shape == self.reference.shape
        for array in (self.hidden, self.reference, self.block_differences):
            array.flags.writeable = False


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RotaryAngles:
    """What a rotary model does instead of adding a position vector: it turns q and k (arXiv:2104.09864)."""

    frequencies: np.ndarray
    """`(n_pairs,)`: radians per position by which each pair of dimensions of q and k is turned."""
    cosines: np.ndarray
    """`(n_tokens, n_pairs)`: cosine of each angle, -1..1."""

    def __post_init__(self) -> None:
        assert self.cosines.shape[1:] == self.frequencies.shape
        self.frequencies.flags.writeable = False
        self.cosines.flags.writeable = False


def input_embeddings(trace: Trace) -> InputEmbeddings:
    """Token vectors, position vectors and their sum, as the pass recorded them."""
    tokens = trace.token_vectors.numpy()
    positions = None if trace.position_vectors is None else trace.position_vectors.numpy()
    block_input = trace.residual[0].numpy()
    total = tokens if positions is None else tokens + positions
    return InputEmbeddings(
        token_vectors=tokens.copy(),
        position_vectors=None if positions is None else positions.copy(),
        block_input=block_input.copy(),
        difference=float(np.abs(total - block_input).max()),
    )


def cosine_similarity(vectors: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows of `vectors` (n, d): `(n, n)`, -1..1; a zero vector has cosine 0 with all."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    cosines: np.ndarray = np.clip(units @ units.T, -1, 1)
    return cosines


def nearest_tokens(lm: LanguageModel, token_id: int, *, k: int = 20) -> Neighbours:
    """The `k` tokens of the whole vocabulary whose `wte` rows have the largest cosine with that of `token_id`.

    The token itself is left out. Raises InputError (id or k out of range).
    """
    table = lm.anatomy.token_embedding.weight
    n_rows = min(table.shape[0], len(lm.tokenizer))
    check_integer("token id", token_id, low=0, high=n_rows - 1)
    check_integer("k", k, low=1, high=min(1000, n_rows - 1))
    with torch.inference_mode():
        rows = table[:n_rows].float()
        vector = rows[token_id]
        cosines = (rows @ vector) / (rows.norm(dim=1) * vector.norm()).clamp_min(1e-12)
        cosines[token_id] = -2.0
        best = torch.topk(cosines, k)
    return Neighbours(
        token_ids=best.indices.cpu().numpy().copy(), cosines=best.values.cpu().numpy().clip(-1, 1).copy()
    )


def walk_blocks(lm: LanguageModel, trace: Trace, *, control: Control | None = None) -> Walk:
    """Carry the text through the blocks by hand: embeddings → each block with the model's own mask and positions →
    final norm, and compare with the model's last hidden state.

    Runs every block once more, outside the recorded pass. Raises UnsupportedError (final norm not found).
    """
    if "walk" in lm.closed_views or lm.anatomy.final_norm is None:
        raise UnsupportedError(lm.closed_views.get("walk", "The final norm of this model was not found."))
    differences = []
    with torch.inference_mode():
        hidden = trace.residual[0][None].to(lm.device)
        for layer, block in enumerate(lm.anatomy.blocks):
            if control is not None:
                control.check()
                control.report(layer / trace.n_layers, f"Block {layer} of 0–{trace.n_layers - 1}")
            args, kwargs = trace.block_arguments[layer]
            output = block(hidden, *args, **kwargs)
            hidden = output[0] if isinstance(output, (tuple, list)) else output
            differences.append(float((hidden[0].cpu() - trace.residual[layer + 1]).abs().max()))
        final = lm.anatomy.final_norm(hidden)[0].cpu()
    return Walk(
        hidden=final.numpy().copy(),
        reference=trace.final.numpy().copy(),
        block_differences=np.array(differences, dtype=np.float32),
        difference=float((final - trace.final).abs().max()),
        equal=bool((final == trace.final).all()),
    )


def rotary_angles(lm: LanguageModel, n_tokens: int) -> RotaryAngles:
    """Angles by which q and k are turned at the first `n_tokens` positions.

    Raises UnsupportedError where the model has no rotary frequencies, InputError where n_tokens is out of range.
    """
    if lm.anatomy.rotary is None:
        raise UnsupportedError(f"{lm.model_id.name} has no rotary frequencies.")
    check_integer("n_tokens", n_tokens, low=1, high=lm.geometry.context_length)
    frequencies = lm.anatomy.rotary.get_buffer("inv_freq").float().cpu().numpy()
    angles = np.arange(n_tokens, dtype=np.float32)[:, None] * frequencies[None, :]
    return RotaryAngles(frequencies=frequencies.copy(), cosines=np.cos(angles))
