"""The text that everything on the screen is about."""

from dataclasses import dataclass

import streamlit as st

from dashboard import cache
from dashboard.components import link, model_picker
from dashboard.components.message import show_error, show_problem
from gpt_core.errors import GptCoreError
from gpt_core.validation import check_text

KEY = "prompt"
#: The notebook's sentence: fifteen tokens, one word of them misspelt.
DEFAULT = "The CS123 class was very intresting. I learned a lot."
#: The notebook's sentences, for every model.
EXAMPLES = (
    DEFAULT,
    "Agney loves to train DL models",
    "Hello World. This is Agney",
    "Hello, I am Agney and I am a Software Developer at",
)
#: The model in the box has read stories for children; models of the world's text know more.
STORY_EXAMPLES = (
    "Once upon a time, there was a little girl named",
    "The cat sat on the mat. The cat sat on the",
    "One day, a fox and a hen met in the forest. The hen said",
)
WORLD_EXAMPLES = (
    "When Mary and John went to the store, John gave a drink to",
    "The cat sat on the mat. The cat sat on the",
    "The capital of France is Paris. The capital of Japan is",
    "def fibonacci(n):\n    if n < 2:\n        return",
)
MAX_HISTORY = 50


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a page looks at."""

    model: str
    """`source:name@revision`."""
    text: str
    """The text as typed."""
    special_tokens: bool
    """Whether special tokens in the text are read as such."""
    token_ids: tuple[int, ...]
    """The text as ids: at least one, at most the context length."""
    labels: tuple[str, ...]
    """What a reader sees of each token."""


def current() -> str:
    """The text as typed."""
    return str(st.session_state.get(KEY) or "")


def draw() -> None:
    """The text area, examples, and the way back through what was typed before."""
    link.restore(KEY, DEFAULT, lambda text: text, allowed="any text")
    history: list[str] = st.session_state.setdefault("_history", [current()])
    place: int = st.session_state.setdefault("_history_place", 0)
    st.text_area(
        "Prompt (Ctrl/⌘+Enter or Run submits)",
        key=KEY,
        height=130,
        on_change=_remember,
        persist_state="session",
    )
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        st.button("Run", key="prompt_run", type="primary", icon=":material/play_arrow:")
        st.button(
            ":material/undo:",
            key="prompt_back",
            help="Back to the prompt before this one",
            disabled=place == 0,
            on_click=_go,
            args=(-1,),
        )
        st.button(
            ":material/redo:",
            key="prompt_forward",
            help="Forward to the prompt after this one",
            disabled=place >= len(history) - 1,
            on_click=_go,
            args=(1,),
        )
    st.selectbox(
        "Examples",
        (*(STORY_EXAMPLES if _in_the_box() else WORLD_EXAMPLES), *EXAMPLES),
        index=None,
        key="prompt_example",
        placeholder="Choose an example",
        on_change=_take_example,
    )
    if not link.publish(KEY, current()):
        st.caption(
            f":material/link_off: This prompt takes more than {link.MAX_LINK_BYTES:,} bytes in an address, which does "
            "not carry it."
        )


def show_length() -> None:
    """Tokens of the prompt against the context length, at the end of the sidebar; the model must be loaded."""
    model = model_picker.current()
    limit = cache.geometry(model).context_length
    with st.sidebar:
        try:
            tokens = cache.tokenization(model, check_text(current()), special_tokens())
        except GptCoreError:
            return  # the page says why
        name = cache.special_token_in(model, current())
        if name:
            link.restore("special", True, {"1": True, "0": False}.get, allowed="0 or 1")
            st.toggle(
                f"Read `{name}` as the special token",
                key="special",
                help="On, as transformers does: one token. Off: plain text, letter by letter.",
                persist_state="session",
            )
            link.publish("special", "1" if special_tokens() else "0")
        st.progress(min(1.0, tokens.n_tokens / limit), text=f"{tokens.n_tokens:,} of {limit:,} tokens")


def special_tokens() -> bool:
    """Whether special tokens in the text are read as such: as transformers does, unless switched off."""
    if "special" in st.session_state:
        return bool(st.session_state["special"])
    return st.query_params.get("special") != "0"


def require() -> Inputs:
    """The text as ids, at least one and at most the context length; otherwise says what to do and ends the page."""
    model = model_picker.current()
    text = current()
    if text == "":
        st.info("Type a prompt in the sidebar, or choose an example there.", icon=":material/edit:")
        begin = cache.start_token(model)
        if begin:
            st.button(
                "Start from the token that begins a text",
                key="prompt_start",
                on_click=replace,
                args=(begin,),
            )
        st.stop()
    try:
        tokens = cache.tokenization(model, check_text(text), special_tokens())
    except GptCoreError as error:
        show_error(error)
        st.stop()
    if tokens.n_replaced:
        st.caption(
            f":material/info: {tokens.n_replaced} lone surrogate(s) in the prompt, which no encoding can carry, "
            "were replaced by U+FFFD."
        )
    limit = cache.geometry(model).context_length
    if tokens.n_tokens > limit:
        show_problem(
            f"The prompt must be at most {limit:,} tokens, the context length of this model. "
            f"Given: {tokens.n_tokens:,}. Shorten it, or keep one end of it:"
        )
        start = tokens.offsets[tokens.n_tokens - limit][0]
        end = tokens.offsets[limit - 1][1]
        with st.container(horizontal=True):
            for label, kept, name in (
                (f"Keep the first {limit:,} tokens", tokens.normalised[:end], "first"),
                (f"Keep the last {limit:,} tokens", tokens.normalised[start:], "last"),
            ):
                st.button(label, key=f"prompt_keep_{name}", on_click=replace, args=(kept,))
        st.stop()
    if tokens.n_tokens == 0:
        st.info("This prompt has no token. Type at least one character.", icon=":material/edit:")
        st.stop()
    return Inputs(
        model=model,
        text=tokens.text,
        special_tokens=special_tokens(),
        token_ids=tokens.token_ids,
        labels=tokens.labels,
    )


def _in_the_box() -> bool:
    return str(st.session_state.get(model_picker.KEY) or "").startswith("bundled:")


def replace(text: str) -> None:
    """Put another text in the place of the prompt; for callbacks, which run before the text area is drawn."""
    st.session_state[KEY] = text
    _remember()


def _remember() -> None:
    history: list[str] = st.session_state["_history"]
    place: int = st.session_state["_history_place"]
    if history[place] != current():
        history = [*history[: place + 1], current()][-MAX_HISTORY:]
        st.session_state["_history"] = history
        st.session_state["_history_place"] = len(history) - 1


def _go(steps: int) -> None:
    history: list[str] = st.session_state["_history"]
    place = min(len(history) - 1, max(0, st.session_state["_history_place"] + steps))
    st.session_state["_history_place"] = place
    st.session_state[KEY] = history[place]


def _take_example() -> None:
    chosen = st.session_state["prompt_example"]
    if chosen:
        replace(chosen)
        st.session_state["prompt_example"] = None
