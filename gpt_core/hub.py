"""Bring a model of the Hugging Face hub to this machine: a pinned commit, safetensors only, every byte checked.

A model is looked up first (one question for sizes, hashes and commit, one for its configuration) and refused in a
sentence where it cannot serve; then its files go into the hub's own cache, as huggingface_hub lays it out
(huggingface.co/docs/huggingface_hub/guides/manage-cache), so that every other program finds them there.
"""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from filelock import FileLock, Timeout
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

from gpt_core.acquire import MAX_CONFIG_BYTES, check_memory, check_own_code
from gpt_core.catalog import ModelId, is_causal, is_hub_name, is_whole_model
from gpt_core.control import Control
from gpt_core.errors import (
    AbandonedError,
    CancelledError,
    DeadlineError,
    DownloadError,
    GptCoreError,
    InputError,
    ModelLoadError,
)
from gpt_core.storage import check_room, hub_folder

#: Seconds that a download may take in all.
DOWNLOAD_SECONDS = 6 * 3600.0
#: Seconds without a byte after which the connection is made anew, and how often in a row.
STALL_SECONDS = 15.0
STALLS = 4
#: Seconds that the answer to a question may take.
_ANSWER_SECONDS = 20.0

_TEXT_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "README.md",
    "LICENSE",
)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """A file of a repository."""

    name: str
    """Its name; no folder."""
    size: int
    """Bytes."""
    digest: str
    """sha256 of its bytes where the hub keeps it in large-file storage, else git's sha1 of it as a blob; the name of
    its blob in the cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HubModel:
    """What the hub says of a model, before anything of it is fetched."""

    model_id: ModelId
    """`hub:owner/name@commit`, under the name that the repository has now."""
    files: tuple[HubFile, ...]
    """What is fetched, weights last."""
    n_parameters: int
    """As the hub counts them; estimated from the files' bytes where it does not say."""
    licence: str
    """As its card says; empty where it does not."""
    architecture: str
    """`model_type` of its configuration."""
    newest: bool
    """Whether the commit is the newest one: no other was asked for."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def look_up(name: str, *, revision: str = "", max_bytes: int, control: Control) -> HubModel:
    """Ask the hub what `name` is, at `revision` (a commit of 40 digits; the newest where none is named).

    Raises InputError (no name of a repository, no such repository or commit), DownloadError (the hub cannot be
    reached or refuses), ModelLoadError (it is no causal language model in safetensors, or needs code of its own) and
    MemoryLimitError (its weights, as float32, take more than `max_bytes`).
    """
    if not is_hub_name(name):
        raise InputError(
            "A model on the hub is named `name` or `owner/name`, of letters, digits, `-`, `_` and `.`, at most 96 "
            f"characters. Given: {name[:100]!r}."
        )
    control.report(0.0, f"Asking the hub about {name}")
    info = _beside(
        lambda _: HfApi(endpoint=_endpoint()).model_info(
            name, revision=revision or None, files_metadata=True, timeout=_ANSWER_SECONDS
        ),
        control,
        name,
    )
    try:
        model_id = ModelId.parse(f"hub:{info.id}@{info.sha}")
    except InputError as error:
        raise _not_the_hub(name) from error
    files = {file.name: file for file in map(_file, info.siblings or ()) if file is not None}
    weights = _weight_names(files, name)
    wanted = [files[n] for n in _TEXT_FILES if n in files and n != "config.json"]
    if "config.json" not in files:
        raise ModelLoadError(f"{name} has no config.json: it is not a model that transformers can load.")
    config = _read_config(info.id, str(info.sha), files["config.json"], control)
    _check_config(config, name)
    if not files.keys() & {"tokenizer.json", "vocab.json", "tokenizer.model"}:
        raise ModelLoadError(f"{name} has no tokenizer files. Choose a model that brings its tokenizer.")
    n_parameters = _count_parameters(info, config, sum(files[n].size for n in weights))
    check_memory(n_parameters, max_bytes, name)
    card = info.card_data
    return HubModel(
        model_id=model_id,
        files=(files["config.json"], *wanted, *(files[n] for n in weights)),
        n_parameters=n_parameters,
        licence=str((card.license if card is not None else "") or ""),
        architecture=str(config.get("model_type", "")),
        newest=not revision,
    )


def download(model: HubModel, *, control: Control) -> Path:
    """Fetch what is missing of `model` into the hub's cache; the folder that then holds all of it.

    What was fetched of a file is kept where the connection broke or nobody waits any more, and the next download
    goes on from there; it is removed where the reader stopped, where the disk is full, and where a hash is wrong.
    Raises DownloadError with the reason, and what `control` raises.
    """
    name, commit = model.model_id.name, model.model_id.revision
    repository = hub_folder() / f"models--{name.replace('/', '--')}"
    folder = repository / "snapshots" / commit
    missing = [file for file in model.files if not _is_here(folder / file.name, file)]
    blobs = [file for file in missing if not _is_here(repository / "blobs" / file.digest, file)]
    kept = {file.name: _size(_partial(repository, file)) for file in blobs}
    check_room(hub_folder(), sum(file.size - kept[file.name] for file in blobs), what=name)
    end = time.monotonic() + DOWNLOAD_SECONDS
    total = max(1, sum(file.size for file in blobs))
    done = 0

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
            if not _is_here(blob, file):
                _fetch(
                    model,
                    file,
                    blob,
                    _partial(repository, file),
                    locks / f"{file.digest}.lock",
                    report,
                    control,
                )
                done += file.size
            _link(blob, folder / file.name)
        reference = repository / "refs" / "main"
        if model.newest or not reference.exists():
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(commit, "ascii")
    except OSError as error:
        for file in blobs:
            _remove(_partial(repository, file))
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
    repository = hub_folder() / f"models--{model.model_id.name.replace('/', '--')}"
    return sum(_size(_partial(repository, file)) for file in model.files)


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


def _endpoint() -> str | None:
    """The hub's address as HF_ENDPOINT names it now; None for huggingface_hub's own."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _file(sibling: Any) -> HubFile | None:
    """What is told of a file; None where it is in a folder of its own, or where a hash or a size is missing."""
    name, size = sibling.rfilename, sibling.size
    digest = sibling.lfs.sha256 if sibling.lfs is not None else sibling.blob_id
    valid = (
        isinstance(name, str)
        and name == Path(name).name
        and isinstance(size, int)
        and size >= 0
        and isinstance(digest, str)
        and len(digest) in {40, 64}
        and set(digest) <= set("0123456789abcdef")
    )
    return HubFile(name=name, size=size, digest=digest) if valid else None


