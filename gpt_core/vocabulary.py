"""A model's vocabulary: the true bytes and the visible label of each token, and which tokens hold a string.

A vocabulary writes its tokens in a code of its own: byte-level BPE (GPT-2, Llama 3, Qwen) writes each byte as one
printable character, SentencePiece-like vocabularies (Llama 2, Mistral, Gemma) write a space as ▁ and a lone byte as
<0xE2>, WordPiece marks continuations with ##. Here the code is undone. Nothing is known of any particular text.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from gpt_core.validation import check_integer, check_text
from gpt_core.visible import replace_surrogates, show_bytes, show_text

if TYPE_CHECKING:
    from gpt_core.model import LanguageModel

T = TypeVar("T")

_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """Character to byte, as in GPT-2's `bytes_to_unicode`.

    Printable Latin-1 characters stand for themselves; the other 68 bytes, in order, are U+0100 and up.
    Source: https://github.com/openai/gpt-2/blob/master/src/encoder.py
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class PieceCode:
    """How one tokenizer writes its tokens as vocabulary strings."""

    byte_level: bool
    """Each character of a piece stands for one byte."""
    space_mark: str | None
    """The string that stands for a space (▁)."""
    byte_fallback: bool
    """Pieces such as <0xE2> stand for one byte."""
    prefix: str
    """Marks a piece that continues a word (##); not part of the text."""
    suffix: str
    """Marks a piece that ends a word (</w>); not part of the text."""
    unknown_id: int | None
    """The id that stands for whatever the vocabulary cannot write."""
    added: Mapping[int, str]
    """Id to content of the tokens that are cut out of a text before anything else."""
    special: frozenset[int]
    """Those of them that are special: cut out unless the text is read as plain text."""
    literal: frozenset[int]
    """Those of them whose piece is the very text, not written in the vocabulary's code."""

    def bytes_of(self, token_id: int, piece: str) -> bytes:
        """The bytes that the token stands for, whatever is around it."""
        if token_id in self.literal:
            return self.added[token_id].encode()
        if self.byte_level:
            try:
                return bytes(map(_BYTE_OF.__getitem__, piece))
            except KeyError:
                return piece.encode()
        if self.is_byte(piece):
            return bytes.fromhex(piece[3:5])
        if self.prefix and piece.startswith(self.prefix):
            piece = piece[len(self.prefix) :]
        if self.suffix and piece.endswith(self.suffix):
            piece = piece[: -len(self.suffix)]
        return self.without_mark(piece).encode()

    def is_byte(self, piece: str) -> bool:
        """Whether the piece is a fallback for a single byte."""
        return self.byte_fallback and _BYTE_PIECE.fullmatch(piece) is not None

    def without_mark(self, text: str) -> str:
        """`text` with the space mark turned back into spaces."""
        return text.replace(self.space_mark, " ") if self.space_mark else text


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class VocabularyMatches:
    """Tokens that hold a string."""

    query: str
    """The string that was looked for."""
    token_ids: tuple[int, ...]
    """`(n_shown,)` ids of the matches, shortest first, then by id; at most the limit."""
    pieces: tuple[str, ...]
    """`(n_shown,)` their vocabulary strings."""
    labels: tuple[str, ...]
    """`(n_shown,)` their visible labels."""
    n_found: int
    """How many tokens of the whole vocabulary match."""
    token_id: int | None
    """The token that is exactly the query; None where there is none."""
    spaced_token_id: int | None
    """The token that is the query after one space; None where there is none."""
    piece_token_id: int | None
    """The token whose vocabulary string is the query, as in `query in tokenizer.get_vocab()`; else None."""


def label_tokens(lm: LanguageModel, token_ids: Sequence[int]) -> tuple[str, ...]:
    """Visible labels `(n_tokens,)` of any tokens. Raises InputError where an id is outside the vocabulary."""
    code = piece_code(lm)
    return tuple(_label(code, i, _piece(lm, i)) for i in check_ids(lm, token_ids))


def token_bytes_of(lm: LanguageModel, token_id: int) -> bytes:
    """The bytes that a token stands for by itself; b"" for a row of the embedding that no token uses.

    An unknown token has none of its own: given are those of its name. Raises InputError for an id out of range.
    """
    (token_id,) = check_ids(lm, [token_id])
    piece = _piece(lm, token_id)
    return b"" if piece is None else piece_code(lm).bytes_of(token_id, piece)


def pieces_of(lm: LanguageModel, token_ids: Sequence[int]) -> tuple[str | None, ...]:
    """Vocabulary strings `(n_tokens,)`; None for an id that no token uses. Raises InputError out of range."""
    return tuple(_piece(lm, i) for i in check_ids(lm, token_ids))


def check_ids(lm: LanguageModel, token_ids: Sequence[int]) -> tuple[int, ...]:
    """`token_ids` as ints of the vocabulary, else InputError naming the range."""
    highest = max(lm.geometry.vocab_size, lm.tokenizer.backend_tokenizer.get_vocab_size()) - 1
    return tuple(check_integer("token id", i, low=0, high=highest) for i in token_ids)


