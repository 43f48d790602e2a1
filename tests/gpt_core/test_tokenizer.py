"""Laws of a tokenization, for every kind of tokenizer and any text; GPT-2's against what the notebook printed."""

import threading
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest
import regex
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Tokenizer

from gpt_core.errors import InputError, UnsupportedError
from gpt_core.model import LanguageModel
from gpt_core.tokenizer import Tokenization, compare_variants, decode_ids, tokenize_text
from gpt_core.validation import MAX_CHARACTERS
from tests.gpt_core.small_tokenizers import (
    ANY_TEXT,
    HARD_TEXTS,
    KINDS,
    byte_level,
    marked_bare,
    with_tokenizer,
)

# What the notebook printed for gpt2: the vocabulary of the bundled model is the same one.
NOTEBOOK_IDS = {
    "Hello World. This is Agney": [15496, 2159, 13, 770, 318, 2449, 1681],
    " Hello World. This is Agney": [18435, 2159, 13, 770, 318, 2449, 1681],
    "Agney loves to train DL models": [10262, 1681, 10408, 284, 4512, 23641, 4981],
    "agney loves to train DL models": [363, 1681, 10408, 284, 4512, 23641, 4981],
    "The CS123 class was very intresting. I learned a lot.": [
        *(464, 9429, 10163, 1398, 373, 845, 493, 2118, 278, 13, 314, 4499, 257, 1256, 13)
    ],
}
NOTEBOOK_PIECES = {
    "Agney loves to train DL models": "Ag ney Ġloves Ġto Ġtrain ĠDL Ġmodels",
    "The CS123 class was very intresting. I learned a lot.": (
        "The ĠCS 123 Ġclass Ġwas Ġvery Ġint rest ing . ĠI Ġlearned Ġa Ġlot ."
    ),
}

any_model = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module", params=["gpt2", *KINDS])
def lm(request: pytest.FixtureRequest, bundled: LanguageModel) -> LanguageModel:
    return bundled if request.param == "gpt2" else with_tokenizer(bundled, KINDS[request.param]())


def check_laws(lm: LanguageModel, text: str, result: Tokenization) -> None:
    clean = "".join("\ufffd" if 0xD800 <= ord(c) < 0xE000 else c for c in text)
    assert result.text == clean
    assert result.n_replaced == sum(0xD800 <= ord(c) < 0xE000 for c in text)
    assert b"".join(result.token_bytes) == result.normalised.encode()
    # The ids and pieces are transformers' own.
    assert list(result.token_ids) == lm.tokenizer(clean)["input_ids"]
    assert list(result.pieces) == lm.tokenizer.convert_ids_to_tokens(list(result.token_ids))
    # Offsets, character by character.
    owner = [i for i, c in enumerate(result.normalised) for _ in c.encode()]
    place = 0
    for data, (start, end) in zip(result.token_bytes, result.offsets, strict=True):
        touched = owner[place : place + len(data)]
        place += len(data)
        assert (end - start, touched) == (0, []) or (start, end) == (touched[0], touched[-1] + 1)
    # Groups: their texts are the text, and they part exactly at the boundaries of graphemes.
    assert "".join(result.group_texts) == result.normalised
    graphemes = {0}
    for match in regex.finditer(r"\X", result.normalised):
        graphemes.add(max(graphemes) + len(match[0].encode()))
    place = 0
    for i, data in enumerate(result.token_bytes):
        if i:
            assert (result.groups[i] != result.groups[i - 1]) == (place in graphemes)
        place += len(data)
    for group, group_text in enumerate(result.group_texts):
        members = [d for d, g in zip(result.token_bytes, result.groups, strict=True) if g == group]
        assert members
        assert b"".join(members) == group_text.encode()
    # Labels: something to see for every token, and nothing that moves its neighbours.
    for label in result.labels:
        assert label
        assert not regex.search(r"[\p{C}\p{Z}]", regex.sub(r"<[0-9A-F]{2}( [0-9A-F]{2})*>", "", label))


@pytest.mark.parametrize("text", HARD_TEXTS, ids=ascii)
def test_laws_on_hard_texts(lm: LanguageModel, text: str) -> None:
    check_laws(lm, text, tokenize_text(lm, text))


@any_model
@given(text=ANY_TEXT)
def test_laws_on_any_text(lm: LanguageModel, text: str) -> None:
    check_laws(lm, text, tokenize_text(lm, text))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=ANY_TEXT)
@example("\ud83d\ude00")
def test_gpt2_tokens_add_up_to_the_very_text(bundled: LanguageModel, text: str) -> None:
    result = tokenize_text(bundled, text)
    assert b"".join(result.token_bytes) == result.text.encode()
    assert result.normalised == result.text
    assert decode_ids(bundled, result.token_ids).text == result.text


