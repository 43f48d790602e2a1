"""Where downloaded models are kept on this machine, when each was last used, and how one is deleted.

Models of the hub stay in its own cache (huggingface.co/docs/huggingface_hub/guides/manage-cache), where every other
program finds them; what else is downloaded stays in this project's folder of the user's cache.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
from huggingface_hub import constants as hub_constants

from gpt_core.errors import DownloadError, InputError
from gpt_core.readers import shared_readers

if TYPE_CHECKING:
    from gpt_core.catalog import ModelEntry

#: Names the folder for what is not the hub's: models made from PyPI wheels, and notes of when a model was used.
CACHE_VARIABLE = "GPT_CORE_CACHE"

#: Free bytes that a download leaves on the disk.
_RESERVE = 200_000_000


def cache_folder() -> Path:
    """This project's own cache; not made before something is put there."""
    named = os.environ.get(CACHE_VARIABLE, "")
    return Path(os.path.expanduser(named) if named else platformdirs.user_cache_dir("inside-a-gpt", False))  # noqa: PTH111 - never raises


def wheels_folder() -> Path:
    """Where models made from PyPI wheels are."""
    return cache_folder() / "pypi"


def hub_folder() -> Path:
    """The hub's cache, as HF_HOME, HF_HUB_CACHE or XDG_CACHE_HOME name it."""
    return Path(hub_constants.HF_HUB_CACHE)


def is_offline() -> bool:
    """Whether nothing may be fetched from the hub: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE, as the hub reads them."""
    return bool(hub_constants.HF_HUB_OFFLINE)


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk that holds `folder`, or would hold it."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_room(folder: Path, n_bytes: int, *, what: str) -> None:
    """DownloadError where `n_bytes` more would fill the disk that holds `folder`."""
    free = free_bytes(folder)
    if n_bytes + _RESERVE > free:
        raise DownloadError(
            f"{what} needs {n_bytes / 1e6:,.0f} MB on the disk that holds {folder}; {free / 1e6:,.0f} MB are free "
            f"there, of which {_RESERVE / 1e6:,.0f} MB stay free. Delete something, or name another folder in "
            f"{CACHE_VARIABLE} or HF_HOME before the start."
        )


def mark_used(model_id: str) -> None:
    """Note that a model was loaded now; says nothing where the note cannot be written."""
    note = _note(model_id)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
    except OSError:
        pass  # a read-only home: the table then says that it is not known


def last_used(model_id: str) -> float | None:
    """Seconds since the epoch when the model was last loaded here; None where no note says."""
    try:
        return _note(model_id).stat().st_mtime
    except OSError:
        return None


def delete_model(entry: "ModelEntry") -> int:
    """Delete a downloaded model; the bytes that this freed.

    Raises InputError where somebody works with it now, where it was not downloaded (it came with the project, or is a
    folder of the reader's own), and where its files cannot be removed.
    """
    source, title = entry.model_id.source, entry.title
    n_readers = shared_readers().count(str(entry.model_id))
    if n_readers:
        who = "one reader works" if n_readers == 1 else f"{n_readers} readers work"
        raise InputError(
            f"{title} cannot be deleted while {who} with it. Choose another model in the sidebar first, on "
            "every open page."
        )
    if source not in {"hub", "pypi"}:
        why = "came with the project" if source == "bundled" else "is a folder of your own"
        raise InputError(f"{title} {why}: it is not deleted here.")
    folder = Path(entry.folder)
    return _delete_snapshot(folder) if source == "hub" else _delete_folder(folder)


def _delete_snapshot(folder: Path) -> int:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        strategy = scan_cache_dir(hub_folder()).delete_revisions(folder.name)
    except (OSError, CacheNotFound) as error:
        raise InputError(
            f"The hub's cache cannot be read ({error}). Check who owns {hub_folder()}."
        ) from error
    freed = strategy.expected_freed_size
    strategy.execute()
    if folder.exists():
        raise InputError(f"{folder} cannot be deleted. Check who owns it.")
    return freed


def _delete_folder(folder: Path) -> int:
    freed = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be deleted ({error.strerror}). Check who owns it.") from error
    return freed


def _note(model_id: str) -> Path:
    # Its digest: a path may be longer than a file's name can be.
    return cache_folder() / "used" / hashlib.sha256(os.fsencode(model_id)).hexdigest()
