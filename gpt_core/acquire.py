"""A model's files on this machine, checked as far as can be before any weight is touched; refused in a sentence.

Configuration and headers of the weight files are read; what came with the project or was downloaded is compared with
the digests it was published with. How files get here is the business of `hub` and `wheel`.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

from gpt_core.catalog import ModelEntry
from gpt_core.errors import MemoryLimitError, ModelLoadError
from gpt_core.hub_cache import verify_snapshot
from gpt_core.manifest import verify_manifest
from gpt_core.tokenizer_probe import probe_tokenizer

MAX_CONFIG_BYTES = 1_000_000
#: Longest header that the safetensors library reads (github.com/huggingface/safetensors, "Format").
_MAX_HEADER_BYTES = 100_000_000
#: Bounds of the shapes that torch can hold.
_MAX_AXES, _MAX_NUMBERS = 64, 2**63
_FLOAT32_BYTES = 4


def memory_limit() -> int:
    """Bytes that models may take: half of this machine's memory; 4 GiB where it cannot be asked."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 4 * 2**30


def check_own_code(config: dict[str, Any], name: str) -> None:
    """ModelLoadError where a configuration asks for code from the model's repository."""
    if "auto_map" in config:
        raise ModelLoadError(
            f"{name} needs code from its own repository (`auto_map` in config.json), which is never run. "
            "Choose a model whose architecture is part of transformers."
        )


def check_memory(n_parameters: int, max_bytes: int, name: str) -> None:
    """MemoryLimitError where so many parameters, as float32, take more than `max_bytes`."""
    n_bytes = n_parameters * _FLOAT32_BYTES
    if n_bytes > max_bytes:
        raise MemoryLimitError(
            f"A model must take at most {max_bytes / 2**30:,.1f} GiB of memory here. {name} needs "
            f"{n_bytes / 2**30:,.1f} GiB as float32. Choose a smaller model."
        )


def acquire_model(entry: ModelEntry, *, max_bytes: int | None = None) -> Path:
    """The folder that holds `entry`'s files, checked as far as can be without loading.

    Raises ModelLoadError (no or unreadable configuration, remote code, no safetensors weights, damaged headers) and
    MemoryLimitError (its weights, as float32, would take more than `max_bytes`).
    """
    folder = Path(entry.folder).absolute()
    if entry.model_id.source == "hub":
        verify_snapshot(folder)
    elif entry.model_id.source in {"bundled", "pypi"}:
        verify_manifest(folder)
    config = _read_config(folder)
    check_own_code(config, folder.name)
    n_tensors = n_numbers = 0
    for file in _weight_files(folder):
        shapes = _read_shapes(file)
        n_tensors += len(shapes)
        n_numbers += sum(math.prod(shape) for shape in shapes)
    n_layers = next(
        (config[name] for name in ("num_hidden_layers", "n_layer", "num_layers") if name in config), 0
    )
    if not isinstance(n_layers, int) or n_layers > n_tensors:
        raise ModelLoadError(
            f"config.json of {folder.name} claims {str(n_layers)[:40]} layers, but its files hold only "
            f"{n_tensors:,} weights. They do not belong together."
        )
    if max_bytes is not None:
        check_memory(n_numbers, max_bytes, folder.name)
    if entry.model_id.source in {"local", "hub"}:
        probe_tokenizer(folder)
    return folder


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise ModelLoadError(f"{folder.name} has no config.json. Choose a folder written by save_pretrained.")
    if file.stat().st_size > MAX_CONFIG_BYTES:
        raise ModelLoadError(
            f"config.json of {folder.name} must be at most {MAX_CONFIG_BYTES:,} bytes. "
            f"Given: {file.stat().st_size:,}."
        )
    return _read_object(file)


def _read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file; the message names the file and its folder, not where it is."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ModelLoadError(f"{file.name} of {file.parent.name} cannot be read: {reason}.") from error
    if not isinstance(content, dict):
        raise ModelLoadError(f"{file.name} of {file.parent.name} must be an object with names and values.")
    return content


def _weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads: model.safetensors, or those that its index names."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if _is_file(single):
        _check_inside(single, folder)
        return [single]
    if not index.is_file():
        others = sorted(file.name for pattern in ("*.bin", "*.safetensors") for file in folder.glob(pattern))
        if others and others[0].endswith(".bin"):
            found = f"only {others[0]}, which can run code when it is opened"
        else:
            found = others[0] if others else "none"
        raise ModelLoadError(
            f"{folder.name} must hold its weights as model.safetensors; found: {found}. "
            "Save it once with transformers' save_pretrained."
        )
    named = _read_object(index).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise ModelLoadError(f"{index.name} of {folder.name} names no weights.")
    files = [folder / name for name in sorted(set(named.values()))]
    for file in files:
        if file.parent != folder or not _is_file(file):
            raise ModelLoadError(
                f"{folder.name} lacks the weight file {file.name[:80]!r}, which its index names. Copy it there too."
            )
        _check_inside(file, folder)
    return files


def _check_inside(file: Path, folder: Path) -> None:
    """Refuse a link that leads out of the folder, unless into the hub cache's own store."""
    target = file.resolve()
    store = folder.resolve().parents[1] / "blobs" if folder.resolve().parent.name == "snapshots" else None
    if target.parent not in {folder.resolve(), store}:
        raise ModelLoadError(
            f"{file.name} of {folder.name} is a link that leads out of the folder. Put the file itself there."
        )


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # a name that is too long, or a place closed to us
        return False


def _read_shapes(file: Path) -> list[list[int]]:
    """The shapes of the weights in a safetensors file, from its header: 8 bytes of length, then JSON."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(_MAX_HEADER_BYTES, file.stat().st_size - 8):
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(length))
        tensors = [value for name, value in header.items() if name != "__metadata__"]
        shapes = [tensor["shape"] for tensor in tensors]
        if not all(isinstance(n, int) and 0 <= n < _MAX_NUMBERS for shape in shapes for n in shape):
            raise ValueError("a shape is not made of whole numbers")
        if not all(len(shape) <= _MAX_AXES and math.prod(shape) < _MAX_NUMBERS for shape in shapes):
            raise ValueError("a shape is larger than any file")
    except (OSError, ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise ModelLoadError(
            f"{file.name} of {file.parent.name} is damaged or is no safetensors file. Copy it again."
        ) from error
    return shapes