def _weight_names(files: dict[str, HubFile], name: str) -> list[str]:
    if "model.safetensors" in files:
        return ["model.safetensors"]
    if "model.safetensors.index.json" in files:
        shards = sorted(n for n in files if n.startswith("model-") and n.endswith(".safetensors"))
        if shards:
            return ["model.safetensors.index.json", *shards]
    others = sorted(n for n in files if n.endswith((".bin", ".safetensors", ".gguf", ".h5", ".pt")))
    pickles = [n for n in others if n.endswith((".bin", ".pt"))]
    found = f"only {pickles[0]}, which can run code when it is opened" if pickles else (others or ["none"])[0]
    raise ModelLoadError(
        f"{name} must hold its weights as model.safetensors; found: {found[:120]}. Choose a repository that has them."
    )


def _read_config(name: str, commit: str, file: HubFile, control: Control) -> dict[str, Any]:
    if file.size > MAX_CONFIG_BYTES:
        raise ModelLoadError(
            f"config.json of {name} must be at most {MAX_CONFIG_BYTES:,} bytes. Given: {file.size:,}."
        )

    def fetch(_: threading.Event) -> bytes:
        with _request(name, commit, file.name, 0) as response:
            return response.read()

    content = _beside(fetch, control, name)
    if _digest(content) != file.digest and hashlib.sha256(content).hexdigest() != file.digest:
        raise _not_the_hub(name)
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"config.json of {name} cannot be read: {str(error)[:200]}.") from error
    if not isinstance(config, dict):
        raise ModelLoadError(f"config.json of {name} must be an object with names and values.")
    return config


