"""The sha256 of every file of a model folder, written once and checked before the model is used.

The list is `sha256sums`, in the format of the command of that name: `sha256sum -c sha256sums` checks it too.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from gpt_core.errors import ModelLoadError

MANIFEST_NAME = "sha256sums"
_LINE = re.compile(r"^([0-9a-f]{64})  ([^/\\\n\0]+)$", re.MULTILINE)
_REMEDY = "Copy the folder again from where you got it, or clone the project again."


def write_manifest(folder: Path) -> None:
    """Write the sha256 of every file of the folder, by name, into `sha256sums`."""
    digests = {file.name: _sha256(file) for file in _files(folder)}
    (folder / MANIFEST_NAME).write_bytes(_format(digests).encode())


def verify_manifest(folder: Path) -> None:
    """Compare every file that `sha256sums` names with its sha256.

    Files that it does not name are left alone. Raises ModelLoadError: no or no readable list, a file that is
    missing or cannot be read, a file with other bytes.
    """
    for name, expected in _read_manifest(folder).items():
        try:
            found = _sha256(folder / name)
        except FileNotFoundError as error:
            raise ModelLoadError(f"{name} of {folder.name} is missing. {_REMEDY}") from error
        except OSError as error:
            raise ModelLoadError(
                f"{name} of {folder.name} cannot be read ({error.strerror}). {_REMEDY}"
            ) from error
        if found != expected:
            raise ModelLoadError(
                f"{name} of {folder.name} is not the file that it should be: its sha256 begins with {found[:12]}, "
                f"that in {MANIFEST_NAME} with {expected[:12]}. {_REMEDY}"
            )


def _read_manifest(folder: Path) -> dict[str, str]:
    """The sha256 of each file name."""
    damaged = ModelLoadError(f"{MANIFEST_NAME} of {folder.name} is missing or damaged. {_REMEDY}")
    try:
        content = (folder / MANIFEST_NAME).read_bytes()
        expected = {name: digest for digest, name in _LINE.findall(content.decode())}
    except (OSError, UnicodeDecodeError) as error:
        raise damaged from error
    if not expected or content != _format(expected).encode():
        raise damaged
    return expected


def _format(digests: dict[str, str]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items())


def _files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and file.name != MANIFEST_NAME and not file.name.startswith(".")
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
