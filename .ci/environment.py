"""Make .venv and install a requirements file into it: what `make run` and `make test` do once.

Only the standard library, and no syntax newer than Python 3.6: a Python too old for the project gets a sentence,
not a traceback.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

MINIMUM = (3, 11)
VENV = Path(".venv")
PYTHON = VENV / "bin" / "python"


def refuse(sentence):
    """Say why it cannot go on, and leave."""
    sys.exit(sentence)


def require_supported_machine():
    """Leave with a sentence where the pinned versions cannot be installed."""
    if sys.version_info < MINIMUM:
        refuse(
            f"This is Python {platform.python_version()}, and the project needs {MINIMUM[0]}.{MINIMUM[1]} or later. "
            "Name a newer one, for example: make run PYTHON=python3.12"
        )
    if (platform.system(), platform.machine()) == ("Darwin", "x86_64"):
        refuse(
            "This is an Intel Python on macOS, for which torch ends at 2.2.2, and the project needs a newer one: on "
            "a Mac with Apple silicon use an arm64 Python; on an Intel Mac, use Linux in a container."
        )


def make_venv():
    """Make the virtual environment, or keep the one that is there if its Python still works."""
    works = f"import sys; sys.exit(sys.version_info < {MINIMUM})"
    if PYTHON.exists() and subprocess.call([str(PYTHON), "-c", works]) == 0:
        return
    if subprocess.call([sys.executable, "-m", "venv", "--clear", str(VENV)]):
        refuse(
            "The virtual environment .venv could not be made (the reason is above). On Debian and Ubuntu, install "
            f"python{sys.version_info[0]}.{sys.version_info[1]}-venv first."
        )


def pip_install(*arguments, **options):
    """Run pip install in the virtual environment; tells whether it succeeded."""
    command = [str(PYTHON), "-m", "pip", "install", "--no-input", *arguments]
    if not sys.stdout.isatty():
        command.append("-qq")
    return subprocess.run(command, check=False, **options).returncode == 0


def has_nvidia_gpu():
    """Tell whether the CUDA build of torch could be of use."""
    return bool(shutil.which("nvidia-smi")) or Path("/proc/driver/nvidia/version").exists()


def install_torch():
    """Install the pinned torch where plain pip would bring the wrong build; else leave it to the requirements.

    On Linux the registry's torch is the CUDA build: gigabytes that a machine without an NVIDIA GPU cannot use.
    Only torch is taken from elsewhere; what it depends on comes with the requirements, from the usual index.
    """
    pinned = re.search(
        r"^torch==\S+", Path("requirements.txt").read_text(encoding="utf-8"), re.MULTILINE
    ).group()
    index = os.environ.get("TORCH_INDEX")
    if index:
        if not pip_install("--no-deps", "--index-url", index, pinned):
            refuse(f"{pinned} could not be installed from TORCH_INDEX={index} (the reason is above).")
        return
    if platform.system() != "Linux" or has_nvidia_gpu():
        return
    # pip's "no matching distribution" is no error here, so it is not shown.
    if not pip_install("--no-deps", pinned + "+cpu", stderr=subprocess.DEVNULL):
        print(
            "No NVIDIA GPU was found, and no index that pip is set up with has the CPU build of torch, so the CUDA "
            "build follows: several gigabytes. To have the small one, stop this, set TORCH_INDEX to the address of "
            "an index with CPU builds (PyTorch's installation guide names one), and try again.",
            flush=True,
        )


def main():
    """Bring .venv up to the requirements file that the command line names."""
    require_supported_machine()
    os.chdir(str(Path(__file__).resolve().parent.parent))
    requirements = sys.argv[1]
    print(f"Installing {requirements} into {VENV}: once, in a minute or two.", flush=True)
    make_venv()
    install_torch()
    if not pip_install("-r", requirements):
        refuse(f"pip could not install {requirements} (the reason is above).")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        refuse("Stopped.")
