"""Bring a model's files to this machine, safe formats only. Today: the bundled model and local folders.

Reads a folder's configuration before any weight is touched, and refuses in a sentence.
"""

import json
from pathlib import Path

from gpt_core.catalog import ModelEntry
from gpt_core.errors import ModelLoadError

_MAX_CONFIG_BYTES = 1_000_000


def acquire_model(entry: ModelEntry) -> Path:
    """The folder that holds `entry`'s files, checked as far as can be without loading.

    Raises ModelLoadError: no or unreadable configuration, remote code, no safetensors weights.
    """
    folder = Path(entry.folder)
    config = _read_config(folder)
    if "auto_map" in config:
        raise ModelLoadError(
            f"{folder.name} needs code from its own repository (`auto_map` in config.json), which is never run. "
            "Choose a model whose architecture is part of transformers."
        )
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(file.name for file in folder.glob("*.bin"))
        found = f"only {pickles[0]}, which can run code when it is opened" if pickles else "none"
        raise ModelLoadError(
            f"{folder.name} must hold its weights as .safetensors; found: {found}. "
            "Save it once with save_pretrained(..., safe_serialization=True)."
        )
    return folder


def _read_config(folder: Path) -> dict[str, object]:
    file = folder / "config.json"
    if not file.is_file():
        raise ModelLoadError(f"{folder.name} has no config.json. Choose a folder written by save_pretrained.")
    if file.stat().st_size > _MAX_CONFIG_BYTES:
        raise ModelLoadError(
            f"config.json of {folder.name} must be at most {_MAX_CONFIG_BYTES:,} bytes. "
            f"Given: {file.stat().st_size:,}."
        )
    try:
        config = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"config.json of {folder.name} cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise ModelLoadError(f"config.json of {folder.name} must be an object with names and values.")
    return config
