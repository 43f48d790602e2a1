"""What travels to the head grid in the browser, as bytes. No Streamlit here.

Two kinds, both little-endian: four letters, the length of a JSON text (uint32), the text in UTF-8, zeros up to a
multiple of four, and then
- `HGF1`, the frame: float32 numbers, measure after measure, each (n_layers, n_heads) row by row; NaN for no value;
- `HGC1`, the cells of some layers: bytes, layer after layer, head after head, row after row of the lower triangle, as
  `gpt_core.head_grid.LayerThumbnails` has them.
A frame and its cells have the same `run`. What the reader selects is in neither.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gpt_core.head_grid import LayerThumbnails

FRAME, CELLS = b"HGF1", b"HGC1"


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class GridMeasure:
    """A number for every head, by which the grid can be sorted and marked."""

    name: str
    """Its name in code and in links: "entropy"."""
    title: str
    """What the reader chooses, with its unit: "entropy (bits)"."""
    definition: str
    """One sentence."""
    values: np.ndarray
    """`(n_layers, n_heads)`: float32, in the unit that `title` says; NaN where there is none."""


def run_name(model: str, token_ids: Sequence[int]) -> str:
    """A short name of a model and a text; another for others."""
    return hashlib.sha256(repr((model, tuple(token_ids))).encode()).hexdigest()[:16]


def pack_frame(
    labels: Sequence[str],
    *,
    key: str,
    run: str,
    n_layers: int,
    n_heads: int,
    step: int,
    measures: Sequence[GridMeasure] | None = None,
) -> bytes:
    """The frame of a grid: its size, the visible text of each token, and the measures.

    `step` is how many tokens lie along a side of a cell.
    """
    chosen = list(measures or ())
    assert all(measure.values.shape == (n_layers, n_heads) for measure in chosen)
    return _pack(
        FRAME,
        {
            "grid": key,
            "run": run,
            "n_layers": n_layers,
            "n_heads": n_heads,
            "n_tokens": len(labels),
            "step": step,
            "labels": list(labels),
            "measures": [{"name": m.name, "title": m.title, "definition": m.definition} for m in chosen],
        },
        b"".join(np.ascontiguousarray(m.values, dtype="<f4").tobytes() for m in chosen),
    )


def pack_cells(layers: Sequence[LayerThumbnails], *, key: str, run: str) -> bytes:
    """The cells of neighbouring layers."""
    numbers = [layer.layer for layer in layers]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return _pack(
        CELLS,
        {
            "grid": key,
            "run": run,
            "layer": numbers[0],
            "n_layers": len(layers),
            "n_heads": len(layers[0].cells),
            "side": layers[0].side,
        },
        b"".join(layer.cells.tobytes() for layer in layers),
    )


def unpack(payload: bytes) -> tuple[dict[str, Any], np.ndarray]:
    """The JSON of a payload, and its numbers (float32 of a frame, uint8 of cells) as one row."""
    magic, length = struct.unpack("<4sI", payload[:8])
    if magic not in (FRAME, CELLS):
        raise ValueError(f"A head grid's payload begins with {FRAME!r} or {CELLS!r}. Given: {magic!r}.")
    start = 8 + length + (-length % 4)
    numbers = np.frombuffer(payload[start:], dtype="<f4" if magic == FRAME else np.uint8)
    return json.loads(payload[8 : 8 + length]), numbers


def _pack(magic: bytes, text: dict[str, Any], numbers: bytes) -> bytes:
    encoded = json.dumps(text, ensure_ascii=False, separators=(",", ":")).encode("utf-8", errors="replace")
    return magic + struct.pack("<I", len(encoded)) + encoded + bytes(-len(encoded) % 4) + numbers
