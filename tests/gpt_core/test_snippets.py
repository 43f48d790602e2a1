"""The code that a page shows runs on its own and gives the numbers on the screen."""

import contextlib
import io

import numpy as np
import pytest

from gpt_core.attention import attention_maps
from gpt_core.catalog import load_name
from gpt_core.model import LanguageModel
from gpt_core.predictions import next_token
from gpt_core.snippets.attention import attention_snippet
from gpt_core.snippets.predictions import predictions_snippet
from gpt_core.tokenizer import tokenize_text
from gpt_core.trace import trace_text

TEXT = "He said \"no\"\\ and 'left'.\n"


def run(code: str) -> tuple[dict[str, object], str]:
    names: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "snippet", "exec"), names)
    return names, printed.getvalue()


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> None:
    """The bundled model's folder is named from the root of the project."""
    monkeypatch.chdir(pytestconfig.rootpath)


def test_attention(bundled: LanguageModel) -> None:
    names, printed = run(attention_snippet(load_name(str(bundled.model_id)), TEXT, layer=3, head=2))
    ours = attention_maps(trace_text(bundled, TEXT), layer=3, heads=[2]).weights[0]
    theirs = names["attention"]
    assert np.abs(np.asarray(theirs) - ours).max() < 1e-5
    assert f"{ours[-1, 0]:.3f}".rstrip("0") in printed


def test_predictions(bundled: LanguageModel) -> None:
    _, printed = run(predictions_snippet(load_name(str(bundled.model_id)), TEXT, position=2, k=4))
    ours = next_token(bundled, trace_text(bundled, TEXT), position=2, k=4)
    lines = [line.split(maxsplit=2) for line in printed.splitlines()[:4]]
    assert [int(line[1]) for line in lines] == ours.token_ids.tolist()
    assert np.allclose([float(line[0]) for line in lines], ours.probs, atol=1e-5)


def test_special_tokens_as_plain_text(bundled: LanguageModel) -> None:
    text = "a <|endoftext|>"
    for special_tokens, n_tokens in ((True, 3), (False, 8)):
        names, _ = run(
            predictions_snippet(
                load_name(str(bundled.model_id)), text, position=0, k=1, special_tokens=special_tokens
            )
        )
        assert len(names["tokens"]) == n_tokens  # type: ignore[arg-type]
        assert tokenize_text(bundled, text, special_tokens=special_tokens).n_tokens == n_tokens
