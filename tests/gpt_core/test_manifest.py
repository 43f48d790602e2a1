"""The model in the box is the one that was published, byte for byte, or it is refused."""

import shutil
from pathlib import Path

import pytest

from gpt_core.catalog import BUNDLED_FOLDER
from gpt_core.errors import ModelLoadError
from gpt_core.manifest import MANIFEST, verify_manifest, write_manifest

FILES = sorted(file.name for file in BUNDLED_FOLDER.iterdir() if file.name != MANIFEST)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return shutil.copytree(BUNDLED_FOLDER, tmp_path / "bundled")


def test_the_shipped_manifest_holds(copy: Path) -> None:
    verify_manifest(BUNDLED_FOLDER)
    shipped = (copy / MANIFEST).read_text()
    write_manifest(copy)
    assert (copy / MANIFEST).read_text() == shipped


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(ModelLoadError, match=f"^{name} of bundled is not the file that was published"):
        verify_manifest(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ModelLoadError, match=f"^{name} of bundled cannot be read"):
        verify_manifest(copy)


@pytest.mark.parametrize("content", ["", "[]", '{"sha256": 3}', "{}"])
def test_a_damaged_manifest_is_refused(copy: Path, content: str) -> None:
    (copy / MANIFEST).write_text(content)
    with pytest.raises(ModelLoadError, match="is missing or damaged"):
        verify_manifest(copy)
