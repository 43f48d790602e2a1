"""The hub's cache on this disk: where the files of a model are in it, and whether they are what the hub published.

Laid out as huggingface_hub does (huggingface.co/docs/huggingface_hub/guides/manage-cache), so that every other program
finds them: `models--owner--name/blobs/` holds each file under its digest, `snapshots/COMMIT/` links to them by name.
"""

import contextlib
import functools
import hashlib
import os
import shutil
from pathlib import Path

from gpt_core.errors import ModelLoadError
from gpt_core.storage import hub_folder


def repository_folder(name: str) -> Path:
    """Where the cache keeps the repository `owner/name`."""
    return hub_folder() / f"models--{name.replace('/', '--')}"


def verify_snapshot(folder: Path) -> None:
    """ModelLoadError where a file in the hub's cache is not what its blob's name says (its sha256 or git's sha1).

    A file that is no link into `blobs` (some systems have none) carries no name to compare with.
    """
    for file in sorted(folder.iterdir()):
        blob = file.resolve()
        if blob.parent.name != "blobs" or not blob.is_file():
            continue
        stat = blob.stat()
        if _kept_digest(str(blob), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) != blob.name:
            raise ModelLoadError(
                f"{file.name} of {folder.parents[1].name.removeprefix('models--').replace('--', '/')} is not what the "
                "hub published: its bytes have changed on this disk. Delete the model on the Models page and fetch "
                "it again."
            )


def git_digest(content: bytes) -> str:
    """git's name of these bytes as a blob (git-scm.com/book/en/v2/Git-Internals-Git-Objects)."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def file_digest(file: Path, *, sha256: bool) -> str:
    """The sha256 of a file, or git's name of it as a blob."""
    with file.open("rb") as stream:
        if sha256:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    return git_digest(file.read_bytes())


@functools.lru_cache(maxsize=256)
def _kept_digest(file: str, size: int, mtime_ns: int, ctime_ns: int) -> str:
    return file_digest(Path(file), sha256=len(Path(file).name) == 64)


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
    return repository / "blobs" / f"{digest}.incomplete"


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
