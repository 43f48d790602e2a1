"""The most probable texts that beam search finds: transformers' own search, watched. Draws nothing at random."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt_core.decoding import BeamSettings
from gpt_core.errors import MemoryLimitError, UnsupportedError
from gpt_core.generation import ContinuationDecoder, check_prompt, end_token_ids
from gpt_core.recipes import generate_call

if TYPE_CHECKING:
    import torch

    from gpt_core.model import Control, LanguageModel

#: Most bytes of per-step scores in a beam search: beams × new tokens × vocabulary × 4.
MAX_SCORE_BYTES = 2**30


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


def beam_search(
    lm: LanguageModel, prompt_ids: Sequence[int], settings: BeamSettings, *, control: Control | None = None
) -> BeamResult:
    """The texts that `model.generate` finds by beam search, everything said explicitly.

    `control` is asked at every step and inside every pass, and told how far the search is. Raises InputError,
    ContextLengthError, MemoryLimitError (the scores that transformers keeps would pass MAX_SCORE_BYTES),
    UnsupportedError (a model whose state cannot be reordered), and what `control` raises.
    """
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    from gpt_core.capture import interruptible

    ids = check_prompt(lm, prompt_ids, max_new_tokens=settings.max_new_tokens)
    n_bytes = settings.n_beams * settings.max_new_tokens * lm.geometry.vocab_size * 4
    if n_bytes > MAX_SCORE_BYTES:
        raise MemoryLimitError(
            f"The scores of a beam search must take at most {MAX_SCORE_BYTES / 2**20:,.0f} MiB of memory. Needed: "
            f"{n_bytes / 2**20:,.0f} MiB. Choose fewer beams or fewer new tokens."
        )
    network: Any = lm.network
    started = time.perf_counter()
    n_steps = 0

    class Watch(StoppingCriteria):
        """Never stops a beam by itself; raises where the reader stopped the search."""

        def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
            nonlocal n_steps
            n_steps += 1
            if control is not None:
                control.check()
                control.report(
                    n_steps / settings.max_new_tokens, f"{n_steps} of {settings.max_new_tokens} tokens"
                )
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    prompt = torch.tensor([ids], dtype=torch.int64, device=lm.device)
    with torch.inference_mode(), interruptible(None if control is None else control.check):
        try:
            output = network.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                stopping_criteria=StoppingCriteriaList([Watch()]),
                return_dict_in_generate=True,
                output_scores=True,
                **generate_call(settings, lm),
            )
        except ValueError as error:
            # Recurrent models whose state cannot be put in another order.
            raise UnsupportedError(
                f"{lm.model_id.name} cannot do a beam search: {str(error)[:200]}. Sample instead."
            ) from error
        token_log_probs = network.compute_transition_scores(
            output.sequences, output.scores, output.beam_indices, normalize_logits=False
        )
    end_ids = end_token_ids(lm)
    beams = []
    for row, score in enumerate(output.sequences_scores.tolist()):
        # Shorter beams are filled up; their filling has no beam it came from.
        n_tokens = int((output.beam_indices[row] >= 0).sum())
        token_ids = tuple(output.sequences[row, len(ids) : len(ids) + n_tokens].tolist())
        log_probs = token_log_probs[row, :n_tokens].cpu().numpy()
        decoder = ContinuationDecoder(lm, ids, ())
        beams.append(
            Beam(
                token_ids=token_ids,
                text=decoder.extend(token_ids),
                score=score,
                log_prob=float(log_probs.sum(dtype=np.float64)),
                token_log_probs=log_probs,
                finished=token_ids[-1] in end_ids,
            )
        )
    return BeamResult(beams=tuple(beams), n_steps=n_steps, elapsed=time.perf_counter() - started)