def _check_config(config: dict[str, Any], name: str) -> None:
    check_own_code(config, name)
    if not is_causal(config):
        raise ModelLoadError(
            f"{name} was saved as {str(config['architectures'][0])[:80]}, not as a causal language model. "
            "Choose one that continues text."
        )
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelLoadError(
            f"{name} is of the kind {str(kind)[:80]!r}, which is no causal language model that this version of "
            "transformers can run. Choose one that continues text."
        )


def _count_parameters(info: Any, config: dict[str, Any], n_bytes: int) -> int:
    counted = getattr(info.safetensors, "total", None)
    if isinstance(counted, int) and counted > 0:
        return counted
    kind = str(config.get("dtype") or config.get("torch_dtype") or "float16")
    return n_bytes // {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}.get(kind, 1)


@contextlib.contextmanager
def _request(name: str, commit: str, file: str, offset: int) -> Iterator[httpx2.Response]:
    headers = (
        build_hf_headers()
        | ({"Range": f"bytes={offset}-"} if offset else {})
        | {"Accept-Encoding": "identity"}
    )
    timeout = httpx2.Timeout(STALL_SECONDS)
    url = hf_hub_url(name, file, revision=commit, endpoint=_endpoint())
    with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        yield response


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
        with FileLock(lock, timeout=STALL_SECONDS * 2), partial.open("ab", buffering=0) as target:
            while not stop.is_set() and target.tell() < file.size:
                offset = target.tell()
                with _request(name, model.model_id.revision, file.name, offset) as response:
                    if "text/html" in response.headers.get("content-type", "") and file.name != "README.md":
                        raise _not_the_hub(name)
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

    if _size(partial) > file.size:
        _remove(partial)
    partial.touch()
    stalls, before = 0, _size(partial)
    while _size(partial) < file.size:
        try:
            _beside(fetch, control, name, lambda: report(_size(partial)))
        except AbandonedError:
            raise
        except CancelledError:
            _remove(partial)
            raise
        except _BrokenError as broken:
            stalls = 1 if _size(partial) > before else stalls + 1
            before = _size(partial)
            if stalls >= STALLS:
                raise DownloadError(
                    f"The connection to the hub broke {stalls} times in a row. "
                    f"{before / 1e6:,.1f} of {file.size / 1e6:,.1f} MB of {file.name} are kept: fetch {name} again to "
                    "go on from there."
                ) from broken
            time.sleep(min(2.0, 0.25 * stalls))
            continue
        if _size(partial) != file.size:
            break
    if _size(partial) != file.size or _file_digest(partial, sha256=len(file.digest) == 64) != file.digest:
        _remove(partial)
        raise DownloadError(
            f"{file.name} of {name} did not arrive as the hub published it (its hash or size differs); it was "
            "removed. Fetch the model again; if this stays so, something between here and the hub changes files."
        )
    partial.replace(blob)


class _BrokenError(DownloadError):
    """A connection that may be tried again."""


def _beside(
    work: Callable[[threading.Event], T],
    control: Control,
    name: str,
    watch: Callable[[], None] = lambda: None,
) -> T:
    """The result of `work`, done in a thread of its own, so that a silent network does not keep us from stopping.

    `work` gets an event that says that nobody waits any more.
    """
    stop, over = threading.Event(), threading.Event()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work(stop))
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            errors.append(error)
        finally:
            over.set()

    threading.Thread(target=run, name="gpt_core-hub", daemon=True).start()
    try:
        while not over.wait(0.1):
            control.check()
            watch()
    except BaseException:
        stop.set()
        over.wait(1.0)
        raise
    if errors:
        sentence = _sentence(errors[0], name)
        if sentence is errors[0]:
            raise sentence
        raise sentence from errors[0]
    watch()
    return results[0]


