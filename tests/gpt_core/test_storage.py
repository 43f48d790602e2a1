"""When a model was used is known of each model by itself."""

from pathlib import Path
from typing import Any

import pytest

from gpt_core import model as model_module
from gpt_core.catalog import bundled_model_id
from gpt_core.errors import ModelLoadError
from gpt_core.model import load_model
from gpt_core.registry import Registry
from gpt_core.storage import last_used, mark_used


def test_long_paths_that_begin_alike_are_two_models() -> None:
    one, other = (f"local:/{'x' * 300}/{name}@{'0' * 12}" for name in ("one", "other"))
    mark_used(one)
    assert last_used(one) is not None
    assert last_used(other) is None


@pytest.mark.parametrize(
    "name", ["local:/é/\u4e2d@000000000000", "hub:a/b@" + "0" * 40, "local:../../x", "x" * 5000]
)
def test_any_name_can_be_noted(name: str) -> None:
    mark_used(name)
    assert last_used(name) is not None


def test_a_cache_that_cannot_be_written_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GPT_CORE_CACHE", str(tmp_path / "file" / "below"))
    mark_used("hub:a")
    assert last_used("hub:a") is None


def test_only_what_was_loaded_counts_as_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Path:
        raise ModelLoadError("no")

    model = bundled_model_id()
    # A store of its own: the other tests' model stays the one that they hold.
    monkeypatch.setattr(model_module, "_models", Registry(2**40, lambda lm: lm.n_bytes))
    with monkeypatch.context() as patch:
        patch.setattr(model_module, "acquire_model", refuse)
        with pytest.raises(ModelLoadError):
            load_model(model)
    assert last_used(model) is None
    load_model(model)
    assert last_used(model) is not None