def find_tokens(lm: LanguageModel, query: str, *, limit: int = 200) -> VocabularyMatches:
    """Tokens whose text or visible label contains `query`, letter for letter; no pattern language.

    An empty query finds nothing. Raises InputError for a text that is too long or a limit out of 1..1,000.
    """
    query, _ = replace_surrogates(check_text(query))
    limit = check_integer("limit", limit, low=1, high=1000)
    index = _indices.get(lm)
    found = [i for i, text, label in index.entries if query in text or query in label] if query else []
    shown = sorted(found, key=lambda i: (len(index.label_of[i]), i))[:limit]
    return VocabularyMatches(
        query=query,
        token_ids=tuple(shown),
        pieces=tuple(_piece(lm, i) or "" for i in shown),
        labels=tuple(index.label_of[i] for i in shown),
        n_found=len(found),
        token_id=index.id_of.get(query.encode()) if query else None,
        spaced_token_id=index.id_of.get(b" " + query.encode()) if query else None,
        piece_token_id=lm.tokenizer.backend_tokenizer.token_to_id(query) if query else None,
    )


def piece_code(lm: LanguageModel) -> PieceCode:
    """How this model's tokenizer writes its pieces; read once per model."""
    return _codes.get(lm)


def _piece(lm: LanguageModel, token_id: int) -> str | None:
    piece: str | None = lm.tokenizer.backend_tokenizer.id_to_token(token_id)
    return piece


def _label(code: PieceCode, token_id: int, piece: str | None) -> str:
    if piece is None:
        return f"[{token_id}: no token]"
    if token_id == code.unknown_id:
        return show_text(piece)
    return show_bytes(code.bytes_of(token_id, piece)) or show_text(piece)


def _read_code(lm: LanguageModel) -> PieceCode:
    backend = lm.tokenizer.backend_tokenizer
    model = backend.model
    parts = [
        *_components(backend.normalizer),
        *_components(backend.pre_tokenizer),
        *_components(backend.decoder),
    ]
    unknown = getattr(model, "unk_token", None)
    if unknown is None and type(model).__name__ == "Unigram":
        # The binding does not show a Unigram model's unknown id; its state does.
        unknown_id = json.loads(model.__getstate__())["unk_id"]
    else:
        unknown_id = None if unknown is None else model.token_to_id(unknown)
    added = {i: token.content for i, token in backend.get_added_tokens_decoder().items()}
    special = frozenset(i for i, token in backend.get_added_tokens_decoder().items() if token.special)
    kinds = {part["type"] for part in parts}
    return PieceCode(
        byte_level="ByteLevel" in kinds,
        space_mark=next((mark for part in parts if (mark := _space_mark(part))), None),
        byte_fallback="ByteFallback" in kinds or bool(getattr(model, "byte_fallback", False)),
        prefix=getattr(model, "continuing_subword_prefix", None) or "",
        suffix=getattr(model, "end_of_word_suffix", None) or "",
        unknown_id=unknown_id,
        added=added,
        special=special,
        # Gemma adds runs of ▁ that its own merges reach too: there they are spaces, in the vocabulary's code.
        literal=frozenset(i for i in added if i in special or model.token_to_id(added[i]) != i),
    )


def _components(part: Any) -> Iterator[dict[str, Any]]:
    """The settings of a normalizer, pre-tokenizer or decoder, those inside a sequence one by one."""
    if part is None:
        return
    pending = [json.loads(part.__getstate__())]
    while pending:
        settings = pending.pop(0)
        inner = settings.get("normalizers") or settings.get("pretokenizers") or settings.get("decoders")
        if inner:
            pending[:0] = inner
        else:
            yield settings


def _space_mark(part: Mapping[str, Any]) -> str | None:
    """The string that a Metaspace or a `Replace(" ", mark)` / `Replace(mark, " ")` puts for a space."""
    if part["type"] == "Metaspace":
        return str(part["replacement"])
    if part["type"] == "Replace":
        pattern, content = part["pattern"].get("String"), part["content"]
        if pattern == " " and content.strip():
            return str(content)
        if content == " " and pattern is not None and pattern.strip():
            return str(pattern)
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class _SearchIndex:
    entries: tuple[tuple[int, str, str], ...]  # id, decoded text, visible label
    label_of: Mapping[int, str]
    id_of: Mapping[bytes, int]


def _build_index(lm: LanguageModel) -> _SearchIndex:
    code = piece_code(lm)
    entries = []
    id_of: dict[bytes, int] = {}
    bytes_pieces: dict[bytes, int] = {}
    vocabulary = sorted(lm.tokenizer.backend_tokenizer.get_vocab().items(), key=lambda item: item[1])
    for piece, token_id in vocabulary:
        data = code.bytes_of(token_id, piece)
        entries.append((token_id, data.decode(errors="replace"), _label(code, token_id, piece)))
        if token_id != code.unknown_id:
            (bytes_pieces if code.is_byte(piece) else id_of).setdefault(data, token_id)
    return _SearchIndex(
        entries=tuple(entries),
        label_of={token_id: label for token_id, _, label in entries},
        id_of=bytes_pieces | id_of,
    )


class PerModel(Generic[T]):
    """A table made once per model and dropped with it: the only state here, a function of the model alone."""

    def __init__(self, make: Callable[[LanguageModel], T]) -> None:
        self._make = make
        self._tables: WeakKeyDictionary[LanguageModel, T] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def get(self, lm: LanguageModel) -> T:
        """The model's table."""
        with self._lock:
            if lm not in self._tables:
                self._tables[lm] = self._make(lm)
            return self._tables[lm]


_codes: PerModel[PieceCode] = PerModel(_read_code)
_indices: PerModel[_SearchIndex] = PerModel(_build_index)