def _sentence(error: BaseException, name: str) -> BaseException:
    """The error of the closed set that says what went wrong between here and the hub."""
    kept = "The models on this machine go on working."
    if isinstance(error, Timeout):
        return DownloadError(
            f"Another program is fetching {name} now. Wait until it is done, then try again."
        )
    if isinstance(error, (GptCoreError, OSError)) and not isinstance(
        error, (HfHubHTTPError, OfflineModeIsEnabled, ConnectionError)
    ):
        return error
    if isinstance(error, OfflineModeIsEnabled):
        return DownloadError(
            f"HF_HUB_OFFLINE is set, so nothing is fetched from the hub. Start without it to fetch {name}. {kept}"
        )
    if isinstance(error, GatedRepoError):
        return DownloadError(
            f"{name} is gated: its owners ask you to accept their terms on its page first. Do so, then give a token of "
            "your account: run `hf auth login`, or set HF_TOKEN before the start."
        )
    if isinstance(error, RevisionNotFoundError):
        return InputError(f"{name} has no such revision any more. Fetch its newest one by its name alone.")
    if isinstance(error, RepositoryNotFoundError):
        return InputError(
            f"The hub has no model called {name}, or it is private. Check the name; for a private model run "
            "`hf auth login`, or set HF_TOKEN before the start."
        )
    if isinstance(error, HFValidationError):
        return InputError(f"{name} is no name of a model on the hub.")
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status == 401:
            return DownloadError(
                f"The hub does not accept the token that is set here (401) for {name}. Run `hf auth login` again, or "
                "set HF_TOKEN to a valid one."
            )
        if status == 403:
            return DownloadError(
                f"The hub refuses {name} to this account (403). A token with the right to read it is needed: run "
                "`hf auth login`, or set HF_TOKEN."
            )
        if status == 404:
            return InputError(f"The hub does not have {name}, or not this file of it. Check the name.")
        if status == 429:
            wait = error.response.headers.get("Retry-After", "")
            when = f"Try again in {wait} s." if wait.isdigit() else "Try again in a few minutes."
            return DownloadError(f"The hub takes no more requests from here for now (429). {when} {kept}")
        return DownloadError(f"The hub cannot answer now ({status}). Try again later. {kept}")
    if isinstance(error, httpx2.TooManyRedirects):
        return DownloadError(
            f"The hub's answers about {name} lead round in a circle. Check HF_ENDPOINT. {kept}"
        )
    if isinstance(error, (httpx2.TransportError, ConnectionError)):
        text = str(error) or type(error).__name__
        if "CERTIFICATE" in text.upper() or "SSL" in text.upper():
            return DownloadError(
                f"The hub's certificate cannot be checked ({text[:120]}). A proxy may stand between: name its "
                f"certificates in SSL_CERT_FILE. {kept}"
            )
        if isinstance(error, httpx2.ConnectError):
            return DownloadError(f"The hub cannot be reached ({text[:120]}). Check the connection. {kept}")
        return _BrokenError(f"The hub does not answer ({text[:120]}). Try again later. {kept}")
    if isinstance(error, (ValueError, TypeError, KeyError, AttributeError)):
        return _not_the_hub(name)
    return error


def _not_the_hub(name: str) -> DownloadError:
    return DownloadError(
        f"What answered about {name} is not the hub: its answer is not what was asked for. A network that wants you "
        "to sign in first answers like this: open any page in the browser, then try again."
    )


def _digest(content: bytes) -> str:
    """git's name of these bytes as a blob (git-scm.com/book/en/v2/Git-Internals-Git-Objects)."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _file_digest(file: Path, *, sha256: bool) -> str:
    with file.open("rb") as stream:
        if sha256:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    return _digest(file.read_bytes())


@functools.lru_cache(maxsize=256)
def _kept_digest(file: str, size: int, mtime_ns: int, ctime_ns: int) -> str:
    return _file_digest(Path(file), sha256=len(Path(file).name) == 64)


def _is_here(path: Path, file: HubFile) -> bool:
    return _size(path) == file.size and path.exists()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _partial(repository: Path, file: HubFile) -> Path:
    return repository / "blobs" / f"{file.digest}.incomplete"


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _link(blob: Path, pointer: Path) -> None:
    pointer.parent.mkdir(parents=True, exist_ok=True)
    if pointer.is_symlink() or pointer.exists():
        pointer.unlink()
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except (OSError, NotImplementedError):  # a system without links
        shutil.copyfile(blob, pointer)
