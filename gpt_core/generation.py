"""Continue a text, one token at a time: what was taken, how probable it was, and what else could have come.

The loop is `generate`'s own, taken apart so that a reader can watch it: the same cache, the same stages, the same
draw. Each run owns its random generator, so a seed means the same text whoever else is generating.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from gpt_core import sampling
from gpt_core.decoding import GenerationSettings
from gpt_core.errors import ContextLengthError, InputError
from gpt_core.validation import check_integer

if TYPE_CHECKING:
    import torch

    from gpt_core.model import Control, LanguageModel

StopReason = Literal["end token", "stop string", "length"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class GenerationStep:
    """One token of the continuation."""

    index: int
    """0-based place in the continuation."""
    token_id: int
    """The token that was taken."""
    prob: float
    """Its probability under the model as it is: temperature 1, nothing removed."""
    filtered_prob: float
    """Its probability in the distribution after all stages, from which it was drawn; greedy, 1."""
    rank: int
    """1 + the number of tokens whose logit, as the model gave it, is larger."""
    entropy_bits: float
    """Entropy of the model's own distribution, bits."""
    filtered_entropy_bits: float
    """Entropy of the distribution after all stages, bits."""
    n_survivors: int
    """Tokens that no stage removed."""
    alternative_ids: np.ndarray
    """`(n_alternatives,)` int64, the most probable tokens under the model, most probable first."""
    alternative_probs: np.ndarray
    """`(n_alternatives,)` float32, their probabilities under the model."""
    alternative_filtered_probs: np.ndarray
    """`(n_alternatives,)` float32, their probabilities after all stages; 0 where a stage removed them."""
    text: str
    """The continuation up to and including this token, without special tokens; a character whose bytes are not all
    there yet is U+FFFD."""
    elapsed: float
    """Seconds since the run started."""
    stop_reason: StopReason | None
    """Why this token is the last; None on all others."""

    def __post_init__(self) -> None:
        """Check that the shapes agree and make the arrays read-only."""
        arrays = (self.alternative_ids, self.alternative_probs, self.alternative_filtered_probs)
        assert len({array.shape for array in arrays}) == 1
        for array in arrays:
            array.setflags(write=False)


def end_token_ids(lm: LanguageModel) -> tuple[int, ...]:
    """The tokens that end a text, as `generate` knows them: the model's own `eos_token_id`, one, several or none."""
    ids: int | list[int] | None = getattr(lm.network.generation_config, "eos_token_id", None)
    return () if ids is None else (ids,) if isinstance(ids, int) else tuple(ids)


def start_token_ids(lm: LanguageModel) -> tuple[int, ...]:
    """A prompt for a reader who gives none: the token that begins a text, such as <|endoftext|> for GPT-2.

    Raises InputError where the tokenizer has no such token.
    """
    for token_id in (lm.tokenizer.bos_token_id, lm.tokenizer.eos_token_id):
        if isinstance(token_id, int):
            return (token_id,)
    raise InputError("This model has no token that begins a text. Type at least one character.")


def check_prompt(lm: LanguageModel, prompt_ids: Sequence[int], *, max_new_tokens: int) -> tuple[int, ...]:
    """The prompt as ints where it and the new tokens fit into the model's context.

    Raises InputError (empty, or ids outside the vocabulary) and ContextLengthError (with both numbers).
    """
    n_prompt, limit, vocab_size = len(prompt_ids), lm.geometry.context_length, lm.geometry.vocab_size
    if n_prompt == 0:
        start = lm.tokenizer.bos_token or lm.tokenizer.eos_token
        raise InputError(
            "The prompt is empty, and a model cannot continue nothing. Type at least one character"
            + (f", or start from {start}, the token that begins a text." if start else ".")
        )
    if n_prompt + max_new_tokens > limit:
        room = limit - n_prompt
        remedy = (
            f"Set `max_new_tokens` to at most {room:,}, or shorten the prompt."
            if room > 0
            else "Shorten the prompt."
        )
        raise ContextLengthError(
            f"The prompt's tokens and `max_new_tokens` together must be at most {limit:,}, this model's context "
            f"length. Given: {n_prompt:,} + {max_new_tokens:,} = {n_prompt + max_new_tokens:,}. {remedy}"
        )
    return tuple(check_integer("token id", token_id, low=0, high=vocab_size - 1) for token_id in prompt_ids)


