"""Token ids back to text: ids that a reader pasted, and what they stand for."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt_core.errors import InputError
from gpt_core.validation import check_integer, check_text
from gpt_core.vocabulary import check_ids, label_tokens, pieces_of, token_bytes_of

if TYPE_CHECKING:
    from gpt_core.model import LanguageModel

#: Most ids that are read from a text at once.
MAX_IDS = 10_000


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class DecodedIds:
    """Ids turned back into text."""

    token_ids: tuple[int, ...]
    """`(n_tokens,)` ids."""
    pieces: tuple[str | None, ...]
    """`(n_tokens,)` vocabulary strings; None for a row of the embedding that no token uses."""
    token_bytes: tuple[bytes, ...]
    """`(n_tokens,)` the bytes of each token by itself."""
    labels: tuple[str, ...]
    """`(n_tokens,)` visible labels."""
    text: str
    """The text by the tokenizer's own decoder, special tokens kept; bytes that are no UTF-8 are U+FFFD."""


def decode_ids(lm: LanguageModel, token_ids: Sequence[int]) -> DecodedIds:
    """The text that `token_ids` stand for. Raises InputError, naming the range, for an id outside the vocabulary."""
    ids = check_ids(lm, token_ids)
    return DecodedIds(
        token_ids=ids,
        pieces=pieces_of(lm, ids),
        token_bytes=tuple(token_bytes_of(lm, i) for i in ids),
        labels=label_tokens(lm, ids),
        text=lm.tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=False),
    )


def parse_ids(text: str, *, limit: int = MAX_IDS) -> tuple[int, ...]:
    """Ids written as "15496, 2159 13" or as a JSON list. Raises InputError for anything else, or more than `limit`."""
    text = check_text(text).strip()
    values: Sequence[Any] = _parse_list(text) if text.startswith("[") else re.findall(r"[^\s,;]+", text)
    if len(values) > limit:
        raise InputError(f"At most {limit:,} ids are read at once. Given: {len(values):,}. Paste fewer.")
    return tuple(_parse_id(value) for value in values)


def _parse_list(text: str) -> list[Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            "The ids start like a JSON list but are none. Write them as 15496, 2159, 13."
        ) from error
    if isinstance(values, list) and len(values) == 1 and isinstance(values[0], list):
        values = values[0]  # as transformers prints a batch of one
    if not isinstance(values, list):
        raise InputError("The ids must be one list. Write them as 15496, 2159, 13.")
    return values


def _parse_id(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,12}", value):
        value = int(value)
    return check_integer("token id", value, low=0, high=2**31 - 1, remedy="Write ids as 15496, 2159, 13.")
