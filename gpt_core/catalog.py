"""Which models there are on this machine, where each comes from, and what identifies one.

A model is `source:name@revision`. The name alone would confuse a local folder called `gpt2` with the hub's; the
revision is a digest over everything that decides a number: weights, configuration and tokenizer.
"""

import hashlib
import json
import os
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gpt_core.errors import InputError

#: The folder of the model that ships with the project.
BUNDLED_FOLDER = Path(__file__).parent / "bundled"
BUNDLED_NAME = "small-gpt2"

#: Names folders (separated as in PATH) that hold model folders, or are one.
MODEL_FOLDERS_VARIABLE = "GPT_CORE_MODELS"

#: Names the device on which models are put: cpu, cuda or mps.
DEVICE_VARIABLE = "GPT_CORE_DEVICE"

SOURCES = ("bundled", "local")

#: Nanoseconds after which a file's times tell of every change.
_SETTLED_NS = 2_000_000_000
_digest_lock = threading.Lock()

_IDENTITY_SUFFIXES = (".safetensors", ".json", ".txt", ".jinja", ".model")


@dataclass(frozen=True, slots=True)
class ModelId:
    """What identifies a model."""

    source: str
    """One of SOURCES."""
    name: str
    """The bundled model's name, a folder's name under a model folder, or a folder's full path."""
    revision: str = ""
    """First 12 hexadecimal digits of the sha256 over the model's files; empty where not yet known."""

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
            and (not at or (len(revision) == 12 and set(revision) <= set("0123456789abcdef")))
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
        where = {"bundled": "in the box", "local": "folder"}[self.model_id.source]
        return f"{Path(self.model_id.name).name} · {where}"


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
            if (model_id.source, model_id.name) == (wanted.source, wanted.name)
            or (model_id.source == "local" and full is not None and full == _resolved(folder))
        ),
        None,
    )
    if found is None and full is not None and _is_model_folder(full):
        found = ModelId("local", str(full)), full
    if found is None:
        raise InputError(
            f"{wanted.source}:{_short(wanted.name)} is not on this machine. Here: "
            f"{', '.join(str(model_id) for model_id, _ in candidates)}."
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


def load_name(model_id: str) -> str:
    """What `from_pretrained` takes for this model: the folder of its files, relative where it is in the project."""
    folder = Path(find_model(model_id).folder)
    return "gpt_core/bundled" if folder == BUNDLED_FOLDER else str(folder)


def _candidates() -> list[tuple[ModelId, Path]]:
    """Every model folder with its id, not yet its revision: nothing is read but the folders' lists."""
    found = [(ModelId("bundled", BUNDLED_NAME), BUNDLED_FOLDER)]
    names: set[str] = set()
    folders: set[Path] = set()
    for parent in model_folders():
        for folder in [parent] if _is_model_folder(parent) else _children(parent):
            resolved = _resolved(folder)
            if resolved is None or resolved in folders or not _is_model_folder(folder):
                continue
            name = folder.name or resolved.name
            if name in names or not _is_name(name):
                name = str(resolved)
            if _is_name(name):
                folders.add(resolved)
                names.add(name)
                found.append((ModelId("local", name), folder))
    return found


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


def _is_name(name: str) -> bool:
    """Whether an id can be made of it that is read back as the same, and that can be shown."""
    try:
        name.encode()
        return ModelId.parse(f"local:{name}@{'0' * 12}").name == name
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
        model_id=ModelId(model_id.source, model_id.name, _revision(folder, files)),
        folder=str(folder),
        size=sum(file.stat().st_size for file in files if file.suffix == ".safetensors"),
        architecture=architecture,
        licence=_licence(folder),
    )


def _identity_files(folder: Path) -> list[Path]:
    return sorted(
        child for child in folder.iterdir() if child.suffix in _IDENTITY_SUFFIXES and child.is_file()
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
