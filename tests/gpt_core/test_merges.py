"""The replayed merges end in the tokenizer's own tokens, for every byte-pair tokenizer and any text."""

import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from tokenizers import Tokenizer, models

from gpt_core import merges
from gpt_core.errors import UnsupportedError
from gpt_core.merges import WordMerges, bpe_merges
from gpt_core.model import LanguageModel
from gpt_core.tokenizer import tokenize_text
from tests.gpt_core.small_tokenizers import (
    ANY_TEXT,
    BYTE_PAIR_KINDS,
    HARD_TEXTS,
    byte_level,
    unigram,
    with_tokenizer,
    wordpiece,
)


@pytest.fixture(scope="module", params=["gpt2", *BYTE_PAIR_KINDS])
def lm(request: pytest.FixtureRequest, bundled: LanguageModel) -> LanguageModel:
    return bundled if request.param == "gpt2" else with_tokenizer(bundled, BYTE_PAIR_KINDS[request.param]())


def check_laws(lm: LanguageModel, text: str) -> tuple[WordMerges, ...]:
    tokens = tokenize_text(lm, text)
    words = bpe_merges(lm, text)
    parts = [part for word in words for part in word.parts]
    assert parts == [p for p, kind in zip(tokens.pieces, tokens.kinds, strict=True) if kind != "template"]
    assert "".join(word.text for word in words) == tokens.normalised or "\ufffd" in text
    for word in words:
        assert tokens.pieces[word.first_token] == word.parts[0]
        assert tokens.offsets[word.first_token][0] == word.start
        assert word.parts_after(len(word.steps)) == word.parts
        assert len(word.symbols) == len(word.symbol_bytes) == len(word.symbol_labels)
        if word.whole:
            assert word.steps == ()
            continue
        assert word.parts_after(0) == word.symbols
        assert word.labels_after(0) == word.symbol_labels
        for n, step in enumerate(word.steps):
            before, after = word.parts_after(n), word.parts_after(n + 1)
            assert len(after) == len(before) - 1
            place = [start for start, _ in word.spans_after(n)].index(step.start)
            assert before[place : place + 2] == (step.left, step.right)
            assert after[place] == step.merged
            assert len(word.labels_after(n)) == len(before)
    return words


@pytest.mark.parametrize("text", HARD_TEXTS, ids=ascii)
def test_laws_on_hard_texts(lm: LanguageModel, text: str) -> None:
    check_laws(lm, text)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=ANY_TEXT)
def test_laws_on_any_text(lm: LanguageModel, text: str) -> None:
    check_laws(lm, text)


def test_why_agney_is_two_tokens(bundled: LanguageModel) -> None:
    (word,) = bpe_merges(bundled, "Agney")
    ranks = json.loads(bundled.tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    assert [(step.left, step.right) for step in word.steps] == [("n", "e"), ("ne", "y"), ("A", "g")]
    assert [step.rank for step in word.steps] == [
        ranks.index(pair) for pair in (["n", "e"], ["ne", "y"], ["A", "g"])
    ]
    assert [word.parts_after(n) for n in range(4)] == [
        ("A", "g", "n", "e", "y"),
        ("A", "g", "ne", "y"),
        ("A", "g", "ney"),
        ("Ag", "ney"),
    ]
    assert ["Ag", "ney"] not in ranks


def slow_bpe(word: str, ranks: dict[tuple[str, str], int]) -> list[tuple[str, str, int]]:
    """GPT-2's own way: look at all pairs, merge the first of lowest rank, look again."""
    parts, steps = list(word), []
    while True:
        pairs = [(ranks[pair], i) for i, pair in enumerate(itertools.pairwise(parts)) if pair in ranks]
        if not pairs:
            return steps
        rank, i = min(pairs)
        steps.append((parts[i], parts[i + 1], rank))
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=ANY_TEXT)
def test_order_of_the_steps(bundled: LanguageModel, text: str) -> None:
    ranks = {pair: rank for pair, (rank, _) in merges._ranks.get(bundled).items()}
    for word in bpe_merges(bundled, text):
        if not word.whole:
            expected = slow_bpe("".join(word.symbols), ranks)
            assert [(step.left, step.right, step.rank) for step in word.steps] == expected


def test_words_have_their_place(bundled: LanguageModel) -> None:
    text = "Agney loves<|endoftext|> 日本!"
    words = bpe_merges(bundled, text)
    assert [word.text for word in words] == ["Agney", " loves", "<|endoftext|>", " 日本", "!"]
    assert [text[word.start : word.stop] for word in words] == [word.text for word in words]
    assert [word.whole for word in words] == [False, False, True, False, False]
    assert words[3].symbol_labels == ("␣", "<E6>", "<97>", "<A5>", "<E6>", "<9C>", "<AC>")
    assert words[3].labels_after(len(words[3].steps)) == tuple(tokenize_text(bundled, text).labels[-6:-1])
    plain = bpe_merges(bundled, text, special_tokens=False)
    assert "<|" in [word.text for word in plain]


def test_words_straight_from_the_vocabulary(bundled: LanguageModel) -> None:
    lm = with_tokenizer(bundled, byte_level())
    whole, merged = bpe_merges(lm, "the zzqq")
    assert (whole.whole, whole.steps, whole.labels_after(0)) == (True, (), ("the",))
    assert not merged.whole


def test_a_pair_of_another_merge_with_the_same_outcome(bundled: LanguageModel) -> None:
    # "abc" can be made of ab+c and of a+bc; the queue holds one of them when the other has become impossible.
    vocabulary = {piece: i for i, piece in enumerate(["a", "b", "c", "ab", "bc", "abc"])}
    for order in itertools.permutations([("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")]):
        lm = with_tokenizer(bundled, Tokenizer(models.BPE(vocabulary, list(order))))
        for text in ("abc", "abcabc", "aabcc", "abbc", "bcabc"):
            check_laws(lm, text)


def test_long_words(bundled: LanguageModel) -> None:
    (word,) = bpe_merges(bundled, "ab" * 5000)
    assert len(word.symbols) - len(word.steps) == len(word.parts)


@pytest.mark.parametrize(("make", "name"), [(unigram, "Unigram"), (wordpiece, "WordPiece")])
def test_other_tokenizers_have_no_merges(bundled: LanguageModel, make: object, name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"a {name} model"):
        bpe_merges(with_tokenizer(bundled, make()), "hello")  # type: ignore[operator]


def test_random_merges_are_not_replayed(bundled: LanguageModel) -> None:
    backend = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")], dropout=0.5))
    with pytest.raises(UnsupportedError, match="at random"):
        bpe_merges(with_tokenizer(bundled, backend), "ab")


def test_merges_that_do_not_give_the_tokens_are_not_shown(
    bundled: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = dict(merges._ranks.get(bundled))
    del ranks["ne", "y"]
    monkeypatch.setattr(merges._ranks, "get", lambda _: ranks)
    with pytest.raises(UnsupportedError, match="do not give its own tokens for “Agney”"):
        bpe_merges(bundled, "Agney")
