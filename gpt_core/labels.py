"""How probable a model finds each of some labels as what follows a prompt, however many tokens a label has."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpt_core.chat import ChatTurn
from gpt_core.errors import ContextLengthError, InputError
from gpt_core.validation import check_text

if TYPE_CHECKING:
    from gpt_core.control import Control
    from gpt_core.model import LanguageModel

MAX_LABELS = 20
MAX_LABEL_CHARACTERS = 200


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class LabelScore:
    """How probable a model finds one label as what follows."""

    label: str
    """The label as given."""
    continuation: str
    """The text that was put after the prompt: the label, and `space` before it where there was none."""
    token_ids: tuple[int, ...]
    """`(n_tokens,)` the tokens that were scored: those of prompt and continuation together, after the tokens that
    all labels share with the prompt."""
    token_log_probs: np.ndarray
    """`(n_tokens,)` float64, nats: log-probability of each, given all before it."""
    log_prob: float
    """Their sum, nats: log-probability of the whole label. A label of more tokens tends to have less."""
    mean_log_prob: float
    """Their mean, nats per token."""
    prob: float
    """`exp(log_prob)`: probability (0..1) that exactly these tokens come next, whatever follows them."""
    share: float
    """`prob` divided by the sum over all labels."""

    def __post_init__(self) -> None:
        """Check that the shapes agree and make the array read-only."""
        assert self.token_log_probs.shape == (len(self.token_ids),)
        self.token_log_probs.setflags(write=False)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class LabelScores:
    """All labels after one prompt."""

    labels: tuple[LabelScore, ...]
    """In the order given."""
    prompt_ids: tuple[int, ...]
    """`(n_prompt_tokens,)` the tokens that every label is conditioned on."""
    boundary_kept: bool
    """False: the last tokens of the prompt change when a label follows, so the labels are scored from before them."""
    notes: tuple[str, ...]
    """What a reader should know about these labels; sentences."""

    @property
    def best(self) -> str:
        """The label with the largest probability, the first of equals."""
        return max(self.labels, key=lambda score: score.log_prob).label

    @property
    def best_by_mean(self) -> str:
        """The label with the largest mean log-probability per token, the first of equals."""
        return max(self.labels, key=lambda score: score.mean_log_prob).label

    @property
    def total_prob(self) -> float:
        """Sum of the probabilities: what the model leaves for everything else is the rest to 1."""
        return sum(score.prob for score in self.labels)


def label_probabilities(
    lm: LanguageModel,
    prompt: str | ChatTurn,
    labels: Sequence[str],
    *,
    space: str = " ",
    control: Control | None = None,
) -> LabelScores:
    """Score each label as the text after `prompt`, `space` between them unless there is white space already.

    `prompt` is a text, or a chat turn, which the label then answers.

    One forward pass for the prompt, shared with every page, and one for each label of several tokens. A label is
    tokenised together with the prompt. Where that changes the prompt's own last tokens (a prompt that ends in a
    space, which a token of the label takes in), every label is scored from the last token that the prompt and all
    of them share, so that they stay comparable; `notes` says so.

    Raises InputError (no, too many, empty or equal labels; labels of the same tokens; a prompt without a token of
    its own), ContextLengthError, and what `trace_tokens` raises.
    """
    from gpt_core.trace import logits_at, trace_tokens

    text = prompt if isinstance(prompt, str) else prompt.text
    continuations = _check_labels(text, labels, space)
    own_ids = _joint_ids(lm, prompt, "")
    joint_ids = [_joint_ids(lm, prompt, continuation) for continuation in continuations]
    n_shared = min(_n_shared(own_ids, ids) for ids in joint_ids)
    if n_shared == 0:
        raise InputError("The prompt has no token of its own before the labels. Type at least one word more.")
    shared = own_ids[:n_shared]
    scored = [ids[n_shared:] for ids in joint_ids]
    _check_tokens(lm, labels, scored, n_shared)

    first = _log_softmax(logits_at(lm, trace_tokens(lm, shared, control=control), [n_shared - 1]))[0]
    log_probs = []
    for number, ids in enumerate(scored):
        if control is not None:
            control.report(number / len(scored), f"Label {number + 1} of {len(scored)}")
        found = [first[ids[0]]]
        if len(ids) > 1:
            trace = trace_tokens(lm, (*shared, *ids[:-1]), control=control)
            rows = _log_softmax(logits_at(lm, trace, range(n_shared, trace.n_tokens)))
            found += [row[token_id] for row, token_id in zip(rows, ids[1:], strict=True)]
        log_probs.append(np.array(found, dtype=np.float64))

    sums = np.array([values.sum() for values in log_probs])
    shares = np.exp(_log_softmax(sums[None]))[0]
    return LabelScores(
        labels=tuple(
            LabelScore(
                label=label,
                continuation=continuation,
                token_ids=ids,
                token_log_probs=values,
                log_prob=float(values.sum()),
                mean_log_prob=float(values.mean()),
                prob=float(np.exp(values.sum())),
                share=float(share),
            )
            for label, continuation, ids, values, share in zip(
                labels, continuations, scored, log_probs, shares, strict=True
            )
        ),
        prompt_ids=shared,
        boundary_kept=n_shared == len(own_ids),
        notes=_notes(labels, scored, len(own_ids) - n_shared),
    )


def _check_labels(prompt: str, labels: Sequence[str], space: str) -> list[str]:
    """The continuations of the labels."""
    if not check_text(prompt):
        raise InputError("The prompt is empty. Type at least one word before the labels.")
    if not 1 <= len(labels) <= MAX_LABELS:
        raise InputError(f"There must be 1 to {MAX_LABELS} labels. Given: {len(labels):,}.")
    continuations: list[str] = []
    for number, label in enumerate(labels, start=1):
        if not label.strip():
            raise InputError(f"Label {number} is empty. Fill it in, or remove it.")
        if len(label) > MAX_LABEL_CHARACTERS:
            raise InputError(
                f"A label must be at most {MAX_LABEL_CHARACTERS} characters. Given: {len(label):,}."
            )
        spaced = prompt[-1].isspace() or label[0].isspace()
        continuation = label if spaced else space + label
        if continuation in continuations:
            raise InputError(f"Label {number} is there twice: {label.strip()!r}. Remove one.")
        continuations.append(continuation)
    return continuations


def continuable_ids(lm: LanguageModel, text: str) -> tuple[int, ...]:
    """The text's tokens, without what a tokenizer's template would put after its end."""
    from gpt_core.tokenizer import tokenize_text

    tokens = tokenize_text(lm, text)
    n_after = len(list(itertools.takewhile(lambda kind: kind == "template", reversed(tokens.kinds))))
    return tokens.token_ids[: tokens.n_tokens - n_after]


def _joint_ids(lm: LanguageModel, prompt: str | ChatTurn, continuation: str) -> tuple[int, ...]:
    """The tokens of prompt and continuation together."""
    if isinstance(prompt, str):
        return continuable_ids(lm, prompt + continuation)
    after = lm.tokenizer.backend_tokenizer.encode(prompt.text_after + continuation, add_special_tokens=False)
    return (*prompt.ids_before, *prompt.prompt_ids, *after.ids)


def _n_shared(first: Sequence[int], second: Sequence[int]) -> int:
    return sum(
        1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    )


def _check_tokens(
    lm: LanguageModel, labels: Sequence[str], scored: Sequence[tuple[int, ...]], n_shared: int
) -> None:
    limit = lm.geometry.context_length
    for label, ids in zip(labels, scored, strict=True):
        if not ids:
            raise InputError(f"The label {label!r} adds no token to the prompt. Choose another.")
        if n_shared + len(ids) > limit:
            raise ContextLengthError(
                f"The prompt and the label {label!r} must be at most {limit:,} tokens, the context length of "
                f"{lm.model_id.name}. Given: {n_shared:,} + {len(ids):,}. Use fewer or shorter examples."
            )
    for (label, ids), (other, other_ids) in itertools.combinations(zip(labels, scored, strict=True), 2):
        if ids == other_ids:
            raise InputError(f"The labels {label!r} and {other!r} are the same tokens. Remove one.")


def _notes(labels: Sequence[str], scored: Sequence[tuple[int, ...]], n_changed: int) -> tuple[str, ...]:
    notes = []
    if n_changed:
        notes.append(
            f"With a label after it, the last {n_changed} token{'s' if n_changed > 1 else ''} of the prompt would be "
            "read otherwise, often because the prompt ends in a space. The labels are scored from the token before."
        )
    pairs = list(itertools.combinations(zip(labels, scored, strict=True), 2))
    for (label, ids), (other, other_ids) in pairs:
        short, long = sorted(((label, ids), (other, other_ids)), key=lambda pair: len(pair[1]))
        if long[1][: len(short[1])] == short[1]:
            notes.append(
                f"The tokens of {short[0]!r} are the beginning of {long[0]!r}: its probability includes that of "
                f"{long[0]!r}, and their shares count that part twice."
            )
        elif ids[0] == other_ids[0]:
            notes.append(
                f"{label!r} and {other!r} begin with the same token: the next token alone cannot tell them apart, "
                "the whole labels do."
            )
    return tuple(notes)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities `(n, vocab_size)` float64, nats."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
