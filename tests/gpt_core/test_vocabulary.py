"""Bytes, labels and search over whole vocabularies."""

import dataclasses
import gc
import time
import weakref

import pytest
from transformers.convert_slow_tokenizer import bytes_to_unicode

from gpt_core.errors import InputError
from gpt_core.model import LanguageModel
from gpt_core.vocabulary import find_tokens, label_tokens, token_bytes_of
from tests.gpt_core.small_tokenizers import KINDS, with_tokenizer


def test_every_token_of_gpt2_has_its_bytes(bundled: LanguageModel) -> None:
    byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    for piece, token_id in bundled.tokenizer.get_vocab().items():
        expected = piece.encode() if token_id == 50256 else bytes(byte_of[character] for character in piece)
        assert token_bytes_of(bundled, token_id) == expected


def test_labels_of_any_ids(bundled: LanguageModel) -> None:
    assert label_tokens(bundled, [10408, 198, 50256, 447, 220]) == (
        "␣loves",
        "⏎",
        "<|endoftext|>",
        "<E2 80>",
        "␣",
    )
    assert label_tokens(bundled, []) == ()
    with pytest.raises(InputError, match="from 0 to 50,256"):
        label_tokens(bundled, [50257])


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_has_a_label(bundled: LanguageModel, kind: str) -> None:
    lm = with_tokenizer(bundled, KINDS[kind]())
    ids = sorted(lm.tokenizer.get_vocab().values())
    labels = label_tokens(lm, ids)
    assert all(labels)
    # A row of the embedding that no token uses can still be predicted.
    assert label_tokens(lm, [50000]) == ("[50000: no token]",)
    assert token_bytes_of(lm, 50000) == b""


@pytest.mark.parametrize(
    ("kind", "piece", "data"),
    [
        ("marked_first", "▁the", b" the"),
        ("marked", "<0xE6>", b"\xe6"),
        ("marked", "<s>", b"<s>"),
        ("marked_bare", "\n\n", b"\n\n"),
        ("marked_bare", "▁▁", b"  "),
        ("unigram", "▁", b" "),
        ("wordpiece", "##e", b"e"),
        ("word_ends", "the</w>", b"the"),
        ("byte_level_nfc", "<tool_call>", b"<tool_call>"),
    ],
)
def test_bytes_of_other_codes(bundled: LanguageModel, kind: str, piece: str, data: bytes) -> None:
    lm = with_tokenizer(bundled, KINDS[kind]())
    token_id = lm.tokenizer.backend_tokenizer.token_to_id(piece)
    assert token_id is not None
    assert token_bytes_of(lm, token_id) == data


def test_search_finds_what_a_plain_loop_finds(bundled: LanguageModel) -> None:
    expected = {i for i in range(50257) if "gne" in token_bytes_of(bundled, i).decode(errors="replace")}
    found = find_tokens(bundled, "gne")
    assert found.n_found == len(expected)
    assert set(found.token_ids) == expected
    assert list(found.labels) == sorted(found.labels, key=len)


def test_agney_is_not_in_the_vocabulary(bundled: LanguageModel) -> None:
    found = find_tokens(bundled, "Agney")
    assert (found.n_found, found.token_id, found.spaced_token_id, found.piece_token_id) == (
        0,
        None,
        None,
        None,
    )


def test_exact_matches(bundled: LanguageModel) -> None:
    found = find_tokens(bundled, "loves")
    assert (found.token_id, found.spaced_token_id, found.piece_token_id) == (None, 10408, None)
    assert find_tokens(bundled, " loves").token_id == 10408
    assert find_tokens(bundled, "Ġloves").piece_token_id == 10408
    assert find_tokens(bundled, "hello").token_id == 31373
    assert find_tokens(bundled, "\n").token_id == 198


def test_search_sees_labels_too(bundled: LanguageModel) -> None:
    assert 10408 in find_tokens(bundled, "␣loves").token_ids
    assert 447 in find_tokens(bundled, "<E2 80>").token_ids


@pytest.mark.parametrize(
    ("query", "n_found"),
    [("", 0), (".*", 1), ("(a+)+$", 0), ("a" * 10_000, 0), ("\ud800", None), ("e", None)],
)
def test_search_is_plain_bounded_and_quick(bundled: LanguageModel, query: str, n_found: int | None) -> None:
    find_tokens(bundled, "warm")
    times = []
    for _ in range(3):
        start = time.perf_counter()
        found = find_tokens(bundled, query)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1
    assert len(found.token_ids) == len(found.labels) == len(found.pieces) <= 200
    if n_found is not None:
        assert found.n_found == n_found


@pytest.mark.parametrize("limit", [0, -1, 1001, 2.5, "5"])
def test_limits_out_of_range(bundled: LanguageModel, limit: object) -> None:
    with pytest.raises(InputError, match="from 1 to 1,000"):
        find_tokens(bundled, "a", limit=limit)  # type: ignore[arg-type]


def test_tables_go_with_their_model(bundled: LanguageModel) -> None:
    lm = dataclasses.replace(bundled)
    find_tokens(lm, "a")
    alive = weakref.ref(lm)
    del lm
    gc.collect()
    assert alive() is None
