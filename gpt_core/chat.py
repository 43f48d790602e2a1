"""A prompt as a chat turn: what an instruct model's template puts around it. Runs no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt_core.errors import InputError, UnsupportedError
from gpt_core.validation import check_text
from gpt_core.visible import replace_surrogates

if TYPE_CHECKING:
    from gpt_core.model import LanguageModel

#: Stands for the prompt while the template around it is read; private-use characters that no template holds.
_PLACEHOLDER = "\ue0f0\ue0f1\ue0f2"


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ChatTurn:
    """A user's turn, and the beginning of the model's."""

    text: str
    """Everything that the model reads: what comes before, the prompt, what comes after."""
    text_before: str
    """What the template puts before the prompt."""
    text_after: str
    """What it puts after: the end of the turn, and the beginning of the answer."""
    prompt: str
    """The prompt as the template puts it in; some trim white space around it."""
    token_ids: tuple[int, ...]
    """`(n_tokens,)` the tokens of `text`."""
    n_before: int
    """Tokens that the template adds before the prompt."""
    n_after: int
    """Tokens that it adds after the prompt."""
    plain: bool
    """True: the prompt names special tokens; they were read as plain text, so that a prompt cannot end its turn."""

    @property
    def ids_before(self) -> tuple[int, ...]:
        """`(n_before,)` ids that the template adds before the prompt."""
        return self.token_ids[: self.n_before]

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """Ids of the prompt, with any token that reaches across its borders."""
        return self.token_ids[self.n_before : len(self.token_ids) - self.n_after]

    @property
    def ids_after(self) -> tuple[int, ...]:
        """`(n_after,)` ids that the template adds after the prompt."""
        return self.token_ids[len(self.token_ids) - self.n_after :]


def has_chat_template(lm: LanguageModel) -> bool:
    """Whether the model was made to take turns."""
    return bool(getattr(lm.tokenizer, "chat_template", None))


def as_chat_turn(lm: LanguageModel, prompt: str) -> ChatTurn:
    """The prompt as one user turn by the model's own template, the model's answer to come next.

    The ids are those of `apply_chat_template(..., add_generation_prompt=True)`, except where the prompt names a
    special token. Raises InputError (empty prompt) and UnsupportedError (no template, or one that cannot be
    applied to a single turn).
    """
    prompt, _ = replace_surrogates(check_text(prompt))
    if not prompt.strip():
        raise InputError("The prompt is empty. Type what you want to say to the model.")
    if not has_chat_template(lm):
        raise UnsupportedError(
            f"{lm.model_id.name} has no chat template: it continues texts and was not made to take turns. "
            "Switch the chat turn off, or choose an instruct model."
        )
    before, placeholder, after = _render(lm, _PLACEHOLDER).partition(_PLACEHOLDER)
    text = _render(lm, prompt)
    inner = len(text) - len(before) - len(after)
    if not placeholder or inner < 0 or not text.startswith(before) or not text.endswith(after):
        raise UnsupportedError(
            f"The chat template of {lm.model_id.name} changes with what it holds, so what it adds cannot be told "
            "apart from the prompt. Switch the chat turn off."
        )
    shown = text[len(before) : len(before) + inner]

    backend = lm.tokenizer.backend_tokenizer
    special = [token.content for token in backend.get_added_tokens_decoder().values() if token.special]
    plain = any(content in shown for content in special)
    if plain:
        parts = [
            tokenizer.encode(part, add_special_tokens=False).ids
            for tokenizer, part in ((backend, before), (lm.plain_tokenizer, shown), (backend, after))
        ]
        ids, n_before, n_after = [*parts[0], *parts[1], *parts[2]], len(parts[0]), len(parts[2])
    else:
        # The template writes its own beginning of text, so the tokenizer adds none.
        encoding = backend.encode(text, add_special_tokens=False)
        ids = encoding.ids
        n_before = sum(end <= len(before) for _, end in encoding.offsets)
        n_after = sum(start >= len(before) + inner for start, _ in encoding.offsets)
    return ChatTurn(
        text=text,
        text_before=before,
        text_after=after,
        prompt=shown,
        token_ids=tuple(ids),
        n_before=n_before,
        n_after=n_after,
        plain=plain,
    )


def _render(lm: LanguageModel, content: str) -> str:
    """The template filled with one user turn."""
    from jinja2 import TemplateError

    tokenizer: Any = lm.tokenizer
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
    except (TemplateError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()
        raise UnsupportedError(
            f"The chat template of {lm.model_id.name} cannot be applied to a single turn: "
            f"{(reason[0] if reason else type(error).__name__)[:200]}. Switch the chat turn off."
        ) from error
    assert isinstance(text, str)
    return text
