"""The most probable texts that beam search finds, one step at a time: which beams go on, which end, which are dropped.

The step is our own, so that a reader can watch it; it takes the decisions of transformers' `generate`, and ends with
its ids and scores. Draws nothing at random.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from gpt_core import sampling
from gpt_core.decoding import BeamSettings, SamplingSettings
from gpt_core.errors import MemoryLimitError
from gpt_core.generation import ContinuationDecoder, check_prompt, end_token_ids

if TYPE_CHECKING:
    import torch

    from gpt_core.control import Control
    from gpt_core.model import LanguageModel

#: Most bytes of keys and values in a beam search: beams × tokens × those of one token.
MAX_BEAM_BYTES = 2**30
#: What `generate` adds to the score of a beam that is out of the race.
_OUT = -1.0e9

BeamState = Literal["kept", "ended", "cut off", "outdone", "dropped"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class BeamCandidate:
    """One way to go on that a step looked at."""

    parent: int
    """Place of the beam that it continues among those that the step before kept, 0 the most probable."""
    token_id: int
    """The token that it adds."""
    token_log_prob: float
    """Log-probability of that token as the search counts it (after the penalties), nats."""
    log_prob: float
    """Sum over its tokens, nats: what candidates are compared by."""
    state: BeamState
    """`kept`: goes on; `ended` or `cut off`: a finished text, among the best so far; `outdone`: finished, and not
    among them; `dropped`: neither."""
    place: int | None
    """Of a kept one, its place among the beams of the next step."""
    score: float | None
    """Of a finished one, `log_prob / n_tokens ** length_penalty`."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class BeamStep:
    """What one step of the search looked at and decided."""

    index: int
    """0-based; the token that candidates add is number `index` of the continuation."""
    candidates: tuple[BeamCandidate, ...]
    """Most probable first."""
    texts: tuple[str, ...]
    """The continuations that go on, in their places."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Beam:
    """One text that beam search found."""

    token_ids: tuple[int, ...]
    """`(n_tokens,)` the continuation, its end token included."""
    text: str
    """The continuation without special tokens."""
    score: float
    """What beams are ranked by: `log_prob / n_tokens ** length_penalty`, nats."""
    log_prob: float
    """Sum of `token_log_probs`, nats."""
    token_log_probs: np.ndarray
    """`(n_tokens,)` float32, nats: log-probability of each token as the search counted it, after the repetition
    penalty and the no-repeat n-gram."""
    finished: bool
    """True: it ended with an end token; False: it was cut off at `max_new_tokens`."""

    def __post_init__(self) -> None:
        """Check that the shapes agree and make the array read-only."""
        assert self.token_log_probs.shape == (len(self.token_ids),)
        self.token_log_probs.setflags(write=False)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class BeamResult:
    """The best texts of a beam search."""

    beams: tuple[Beam, ...]
    """Best first, by score."""
    n_steps: int
    """Passes that the search took."""
    elapsed: float
    """Seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Text:
    """A continuation under way: its tokens, and the log-probability of each."""

    token_ids: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()

    def with_token(self, token_id: int, log_prob: float) -> _Text:
        return _Text(token_ids=(*self.token_ids, token_id), log_probs=(*self.log_probs, log_prob))


def beam_search(
    lm: LanguageModel, prompt_ids: Sequence[int], settings: BeamSettings, *, control: Control | None = None
) -> BeamResult:
    """The texts that `model.generate` finds by beam search: `beam_steps` to its end."""
    steps = beam_steps(lm, prompt_ids, settings, control=control)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: BeamResult = stop.value
            return result


def beam_steps(
    lm: LanguageModel, prompt_ids: Sequence[int], settings: BeamSettings, *, control: Control | None = None
) -> Generator[BeamStep, None, BeamResult]:
    """Search step by step; returns the best texts, which are those of `generate` with the same settings.

    `control` is asked at every step and inside every pass, and told how far the search is. Raises, at once,
    InputError, ContextLengthError and MemoryLimitError (keys and values would pass MAX_BEAM_BYTES), and what
    `control` raises.
    """
    from gpt_core.reading import key_value_bytes

    ids = check_prompt(lm, prompt_ids, max_new_tokens=settings.max_new_tokens)
    n_bytes = settings.n_beams * (len(ids) + settings.max_new_tokens) * key_value_bytes(lm)
    if n_bytes > MAX_BEAM_BYTES:
        raise MemoryLimitError(
            f"The keys and values of a beam search must take at most {MAX_BEAM_BYTES / 2**20:,.0f} MiB of memory. "
            f"Needed: {n_bytes / 2**20:,.0f} MiB. Choose fewer beams or fewer new tokens."
        )
    return _search(lm, ids, settings, control)


