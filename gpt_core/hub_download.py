"""Fetch a model of the hub into the hub's own cache: what is missing of it, every byte checked."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from gpt_core.catalog import is_whole_model
from gpt_core.control import Control
from gpt_core.errors import AbandonedError, CancelledError, DeadlineError, DownloadError
from gpt_core.hub import HubFile, HubModel
from gpt_core.hub_cache import (
    damaged_of,
    is_here,
    is_linked,
    link,
    partial_of,
    remove,
    remove_empty,
    repository_folder,
    size_of,
)
from gpt_core.hub_connection import BrokenError, not_the_hub, open_file, run_beside
from gpt_core.manifest import file_digest
from gpt_core.storage import check_room, hub_folder

#: Seconds that a download may take in all.
DOWNLOAD_SECONDS = 6 * 3600.0
#: Seconds that another program may take with the same file before we say so.
LOCK_SECONDS = 30.0
#: How often in a row a connection may break without a new byte.
STALLS = 4
#: Names of the models that are on their way in this process.
_running: set[str] = set()


def download(model: HubModel, *, control: Control) -> Path:
    """Fetch what is missing of `model` into the hub's cache; the folder that then holds all of it.

    What came is kept where the connection broke or nobody waits any more, and the next download goes on from there.
    Where the reader stopped, all that this download brought is removed, and what earlier ones had begun; a file is
    removed where the disk is full, and where its hash is wrong.
    Raises DownloadError with the reason, and what `control` raises.
    """
    _running.add(model.model_id.name)  # one at a time: the engine's lane for downloads has one thread
    try:
        return _download(model, control)
    finally:
        _running.discard(model.model_id.name)


def is_running(name: str) -> bool:
    """Whether that model of the hub is on its way in this process."""
    return name in _running


def _download(model: HubModel, control: Control) -> Path:
    name, commit = model.model_id.name, model.model_id.revision
    repository = repository_folder(name)
    folder = repository / "snapshots" / commit
    missing = [file for file in model.files if not is_here(folder / file.name, file.size)]
    blobs = [file for file in missing if not is_here(repository / "blobs" / file.digest, file.size)]
    kept = {file.name: size_of(partial_of(repository, file.digest)) for file in blobs}
    check_room(hub_folder(), sum(file.size - kept[file.name] for file in blobs), what=name)
    end = time.monotonic() + DOWNLOAD_SECONDS
    total = max(1, sum(file.size for file in blobs))
    done = 0
    written: list[Path] = []
    linked: list[Path] = []

    def report(n_bytes: int) -> None:
        control.check()
        if time.monotonic() > end:
            raise DeadlineError(
                f"A download must take at most {DOWNLOAD_SECONDS / 3600:,.0f} hours. What came of {name} is kept: "
                "start it again to go on from there."
            )
        control.report(
            (done + n_bytes) / total, f"{name}: {(done + n_bytes) / 1e6:,.1f} of {total / 1e6:,.1f} MB"
        )

    try:
        for file in missing:
            blob = repository / "blobs" / file.digest
            blob.parent.mkdir(parents=True, exist_ok=True)
            locks = hub_folder() / ".locks" / repository.name
            locks.mkdir(parents=True, exist_ok=True)
            if not is_here(blob, file.size):
                _fetch(
                    model,
                    file,
                    blob,
                    partial_of(repository, file.digest),
                    locks / f"{file.digest}.lock",
                    report,
                    control,
                )
                written.append(blob)
                done += file.size
            link(blob, folder / file.name)
            linked.append(folder / file.name)
            remove(damaged_of(repository, file.digest))
        reference = repository / "refs" / "main"
        if model.newest or not reference.exists():
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(commit, "ascii")
    except AbandonedError:
        raise
    except CancelledError:
        for path in (*linked, *(partial_of(repository, file.digest) for file in blobs)):
            remove(path)
        for blob in written:
            if not is_linked(blob, repository.glob("snapshots/*")):
                remove(blob)
        remove_empty(repository)
        raise
    except OSError as error:
        for file in blobs:
            remove(partial_of(repository, file.digest))
        raise DownloadError(
            f"{name} cannot be written to {hub_folder()} ({error.strerror or error}). It needs "
            f"{total / 1e6:,.1f} MB there. Free the disk, check who owns the folder, or name another one in HF_HOME "
            "before the start; nothing half-made was kept."
        ) from error
    if not is_whole_model(folder):
        raise DownloadError(f"{name} is not whole after the download. Delete it and fetch it again.")
    return folder


def find_partial(model: HubModel) -> int:
    """Bytes of `model` that an unfinished download left in the cache."""
    repository = repository_folder(model.model_id.name)
    return sum(size_of(partial_of(repository, file.digest)) for file in model.files)


def _fetch(
    model: HubModel,
    file: HubFile,
    blob: Path,
    partial: Path,
    lock: Path,
    report: Callable[[int], None],
    control: Control,
) -> None:
    """Fetch one file: into `partial`, then checked, then under its name."""
    name = model.model_id.name

    def fetch(stop: threading.Event) -> None:
        with FileLock(lock, timeout=LOCK_SECONDS), partial.open("ab", buffering=0) as target:
            while not stop.is_set() and target.tell() < file.size:
                offset = target.tell()
                with open_file(name, model.model_id.revision, file.name, offset) as response:
                    if "text/html" in response.headers.get("content-type", "") and file.name != "README.md":
                        raise not_the_hub(name)
                    if offset and response.status_code != 206:
                        target.truncate(0)
                        target.seek(0)
                    for chunk in response.iter_bytes():
                        if stop.is_set():
                            return
                        target.write(chunk)
                        if target.tell() > file.size:
                            break
                if target.tell() > file.size or target.tell() <= offset:
                    return

    if size_of(partial) > file.size:
        remove(partial)
    partial.touch()
    stalls, before = 0, size_of(partial)
    while size_of(partial) < file.size:
        try:
            run_beside(fetch, control, name, lambda: report(size_of(partial)))
        except BrokenError as broken:
            stalls = 1 if size_of(partial) > before else stalls + 1
            before = size_of(partial)
            if stalls >= STALLS:
                raise DownloadError(
                    f"The connection to the hub broke {stalls} times in a row. "
                    f"{before / 1e6:,.1f} of {file.size / 1e6:,.1f} MB of {file.name} are kept: fetch {name} again to "
                    "go on from there."
                ) from broken
            time.sleep(min(2.0, 0.25 * stalls))
            continue
        if size_of(partial) != file.size:
            break
    if size_of(partial) != file.size or file_digest(partial, sha256=len(file.digest) == 64) != file.digest:
        remove(partial)
        raise DownloadError(
            f"{file.name} of {name} did not arrive as the hub published it (its hash or size differs); it was "
            "removed. Fetch the model again; if this stays so, something between here and the hub changes files."
        )
    partial.replace(blob)
