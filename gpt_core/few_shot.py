"""Tasks told by examples: the prompt that they make, and what becomes of the answer when examples are taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt_core.chat import ChatTurn, as_chat_turn
from gpt_core.decoding import GenerationSettings, SamplingSettings
from gpt_core.errors import ContextLengthError, InputError
from gpt_core.labels import LabelScores, continuable_ids, label_probabilities
from gpt_core.recipes import new_tokens_within
from gpt_core.validation import check_integer, check_text

if TYPE_CHECKING:
    from gpt_core.control import Control
    from gpt_core.model import LanguageModel

MAX_EXAMPLES = 200
MAX_CELL_CHARACTERS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class FewShotField:
    """One line of a row."""

    name: str
    """Column of the table of examples."""
    prefix: str
    """What stands before the value in the prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FewShotExample:
    """One row with its answer."""

    values: tuple[str, ...]
    """One text for each field of the task."""
    answer: str
    """What the model should say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FewShotTask:
    """A task as data. Its prompt is the header, then the rows, separated; the last row lacks its answer."""

    name: str
    """Key, such as `sentiment`."""
    title: str
    """What a reader sees."""
    header: str
    """First line of the prompt; empty for none."""
    fields: tuple[FewShotField, ...]
    """Lines of a row before its answer."""
    answer_prefix: str
    """What stands before the answer."""
    query_end: str
    """What follows the answer prefix in the last row: the notebook's question ends in a space, its others do not."""
    labels: tuple[str, ...]
    """The possible answers; empty where the answer is free text."""
    examples: tuple[FewShotExample, ...]
    """The notebook's rows."""
    query: tuple[str, ...]
    """The notebook's last row."""
    sampling: SamplingSettings
    """The notebook's settings."""
    max_length: int
    """The notebook's bound on the length in tokens; it counts the prompt."""
    separator: str = "###"
    """The line between rows."""


SENTIMENT = FewShotTask(
    name="sentiment",
    title="Sentiment",
    header="Sentiment Analysis",
    fields=(FewShotField(name="Text", prefix="Text: "),),
    answer_prefix="Sentiment:",
    query_end="",
    labels=("Positive", "Negative"),
    examples=(
        FewShotExample(values=("I hate it when my phone battery dies.",), answer="Negative"),
        FewShotExample(values=("My day has been really great!",), answer="Positive"),
    ),
    query=("This new music video was so bad.",),
    sampling=SamplingSettings(top_k=2, temperature=0.1),
    max_length=55,
)

QUESTIONS = FewShotTask(
    name="questions",
    title="Question answering",
    header="Question/Answering",
    fields=(FewShotField(name="Context", prefix="C: "), FewShotField(name="Question", prefix="Q: ")),
    answer_prefix="A:",
    query_end=" ",
    labels=(),
    examples=(
        FewShotExample(
            values=(
                (
                    "Google was founded in 1998 by Larry Page and Sergey Brian while they were Ph.D students at "
                    "Stanford University in California."
                ),
                "When was Google founded?",
            ),
            answer="1998",
        ),
        FewShotExample(
            values=(
                (
                    "Hugging Face is a company which develops social AI-run chatbot applications. It was "
                    "established in 2016 by Clement "
                ),
                "What does Hugging Face develop?",
            ),
            answer="social A1—run chatbot applications",
        ),
    ),
    query=(
        "Real Madrid is a spanish profesional football club, They have won 14 Champions League Titles.",
        "How many Champions title have Real Madrid won?",
    ),
    sampling=SamplingSettings(top_k=2, temperature=0.7),
    max_length=250,
)

SUMMARY = FewShotTask(
    name="summary",
    title="Summary",
    header=" Summarise:",
    fields=(FewShotField(name="Text", prefix=""),),
    answer_prefix="TL:DR:",
    query_end="",
    labels=(),
    examples=(),
    query=(
        (
            r"Even computing a single attention matrix, however, can become impractical for very large inputs. We "
            r"instead use sparse attention patterns, where each output position only computes weightings from a subset "
            r"of input positions. When the subset is small relative to the full set of inputs (say, \(N'\) elements "
            r"instead of \(N\) elements), the resulting attention computation becomes tractable even for very long "
            r"sequences, with an algorithmic complexity of \(O(N \cdot N')\) instead of \(O(N^2)\)."
            "\n"
            r"To assess the feasibility of the approach, we first visualized the learned attention patterns for deep "
            r"Transformers on images, finding that many showed interpretable and structured sparsity patterns. Each of "
            r"the below images shows which input pixels (highlighted in white) are attended to by a given attention "
            r"head in order to predict the next value in the image. When the input portions are focused on small "
            r"subsets and show a high degree of regularity, the layer is amenable to sparsification."
        ),
    ),
    sampling=SamplingSettings(top_k=3, temperature=0.5, no_repeat_ngram=3),
    max_length=512,
)

#: The notebook's tasks, by name.
TASKS = {task.name: task for task in (SENTIMENT, QUESTIONS, SUMMARY)}


# -- the prompt ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class FewShotPrompt:
    """A prompt and where its parts are."""

    text: str
    """The prompt."""
    n_shots: int
    """Examples in it."""
    example_spans: tuple[tuple[int, int], ...]
    """`(n_shots, 2)` start and end of each example in `text`, in characters."""
    query_span: tuple[int, int]
    """Start and end of the last row."""


