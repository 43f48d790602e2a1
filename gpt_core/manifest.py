"""A model folder's files with their sha256: written when the folder is made, checked when it is opened."""

import functools
import hashlib
import json
from pathlib import Path

from gpt_core.errors import ModelLoadError

MANIFEST = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Write the sha256 of each file of `folder` into its manifest."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != MANIFEST)
    sums = {file.name: _sha256(file) for file in files}
    (folder / MANIFEST).write_text(json.dumps({"sha256": sums}, indent=2) + "\n", "utf-8")


def verify_manifest(folder: Path) -> None:
    """ModelLoadError where a file of `folder` is missing or is not the one that its manifest lists.

    A file that has not changed since it was last checked is not read again.
    """
    remedy = "Get it again: fetch the project anew if the model came with it, else delete the model and download it."
    try:
        sums = json.loads((folder / MANIFEST).read_text("utf-8"))["sha256"]
        listed = {str(name): str(digest) for name, digest in sums.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelLoadError(f"{MANIFEST} of {folder.name} is missing or damaged. {remedy}") from error
    for name, digest in listed.items():
        file = folder / name
        try:
            stat = file.stat()
            found = _kept_sha256(str(file), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        except OSError as error:
            raise ModelLoadError(
                f"{name} of {folder.name} cannot be read ({error.strerror}). {remedy}"
            ) from error
        if found != digest:
            raise ModelLoadError(
                f"{name} of {folder.name} is not the file that was published: its sha256 begins with {found[:12]} "
                f"instead of {digest[:12]}. {remedy}"
            )


@functools.lru_cache(maxsize=256)
def _kept_sha256(file: str, size: int, mtime_ns: int, ctime_ns: int) -> str:
    return _sha256(Path(file))


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
