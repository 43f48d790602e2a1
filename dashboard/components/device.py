"""On which device models are put, as the command line names it."""

import argparse
import os

from gpt_core.catalog import DEVICE_VARIABLE


def choose_device(arguments: list[str]) -> None:
    """Take `--device cpu|cuda|mps` from the words after `--` on the command line."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--device")
    device = parser.parse_known_args(arguments)[0].device
    if device is not None:
        os.environ[DEVICE_VARIABLE] = device
