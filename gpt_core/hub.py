"""What the Hugging Face hub says of a model, asked before anything of it is fetched; refused where it cannot serve.

One question for commit, sizes and hashes, one for the configuration. `hub_download` fetches what was found.
"""

import hashlib
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from gpt_core.acquire import MAX_CONFIG_BYTES, check_memory, check_own_code
from gpt_core.catalog import ModelId, is_causal, is_hub_name
from gpt_core.control import Control
from gpt_core.errors import InputError, ModelLoadError
from gpt_core.hub_cache import git_digest
from gpt_core.hub_connection import endpoint, not_the_hub, open_file, run_beside

#: Seconds that the answer to a question may take.
_ANSWER_SECONDS = 20.0

_TEXT_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "README.md",
    "LICENSE",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """A file of a repository."""

    name: str
    """Its name; no folder."""
    size: int
    """Bytes."""
    digest: str
    """sha256 of its bytes where the hub keeps it in large-file storage, else git's sha1 of it as a blob; the name of
    its blob in the cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HubModel:
    """What the hub says of a model, before anything of it is fetched."""

    model_id: ModelId
    """`hub:owner/name@commit`, under the name that the repository has now."""
    files: tuple[HubFile, ...]
    """What is fetched, weights last."""
    n_parameters: int
    """As the hub counts them; estimated from the files' bytes where it does not say."""
    licence: str
    """As its card says; empty where it does not."""
    architecture: str
    """`model_type` of its configuration."""
    newest: bool
    """Whether the commit is the newest one: no other was asked for."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def look_up(name: str, *, revision: str = "", max_bytes: int, control: Control) -> HubModel:
    """Ask the hub what `name` is, at `revision` (a commit of 40 digits; the newest where none is named).

    Raises InputError (no name of a repository, no such repository or commit), DownloadError (the hub cannot be
    reached or refuses), ModelLoadError (it is no causal language model in safetensors, or needs code of its own) and
    MemoryLimitError (its weights, as float32, take more than `max_bytes`).
    """
    if not is_hub_name(name):
        raise InputError(
            "A model on the hub is named `name` or `owner/name`, of letters, digits, `-`, `_` and `.`, at most 96 "
            f"characters. Given: {name[:100]!r}."
        )
    control.report(0.0, f"Asking the hub about {name}")
    info = run_beside(
        lambda _: HfApi(endpoint=endpoint()).model_info(
            name, revision=revision or None, files_metadata=True, timeout=_ANSWER_SECONDS
        ),
        control,
        name,
    )
    try:
        model_id = ModelId.parse(f"hub:{info.id}@{info.sha}")
    except InputError as error:
        raise not_the_hub(name) from error
    files = {file.name: file for file in map(_file, info.siblings or ()) if file is not None}
    weights = _weight_names(files, name)
    wanted = [files[n] for n in _TEXT_FILES if n in files and n != "config.json"]
    if "config.json" not in files:
        raise ModelLoadError(f"{name} has no config.json: it is not a model that transformers can load.")
    config = _read_config(info.id, str(info.sha), files["config.json"], control)
    _check_config(config, name)
    if not files.keys() & {"tokenizer.json", "vocab.json", "tokenizer.model"}:
        raise ModelLoadError(f"{name} has no tokenizer files. Choose a model that brings its tokenizer.")
    n_parameters = _count_parameters(info, config, sum(files[n].size for n in weights))
    check_memory(n_parameters, max_bytes, name)
    card = info.card_data
    return HubModel(
        model_id=model_id,
        files=(files["config.json"], *wanted, *(files[n] for n in weights)),
        n_parameters=n_parameters,
        licence=str((card.license if card is not None else "") or ""),
        architecture=str(config.get("model_type", "")),
        newest=not revision,
    )


def _file(sibling: Any) -> HubFile | None:
    """What is told of a file; None where it is in a folder of its own, or where a hash or a size is missing."""
    name, size = sibling.rfilename, sibling.size
    digest = sibling.lfs.sha256 if sibling.lfs is not None else sibling.blob_id
    valid = (
        isinstance(name, str)
        and name == Path(name).name
        and isinstance(size, int)
        and size >= 0
        and isinstance(digest, str)
        and len(digest) in {40, 64}
        and set(digest) <= set("0123456789abcdef")
    )
    return HubFile(name=name, size=size, digest=digest) if valid else None


def _weight_names(files: dict[str, HubFile], name: str) -> list[str]:
    if "model.safetensors" in files:
        return ["model.safetensors"]
    if "model.safetensors.index.json" in files:
        shards = sorted(n for n in files if n.startswith("model-") and n.endswith(".safetensors"))
        if shards:
            return ["model.safetensors.index.json", *shards]
    others = sorted(n for n in files if n.endswith((".bin", ".safetensors", ".gguf", ".h5", ".pt")))
    pickles = [n for n in others if n.endswith((".bin", ".pt"))]
    found = f"only {pickles[0]}, which can run code when it is opened" if pickles else (others or ["none"])[0]
    raise ModelLoadError(
        f"{name} must hold its weights as model.safetensors; found: {found[:120]}. Choose a repository that has them."
    )


def _read_config(name: str, commit: str, file: HubFile, control: Control) -> dict[str, Any]:
    if file.size > MAX_CONFIG_BYTES:
        raise ModelLoadError(
            f"config.json of {name} must be at most {MAX_CONFIG_BYTES:,} bytes. Given: {file.size:,}."
        )

    def fetch(_: threading.Event) -> bytes:
        with open_file(name, commit, file.name, 0) as response:
            return response.read()

    content = run_beside(fetch, control, name)
    if git_digest(content) != file.digest and hashlib.sha256(content).hexdigest() != file.digest:
        raise not_the_hub(name)
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"config.json of {name} cannot be read: {str(error)[:200]}.") from error
    if not isinstance(config, dict):
        raise ModelLoadError(f"config.json of {name} must be an object with names and values.")
    return config


def _check_config(config: dict[str, Any], name: str) -> None:
    check_own_code(config, name)
    if not is_causal(config):
        raise ModelLoadError(
            f"{name} was saved as {str(config['architectures'][0])[:80]}, not as a causal language model. "
            "Choose one that continues text."
        )
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelLoadError(
            f"{name} is of the kind {str(kind)[:80]!r}, which is no causal language model that this version of "
            "transformers can run. Choose one that continues text."
        )


def _count_parameters(info: Any, config: dict[str, Any], n_bytes: int) -> int:
    counted = getattr(info.safetensors, "total", None)
    if isinstance(counted, int) and counted > 0:
        return counted
    kind = str(config.get("dtype") or config.get("torch_dtype") or "float16")
    return n_bytes // {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}.get(kind, 1)
