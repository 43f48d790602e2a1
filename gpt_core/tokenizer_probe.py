"""Try a stranger's tokenizer in a process of its own first: its patterns can be made to run for ever.

A regular expression such as `(a+)+` takes exponential time on the right text (OWASP, "Regular expression Denial of
Service"), in native code that no thread can stop.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from gpt_core.errors import ModelLoadError

#: Seconds and bytes that reading the tokenizer and cutting a few short texts may take.
SECONDS = 10.0
_MEMORY = 4 * 2**30
#: Bytes of each file that a tokenizer is read from: those that list a vocabulary, and those that only add to it, in
#: which a million tokens would hold up the reading for minutes.
_MAX_BYTES = {
    "tokenizer.json": 100_000_000,
    "vocab.json": 50_000_000,
    "merges.txt": 50_000_000,
    "tokenizer.model": 50_000_000,
    "tokenizer_config.json": 5_000_000,
    "added_tokens.json": 5_000_000,
    "special_tokens_map.json": 5_000_000,
    "chat_template.jinja": 5_000_000,
}

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


def check_tokenizer_files(sizes: Mapping[str, int], name: str) -> None:
    """ModelLoadError where a file of the tokenizer of the model `name` is larger than any real one; bytes by file."""
    for file, most in _MAX_BYTES.items():
        if sizes.get(file, 0) > most:
            raise ModelLoadError(
                f"{file} of {name} must be at most {most / 1e6:,.0f} MB. Given: {sizes[file] / 1e6:,.0f} MB. "
                "Choose another model."
            )


def probe_tokenizer(folder: Path) -> None:
    """ModelLoadError where a file of the tokenizer is too large, or where reading or using the folder's
    tokenizer.json takes too long or cannot be done."""
    check_tokenizer_files(
        {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}, folder.name
    )
    file = folder / "tokenizer.json"
    if not file.is_file():
        return
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