def build_prompt(
    task: FewShotTask, examples: Sequence[FewShotExample], query: Sequence[str], *, n_shots: int
) -> FewShotPrompt:
    """The prompt of the first `n_shots` examples and the query.

    Raises InputError: too many or too long cells, a row with other than one text per field, an example without an
    answer (its row is named), an empty query, `n_shots` out of range.
    """
    if len(examples) > MAX_EXAMPLES:
        raise InputError(f"At most {MAX_EXAMPLES} examples. Given: {len(examples):,}. Take some away.")
    check_integer(
        "n_shots", n_shots, low=0, high=len(examples), remedy="Add examples, or ask with fewer of them."
    )
    _check_row(task, "The query", query)
    if not any(value.strip() for value in query):
        raise InputError("The query is empty. Type what the model should answer.")
    rows = []
    for number, example in enumerate(examples[:n_shots], start=1):
        _check_row(task, f"Example {number}", (*example.values, example.answer), n_more=1)
        if not example.answer.strip():
            raise InputError(f"Example {number} has no answer. Fill it in, or remove the row.")
        rows.append(_row(task, example.values, f" {example.answer}"))
    rows.append(_row(task, query, task.query_end))
    text = f"{task.header}\n" if task.header else ""
    spans = []
    for number, row in enumerate(rows):
        if number:
            text += f"\n{task.separator}\n"
        spans.append((len(text), len(text) + len(row)))
        text += row
    return FewShotPrompt(
        text=check_text(text), n_shots=n_shots, example_spans=tuple(spans[:-1]), query_span=spans[-1]
    )


def _row(task: FewShotTask, values: Sequence[str], answer: str) -> str:
    lines = [field.prefix + value for field, value in zip(task.fields, values, strict=True)]
    return "\n".join([*lines, task.answer_prefix + answer])


def _check_row(task: FewShotTask, what: str, values: Sequence[str], *, n_more: int = 0) -> None:
    if len(values) != len(task.fields) + n_more:
        names = ", ".join(field.name for field in task.fields)
        raise InputError(f"{what} must have one text for each of: {names}. Given: {len(values) - n_more}.")
    for value in values:
        if not isinstance(value, str):
            raise InputError(f"{what} must be texts. Given: {type(value).__name__}.")
        if len(value) > MAX_CELL_CHARACTERS:
            raise InputError(
                f"{what}: a text must be at most {MAX_CELL_CHARACTERS:,} characters. Given: {len(value):,}."
            )


def answer_settings(
    task: FewShotTask,
    n_prompt_tokens: int,
    *,
    context_length: int,
    seed: int = 42,
    stop_at_separator: bool = True,
) -> GenerationSettings:
    """The notebook's settings for an answer to a prompt of that many tokens.

    Its `max_length` counts the prompt. It did not stop at the separator, and its answers ran on into invented rows;
    `stop_at_separator=False` does the same.
    """
    return GenerationSettings(
        sampling=task.sampling,
        max_new_tokens=new_tokens_within(task.max_length, n_prompt_tokens, context_length=context_length),
        seed=seed,
        stop_strings=(task.separator,) if stop_at_separator else (),
    )


def read_answer(task: FewShotTask, continuation: str) -> str:
    """The answer in a continuation: what comes before the separator, without space around it."""
    return continuation.partition(task.separator)[0].strip()


# -- zero, one, few -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ShotOutcome:
    """One query asked with some number of examples."""

    n_shots: int
    """Examples before the query."""
    prompt: FewShotPrompt
    """What was asked."""
    turn: ChatTurn | None
    """The same as a chat turn, where that was wished."""
    n_tokens: int
    """Length in tokens, with what a chat template adds."""
    scores: LabelScores | None
    """The labels; None where there are none, or where the prompt is too long."""
    problem: str
    """Why there are no scores; empty where there are, or where no label was asked for."""


def compare_shots(
    lm: LanguageModel,
    task: FewShotTask,
    query: Sequence[str],
    *,
    shots: Sequence[int] | None = None,
    examples: Sequence[FewShotExample] | None = None,
    labels: Sequence[str] | None = None,
    chat: bool = False,
    control: Control | None = None,
) -> tuple[ShotOutcome, ...]:
    """The same query with each number of examples: 0, 1 and all of them unless `shots` says others.

    `examples` and `labels` default to the task's. A prompt that does not fit into the context has a `problem`
    instead of scores; the others are not lost. With `chat`, each prompt is put as a user's turn by the model's
    template, and the labels are scored as the model's answer, without a space. Raises InputError as `build_prompt`
    and `label_probabilities` do, and UnsupportedError as `as_chat_turn` does.
    """
    examples = task.examples if examples is None else examples
    labels = task.labels if labels is None else labels
    outcomes = []
    for n_shots in sorted({0, min(1, len(examples)), len(examples)}) if shots is None else shots:
        prompt = build_prompt(task, examples, query, n_shots=n_shots)
        turn = as_chat_turn(lm, prompt.text) if chat else None
        scores, problem = None, ""
        if labels:
            try:
                # An answer to a turn begins where the template ends, without a space.
                scores = label_probabilities(
                    lm, turn or prompt.text, labels, space="" if chat else " ", control=control
                )
            except ContextLengthError as error:
                problem = str(error)
        outcomes.append(
            ShotOutcome(
                n_shots=n_shots,
                prompt=prompt,
                turn=turn,
                n_tokens=len(turn.token_ids if turn else continuable_ids(lm, prompt.text)),
                scores=scores,
                problem=problem,
            )
        )
    return tuple(outcomes)