@pytest.mark.parametrize(("text", "ids"), NOTEBOOK_IDS.items())
def test_notebook_ids(bundled: LanguageModel, text: str, ids: list[int]) -> None:
    assert list(tokenize_text(bundled, text).token_ids) == ids


@pytest.mark.parametrize(("text", "pieces"), NOTEBOOK_PIECES.items())
def test_notebook_pieces(bundled: LanguageModel, text: str, pieces: str) -> None:
    assert tokenize_text(bundled, text).pieces == tuple(pieces.split())


def test_bundled_vocabulary_is_gpt2s(bundled: LanguageModel) -> None:
    assert isinstance(bundled.tokenizer, GPT2Tokenizer)
    assert len(bundled.tokenizer) == 50257
    assert bundled.tokenizer.eos_token == "<|endoftext|>"
    assert bundled.tokenizer.eos_token_id == 50256
    assert "Agney" not in bundled.tokenizer.get_vocab()


def test_empty_text_has_no_tokens(bundled: LanguageModel) -> None:
    result = tokenize_text(bundled, "")
    assert (result.n_tokens, result.normalised, result.group_texts) == (0, "", ())


def test_template_tokens_have_no_bytes(bundled: LanguageModel) -> None:
    lm = with_tokenizer(bundled, byte_level())
    result = tokenize_text(lm, "hello")
    assert result.pieces[0] == "<|begin_of_text|>"
    assert (result.kinds[0], result.token_bytes[0], result.labels[0]) == (
        "template",
        b"",
        "<|begin_of_text|>",
    )
    assert result.offsets[0] == (0, 0)
    assert set(result.kinds[1:]) == {"text"}
    empty = tokenize_text(lm, "")
    assert (empty.kinds, empty.normalised, empty.group_texts) == (("template",), "", ("",))


def test_emoji_is_one_group_of_many_tokens(bundled: LanguageModel) -> None:
    family = "👩‍👩‍👧"
    result = tokenize_text(bundled, "Hi " + family)
    assert result.group_texts == ("Hi", " " + family)
    assert result.groups[1:] == (1,) * (result.n_tokens - 1)
    assert result.labels[1] == "␣<F0 9F 91>"
    assert result.offsets[1] == (2, 4)


def test_regional_indicators_are_two_flags(bundled: LanguageModel) -> None:
    result = tokenize_text(bundled, "🇩🇪🇫🇷")
    assert result.group_texts == ("🇩🇪", "🇫🇷")


def test_normal_forms_differ(bundled: LanguageModel) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    a, b = tokenize_text(bundled, composed), tokenize_text(bundled, decomposed)
    assert a.token_ids != b.token_ids
    assert (a.normalised, b.normalised) == (composed, decomposed)


@pytest.fixture(scope="module")
def composing(bundled: LanguageModel) -> LanguageModel:
    return with_tokenizer(bundled, KINDS["byte_level_nfc"]())


@any_model
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cn", "Cs"]), max_size=20))
@example("e\u0301 \u1100\u1161\u11a8 \u212b")
def test_composing_tokenizer_adds_up_to_the_composed_text(composing: LanguageModel, text: str) -> None:
    assert tokenize_text(composing, text).normalised == unicodedata.normalize("NFC", text)


@pytest.fixture(scope="module")
def marking(bundled: LanguageModel) -> LanguageModel:
    return with_tokenizer(bundled, KINDS["marked"]())


@any_model
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="<"), min_size=1, max_size=20))
def test_marking_tokenizer_puts_one_space_in_front(marking: LanguageModel, text: str) -> None:
    assert tokenize_text(marking, text).normalised == " " + text.replace("▁", " ")


def test_both_texts_are_shown_where_one_is_changed(bundled: LanguageModel) -> None:
    result = tokenize_text(with_tokenizer(bundled, KINDS["unigram"]()), "①ﬁ")
    assert (result.text, result.normalised) == ("①ﬁ", " 1fi")
    assert set(result.source_offsets) <= {(0, 1), (1, 2), (0, 2)}


def test_unknown_tokens_have_the_bytes_of_what_they_stand_for(bundled: LanguageModel) -> None:
    result = tokenize_text(with_tokenizer(bundled, KINDS["wordpiece"]()), "hello 漢")
    assert (result.pieces[-1], result.kinds[-1]) == ("[UNK]", "unknown")
    assert (result.token_bytes[-1], result.labels[-1]) == ("漢".encode(), "[UNK]")


def test_fallback_bytes_are_true_bytes(bundled: LanguageModel) -> None:
    result = tokenize_text(with_tokenizer(bundled, KINDS["marked"]()), "a漢")
    assert result.pieces[-3:] == ("<0xE6>", "<0xBC>", "<0xA2>")
    assert result.token_bytes[-3:] == (b"\xe6", b"\xbc", b"\xa2")
    assert result.labels[-3:] == ("<E6>", "<BC>", "<A2>")
    assert len(set(result.groups[-3:])) == 1


