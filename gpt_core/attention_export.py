"""Maps as files: every number, with the model, its revision and the versions that made it inside."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Literal

import numpy as np

from gpt_core.attention import attention_maps
from gpt_core.errors import InputError, MemoryLimitError
from gpt_core.trace import Trace
from gpt_core.validation import check_integer

if TYPE_CHECKING:
    from gpt_core.control import Control

#: Most bytes of weights in one NPZ file, before compression.
MAX_NPZ_BYTES = 192 * 2**20
#: Most rows of a CSV file: a spreadsheet reads 1,048,576, the header among them.
MAX_CSV_ROWS = 2**20 - 20
#: What a row of the CSV takes at most: "11,11,1023,1023,0.0012345678\n".
_CSV_ROW_BYTES = 32

FileKind = Literal["npz", "csv"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What made a number."""

    model: str
    """The model's name, with its source."""
    revision: str
    """First digits of the digest over the model's files."""
    dtype: str
    """What it was computed in."""
    versions: str
    """Names and versions of the software."""

    def lines(self) -> tuple[str, ...]:
        """One `name: value` line each."""
        return (
            f"model: {self.model}",
            f"revision: {self.revision or 'unknown'}",
            f"dtype: {self.dtype}",
            f"versions: {self.versions}",
        )


def origin_of(model_id: str) -> Origin:
    """The origin of what is computed now from the model `source:name@revision`."""
    model, _, revision = model_id.rpartition("@")
    return Origin(
        model=" ".join((model or model_id).split()),
        revision=revision if model else "",
        dtype="float32",
        versions=_versions(),
    )


@cache
def _versions() -> str:
    found = []
    for name in ("gpt-dashboard", "torch", "transformers"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} (not installed as a package)")
    return ", ".join(found)


def estimated_file_bytes(n_heads: int, n_tokens: int, *, kind: FileKind) -> int:
    """Bytes of a file with the maps of that many heads, from above."""
    if kind == "npz":
        return 4 * n_heads * n_tokens**2 + 64 * n_tokens + 4096
    return _CSV_ROW_BYTES * n_heads * n_tokens * (n_tokens + 1) // 2 + 8 * n_tokens + 1024


def check_file(n_heads: int, n_tokens: int, *, kind: FileKind) -> None:
    """Raise MemoryLimitError or InputError where such a file is not made."""
    if kind == "npz" and 4 * n_heads * n_tokens**2 > MAX_NPZ_BYTES:
        raise MemoryLimitError(
            f"One NPZ file holds at most {MAX_NPZ_BYTES / 1e6:,.0f} MB of weights. These {n_heads:,} maps have "
            f"{4 * n_heads * n_tokens**2 / 1e6:,.0f} MB. Take one layer at a time, or shorten the text."
        )
    n_rows = n_heads * n_tokens * (n_tokens + 1) // 2
    if kind == "csv" and n_rows > MAX_CSV_ROWS:
        raise InputError(
            f"One CSV file holds at most {MAX_CSV_ROWS:,} rows, what a spreadsheet reads. These {n_heads:,} maps have "
            f"{n_rows:,}. Take NPZ, or fewer heads."
        )


def write_maps(
    trace: Trace,
    *,
    layers: Sequence[int],
    heads: Sequence[int] | None = None,
    kind: FileKind,
    labels: Sequence[str] = (),
    control: Control | None = None,
) -> bytes:
    """A file with the maps of `heads` (all when None) of each of `layers`.

    `npz`: an array `layer_<number>` for each layer, float32 (n_heads, n_tokens, n_tokens), query by key, closed cells
    0, and beside them `heads`, `token_ids`, `tokens` and the origin as strings. `csv`: comment lines that begin with
    `#`, then a row for each cell that is not after its query: layer, head, query, key, weight.

    One head's map is in memory at a time, beside the file. Raises InputError and MemoryLimitError (see
    `check_file`), the errors of `attention.attention_maps`, and what `control` raises.
    """
    check_integer("layers", len(layers), low=1, high=max(1, trace.n_layers))
    n_all = trace.attention[0].query.shape[0] if trace.attention else 0
    chosen = tuple(range(n_all)) if heads is None else tuple(heads)
    check_file(len(layers) * len(chosen), trace.n_tokens, kind=kind)
    origin = origin_of(trace.model_id)
    maps = _Maps(trace, chosen, len(layers) * len(chosen), control)
    return _npz(maps, layers, labels, origin) if kind == "npz" else _csv(maps, layers, origin)


class _Maps:
    """One head's map after the other, counted."""

    def __init__(self, trace: Trace, heads: tuple[int, ...], total: int, control: Control | None) -> None:
        self.trace = trace
        self.heads = heads
        self._total = total
        self._control = control
        self._done = 0

    def read(self, layer: int, head: int) -> np.ndarray:
        """`(n_tokens, n_tokens)`."""
        if self._control is not None:
            self._control.check()
            self._control.report(self._done / self._total, f"Map {self._done + 1:,} of {self._total:,}")
        self._done += 1
        weights: np.ndarray = attention_maps(self.trace, layer=layer, heads=[head]).weights[0]
        return weights


def _npz(maps: _Maps, layers: Sequence[int], labels: Sequence[str], origin: Origin) -> bytes:
    buffer = io.BytesIO()
    n_tokens = maps.trace.n_tokens
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        small: dict[str, np.ndarray] = {
            "heads": np.array(maps.heads, dtype=np.int64),
            "token_ids": np.array(maps.trace.token_ids, dtype=np.int64),
            "tokens": np.array(
                [label.encode("utf-8", "replace").decode() for label in labels], dtype=np.str_
            ),
            "model": np.array(origin.model),
            "revision": np.array(origin.revision),
            "dtype": np.array(origin.dtype),
            "versions": np.array(origin.versions),
        }
        for name, array in small.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        for layer in layers:
            with archive.open(f"layer_{layer}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(
                    member,
                    {
                        "descr": "<f4",
                        "fortran_order": False,
                        "shape": (len(maps.heads), n_tokens, n_tokens),
                    },
                )
                for head in maps.heads:
                    member.write(maps.read(layer, head).astype("<f4").tobytes())
    return buffer.getvalue()


def _csv(maps: _Maps, layers: Sequence[int], origin: Origin) -> bytes:
    trace = maps.trace
    buffer = io.StringIO()
    buffer.writelines(f"# {line}\n" for line in origin.lines())
    buffer.write(f"# token_ids: {' '.join(str(token_id) for token_id in trace.token_ids)}\n")
    buffer.write("layer,head,query,key,weight\n")
    for layer in layers:
        for head in maps.heads:
            for query, row in enumerate(maps.read(layer, head)):
                buffer.writelines(
                    f"{layer},{head},{query},{key},{weight:.8g}\n"
                    for key, weight in enumerate(row[: query + 1].tolist())
                )
    return buffer.getvalue().encode()
