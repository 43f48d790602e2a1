"""A second model for the pages."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_network


@pytest.fixture
def tiny_llama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpt2_tokenizer: Any) -> Path:
    """A small random Llama among the models of this machine; its folder."""
    folder = tmp_path / "tiny-llama"
    make_network("llama").save_pretrained(folder)
    gpt2_tokenizer.save_pretrained(folder)
    monkeypatch.setenv("GPT_CORE_MODELS", str(tmp_path))
    return folder