def test_added_token_that_merges_reach_too(bundled: LanguageModel) -> None:
    lm = with_tokenizer(bundled, marked_bare())
    spaces, marks = tokenize_text(lm, "a  b"), tokenize_text(lm, "a▁▁b")
    assert "▁▁" in spaces.pieces
    assert spaces.token_ids == marks.token_ids
    assert (spaces.normalised, marks.normalised) == ("a  b", "a▁▁b")


def test_special_token_in_the_text(bundled: LanguageModel) -> None:
    text = "a<|endoftext|>b"
    special, plain = tokenize_text(bundled, text), tokenize_text(bundled, text, special_tokens=False)
    assert special.token_ids == (64, 50256, 65)
    assert special.kinds == ("text", "added", "text")
    assert special.labels[1] == "<|endoftext|>"
    assert plain.token_ids == (64, 27, 91, 437, 1659, 5239, 91, 29, 65)
    assert set(plain.kinds) == {"text"}
    assert (special.normalised, plain.normalised) == (text, text)


@pytest.mark.parametrize("text", ["a", " ", "\n", "日", "ab", "😀"])
def test_a_million_characters_are_refused_at_once(bundled: LanguageModel, text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(InputError, match=r"100,000 characters. Given: 1,\d{3},\d{3}"):
        tokenize_text(bundled, text * (1_000_002 // len(text)))
    assert time.perf_counter() - start < 0.05


def test_the_longest_allowed_run_is_read(bundled: LanguageModel) -> None:
    result = tokenize_text(bundled, "a" * MAX_CHARACTERS)
    assert b"".join(result.token_bytes) == b"a" * MAX_CHARACTERS


@pytest.mark.parametrize("text", [None, 5, b"bytes", ["a"]])
def test_only_text_is_read(bundled: LanguageModel, text: object) -> None:
    with pytest.raises(InputError, match="must be a string"):
        tokenize_text(bundled, text)  # type: ignore[arg-type]


def test_saved_truncation_and_padding_are_switched_off(bundled: LanguageModel) -> None:
    backend = byte_level()
    whole = tokenize_text(with_tokenizer(bundled, backend), "the cat sat on the mat").token_ids
    for change in (
        lambda t: t.enable_truncation(4),
        lambda t: t.enable_padding(length=50, pad_id=3, pad_token="#"),
    ):
        changed: Tokenizer = Tokenizer.from_str(backend.to_str())
        change(changed)
        lm = with_tokenizer(bundled, changed)
        for special_tokens in (True, False):
            assert (
                tokenize_text(lm, "the cat sat on the mat", special_tokens=special_tokens).token_ids == whole
            )


def test_tokens_that_add_up_to_no_text_are_refused(bundled: LanguageModel) -> None:
    # A vocabulary without the byte 0xA2 leaves the last third of 漢 out.
    letters = [c for c in pre_tokenizers.ByteLevel.alphabet() if c != "¢"]
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with pytest.raises(UnsupportedError, match="leaves out part of a character"):
        tokenize_text(with_tokenizer(bundled, backend), "漢")


def test_sixteen_threads_on_one_tokenizer(bundled: LanguageModel) -> None:
    texts = [text * n for n in (1, 3) for text in HARD_TEXTS]
    expected = [(tokenize_text(bundled, t).token_ids, tokenize_text(bundled, t).labels) for t in texts]
    settings_before = bundled.tokenizer.backend_tokenizer.to_str()
    together = threading.Barrier(16)

    def work(offset: int) -> bool:
        together.wait()
        same = True
        for step in range(80):
            i = (offset * 7 + step) % len(texts)
            result = tokenize_text(bundled, texts[i])
            same &= (result.token_ids, result.labels) == expected[i]
        return same

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(16)))
    assert bundled.tokenizer.backend_tokenizer.to_str() == settings_before


def test_variants(bundled: LanguageModel) -> None:
    variants = compare_variants(bundled, " Agney")
    assert [(v.letter_case, v.leading_space, v.tokenization.labels) for v in variants] == [
        ("as typed", False, ("Ag", "ney")),
        ("as typed", True, ("␣Ag", "ney")),
        ("lower case", False, ("ag", "ney")),
        ("lower case", True, ("␣ag", "ney")),
        ("upper case", False, ("AG", "NEY")),
        ("upper case", True, ("␣AG", "NEY")),
    ]


@pytest.mark.parametrize("text", ["", "   ", "a" * 1001])
def test_variants_of_nothing_or_too_much(bundled: LanguageModel, text: str) -> None:
    with pytest.raises(InputError, match="1 to 1,000 characters"):
        compare_variants(bundled, text)
