"""Which models there are on this machine, where each comes from, and what identifies one.

A model is `source:name@revision`. The name alone would confuse a local folder called `gpt2` with the hub's; the
revision is a digest over everything that decides a number: weights, configuration and tokenizer.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gpt_core.errors import InputError

#: The folder of the model that ships with the project.
BUNDLED_FOLDER = Path(__file__).parent / "bundled"
BUNDLED_NAME = "small-gpt2"

#: Names folders (separated as in PATH) that hold model folders, or are one.
MODEL_FOLDERS_VARIABLE = "GPT_CORE_MODELS"

SOURCES = ("bundled", "local")

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
        name, _, revision = rest.rpartition("@") if "@" in rest else (rest, "", "")
        valid = (
            colon
            and source in SOURCES
            and 0 < len(name) <= 1024
            and "\0" not in name
            and ".." not in Path(name).parts
            and (revision == "" or (len(revision) == 12 and set(revision) <= set("0123456789abcdef")))
        )
        if not valid:
            shown = text if len(text) <= 80 else text[:77] + "..."
            raise InputError(
                f"A model is named source:name@revision with a source of {', '.join(SOURCES)}. Given: {shown!r}."
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
    return tuple(Path(part).expanduser() for part in named.split(os.pathsep) if part)


def list_models() -> tuple[ModelEntry, ...]:
    """The models that are on this machine, the bundled one first."""
    entries = [_describe(ModelId("bundled", BUNDLED_NAME), BUNDLED_FOLDER)]
    taken: set[str] = set()
    for parent in model_folders():
        if (parent / "config.json").is_file():
            candidates = [parent]
        elif parent.is_dir():
            candidates = sorted(child for child in parent.iterdir() if (child / "config.json").is_file())
        else:
            candidates = []
        for folder in candidates:
            name = folder.name if folder.name not in taken else str(folder.resolve())
            taken.add(name)
            entries.append(_describe(ModelId("local", name), folder))
    return tuple(entries)


def find_model(text: str) -> ModelEntry:
    """The entry of `source:name[@revision]`; InputError where this machine has no such model.

    A full path is found too (`local:/home/me/model`), wherever it is.
    """
    wanted = ModelId.parse(text)
    entries = list_models()
    for entry in entries:
        if (entry.model_id.source, entry.model_id.name) == (wanted.source, wanted.name):
            if wanted.revision in ("", entry.model_id.revision):
                return entry
            raise InputError(
                f"{wanted.source}:{wanted.name} is on this machine with revision {entry.model_id.revision}; "
                f"revision {wanted.revision} was asked for, and its numbers may differ. Choose the one that is here."
            )
    folder = Path(wanted.name)
    if wanted.source == "local" and folder.is_absolute() and (folder / "config.json").is_file():
        return _describe(ModelId("local", str(folder.resolve())), folder)
    raise InputError(
        f"{wanted.source}:{wanted.name} is not on this machine. Here: "
        f"{', '.join(str(entry.model_id) for entry in entries)}."
    )


def bundled_model_id() -> str:
    """The full id of the model that ships with the project."""
    return str(list_models()[0].model_id)


def load_name(model_id: str) -> str:
    """What `from_pretrained` takes for this model: the folder of its files, relative where it is in the project."""
    folder = Path(find_model(model_id).folder)
    return "gpt_core/bundled" if folder == BUNDLED_FOLDER else str(folder)


def _describe(model_id: ModelId, folder: Path) -> ModelEntry:
    files = _identity_files(folder)
    revision = _digest(str(folder.resolve()), tuple((f.name, *_stamp(f)) for f in files))
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        architecture = str(config.get("model_type", "")) if isinstance(config, dict) else ""
    except (OSError, ValueError):
        architecture = ""
    return ModelEntry(
        model_id=ModelId(model_id.source, model_id.name, revision),
        folder=str(folder),
        size=sum(file.stat().st_size for file in files if file.suffix == ".safetensors"),
        architecture=architecture,
        licence=_licence(folder),
    )


def _identity_files(folder: Path) -> list[Path]:
    return sorted(
        child for child in folder.iterdir() if child.suffix in _IDENTITY_SUFFIXES and child.is_file()
    )


def _stamp(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=64)
def _digest(folder: str, stamps: tuple[tuple[str, int, int], ...]) -> str:
    """Digest over names and contents; the stamps make a changed file a different question."""
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
