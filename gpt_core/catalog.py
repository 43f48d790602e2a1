"""Which models there are on this machine, where each comes from, and what identifies one.

A model is `source:name@revision`. The name alone would confuse a local folder called `gpt2` with the hub's. The
revision follows everything that decides a number (weights, configuration, tokenizer): of the bundled model and of a
folder it is a digest over the files, of a hub model the commit, of a model made from a wheel the wheel's digest.
"""

import hashlib
import json
import os
import re
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from gpt_core.errors import InputError
from gpt_core.storage import hub_folder, wheels_folder

#: The folder of the model that ships with the project.
BUNDLED_FOLDER = Path(__file__).parent / "bundled"
BUNDLED_NAME = "small-gpt2"

#: Names folders (separated as in PATH) that hold model folders, or are one.
MODEL_FOLDERS_VARIABLE = "GPT_CORE_MODELS"

#: Names the device on which models are put: cpu, cuda or mps.
DEVICE_VARIABLE = "GPT_CORE_DEVICE"

SOURCES = ("bundled", "local", "hub", "pypi")

#: Hexadecimal digits of a revision, by source: a hub commit is written whole, as the hub wants it.
_REVISION_DIGITS = {"bundled": 12, "local": 12, "hub": 40, "pypi": 12}

#: A name on the hub: `name` or `owner/name` (huggingface_hub.utils.validate_repo_id, less "--", which its cache uses).
_HUB_NAME = re.compile(
    r"(?!.*(--|\.\.))(?!.*\.git$)[A-Za-z0-9_][\w.-]{0,95}(/[A-Za-z0-9_][\w.-]{0,95})?", re.ASCII
)

#: What is opened first where nobody chose, best first; the bundled model where none of them is here.
_PREFERRED = ("hub:openai-community/gpt2", "hub:gpt2", "pypi:SmolLM2-135M-Instruct")

#: One of these is what a tokenizer is read from.
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")

#: Nanoseconds after which a file's times tell of every change.
_SETTLED_NS = 2_000_000_000
_digest_lock = threading.Lock()

#: How the files end that decide a number.
IDENTITY_SUFFIXES = (".safetensors", ".json", ".txt", ".jinja", ".model")


@dataclass(frozen=True, slots=True)
class ModelId:
    """What identifies a model."""

    source: str
    """One of SOURCES."""
    name: str
    """The bundled model's name, a folder's name under a model folder or its full path, a repository's name on the
    hub, or the name of a model that a wheel carries."""
    revision: str = ""
    """12 hexadecimal digits, or a commit's 40 where it comes from the hub; empty where not yet known."""

    def __str__(self) -> str:
        return f"{self.source}:{self.name}" + (f"@{self.revision}" if self.revision else "")

    @classmethod
    def parse(cls, text: str) -> "ModelId":
        """The id that `source:name@revision` spells; InputError where it is none."""
        source, colon, rest = text.partition(":")
        name, at, revision = rest.rpartition("@") if "@" in rest else (rest, "", "")
        valid = (
            colon
            and source in SOURCES
            and 0 < len(name) <= 1024
            and "\0" not in name
            and ".." not in Path(name).parts
            and (source != "hub" or is_hub_name(name))
            and (source != "pypi" or "/" not in name)
            and (
                not at
                or (len(revision) == _REVISION_DIGITS[source] and set(revision) <= set("0123456789abcdef"))
            )
        )
        if not valid:
            raise InputError(
                f"A model is named source:name@revision with a source of {', '.join(SOURCES)}. "
                f"Given: {_short(text)!r}."
            )
        return cls(source, name, revision)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelEntry:
    """One model of the catalogue."""

    model_id: ModelId
    """Identity, with its revision."""
    folder: str
    """Where its files are on this machine."""
    size: int
    """Bytes of its weight files."""
    architecture: str
    """`model_type` of its configuration, such as `gpt2`."""
    licence: str
    """Short name of its licence; empty where the folder does not say."""

    @property
    def title(self) -> str:
        """What a reader sees in a list."""
        source, name = self.model_id.source, self.model_id.name
        if source == "pypi":
            return f"{name} (4-bit, dequantised) · PyPI"
        if source == "hub":
            return f"{name} · hub"
        return f"{Path(name).name} · {'in the box' if source == 'bundled' else 'folder'}"


def is_hub_name(name: str) -> bool:
    """Whether `name` can be that of a repository on the hub. Looks at its letters alone."""
    return len(name) <= 96 and _HUB_NAME.fullmatch(name) is not None


def model_folders() -> tuple[Path, ...]:
    """The folders in which local models are looked for, in order."""
    named = os.environ.get(MODEL_FOLDERS_VARIABLE, "")
    return tuple(Path(os.path.expanduser(part)) for part in named.split(os.pathsep) if part)  # noqa: PTH111 - never raises


