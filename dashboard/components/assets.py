"""The scripts and styles of the components: each file with what all of them share in front of it."""

from pathlib import Path

_HERE = Path(__file__).parent


def script(path: Path) -> str:
    """The script at `path`, which may use what common.js defines."""
    return _with_common(path)


def style(path: Path) -> str:
    """The style sheet at `path`, after common.css."""
    return _with_common(path)


def _with_common(path: Path) -> str:
    common = _HERE / f"common{path.suffix}"
    return common.read_text(encoding="utf-8") + "\n" + path.read_text(encoding="utf-8")
