"""Try a stranger's tokenizer in a process of its own first: its patterns can be made to run for ever.

A regular expression such as `(a+)+` takes exponential time on the right text (OWASP, "Regular expression Denial of
Service"), in native code that no thread can stop.
"""

import subprocess
import sys
from pathlib import Path

from gpt_core.errors import ModelLoadError

#: Seconds and bytes that reading the tokenizer and cutting a few short texts may take.
SECONDS = 10.0
_MEMORY = 4 * 2**30
_MAX_BYTES = 100_000_000

_PROGRAM = f"""
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, ({_MEMORY}, {_MEMORY}))
except ImportError:
    pass
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(sys.argv[1])
for letter in ("a", "A", "0", " ", "_", ".", "é", "\\n"):
    tokenizer.encode(letter * 64 + "!")
tokenizer.encode("The quick brown fox, in 1969, didn't jump: it's \\u4e2d\\u6587.")
"""


def probe_tokenizer(folder: Path) -> None:
    """ModelLoadError where reading or using the folder's tokenizer.json takes too long, or cannot be done."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return
    if file.stat().st_size > _MAX_BYTES:
        raise ModelLoadError(
            f"tokenizer.json of {folder.name} must be at most {_MAX_BYTES / 1e6:,.0f} MB. "
            f"Given: {file.stat().st_size / 1e6:,.0f} MB. Choose another model."
        )
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _PROGRAM, str(file)],
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelLoadError(
            f"The tokenizer of {folder.name} must cut a short text within {SECONDS:,.0f} s, and did not. "
            "It may be made to run for ever; choose another model."
        ) from None
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or [
            f"it ended with {done.returncode}"
        ]
        raise ModelLoadError(
            f"The tokenizer of {folder.name} cannot be read: {lines[-1].replace(str(file), file.name)[:200]}"
        )
