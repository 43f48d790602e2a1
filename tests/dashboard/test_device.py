"""The device is the one that the command line names, where it names one."""

import os

import pytest

from dashboard.components.device import choose_device
from gpt_core.catalog import DEVICE_VARIABLE


@pytest.mark.parametrize(
    ("arguments", "device"),
    [
        ([], "before"),
        (["--device", "cuda"], "cuda"),
        (["--device=mps"], "mps"),
        (["--other", "--device", "cpu", "more"], "cpu"),
        (["--other"], "before"),
    ],
)
def test_the_device_of_the_command_line(
    arguments: list[str], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DEVICE_VARIABLE, "before")
    choose_device(arguments)
    assert os.environ[DEVICE_VARIABLE] == device