def generate_tokens(
    lm: LanguageModel,
    prompt_ids: Sequence[int],
    settings: GenerationSettings,
    *,
    control: Control | None = None,
) -> Iterator[GenerationStep]:
    """Continue the prompt, one step at a time, until an end token, a stop string or `max_new_tokens`.

    The ids are those of `generate` with every setting given explicitly (`generate_call`) after
    `torch.manual_seed(seed)`, on the same device. `control` is asked before every token and inside every pass; its
    CancelledError or DeadlineError comes out of the iterator. Raises InputError and ContextLengthError at once, not
    at the first step.
    """
    ids = check_prompt(lm, prompt_ids, max_new_tokens=settings.max_new_tokens)
    sampling.check_vocabulary(settings.sampling, lm.geometry.vocab_size)
    return _steps(lm, ids, settings, control)


def _steps(
    lm: LanguageModel, prompt_ids: tuple[int, ...], settings: GenerationSettings, control: Control | None
) -> Iterator[GenerationStep]:
    import torch

    started = time.perf_counter()
    generator = torch.Generator(device=lm.device).manual_seed(settings.seed)
    decoder = ContinuationDecoder(lm, prompt_ids, settings.stop_strings)
    reader = _Reader(lm, prompt_ids, control)
    end_ids = end_token_ids(lm)
    for index in range(settings.max_new_tokens):
        if control is not None:
            control.check()
        token_id, numbers = _take_token(reader.next_logits(), reader.context_ids, settings, generator)
        reader.append(token_id)
        text = decoder.extend((token_id,))
        stop_reason: StopReason | None = (
            "end token"
            if token_id in end_ids
            else "stop string"
            if decoder.completes_stop_string()
            else "length"
            if index + 1 == settings.max_new_tokens
            else None
        )
        yield GenerationStep(
            index=index,
            token_id=token_id,
            text=text,
            elapsed=time.perf_counter() - started,
            stop_reason=stop_reason,
            **numbers,
        )
        if stop_reason is not None:
            return


def _take_token(
    logits: torch.Tensor, context_ids: torch.Tensor, settings: GenerationSettings, generator: torch.Generator
) -> tuple[int, dict[str, Any]]:
    """The next token from logits `(1, vocab_size)`, and what a step says about it."""
    import torch

    # Entered here and left before the step is handed out: an iterator that is never finished leaves nothing behind.
    with torch.inference_mode():
        filtered_logits = sampling.filter_logits(logits, context_ids, settings.effective_sampling)
        if settings.effective_sampling.greedy:
            token_id = int(filtered_logits.argmax())
        else:
            token_id = sampling.draw_token(filtered_logits.softmax(dim=-1)[0], generator)
        probs, filtered = sampling.exact_probs(logits), sampling.exact_probs(filtered_logits)
        top = probs.topk(min(settings.n_alternatives, len(probs)))
        return token_id, {
            "prob": float(probs[token_id]),
            "filtered_prob": float(filtered[token_id]),
            "rank": int((logits[0] > logits[0, token_id]).sum()) + 1,
            "entropy_bits": sampling.entropy_bits(probs.cpu().numpy()),
            "filtered_entropy_bits": sampling.entropy_bits(filtered.cpu().numpy()),
            "n_survivors": int((filtered_logits > -math.inf).sum()),
            "alternative_ids": top.indices.cpu().numpy(),
            "alternative_probs": top.values.cpu().numpy(),
            "alternative_filtered_probs": filtered[top.indices].cpu().numpy(),
        }