def list_models() -> tuple[ModelEntry, ...]:
    """The models that are on this machine, the bundled one first.

    The first call reads every weight file once, for its digest: about a second per gigabyte.
    """
    entries = []
    for model_id, folder in _candidates():
        try:
            entries.append(_describe(model_id, folder))
        except OSError:
            continue  # removed or closed to us since it was found
    return tuple(entries)


def find_model(text: str) -> ModelEntry:
    """The entry of `source:name[@revision]`; InputError where this machine has no such model.

    A full path is found too (`local:/home/me/model`), wherever it is. A folder in the list has one name, that of
    the list, so that it is one model. Reads no other model's files.
    """
    wanted = ModelId.parse(text)
    path = Path(wanted.name)
    full = _resolved(path) if wanted.source == "local" and path.is_absolute() else None
    candidates = _candidates()
    found = next(
        (
            (model_id, folder)
            for model_id, folder in candidates
            if (
                (model_id.source, model_id.name) == (wanted.source, wanted.name)
                and (not model_id.revision or wanted.revision in {"", model_id.revision})
            )
            or (model_id.source == "local" and full is not None and full == _resolved(folder))
        ),
        None,
    )
    if found is None and full is not None and _is_model_folder(full):
        found = ModelId("local", str(full)), full
    if found is None:
        remedy = " It can be fetched on the Models page." if wanted.source in {"hub", "pypi"} else ""
        raise InputError(
            f"{wanted.source}:{_short(wanted.name)} is not on this machine. Here: "
            f"{', '.join(str(model_id) for model_id, _ in candidates)}.{remedy}"
        )
    try:
        entry = _describe(*found)
    except OSError as error:
        raise InputError(
            f"The files of {_short(str(found[0]))} cannot be read ({error.strerror}). Check the folder's permissions."
        ) from error
    if wanted.revision not in {"", entry.model_id.revision}:
        raise InputError(
            f"{wanted.source}:{_short(wanted.name)} is on this machine with revision {entry.model_id.revision}; "
            f"revision {wanted.revision} was asked for, and its numbers may differ. Choose the one that is here."
        )
    return entry


def bundled_model_id() -> str:
    """The full id of the model that ships with the project."""
    return str(_describe(ModelId("bundled", BUNDLED_NAME), BUNDLED_FOLDER).model_id)


def default_model_id() -> str:
    """The full id of the model to open where nobody chose: the best that is on this machine."""
    found = {f"{model_id.source}:{model_id.name}": (model_id, folder) for model_id, folder in _candidates()}
    best = next((name for name in _PREFERRED if name in found), None)
    return bundled_model_id() if best is None else str(_describe(*found[best]).model_id)


def load_name(model_id: str) -> str:
    """What `from_pretrained` takes for this model: its name on the hub where that means these files, else the folder
    of its files, relative where it is in the project."""
    entry = find_model(model_id)
    folder = Path(entry.folder)
    if entry.model_id.source == "hub" and _main_commit(folder.parents[1]) == entry.model_id.revision:
        return entry.model_id.name
    return "gpt_core/bundled" if folder == BUNDLED_FOLDER else str(folder)


def _candidates() -> list[tuple[ModelId, Path]]:
    """Every model folder with its id, not yet its revision: nothing is read but the folders' lists."""
    found = [(ModelId("bundled", BUNDLED_NAME), BUNDLED_FOLDER)]
    names: set[str] = set()
    folders: set[Path] = set()
    for parent in model_folders():
        inside = _resolved(parent)
        for folder in [parent] if _is_model_folder(parent) else _children(parent):
            resolved = _resolved(folder)
            if resolved is None or resolved in folders or not _is_model_folder(folder):
                continue
            if folder != parent and inside not in resolved.parents:
                continue  # a link that leads out of the folder that was named
            name = folder.name or resolved.name
            if name in names or not _is_name(f"local:{name}@{'0' * 12}"):
                name = str(resolved)
            if _is_name(f"local:{name}@{'0' * 12}"):
                folders.add(resolved)
                names.add(name)
                found.append((ModelId("local", name), folder))
    return [*found, *_wheel_models(), *_hub_models()]


def _wheel_models() -> list[tuple[ModelId, Path]]:
    """The models made from wheels: folders called `name@revision`."""
    found = []
    for folder in _children(wheels_folder()):
        name, _, revision = folder.name.rpartition("@")
        if _is_name(f"pypi:{name}@{revision}") and _is_model_folder(folder):
            found.append((ModelId("pypi", name, revision), folder))
    return found


