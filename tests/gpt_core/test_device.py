"""Where models are put."""

import pytest

from gpt_core.catalog import DEVICE_VARIABLE, bundled_model_id
from gpt_core.errors import InputError
from gpt_core.model import load_model


@pytest.mark.parametrize("device", ["abacus", "meta", "xpu:0"])
def test_a_device_that_is_not_here_is_said(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setenv(DEVICE_VARIABLE, device)
    with pytest.raises(InputError, match=rf"one that torch finds on this machine: cpu.*Given: {device}"):
        load_model(bundled_model_id())
