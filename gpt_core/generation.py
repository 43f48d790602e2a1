"""Continue a text, one token at a time: what was taken, how probable it was, and what else could have come.

The loop is `generate`'s own, taken apart so that a reader can watch it: the same cache, the same stages, the same
draw. Each run owns its random generator, so a seed means the same text whoever else is generating.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gpt_core import sampling
from gpt_core.decoding import GenerationSettings, SamplingSettings
from gpt_core.errors import ContextLengthError, InputError
from gpt_core.validation import check_integer

if TYPE_CHECKING:
    import torch

    from gpt_core.control import Control
    from gpt_core.model import LanguageModel
    from gpt_core.reading import Precision

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
    alternative_removed: np.ndarray
    """`(n_alternatives,)` bool, whether a stage removed them. One that none did may have a probability that float32
    cannot tell from 0."""
    text: str
    """The continuation up to and including this token, without special tokens; a character whose bytes are not all
    there yet is U+FFFD."""
    elapsed: float
    """Seconds since the run started."""
    stop_reason: StopReason | None = None
    """Why this token is the last; None on all others."""
    forced: bool = False
    """True: a reader asked for this token, nothing drew it."""

    def __post_init__(self) -> None:
        """Check that the shapes agree and make the arrays read-only."""
        arrays = (
            self.alternative_ids,
            self.alternative_probs,
            self.alternative_filtered_probs,
            self.alternative_removed,
        )
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
    precision: Precision = "float32",
    keep: bool = False,
) -> Iterator[GenerationStep]:
    """Continue the prompt, one step at a time, until an end token, a stop string or `max_new_tokens`.

    The ids are those of `generate` with every setting given explicitly (`generate_call`) after
    `torch.manual_seed(seed)`, on the same device; with `precision` int8 they need not be. `control` is asked before
    every token and inside every long pass; its CancelledError or DeadlineError comes out of the iterator. With
    `keep`, what was computed is kept for branches. Raises InputError, ContextLengthError and UnsupportedError (no
    int8 here) at once, not at the first step.
    """
    ids = check_prompt(lm, prompt_ids, max_new_tokens=settings.max_new_tokens)
    sampling.check_vocabulary(settings.sampling, lm.geometry.vocab_size)
    check_precision(lm, precision)
    run = _Run(lm, ids, settings, control, precision)
    return run.steps(keep=keep)


def grow_branch(
    lm: LanguageModel,
    prompt_ids: Sequence[int],
    taken_ids: Sequence[int],
    settings: GenerationSettings,
    *,
    control: Control | None = None,
    precision: Precision = "float32",
) -> Iterator[GenerationStep]:
    """Go on from a continuation of which `taken_ids` are given, the last of them where another road was taken.

    Yields at most `max_new_tokens` steps after them, drawn with a generator of the branch's own. What a kept text
    (`keep`) begins with in common is not computed again. Raises as `generate_tokens` does.
    """
    ids = check_prompt(lm, (*prompt_ids, *taken_ids), max_new_tokens=settings.max_new_tokens)
    sampling.check_vocabulary(settings.sampling, lm.geometry.vocab_size)
    check_precision(lm, precision)
    n_prompt = len(prompt_ids)
    run = _Run(lm, ids[:n_prompt], settings, control, precision)
    return run.steps(keep=True, taken=ids[n_prompt:])


def check_precision(lm: LanguageModel, precision: Precision) -> None:
    """Raise UnsupportedError where this model has no int8 decoder on this machine."""
    if precision == "int8":
        from gpt_core.decode_fast import fast_decoder

        fast_decoder(lm, int8=True)


def take_alternative(
    lm: LanguageModel,
    prompt_ids: Sequence[int],
    steps: Sequence[GenerationStep],
    token_id: int,
    settings: GenerationSettings,
) -> GenerationStep:
    """The last of `steps` as if `token_id`, its own or one of its alternatives, had been taken. Runs no model.

    `steps` are the first steps of a continuation of `prompt_ids`; `settings` are those of the branch that begins so.
    Raises InputError for any other token.
    """
    if not steps:
        raise InputError("A branch grows from a token of a continuation. Given: none.")
    step = steps[-1]
    places = np.flatnonzero(step.alternative_ids == token_id)
    changed: dict[str, Any] = {}
    if token_id != step.token_id:
        if not len(places):
            raise InputError(
                f"Token {token_id} is not among the {len(step.alternative_ids)} alternatives kept at step "
                f"{step.index}. Choose one of these."
            )
        prob = step.alternative_probs[places[0]]
        changed = {
            "token_id": int(token_id),
            "prob": float(prob),
            "filtered_prob": float(step.alternative_filtered_probs[places[0]]),
            "rank": 1 + int((step.alternative_probs > prob).sum()),
        }
    decoder = ContinuationDecoder(lm, tuple(prompt_ids), settings.stop_strings)
    for before in steps[:-1]:
        decoder.read(before.token_id)
    forced = dataclasses.replace(step, **changed, forced=True, elapsed=0.0)
    return _finished(forced, decoder, end_token_ids(lm), last=False)


class _Run:
    """One continuation being made."""

    def __init__(
        self,
        lm: LanguageModel,
        prompt_ids: tuple[int, ...],
        settings: GenerationSettings,
        control: Control | None,
        precision: Precision,
    ) -> None:
        self._lm, self._prompt_ids, self._settings = lm, prompt_ids, settings
        self._control, self._precision = control, precision
        self._started = time.perf_counter()
        self._decoder = ContinuationDecoder(lm, prompt_ids, settings.stop_strings)
        self._end_ids = end_token_ids(lm)

    def steps(self, *, keep: bool, taken: tuple[int, ...] = ()) -> Iterator[GenerationStep]:
        """The steps after the tokens `taken`; with some of them, what was kept of such a text is used."""
        import torch

        from gpt_core.reading import keep_text, open_reader

        settings, control, start = self._settings, self._control, len(taken)
        shape = settings.effective_sampling
        for token_id in taken:
            self._decoder.read(token_id)
        generator = torch.Generator(device=self._lm.device).manual_seed(settings.seed)
        reader = open_reader(
            self._lm,
            (*self._prompt_ids, *taken),
            capacity=len(self._prompt_ids) + start + settings.max_new_tokens,
            control=control,
            precision=self._precision,
            reuse=bool(taken),
            n_prompt=len(self._prompt_ids),
        )
        try:
            for index in range(start, start + settings.max_new_tokens):
                if control is not None:
                    control.check()
                token_id, numbers = _take_token(
                    reader.next_logits(), reader.context_ids, shape, generator, settings.n_alternatives
                )
                reader.append(token_id)
                elapsed = time.perf_counter() - self._started
                bare = GenerationStep(index=index, token_id=token_id, text="", elapsed=elapsed, **numbers)
                last = index + 1 == start + settings.max_new_tokens
                step = _finished(bare, self._decoder, self._end_ids, last=last)
                yield step
                if step.stop_reason is not None:
                    return
        finally:
            if keep:
                keep_text(self._lm, reader, n_prompt=len(self._prompt_ids), precision=self._precision)


def _finished(
    step: GenerationStep, decoder: ContinuationDecoder, end_ids: tuple[int, ...], *, last: bool
) -> GenerationStep:
    """`step` with the text so far, and whether it is the last; `decoder` has read what came before it."""
    text, stopped = decoder.read(step.token_id)
    reason: StopReason | None = (
        "end token" if step.token_id in end_ids else "stop string" if stopped else "length" if last else None
    )
    return dataclasses.replace(step, text=text, stop_reason=reason)


def _take_token(
    logits: torch.Tensor,
    context_ids: torch.Tensor,
    shape: SamplingSettings,
    generator: torch.Generator,
    n_alternatives: int,
) -> tuple[int, dict[str, Any]]:
    """The next token from logits `(1, vocab_size)`, and what a step says about it."""
    import torch

    # Entered here and left before the step is handed out: an iterator that is never finished leaves nothing behind.
    with torch.inference_mode():
        # Greedy, the temperature leaves the largest logit alone, and the token is that.
        stop_before = "temperature" if shape.greedy else None
        filtered_logits = sampling.filter_logits(logits, context_ids, shape, stop_before=stop_before)
        if shape.greedy:
            token_id = int(filtered_logits.argmax())
        else:
            token_id = sampling.draw_token(filtered_logits.softmax(dim=-1)[0], generator)
        probs, entropy = sampling.exact_softmax(logits[0])
        top = probs.topk(min(n_alternatives, len(probs)))
        shown = torch.cat([top.indices, top.indices.new_tensor([token_id])])
        if shape.greedy:
            alive = shown == token_id
            kept, n_survivors, filtered_entropy = alive.float(), 1, 0.0
        else:
            survivors = (filtered_logits[0] > -math.inf).nonzero()[:, 0]
            alive, n_survivors = filtered_logits[0, shown] > -math.inf, len(survivors)
            if filtered_logits is logits:  # no stage did anything
                kept, filtered_entropy = probs[shown], entropy
            else:
                # Of those that are left: over the whole vocabulary the zeros would be summed up too.
                few, filtered_entropy = sampling.exact_softmax(filtered_logits[0, survivors])
                kept = torch.zeros_like(probs).index_put_((survivors,), few)[shown]
        return token_id, {
            "prob": float(probs[token_id]),
            "filtered_prob": float(kept[-1]),
            "rank": int((logits[0] > logits[0, token_id]).sum()) + 1,
            "entropy_bits": entropy,
            "filtered_entropy_bits": filtered_entropy,
            "n_survivors": n_survivors,
            "alternative_ids": top.indices.cpu().numpy(),
            "alternative_probs": top.values.cpu().numpy(),
            "alternative_filtered_probs": kept[:-1].cpu().numpy(),
            "alternative_removed": (~alive[:-1]).cpu().numpy(),
        }


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

    def read(self, token_id: int) -> tuple[str, bool]:
        """The continuation with one more token, and whether that completes a stop string."""
        return self.extend((token_id,)), self.completes_stop_string()

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
