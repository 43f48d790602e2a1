"""The Tokenizer page without a browser: what it says of words, ids, and models with other tokenizers."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from gpt_core.catalog import MODEL_FOLDERS_VARIABLE, list_models
from gpt_core.model import LanguageModel
from tests.conftest import make_network
from tests.dashboard.pages import errors, open_page, settle, texts
from tests.gpt_core.small_tokenizers import marked, unigram, with_tokenizer

pytestmark = pytest.mark.usefixtures("bundled")


def show(**query: str) -> AppTest:
    at = open_page("tokenizer", **query)
    assert errors(at) == []
    return at


def table(at: AppTest, columns: set[str]) -> dict[str, list[object]]:
    """The table that has these columns."""
    (found,) = [element.value for element in at.dataframe if columns <= set(element.value.columns)]
    return {str(name): list(found[name]) for name in found.columns}


def test_the_table_is_the_notebooks() -> None:
    found = table(show(prompt="Agney loves to train DL models"), {"bytes", "kind"})
    assert found["id"] == [10262, 1681, 10408, 284, 4512, 23641, 4981]
    assert found["token"] == ["Ag", "ney", "Ġloves", "Ġto", "Ġtrain", "ĠDL", "Ġmodels"]
    assert found["bytes"][:2] == ["41 67", "6E 65 79"]
    assert (found["from"], found["to"]) == ([0, 2, 5, 11, 14, 20, 23], [2, 5, 11, 14, 20, 23, 30])


def test_why_agney_is_two_tokens() -> None:
    at = show()
    assert "“Agney” is not in the vocabulary; after a space, it is not either." in texts(at)
    assert "No rule merges Ag and ney." in texts(at)
    found = table(at, {"step", "rank"})
    assert found["merged"] == ["", "n + e", "ne + y", "A + g"]
    assert found["parts"] == ["A · g · n · e · y", "A · g · ne · y", "A · g · ney", "Ag · ney"]


def test_leading_space_and_letter_case() -> None:
    found = table(show(tokenizer_word="loves"), {"written", "ids"})
    assert found["written"][:2] == ["loves", "␣loves"]
    assert found["ids"][1] == "10408"


def test_a_word_in_the_vocabulary() -> None:
    at = show(tokenizer_word="hello")
    assert "“hello” is token 31373; after a space, it is token 23748." in texts(at)
    (found,) = [e.value for e in at.dataframe if list(e.value.columns) == ["id", "token", "shown as"]]
    assert 31373 in list(found["id"])
    assert "hello" in found["token"].iloc[0]


@pytest.mark.parametrize(
    "word", ["", " ", "(a+)+$", "</script>", "👩‍👩‍👧", "a" * 100, "one two three", "\x00\u202e"]
)
def test_any_word(word: str) -> None:
    at = open_page("tokenizer")
    at.text_input(key="tokenizer_word").set_value(word).run()
    assert errors(at) == []


def test_a_long_word_in_a_link_is_said() -> None:
    assert "The link asks for" in texts(show(tokenizer_word="a" * 101))


def test_ids_back_to_text() -> None:
    at = show()
    assert at.text_area(key="tokenizer_ids").value == "15496 2159 13 770 318 2449 1681"
    assert "Hello World. This is Agney" in [code.value for code in at.code]
    at.text_area(key="tokenizer_ids").set_value("[363, 1681, 50256]").run()
    assert "agney<|endoftext|>" in [code.value for code in at.code]


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ("50257", "from 0 to 50,256. Given: 50257"),
        ("-1", "Write ids as 15496, 2159, 13."),
        ("hello", "Write ids as 15496, 2159, 13."),
        ("1 " * 10_001, "At most 10,000 ids"),
        ("[" * 10_000, "Write them as 15496, 2159, 13."),
    ],
    ids=["high", "low", "word", "many", "deep"],
)
def test_bad_ids_are_said(ids: str, said: str) -> None:
    at = open_page("tokenizer")
    at.text_area(key="tokenizer_ids").set_value(ids).run()
    assert errors(at) == []
    assert said in texts(at)


def test_special_tokens_as_typed_or_as_text() -> None:
    special = show(prompt="a <|endoftext|>")
    assert table(special, {"bytes", "kind"})["kind"] == ["text", "text", "added"]
    assert "The prompt holds added tokens" in texts(special)
    plain = show(prompt="a <|endoftext|>", special="0")
    assert set(table(plain, {"bytes", "kind"})["kind"]) == {"text"}
    assert "The prompt holds added tokens" not in texts(plain)


def test_an_nfd_text_has_other_tokens() -> None:
    composed, decomposed = (
        table(show(prompt=text), {"bytes", "kind"})["bytes"] for text in ("\u00e9", "e\u0301")
    )
    assert composed != decomposed
    assert "".join(map(str, composed)).replace(" ", "") == "C3A9"
    assert "".join(map(str, decomposed)).replace(" ", "") == "65CC81"


@pytest.mark.parametrize("make", [marked, unigram])
def test_models_with_other_tokenizers(
    bundled: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: object
) -> None:
    make_network("llama").save_pretrained(tmp_path / "other")
    with_tokenizer(bundled, make()).tokenizer.save_pretrained(tmp_path / "other")  # type: ignore[operator]
    monkeypatch.setenv(MODEL_FOLDERS_VARIABLE, str(tmp_path))
    (model,) = [str(entry.model_id) for entry in list_models() if entry.model_id.name == "other"]
    at = settle(show(model=model, prompt="hello  the café 漢"))
    said = texts(at)
    assert "This tokenizer changes a text before it cuts it." in said
    if make is unigram:
        assert "is a Unigram model, not byte-pair encoding" in said
        assert "cannot write all of the prompt" in said
    else:
        assert table(at, {"bytes", "kind"})["kind"][0] == "template"
        assert table(at, {"step", "rank"})
