"""Feeding a text to a model: the prompt once, then a token at a time, with the keys and values of all before it.

Three readers behind one interface: the fast loop for GPT-2 and Llama (`decode_fast`), the model's own forward with
its cache, and, for models whose state is of another kind, the whole text again at every token. What a reader knows
can be kept, and another text that begins the same goes on from there: a branch costs only its own tokens.
"""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast
from weakref import WeakKeyDictionary, ref

import torch
from transformers import DynamicCache, DynamicLayer

from gpt_core.anatomy import forward_arguments
from gpt_core.capture import interruptible
from gpt_core.decode_fast import FastDecoder, KeyValues, fast_decoder
from gpt_core.registry import Registry
from gpt_core.row_product import step_twin

if TYPE_CHECKING:
    from gpt_core.control import Control
    from gpt_core.model import LanguageModel

#: Most bytes of keys and values that are kept, of all readers of the page together.
MAX_KEPT_BYTES = 2**29

Precision = Literal["float32", "int8"]


class Reader(Protocol):
    """A text that grows, and the logits after its last token."""

    n_read: int
    """Positions that went through the network so far, by this reader."""

    @property
    def context_ids(self) -> torch.Tensor:
        """`(1, n_tokens)` int64: the text so far."""

    def append(self, token_id: int) -> None:
        """Add a token to the text."""

    def next_logits(self) -> torch.Tensor:
        """The logits `(1, vocab_size)` float32 after the last token of the text."""

    def known(self) -> tuple[Any, int, int] | None:
        """Keys and values, of how many of the text's tokens, and their bytes; None where they cannot be kept."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True, weakref_slot=True)
class KeptText:
    """What a reader knew of a text when it was done. Nobody writes to it any more."""

    token_ids: tuple[int, ...]
    """The tokens whose keys and values are here."""
    state: Any
    """KeyValues of the fast loop, or a transformers cache."""
    n_bytes: int
    """Bytes of `state`."""
    network: Any
    """Weak reference to the network that made it."""


def key_value_bytes(lm: LanguageModel) -> int:
    """Bytes of the keys and values of one token."""
    g = lm.geometry
    return 2 * g.n_layers * g.n_kv_heads * g.d_head * 4


def open_reader(
    lm: LanguageModel,
    token_ids: Sequence[int],
    *,
    capacity: int,
    control: Control | None = None,
    precision: Precision = "float32",
    reuse: bool = False,
    n_prompt: int | None = None,
) -> Reader:
    """A reader of `token_ids` that will grow to at most `capacity` tokens.

    With `reuse`, what the text begins with in common with one that was kept (`keep_text`) is not read again. In int8
    the first `n_prompt` tokens (all of these where None) are read in float32 and each later one by itself, as when it
    was generated: the logits do not depend on what was kept. Raises UnsupportedError for int8 where there is no such
    decoder.
    """
    decoder = fast_decoder(lm, int8=precision == "int8")
    n_exact = len(token_ids) if n_prompt is None else n_prompt
    kept, n_shared = _most_shared(lm, token_ids, _group(lm, precision, n_exact)) if reuse else (None, 0)
    check = None if control is None else control.check
    if decoder is not None:
        # In float32 every token is exact, and all that are new are read at once.
        n_exact = capacity if precision == "float32" else n_exact
        return _FastReader(lm, decoder, token_ids, capacity, check, kept, n_shared, n_exact)
    return PlainReader(lm, [token_ids], check, kept, n_shared)


def keep_text(lm: LanguageModel, reader: Reader, *, n_prompt: int, precision: Precision = "float32") -> None:
    """Keep what a reader knows, for a branch of its text, whose first `n_prompt` tokens are the prompt.

    The least recently used goes when there is too much.
    """
    known = reader.known()
    if known is None:
        return
    token_ids = tuple(reader.context_ids[0].tolist())
    state, n_known, n_bytes = known
    kept = KeptText(token_ids=token_ids[:n_known], state=state, n_bytes=n_bytes, network=ref(lm.network))
    _kept.get_or_make((_group(lm, precision, n_prompt), token_ids), lambda: kept)


def _group(lm: LanguageModel, precision: Precision, n_prompt: int) -> tuple[Any, ...]:
    # The network too: tests put another one under the same name. In int8, the same token has other keys and values as
    # part of a prompt than as a token that was generated.
    n_exact = n_prompt if precision == "int8" else 0
    return (str(lm.model_id), str(lm.device), id(lm.network), precision, n_exact)


def _most_shared(
    lm: LanguageModel, token_ids: Sequence[int], wanted: tuple[Any, ...]
) -> tuple[KeptText | None, int]:
    """The kept text of the group `wanted` that begins like this one for longest, and for how many tokens."""
    best, most = None, 0
    for group, text in _kept.keys():  # noqa: SIM118 - a Registry is no mapping
        if group != wanted:
            continue
        # The last token is always read: its logits are what is asked for.
        if min(_shared(text, token_ids), len(token_ids) - 1) <= most:
            continue
        kept = _kept.get((group, text))
        if kept is None or kept.network() is not lm.network:
            continue
        n_shared = min(_shared(kept.token_ids, token_ids), len(token_ids) - 1)
        if n_shared > most:
            best, most = kept, n_shared
    return best, most


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    return next(
        (i for i, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]),
        min(len(first), len(second)),
    )


class _FastReader:
    """Reads with the fast loop."""

    def __init__(
        self,
        lm: LanguageModel,
        decoder: FastDecoder,
        token_ids: Sequence[int],
        capacity: int,
        check: Callable[[], None] | None,
        kept: KeptText | None,
        n_shared: int,
        n_exact: int,
    ) -> None:
        """`n_exact`: tokens that are read in float32, as many at once as are new; the later ones each by itself."""
        self._decoder, self._check, self._n_exact = decoder, check, n_exact
        self._ids = torch.empty((1, capacity), dtype=torch.int64, device=lm.device)
        self._ids[0, : len(token_ids)] = torch.tensor(token_ids, dtype=torch.int64)
        self._n_tokens = len(token_ids)
        self._state = (
            decoder.new_state(capacity)
            if kept is None or not n_shared
            else cast(KeyValues, kept.state).copy(n_shared, capacity)
        )
        self.n_read = 0

    @property
    def context_ids(self) -> torch.Tensor:
        return self._ids[:, : self._n_tokens]

    def append(self, token_id: int) -> None:
        self._ids[0, self._n_tokens] = token_id
        self._n_tokens += 1

    def next_logits(self) -> torch.Tensor:
        n_known, n_tokens = self._state.n_tokens, self._n_tokens
        n_exact = min(self._n_exact, n_tokens)
        cuts = [n_known, *range(max(n_known + 1, n_exact), n_tokens + 1)]
        # Between two tokens the loop itself asks; inside a long prompt nobody else would.
        check = self._check if n_tokens - n_known > 1 else None
        for start, stop in itertools.pairwise(cuts):
            logits = self._decoder.read(
                self._ids[0, start:stop], self._state, check=check, exact=stop <= self._n_exact
            )
            self.n_read += stop - start
        return logits

    def known(self) -> tuple[Any, int, int]:
        n_tokens = self._state.n_tokens
        state = self._state.copy(n_tokens, n_tokens)
        return state, n_tokens, state.n_bytes


class PlainReader:
    """Reads with the model's own forward: one text, or several of one length, such as the beams of a search."""

    def __init__(
        self,
        lm: LanguageModel,
        texts: Sequence[Sequence[int]],
        check: Callable[[], None] | None,
        kept: KeptText | None = None,
        n_shared: int = 0,
    ) -> None:
        """`check` is called inside a pass; `kept` is what is known of the first `n_shared` tokens of a single text."""
        self._network = cast(Any, lm.network)
        self._step_network = _step_network(lm)
        self._check = check
        self._accepted = forward_arguments(self._network)
        # As `generate` decides: the others keep a state of their own kind.
        self._cacheable = (
            "past_key_values" in self._accepted and self._network._supports_default_dynamic_cache()
        )
        self._cache: Any = None
        self._n_cached = 0
        if kept is not None and n_shared:
            self._cache = copy.deepcopy(kept.state)
            self._cache.crop(n_shared - kept.state.get_seq_length())
            self._n_cached = n_shared
        self.context_ids = torch.tensor([list(ids) for ids in texts], dtype=torch.int64, device=lm.device)
        self.n_read = 0

    def append(self, token_id: int) -> None:
        """Add a token to the text."""
        self._add([token_id])

    def go_on(self, parents: Sequence[int], token_ids: Sequence[int]) -> None:
        """Continue the texts of places `parents`, each with one of `token_ids`."""
        order = self.context_ids.new_tensor(parents)
        self.context_ids = self.context_ids[order]
        self._add(token_ids)
        if self._cache is not None:
            self._cache.reorder_cache(order)

    def _add(self, token_ids: Sequence[int]) -> None:
        column = self.context_ids.new_tensor(token_ids)[:, None]
        self.context_ids = torch.cat([self.context_ids, column], dim=1)

    def next_logits(self) -> torch.Tensor:
        """The logits `(n_texts, vocab_size)` float32 after the last token of each text."""
        if self._cache is None and self._cacheable:
            self._cache = DynamicCache(config=self._network.config.get_text_config(decoder=True))
        # Not the cache's own count: recurrent layers have none.
        n_known = self._n_cached
        arguments: dict[str, Any] = {"input_ids": self.context_ids[:, n_known:]}
        if self._cache is not None:
            arguments |= {"past_key_values": self._cache, "use_cache": True}
        elif "use_cache" in self._accepted:
            # Read the whole text again: slow but right.
            arguments["use_cache"] = False
        if "position_ids" in self._accepted:
            n_texts, n_tokens = self.context_ids.shape
            places = torch.arange(n_known, n_tokens, device=self.context_ids.device)
            arguments["position_ids"] = places.expand(n_texts, -1)
        if "logits_to_keep" in self._accepted:
            arguments["logits_to_keep"] = 1
        with torch.inference_mode(), interruptible(self._check):
            network = self._step_network if arguments["input_ids"].numel() == 1 else self._network
            logits: torch.Tensor = network(**arguments, return_dict=True).logits[:, -1]
            self.n_read += arguments["input_ids"].shape[1]
            if self._cache is not None:
                self._n_cached = self.context_ids.shape[1]
            return logits.to(dtype=torch.float32, copy=True)

    def known(self) -> tuple[Any, int, int] | None:
        """As Reader.known says, of a single text."""
        # Windows and recurrences have forgotten what a shorter text would need.
        if self._cache is None or any(type(layer) is not DynamicLayer for layer in self._cache.layers):
            return None
        tensors = [tensor for layer in self._cache.layers for tensor in (layer.keys, layer.values)]
        # A pass that was stopped half way has filled some layers only.
        if any(tensor is None or tensor.shape[-2] != self._n_cached for tensor in tensors):
            return None
        return self._cache, self._n_cached, sum(t.numel() * t.element_size() for t in tensors)


def _step_network(lm: LanguageModel) -> Any:
    """What reads a single token."""
    if lm.device.type != "cpu":
        return lm.network
    with _lock:
        if lm not in _twins:
            _twins[lm] = step_twin(lm.network)
        return _twins[lm]


_lock = threading.Lock()
_twins: WeakKeyDictionary[LanguageModel, Any] = WeakKeyDictionary()
_kept: Registry[tuple[tuple[Any, ...], tuple[int, ...]], KeptText] = Registry(
    MAX_KEPT_BYTES, lambda kept: kept.n_bytes
)
