"""A model folder's files with their sha256: written when the folder is made, checked when it is opened.

A digest is kept for as long as the file's size and times stay as they are.
"""

import functools
import hashlib
import json
from pathlib import Path

from gpt_core.errors import DamagedError, ModelLoadError

MANIFEST = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Write the sha256 of each file of `folder` into its manifest."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != MANIFEST)
    sums = {file.name: file_digest(file, sha256=True) for file in files}
    (folder / MANIFEST).write_text(json.dumps({"sha256": sums}, indent=2) + "\n", "utf-8")


def verify_manifest(folder: Path) -> None:
    """DamagedError where a file of `folder` is missing or not the one that its manifest lists; ModelLoadError where
    one cannot be read.

    A file that has not changed since it was last checked is not read again.
    """
    remedy = (
        "Get it again: fetch the project anew if the model came with it, else download the model again on the Models "
        "page."
    )
    try:
        sums = json.loads((folder / MANIFEST).read_text("utf-8"))["sha256"]
        listed = {str(name): str(digest) for name, digest in sums.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        kind = ModelLoadError if isinstance(error, PermissionError) else DamagedError
        raise kind(f"{MANIFEST} of {folder.name} is missing or damaged. {remedy}") from error
    for name, digest in listed.items():
        file = folder / name
        try:
            found = kept_digest(file, sha256=True)
        except OSError as error:
            kind = DamagedError if isinstance(error, FileNotFoundError) else ModelLoadError
            raise kind(f"{name} of {folder.name} cannot be read ({error.strerror}). {remedy}") from error
        if found != digest:
            raise DamagedError(
                f"{name} of {folder.name} is not the file that was published: its sha256 begins with {found[:12]} "
                f"instead of {digest[:12]}. {remedy}"
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


def kept_digest(file: Path, *, sha256: bool) -> str:
    """As `file_digest`, without reading a file again that has not changed since."""
    stat = file.stat()
    return _digest(str(file), sha256, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@functools.lru_cache(maxsize=512)
def _digest(file: str, sha256: bool, size: int, mtime_ns: int, ctime_ns: int) -> str:
    return file_digest(Path(file), sha256=sha256)
