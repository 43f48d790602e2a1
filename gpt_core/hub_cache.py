"""The hub's cache on this disk: where the files of a model are in it, and whether they are what the hub published.

Laid out as huggingface_hub does (huggingface.co/docs/huggingface_hub/guides/manage-cache), so that every other program
finds them: `models--owner--name/blobs/` holds each file under its digest, `snapshots/COMMIT/` links to them by name.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from gpt_core.errors import DamagedError, ModelLoadError
from gpt_core.manifest import kept_digest
from gpt_core.storage import hub_folder

#: Ends the name of a blob that has not come whole.
INCOMPLETE = ".incomplete"
#: Ends the name of a blob that is not what its name said.
DAMAGED = ".damaged"


def repository_folder(name: str) -> Path:
    """Where the cache keeps the repository `owner/name`."""
    return hub_folder() / f"models--{name.replace('/', '--')}"


def name_of(repository: Path) -> str:
    """`owner/name` of a repository's folder."""
    return repository.name.removeprefix("models--").replace("--", "/")


def verify_snapshot(folder: Path) -> None:
    """DamagedError where a file in the hub's cache is not what its blob's name says (its sha256 or git's sha1).

    Such a blob is set aside: the model is then no longer listed, and a download fetches that file anew. A file that is
    no link into `blobs` (some systems have none) carries no name to compare with. ModelLoadError where a file cannot
    be read.
    """
    name = name_of(folder.parents[1])
    try:
        for file in sorted(folder.iterdir()):
            blob = file.resolve()
            if blob.parent.name != "blobs" or not blob.is_file():
                continue
            if kept_digest(blob, sha256=len(blob.name) == 64) == blob.name:
                continue
            with contextlib.suppress(OSError):  # a cache that is not ours to change
                blob.replace(blob.with_name(blob.name + DAMAGED))
            raise DamagedError(
                f"{file.name} of {name} is not what the hub published: its bytes have changed on this disk. "
                "Fetch the model again on the Models page, or delete there what is left of it."
            )
    except OSError as error:
        raise ModelLoadError(
            f"The files of {name} cannot be read ({error.strerror or error}). Check who owns {hub_folder()}."
        ) from error


def is_here(path: Path, size: int) -> bool:
    """Whether there is a file of `size` bytes at `path`."""
    return size_of(path) == size and path.exists()


def size_of(path: Path) -> int:
    """Bytes of the file at `path`; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def partial_of(repository: Path, digest: str) -> Path:
    """Where what has come of a file waits for the rest."""
    return repository / "blobs" / f"{digest}{INCOMPLETE}"


def damaged_of(repository: Path, digest: str) -> Path:
    """Where a file that is not what its name said was set aside."""
    return repository / "blobs" / f"{digest}{DAMAGED}"


def is_linked(blob: Path, snapshots: Iterable[Path]) -> bool:
    """Whether one of the snapshots leads to `blob`."""
    target = blob.resolve()
    return any(file.resolve() == target for snapshot in snapshots for file in snapshot.iterdir())


def remove_empty(repository: Path) -> None:
    """Remove the folders of a repository that hold nothing."""
    for folder in (*repository.glob("snapshots/*"), *repository.glob("*"), repository):
        with contextlib.suppress(OSError):  # it holds something
            folder.rmdir()


def remove(path: Path) -> None:
    """Remove a file if it is there and can be."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def link(blob: Path, pointer: Path) -> None:
    """Make `pointer` lead to `blob`, or be a copy where the system has no links."""
    pointer.parent.mkdir(parents=True, exist_ok=True)
    if pointer.is_symlink() or pointer.exists():
        pointer.unlink()
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except (OSError, NotImplementedError):  # a system without links
        shutil.copyfile(blob, pointer)
