"""The Tokenizer page's code runs on its own and gives what is on the screen."""

import contextlib
import io

import pytest

from gpt_core.catalog import load_name
from gpt_core.model import LanguageModel
from gpt_core.snippets.tokenizer import tokenizer_snippet
from gpt_core.tokenizer import tokenize_text


@pytest.mark.parametrize("special_tokens", [True, False])
@pytest.mark.parametrize("text", ["Agney loves 👩‍👩‍👧\n", "a <|endoftext|> 'b' \"c\" \\ {d}", ""])
def test_snippet(
    bundled: LanguageModel,
    monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
    text: str,
    special_tokens: bool,
) -> None:
    monkeypatch.chdir(pytestconfig.rootpath)
    code = tokenizer_snippet(
        load_name(str(bundled.model_id)), text, word="Agney", special_tokens=special_tokens
    )
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "snippet", "exec"), {})
    expected = tokenize_text(bundled, text, special_tokens=special_tokens)
    assert printed.getvalue().splitlines() == [
        str(list(expected.token_ids)),
        str(list(expected.pieces)),
        repr(text),
        "False",
    ]
