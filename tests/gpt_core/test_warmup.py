"""Whoever comes while the model stack is still being imported gets his answer all the same."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys, time
from gpt_core.warmup import start_warmup
from gpt_core.catalog import bundled_model_id
from gpt_core.engine import shared_engine
from gpt_core.tasks import LoadTask, LookUpTask

thread = start_warmup()
assert start_warmup() is thread
time.sleep(float(sys.argv[1]))
engine = shared_engine()
load = engine.submit(LoadTask(model=bundled_model_id()), session="reader")
ask = engine.submit(LookUpTask(name="a/b/c"), session="other")
loaded, asked = engine.wait(load, 120), engine.wait(ask, 120)
assert loaded.state == "done", loaded
assert "named `name` or `owner/name`" in str(asked.error), asked
"""


@pytest.mark.slow
@pytest.mark.parametrize("pause", ["0", "0.5", "1.5"])
def test_a_reader_who_comes_during_the_imports_is_served(pause: str) -> None:
    """transformers' modules that import themselves when asked break where two threads ask at once."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, pause], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
