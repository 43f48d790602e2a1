"""Text to tokens: ids, vocabulary strings, true bytes, offsets, and what a reader can recognise.

The tokens of a text add up to it byte for byte. Where a tokenizer changes a text first (Unicode normal forms, a
space put in front), they add up to the changed text, and both are in the result.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import regex
from tokenizers import Encoding, Tokenizer

from gpt_core.errors import InputError, UnsupportedError
from gpt_core.token_ids import DecodedIds, decode_ids, parse_ids
from gpt_core.validation import check_text
from gpt_core.visible import replace_surrogates, show_bytes, show_text
from gpt_core.vocabulary import (
    PerModel,
    PieceCode,
    VocabularyMatches,
    find_tokens,
    label_tokens,
    piece_code,
    token_bytes_of,
)

if TYPE_CHECKING:
    from gpt_core.model import LanguageModel

__all__ = [
    "DecodedIds",
    "TokenKind",
    "Tokenization",
    "Variant",
    "VocabularyMatches",
    "compare_variants",
    "decode_ids",
    "find_tokens",
    "label_tokens",
    "parse_ids",
    "token_bytes_of",
    "tokenize_text",
]

#: Longest text whose spellings are compared side by side.
MAX_COMPARED_CHARACTERS = 1_000

#: text: made from the text by the model's rules; added: cut out of the text before them, such as <|endoftext|>;
#: unknown: stands for something that the vocabulary cannot write; template: put around every text, such as <s>.
TokenKind = Literal["text", "added", "unknown", "template"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Tokenization:
    """A text as the model receives it."""

    text: str
    """The text as received, lone surrogates replaced by U+FFFD."""
    n_replaced: int
    """How many lone surrogates were replaced."""
    normalised: str
    """What the tokens add up to: `text` itself, unless this tokenizer changes texts first."""
    special_tokens: bool
    """Whether special tokens written in the text were read as such, rather than as plain text."""
    token_ids: tuple[int, ...]
    """`(n_tokens,)` ids."""
    pieces: tuple[str, ...]
    """`(n_tokens,)` vocabulary strings, as in transformers' `convert_ids_to_tokens`."""
    token_bytes: tuple[bytes, ...]
    """`(n_tokens,)` true bytes; joined, the UTF-8 of `normalised`. An unknown token has those of the text it
    stands for, a template token none."""
    offsets: tuple[tuple[int, int], ...]
    """`(n_tokens, 2)` start and end, in characters of `normalised`. A token that holds part of a character has the
    characters that it touches."""
    source_offsets: tuple[tuple[int, int], ...]
    """`(n_tokens, 2)` start and end, in characters of `text`: `offsets` where nothing was changed, else as the
    tokenizer itself aligns them."""
    labels: tuple[str, ...]
    """`(n_tokens,)` visible labels: ␣ space, ⏎ newline, <E2 82> part of a character."""
    kinds: tuple[TokenKind, ...]
    """`(n_tokens,)` where each token comes from."""
    words: tuple[int, ...]
    """`(n_tokens,)` 0, 1, 2 …: tokens with the same number were made of one word, as the tokenizer cuts texts into
    words; -1 for a template token."""
    groups: tuple[int, ...]
    """`(n_tokens,)` 0, 1, 2 …: tokens with the same number share what a reader sees as one character."""
    group_texts: tuple[str, ...]
    """`(n_groups,)` the text of each group."""

    def __post_init__(self) -> None:
        n = len(self.token_ids)
        assert all(
            len(field) == n
            for field in (
                self.pieces,
                self.token_bytes,
                self.offsets,
                self.source_offsets,
                self.labels,
                self.kinds,
                self.words,
                self.groups,
            )
        )
        assert len(self.group_texts) == (self.groups[-1] + 1 if n else 0)

    @property
    def n_tokens(self) -> int:
        """Length in tokens."""
        return len(self.token_ids)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Variant:
    """One way to write the same words."""

    letter_case: str
    """as typed, lower case, upper case, or capital first."""
    leading_space: bool
    """Whether a space comes first."""
    tokenization: Tokenization
    """Its tokens."""


def tokenize_text(lm: LanguageModel, text: str, *, special_tokens: bool = True) -> Tokenization:
    """The tokens of `text`, with the tokenizer's template (such as a <s> in front).

    With `special_tokens=False`, names of special tokens in the text, such as <|endoftext|>, are plain text.
    An empty text has no tokens but the template's. Raises InputError (not a text, or too long) and
    UnsupportedError (the tokenizer leaves out part of a character, so that its tokens add up to no text).
    """
    source, n_replaced = replace_surrogates(check_text(text))
    encoding = _encode(lm, source, special_tokens=special_tokens)
    code = piece_code(lm)
    backend = lm.tokenizer.backend_tokenizer
    pieces = tuple(backend.id_to_token(i) or "" for i in encoding.ids)
    read = [
        _read_token(code, *token, special_tokens=special_tokens)
        for token in zip(
            encoding.ids,
            pieces,
            encoding.tokens,
            (source[start:end] for start, end in encoding.offsets),
            encoding.special_tokens_mask,
            strict=True,
        )
    ]
    kinds = tuple(kind for kind, _ in read)
    token_bytes = tuple(data for _, data in read)
    joined = b"".join(token_bytes)
    try:
        normalised = joined.decode()
    except UnicodeDecodeError as error:
        raise UnsupportedError(
            "This tokenizer leaves out part of a character of this text, so its tokens add up to no text. "
            "Take the character out, or choose another model."
        ) from error
    ends = np.cumsum([len(data) for data in token_bytes], dtype=np.int64)
    starts = np.concatenate([[0], ends])[:-1]
    offsets = _character_spans(normalised, starts, ends)
    groups, group_texts = _group_graphemes(normalised, joined, starts.tolist())
    return Tokenization(
        text=source,
        n_replaced=n_replaced,
        normalised=normalised,
        special_tokens=special_tokens,
        token_ids=tuple(encoding.ids),
        pieces=pieces,
        token_bytes=token_bytes,
        offsets=offsets,
        source_offsets=offsets if normalised == source else tuple(encoding.offsets),
        labels=tuple(
            show_text(piece) if kind in {"template", "unknown"} or not data else show_bytes(data)
            for kind, data, piece in zip(kinds, token_bytes, pieces, strict=True)
        ),
        kinds=kinds,
        words=tuple(-1 if word is None else word for word in encoding.word_ids),
        groups=groups,
        group_texts=group_texts,
    )


