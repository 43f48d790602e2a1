"""What the Hugging Face hub says of a model, asked before anything of it is fetched; refused where it cannot serve.

One question for commit, sizes and hashes, one for the configuration. `hub_download` fetches what was found.
"""

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from gpt_core.acquire import (
    MAX_CONFIG_BYTES,
    check_causal,
    check_memory,
    check_own_code,
    parse_object,
    pickle_sentence,
    weight_map_files,
)
from gpt_core.catalog import TOKENIZER_FILES, ModelId, is_hub_name
from gpt_core.control import Control
from gpt_core.errors import InputError, ModelLoadError
from gpt_core.hub_connection import endpoint, gated_sentence, not_the_hub, open_file, run_beside
from gpt_core.manifest import git_digest
from gpt_core.tokenizer_probe import check_tokenizer_files

#: Seconds that the answer to a question may take.
_ANSWER_SECONDS = 20.0

_MAX_INDEX_BYTES = 50_000_000

_TEXT_FILES = (
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
    if revision and not (len(revision) == 40 and set(revision) <= set("0123456789abcdef")):
        raise InputError(
            f"A commit has 40 hexadecimal digits. Given: {revision[:60]!r}. Leave the field empty for the newest one."
        )
    control.report(0.0, f"Asking the hub about {name}")
    info = run_beside(lambda _: _ask(name, revision), control, name)
    gated = bool(info.gated)
    try:
        model_id = ModelId.parse(f"hub:{info.id}@{info.sha}")
    except InputError as error:
        raise not_the_hub(name) from error
    files = {file.name: file for file in map(_file, info.siblings or ()) if file is not None}
    commit = str(info.sha)
    weights = _weight_names(files, info.id, commit, control, gated=gated)
    wanted = [files[n] for n in _TEXT_FILES if n in files]
    if "config.json" not in files:
        raise ModelLoadError(f"{name} has no config.json: it is not a model that transformers can load.")
    content = _read_small(info.id, commit, files["config.json"], MAX_CONFIG_BYTES, control, gated=gated)
    config = parse_object(content, f"config.json of {info.id}")
    _check_config(config, name)
    check_tokenizer_files({file.name: file.size for file in wanted}, name)
    if not files.keys() & set(TOKENIZER_FILES):
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


def _ask(name: str, revision: str) -> Any:
    api = HfApi(endpoint=endpoint())
    try:
        return api.model_info(name, revision=revision or None, files_metadata=True, timeout=_ANSWER_SECONDS)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        if _is_dataset(api, name):
            raise InputError(
                f"{name} is a dataset on the hub, not a model. Choose a causal language model."
            ) from None
        raise


def _is_dataset(api: HfApi, name: str) -> bool:
    try:
        api.dataset_info(name, timeout=_ANSWER_SECONDS)
    except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError, KeyError, TypeError):
        return False
    return True


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


def _weight_names(
    files: dict[str, HubFile], name: str, commit: str, control: Control, *, gated: bool
) -> list[str]:
    """The files that transformers reads: model.safetensors, or an index and those that it names."""
    if "model.safetensors" in files:
        return ["model.safetensors"]
    index = files.get("model.safetensors.index.json")
    if index is None:
        raise pickle_sentence(name, files, "Choose a repository that has them.")
    named = parse_object(
        _read_small(name, commit, index, _MAX_INDEX_BYTES, control, gated=gated), f"{index.name} of {name}"
    )
    shards = weight_map_files(named, f"{index.name} of {name}")
    lacking = [shard for shard in shards if shard not in files]
    if lacking:
        raise ModelLoadError(
            f"{name} lacks the weight file {lacking[0][:80]!r}, which its index names. Choose another repository."
        )
    return [index.name, *shards]


def _read_small(
    name: str, commit: str, file: HubFile, max_bytes: int, control: Control, *, gated: bool
) -> bytes:
    """A file of at most `max_bytes`, checked."""
    if file.size > max_bytes:
        raise ModelLoadError(
            f"{file.name} of {name} must be at most {max_bytes:,} bytes. Given: {file.size:,}."
        )

    def fetch(_: threading.Event) -> bytes:
        try:
            with open_file(name, commit, file.name, 0) as response:
                return response.read()
        except HfHubHTTPError as error:
            if gated and error.response.status_code in {401, 403}:
                raise gated_sentence(name) from error
            raise

    content = run_beside(fetch, control, name)
    if git_digest(content) != file.digest and hashlib.sha256(content).hexdigest() != file.digest:
        raise not_the_hub(name)
    return content


def _check_config(config: dict[str, Any], name: str) -> None:
    check_own_code(config, name)
    check_causal(config, name)
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