def _search(
    lm: LanguageModel, prompt_ids: tuple[int, ...], settings: BeamSettings, control: Control | None
) -> Generator[BeamStep, None, BeamResult]:
    import torch

    from gpt_core.reading import PlainReader

    started = time.perf_counter()
    n_beams, end_ids = settings.n_beams, end_token_ids(lm)
    # Enough that `n_beams` can go on even where all of the first ones end here.
    n_candidates = max(2, 1 + len(end_ids)) * n_beams
    shape = SamplingSettings(
        repetition_penalty=settings.repetition_penalty, no_repeat_ngram=settings.no_repeat_ngram
    )
    # The prompt once for each beam, as `generate` reads it: the same shapes give the same roundings.
    reader = PlainReader(lm, [prompt_ids] * n_beams, None if control is None else control.check)
    running = [_Text()] * n_beams
    # All beams are the same at first: only one of them counts.
    running_scores = torch.full((n_beams,), _OUT)
    running_scores[0] = 0.0
    finished: list[_Text | None] = [None] * n_beams
    finished_scores = torch.full((n_beams,), _OUT)
    improvable = True
    for index in range(settings.max_new_tokens):
        if control is not None:
            control.check()
        with torch.inference_mode():
            log_probs = reader.next_logits().log_softmax(dim=-1)
            log_probs = torch.cat(
                [
                    sampling.filter_logits(
                        log_probs[beam : beam + 1], reader.context_ids[beam : beam + 1], shape
                    )
                    for beam in range(n_beams)
                ]
            ).cpu()
            total = log_probs + running_scores[:, None]
            # Step by step as `generate`: its ties, and its float32.
            sums, places = total.flatten().topk(n_candidates)
            parents, token_ids = (
                (places // log_probs.shape[1]).tolist(),
                (places % log_probs.shape[1]).tolist(),
            )
            token_log_probs = [float(log_probs[p, t]) for p, t in zip(parents, token_ids, strict=True)]
            texts = [
                running[p].with_token(t, lp)
                for p, t, lp in zip(parents, token_ids, token_log_probs, strict=True)
            ]
            last = index + 1 == settings.max_new_tokens
            ended = torch.tensor([last or token_id in end_ids for token_id in token_ids])
            going = (sums + ended.float() * _OUT).topk(n_beams)
            scores = sums / (index + 1) ** settings.length_penalty
            is_full = settings.early_stopping is True and all(text is not None for text in finished)
            among_first = torch.arange(n_candidates) < n_beams
            entering = scores + (float(is_full) + float(not improvable)) * _OUT
            entering = entering + (~(ended & among_first)).float() * _OUT
            finished_scores, best = torch.cat([finished_scores, entering]).topk(n_beams)
            finished = [
                finished[i]
                if i < n_beams
                else (texts[i - n_beams] if bool(ended[i - n_beams] & among_first[i - n_beams]) else None)
                for i in best.tolist()
            ]
            order = going.indices.tolist()
            running = [texts[i] for i in order]
            running_scores = going.values
            reader.go_on([parents[i] for i in order], [token_ids[i] for i in order])
        entered = {i - n_beams for i in best.tolist() if i >= n_beams}

        states: list[BeamState] = [
            ("kept" if i in order else "dropped")
            if not hit
            else "dropped"  # only the first ones may finish
            if i >= n_beams
            else "outdone"
            if i not in entered
            else "ended"
            if token_ids[i] in end_ids
            else "cut off"
            for i, hit in enumerate(ended.tolist())
        ]
        yield BeamStep(
            index=index,
            candidates=tuple(
                BeamCandidate(
                    parent=parents[i],
                    token_id=token_ids[i],
                    token_log_prob=token_log_probs[i],
                    log_prob=float(sums[i]),
                    state=states[i],
                    place=order.index(i) if states[i] == "kept" else None,
                    score=float(scores[i]) if bool(ended[i]) and i < n_beams else None,
                )
                for i in range(n_candidates)
                # Continuations of the copies that did not count.
                if float(sums[i]) > _OUT / 2
            ),
            texts=tuple(
                ContinuationDecoder(lm, prompt_ids, ()).extend(text.token_ids)
                for text, score in zip(running, running_scores.tolist(), strict=True)
                if score > _OUT / 2
            ),
        )
        if control is not None:
            control.report(
                (index + 1) / settings.max_new_tokens, f"{index + 1} of {settings.max_new_tokens} tokens"
            )
        improvable = improvable and _can_improve(
            running_scores, finished, finished_scores, index + 1, settings
        )
        if not improvable or (settings.early_stopping is True and all(text is not None for text in finished)):
            break
    return BeamResult(
        beams=tuple(
            _beam(lm, prompt_ids, text, score, end_ids)
            for text, score in zip(finished, finished_scores.tolist(), strict=True)
            if text is not None
        )[: settings.n_return],
        n_steps=index + 1,
        elapsed=time.perf_counter() - started,
    )


def _can_improve(
    running_scores: torch.Tensor,
    finished: list[_Text | None],
    finished_scores: torch.Tensor,
    n_tokens: int,
    settings: BeamSettings,
) -> bool:
    """Whether the best running beam could still pass the worst finished one, by `generate`'s rule of thumb."""
    if any(text is None for text in finished):
        return True
    # "never" stops only where it is certain, and longer texts can only gain where the penalty is above 0.
    longest = settings.early_stopping == "never" and settings.length_penalty > 0
    length = settings.max_new_tokens if longest else n_tokens
    return float(running_scores[0] / length**settings.length_penalty) > float(finished_scores.min())


def _beam(
    lm: LanguageModel, prompt_ids: tuple[int, ...], text: _Text, score: float, end_ids: tuple[int, ...]
) -> Beam:
    return Beam(
        token_ids=text.token_ids,
        text=ContinuationDecoder(lm, prompt_ids, ()).extend(text.token_ids),
        score=score,
        log_prob=math.fsum(text.log_probs),
        token_log_probs=np.array(text.log_probs, dtype=np.float32),
        finished=text.token_ids[-1] in end_ids,
    )