def compare_variants(lm: LanguageModel, text: str) -> tuple[Variant, ...]:
    """`text` as typed, in lower and upper case and with a capital first, each without and with a leading space.

    Spellings that are the same text are given once. Raises InputError for an empty or long text.
    """
    stem = check_text(text).lstrip(" ")
    if not stem or len(stem) > MAX_COMPARED_CHARACTERS:
        raise InputError(
            f"The text to compare must be 1 to {MAX_COMPARED_CHARACTERS:,} characters after leading spaces. "
            f"Given: {len(stem):,}. Type a word or a sentence."
        )
    spellings: dict[str, str] = {}
    for letter_case, spelling in (
        ("as typed", stem),
        ("lower case", stem.lower()),
        ("upper case", stem.upper()),
        ("capital first", stem[0].upper() + stem[1:]),
    ):
        spellings.setdefault(spelling, letter_case)
    return tuple(
        Variant(
            letter_case=letter_case,
            leading_space=space == " ",
            tokenization=tokenize_text(lm, space + spelling),
        )
        for (spelling, letter_case), space in itertools.product(spellings.items(), ("", " "))
    )


def _encode(lm: LanguageModel, text: str, *, special_tokens: bool) -> Encoding:
    """The tokenizer's own answer for the whole of a `text` without surrogates."""
    backend = lm.tokenizer.backend_tokenizer if special_tokens else lm.plain_tokenizer
    encoding = backend.encode(text)
    if encoding.overflowing or 0 in encoding.attention_mask:
        # Some models are saved with truncation or padding switched on. The switch is the tokenizer's, not ours.
        encoding = _whole_encoders.get(lm)[special_tokens].encode(text)
    return encoding


def _copy_whole(lm: LanguageModel) -> tuple[Tokenizer, Tokenizer]:
    """The plain and the special-token reading tokenizer, copied, neither cutting nor padding."""
    copies = []
    for special_tokens in (False, True):
        whole = Tokenizer.from_str(lm.tokenizer.backend_tokenizer.to_str())
        whole.no_truncation()
        whole.no_padding()
        whole.encode_special_tokens = not special_tokens
        copies.append(whole)
    return copies[0], copies[1]


def _read_token(
    code: PieceCode,
    token_id: int,
    piece: str,
    written: str,
    source: str,
    in_template: int,
    *,
    special_tokens: bool,
) -> tuple[TokenKind, bytes]:
    """Kind and bytes of one token; `source` is the stretch of text that the tokenizer says it is of."""
    if in_template:
        return "template", b""
    # Read as plain text, a special token is never cut out; merges may lead to the same id.
    cut = token_id in code.added and (special_tokens or token_id not in code.special)
    if cut and source.strip() == code.added[token_id].strip():
        return "added", code.added[token_id].encode()
    if token_id == code.unknown_id:
        # A Unigram model says what it could not write; the others only where it was.
        return "unknown", code.without_mark(source if written == piece else written).encode()
    return ("added" if cut and token_id in code.literal else "text"), code.bytes_of(token_id, piece)


def _character_spans(
    text: str, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> tuple[tuple[int, int], ...]:
    """Byte spans to spans of the characters that they touch; an empty span stays empty."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    character_ends = np.cumsum(1 + (codes > 0x7F) + (codes > 0x7FF) + (codes > 0xFFFF))
    first = np.searchsorted(character_ends, starts, side="right")
    after = np.where(ends > starts, np.searchsorted(character_ends, ends, side="left") + 1, first)
    return tuple(zip(first.tolist(), after.tolist(), strict=True))


def _group_graphemes(
    text: str, data: bytes, starts: Sequence[int]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Group number of each token, and the text of each group. A token that starts inside a grapheme cluster
    (Unicode Standard Annex 29, extended) belongs to the group of the token before it."""
    boundaries = {0, *itertools.accumulate(len(match[0].encode()) for match in regex.finditer(r"\X", text))}
    opens = [position in boundaries for position in starts]
    groups = tuple(group - 1 for group in itertools.accumulate(map(int, opens)))
    bounds = [position for position, opening in zip(starts, opens, strict=True) if opening]
    return groups, tuple(data[a:b].decode() for a, b in itertools.pairwise([*bounds, len(data)]))


_whole_encoders: PerModel[tuple[Tokenizer, Tokenizer]] = PerModel(_copy_whole)