def _hub_models() -> list[tuple[ModelId, Path]]:
    """The causal language models in the hub's cache that are whole: `models--owner--name/snapshots/commit`."""
    found = []
    for repository in _children(hub_folder()):
        kind, _, rest = repository.name.partition("--")
        name = "/".join(rest.split("--"))
        if kind != "models" or not is_hub_name(name):
            continue
        main = _main_commit(repository)
        snapshots = sorted(_children(repository / "snapshots"), key=lambda snapshot: snapshot.name != main)
        found += [
            (ModelId("hub", name, snapshot.name), snapshot)
            for snapshot in snapshots
            if _is_name(f"hub:{name}@{snapshot.name}") and is_whole_model(snapshot)
        ]
    return found


def is_whole_model(folder: Path) -> bool:
    """Whether a folder holds a causal language model's configuration, tokenizer and all of its safetensors files."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        index = folder / "model.safetensors.index.json"
        if (folder / "model.safetensors").is_file():
            files = {"model.safetensors"}
        else:
            files = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        return (
            isinstance(config, dict)
            and is_causal(config)
            and any((folder / file).is_file() for file in TOKENIZER_FILES)
            and bool(files)
            and all((folder / file).is_file() for file in files)
        )
    except (OSError, ValueError, RecursionError, KeyError, AttributeError, TypeError):
        return False


def is_openable(folder: Path) -> bool:
    """Whether a folder holds a configuration and, beside it, weights of any kind. Reads none of them."""
    kinds = {".safetensors", ".bin", ".pt", ".h5", ".gguf"}
    try:
        return (folder / "config.json").is_file() and any(file.suffix in kinds for file in folder.iterdir())
    except (OSError, ValueError):  # too long, closed to us, or not writable as a name of this system
        return False


def is_causal(config: dict[str, Any]) -> bool:
    """Whether a configuration was saved from a causal language model, or does not say."""
    architectures = config.get("architectures") or []
    return not architectures or any(
        isinstance(name, str) and ("CausalLM" in name or "LMHead" in name) for name in architectures
    )


def _main_commit(repository: Path) -> str:
    try:
        return (repository / "refs" / "main").read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _is_model_folder(folder: Path) -> bool:
    try:
        return (folder / "config.json").is_file()
    except (OSError, ValueError):  # too long, closed to us, or not writable as a name of this system
        return False


def _resolved(folder: Path) -> Path | None:
    try:
        return folder.resolve()
    except (OSError, ValueError, RuntimeError):  # RuntimeError: links that go round in a circle
        return None


def _is_name(text: str) -> bool:
    """Whether it is an id that is read back as the same, and that can be shown."""
    try:
        text.encode()
        return str(ModelId.parse(text)) == text
    except (UnicodeEncodeError, InputError):
        return False


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _describe(model_id: ModelId, folder: Path) -> ModelEntry:
    files = _identity_files(folder)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        architecture = str(config.get("model_type", "")) if isinstance(config, dict) else ""
    except (ValueError, RecursionError):
        architecture = ""
    return ModelEntry(
        model_id=ModelId(model_id.source, model_id.name, model_id.revision or _revision(folder, files)),
        folder=str(folder),
        size=sum(file.stat().st_size for file in files if file.suffix == ".safetensors"),
        architecture=architecture,
        licence=_licence(folder),
    )


def _identity_files(folder: Path) -> list[Path]:
    return sorted(
        child for child in folder.iterdir() if child.suffix in IDENTITY_SUFFIXES and child.is_file()
    )


def _revision(folder: Path, files: list[Path]) -> str:
    """Digest over the files' names and contents, computed again when a file's size or times have changed."""
    stats = [file.stat() for file in files]
    stamps = tuple(
        (file.name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        for file, stat in zip(files, stats, strict=True)
    )
    # A file that was just written can be written again within one tick of the clock: its times prove nothing yet.
    settled = all(time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED_NS for stat in stats)
    with _digest_lock:  # a second reader waits for the digest instead of reading the same gigabytes
        return (_digest if settled else _digest.__wrapped__)(str(folder.resolve()), stamps)


@lru_cache(maxsize=1024)
def _digest(folder: str, stamps: tuple[tuple[str, int, int, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, *_ in stamps:
        with (Path(folder) / name).open("rb") as file:
            digest.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:12]


def _licence(folder: Path) -> str:
    """The `license:` line of the model card's front matter (huggingface.co/docs/hub/model-cards)."""
    try:
        lines = (folder / "README.md").read_text("utf-8").splitlines()[:50]
    except (OSError, UnicodeDecodeError):
        return ""
    if not lines or lines[0].strip() != "---":
        return ""
    for line in lines[1:]:
        if line.strip() == "---":
            break
        key, _, value = line.partition(":")
        if key.strip() == "license":
            return value.strip()
    return ""
