"""What downloads left on this disk that is no model: begun and never ended, or set aside because it is damaged."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from gpt_core.errors import InputError
from gpt_core.hub_cache import DAMAGED, INCOMPLETE, is_linked, name_of, remove, remove_empty, size_of
from gpt_core.hub_download import is_running
from gpt_core.storage import hub_folder, wheels_folder
from gpt_core.wheel import DAMAGED_PREFIX


@dataclass(frozen=True, kw_only=True, slots=True)
class Leftover:
    """What is left of one model."""

    name: str
    """Of the model."""
    source: str
    """`hub` or `pypi`."""
    folder: str
    """Of its repository in the hub's cache, or of what was set aside."""
    size: int
    """Bytes."""


def list_leftovers() -> tuple[Leftover, ...]:
    """What lies on this disk and serves nobody. What is on its way now is left out."""
    found = []
    for repository in sorted(hub_folder().glob("models--*")):
        size = sum(map(size_of, _left_blobs(repository)))
        if size and not is_running(name_of(repository)):
            found.append(Leftover(name=name_of(repository), source="hub", folder=str(repository), size=size))
    for folder in sorted(wheels_folder().glob(f"{DAMAGED_PREFIX}*")):
        size = sum(map(size_of, folder.iterdir()))
        found.append(
            Leftover(
                name=folder.name.removeprefix(DAMAGED_PREFIX), source="pypi", folder=str(folder), size=size
            )
        )
    return tuple(found)


def delete_leftover(left: Leftover) -> int:
    """Delete it; the bytes that this freed. Raises InputError where its files are on their way or closed to us."""
    folder = Path(left.folder)
    if left.source == "pypi":
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            raise InputError(f"{folder} cannot be deleted. Check who owns it.")
        return left.size
    if is_running(left.name):
        raise InputError(f"{left.name} is on its way now. Stop its download first.")
    blobs = _left_blobs(folder)
    freed = sum(map(size_of, blobs))
    for snapshot in _half_snapshots(folder):
        for reference in folder.glob("refs/*"):
            if reference.is_file() and reference.read_text("utf-8", "replace").strip() == snapshot.name:
                remove(reference)
        for link in snapshot.iterdir():
            remove(link)
    for blob in blobs:
        remove(blob)
        if blob.exists():
            raise InputError(f"{blob} cannot be deleted. Check who owns it.")
    remove_empty(folder)
    return freed


def _left_blobs(repository: Path) -> list[Path]:
    """Begun files that nobody goes on with now, damaged ones, and what only half snapshots lead to."""
    found = [blob for blob in sorted(repository.glob(f"blobs/*{INCOMPLETE}")) if not _is_locked(blob)]
    found += sorted(repository.glob(f"blobs/*{DAMAGED}"))
    half = _half_snapshots(repository)
    linked = {
        link.resolve()
        for snapshot in half
        for link in snapshot.iterdir()
        if link.is_symlink() and link.exists()
    }
    others = [s for s in repository.glob("snapshots/*") if s not in half]
    return found + sorted(blob for blob in linked if not is_linked(blob, others))


def _half_snapshots(repository: Path) -> list[Path]:
    """The snapshots that lack a file: one that a link leads to, or that their index names."""
    found = []
    for snapshot in sorted(repository.glob("snapshots/*")):
        if any(link.is_symlink() and not link.exists() for link in snapshot.iterdir()):
            found.append(snapshot)
            continue
        try:
            index = json.loads((snapshot / "model.safetensors.index.json").read_text("utf-8"))
            if not all((snapshot / name).is_file() for name in index["weight_map"].values()):
                found.append(snapshot)
        except (OSError, ValueError, RecursionError, KeyError, AttributeError, TypeError):
            continue  # no model in several files
    return found


def _is_locked(blob: Path) -> bool:
    lock = hub_folder() / ".locks" / blob.parents[1].name / f"{blob.name.removesuffix(INCOMPLETE)}.lock"
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # another user's
        return False