class _Reader:
    """Feeds the network: the prompt once, then each new token with the keys and values of all before it."""

    def __init__(self, lm: LanguageModel, prompt_ids: tuple[int, ...], control: Control | None) -> None:
        import torch

        self._network = cast(Any, lm.network)
        self._control = control
        self._accepted = inspect.signature(self._network.forward).parameters
        # As `generate` decides: the others keep a state of their own kind.
        self._cacheable = (
            "past_key_values" in self._accepted and self._network._supports_default_dynamic_cache()
        )
        self._cache: Any = None
        self._n_cached = 0
        self.context_ids = torch.tensor([prompt_ids], dtype=torch.int64, device=lm.device)

    def append(self, token_id: int) -> None:
        """Add a token to the text."""
        import torch

        self.context_ids = torch.cat([self.context_ids, self.context_ids.new_tensor([[token_id]])], dim=1)

    def next_logits(self) -> torch.Tensor:
        """The logits `(1, vocab_size)` float32 after the last token of the text."""
        import torch
        from transformers import DynamicCache

        from gpt_core.capture import interruptible

        if self._cache is None and self._cacheable:
            self._cache = DynamicCache(config=self._network.config.get_text_config(decoder=True))
        # Not the cache's own count: recurrent layers have none.
        n_known = self._n_cached
        arguments: dict[str, Any] = {"input_ids": self.context_ids[:, n_known:]}
        if self._cache is not None:
            arguments |= {"past_key_values": self._cache, "use_cache": True}
            self._n_cached = self.context_ids.shape[1]
        elif "use_cache" in self._accepted:
            # Read the whole text again: slow but right.
            arguments["use_cache"] = False
        if "position_ids" in self._accepted:
            n_tokens = self.context_ids.shape[1]
            arguments["position_ids"] = torch.arange(n_known, n_tokens, device=self.context_ids.device)[None]
        if "logits_to_keep" in self._accepted:
            arguments["logits_to_keep"] = 1
        check = None if self._control is None else self._control.check
        with torch.inference_mode(), interruptible(check):
            logits: torch.Tensor = self._network(**arguments, return_dict=True).logits[:, -1]
            return logits.to(dtype=torch.float32, copy=True)


class ContinuationDecoder:
    """Turns the continuation into text as it grows, and sees when a stop string is complete."""

    def __init__(self, lm: LanguageModel, prompt_ids: tuple[int, ...], stop_strings: tuple[str, ...]) -> None:
        self._backend = lm.tokenizer.backend_tokenizer
        self._stop_strings = stop_strings
        # Enough of the prompt that a stop string may begin in it, as in `generate`, and that decoders which treat
        # the first token of a text in a special way do so to the prompt's.
        longest = max((len(text.encode()) for text in stop_strings), default=0)
        self._tail = list(prompt_ids[-(longest + 8) :])
        self._new_ids: list[int] = []
        self._prompt_text = self._decode(skip_special_tokens=True)
        self._seen = self._decode(skip_special_tokens=False)

    def _decode(self, *, skip_special_tokens: bool) -> str:
        text: str = self._backend.decode(self._tail + self._new_ids, skip_special_tokens=skip_special_tokens)
        return text

    def extend(self, token_ids: Sequence[int]) -> str:
        """The continuation with these tokens."""
        self._new_ids += token_ids
        text = self._decode(skip_special_tokens=True)
        return text[_shared_length(self._prompt_text, text) :]

    def completes_stop_string(self) -> bool:
        """Whether what the last token added completes a stop string; to be asked after every token.

        A match that ended earlier does not count, so one inside the prompt never does, but it may begin there.
        """
        if not self._stop_strings:
            return False
        seen = self._decode(skip_special_tokens=False)
        n_before = _shared_length(self._seen, seen)
        self._seen = seen
        return any(seen.find(stop, max(0, n_before - len(stop) + 1)) >= 0 for stop in self._stop_strings)


def _shared_length(before: str, after: str) -> int:
    """How many characters two texts share at their start."""
    if after.startswith(before):
        return len(before)
    return next(
        (i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), len(after)
    )
