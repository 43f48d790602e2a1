"""What does a model see instead of letters, and why are words cut where they are?"""

import itertools

import pandas as pd
import streamlit as st

from dashboard import cache
from dashboard.components import link, model_picker, prompt
from dashboard.components.csv import csv_bytes
from dashboard.components.explain import show_sources
from dashboard.components.message import show_error
from dashboard.components.token_strip import MAX_TOKENS, token_strip
from gpt_core.catalog import load_name
from gpt_core.errors import GptCoreError, UnsupportedError
from gpt_core.snippets.tokenizer import tokenizer_snippet
from gpt_core.token_ids import parse_ids
from gpt_core.validation import check_text
from gpt_core.visible import show_graphemes, show_text

NOTEBOOK = """\
tokenizer = GPT2Tokenizer.from_pretrained("gpt2")
tokenizer("Hello World. This is Agney")['input_ids']      # [15496, 2159, 13, 770, 318, 2449, 1681]
tokenizer(" Hello World. This is Agney")['input_ids']     # [18435, 2159, 13, 770, 318, 2449, 1681]

'Agney' in tokenizer.get_vocab()                          # False
tokenizer.convert_ids_to_tokens(tokenizer.encode('Agney loves to train DL models'))
# ['Ag', 'ney', 'Ġloves', 'Ġto', 'Ġtrain', 'ĠDL', 'Ġmodels']
tokenizer.encode('agney loves to train DL models')        # [363, 1681, 10408, 284, 4512, 23641, 4981]"""
#: The notebook's word, which GPT-2's vocabulary lacks, and its sentence as ids.
WORD, SENTENCE = "Agney", "Hello World. This is Agney"
#: Longest word that is taken apart; a tokenizer that cuts no words takes the whole prompt for one.
MAX_WORD = 100

st.title("Tokenizer")
st.markdown(
    "A model reads no letters: a text is cut into tokens, each of them a number in a fixed vocabulary."
)
model, text, special_tokens = model_picker.current(), prompt.current(), prompt.special_tokens()
if text == "":
    st.info("Type a prompt in the sidebar, or choose an example there.", icon=":material/edit:")
    st.stop()
try:
    tokens = cache.tokenization(model, check_text(text), special_tokens)
except GptCoreError as error:
    show_error(error)
    st.stop()
if st.session_state.get("_tokenizer_shown") != (model, text, special_tokens):
    st.session_state["_tokenizer_shown"] = (model, text, special_tokens)
    st.session_state["tokenizer_clicked"] = None
clicked = token_strip(
    tokens.labels,
    key="tokenizer_strip",
    ids=tokens.token_ids,
    groups=tokens.groups,
    graphemes=tokens.group_texts,
    hover=[
        f"{data.hex(' ').upper() or 'no bytes of the text'}\ncharacters {start} to {stop}, {kind}"
        for data, (start, stop), kind in zip(tokens.token_bytes, tokens.offsets, tokens.kinds, strict=True)
    ],
    selected=st.session_state.get("tokenizer_clicked"),
    select_into="tokenizer_clicked",
    name="The prompt as tokens",
)
n_bytes = len(tokens.normalised.encode())
st.text(
    f"{tokens.n_tokens:,} tokens, {len(tokens.normalised):,} characters, {n_bytes:,} bytes in UTF-8, "
    f"{n_bytes / max(1, tokens.n_tokens):.2f} bytes per token"
)
st.caption(
    "␣ is a space, ⏎ a newline, ⇥ a tab, `<E2 82>` bytes that are only part of a character. Tokens underlined together "
    "share what you see as one character. Click a token to take its word apart below."
)
if tokens.n_replaced:
    st.caption(
        f":material/info: {tokens.n_replaced} lone surrogate(s), which no encoding can carry, replaced by U+FFFD."
    )
if "added" in tokens.kinds:
    st.caption(
        ":material/info: The prompt holds added tokens, such as `<|endoftext|>`, which are cut out of it before "
        "anything else. The switch in the sidebar reads special ones as plain text."
    )
if "unknown" in tokens.kinds:
    st.caption(
        ":material/info: This vocabulary cannot write all of the prompt: the model sees the same unknown token "
        "whatever stands there."
    )
if tokens.normalised != tokens.text:
    st.markdown("This tokenizer changes a text before it cuts it. As typed, and as the tokens add up:")
    st.code(show_text(tokens.text[:2000]), language=None, wrap_lines=True)
    st.code(show_text(tokens.normalised[:2000]), language=None, wrap_lines=True)

frame = pd.DataFrame(
    {
        "position": range(tokens.n_tokens),
        "id": tokens.token_ids,
        "token": tokens.pieces,
        "shown as": tokens.labels,
        "bytes": [data.hex(" ").upper() for data in tokens.token_bytes],
        "from": [start for start, _ in tokens.offsets],
        "to": [stop for _, stop in tokens.offsets],
        "kind": tokens.kinds,
    }
)
st.dataframe(
    frame.head(MAX_TOKENS),
    hide_index=True,
    height="content" if tokens.n_tokens <= 8 else 320,
    key="tokenizer_table",
    alt="The tokens of the prompt",
    column_config={
        "token": st.column_config.TextColumn(help="As the vocabulary writes it; in GPT-2's, Ġ is a space."),
        "bytes": st.column_config.TextColumn(
            help="In hexadecimal. Put together, they are the text in UTF-8."
        ),
        "from": st.column_config.NumberColumn(help="First character of the text that the token touches."),
        "to": st.column_config.NumberColumn(help="Character after the last."),
        "kind": st.column_config.TextColumn(
            help="text; added: cut out of the text first, such as <|endoftext|>; template: put around every text; "
            "unknown: stands for what the vocabulary cannot write."
        ),
    },
)
st.download_button(
    "CSV",
    data=lambda: csv_bytes(frame),
    file_name="tokens.csv",
    mime="text/csv",
    icon=":material/download:",
    key="tokenizer_csv",
)

st.subheader("A word taken apart")
link.restore(
    "tokenizer_word", WORD, lambda word: word if len(word) <= MAX_WORD else None, allowed="a short text"
)
if clicked is not None and tokens.words[clicked] >= 0:
    of_word = [i for i, word in enumerate(tokens.words) if word == tokens.words[clicked]]
    whole = tokens.text[tokens.source_offsets[of_word[0]][0] : tokens.source_offsets[of_word[-1]][1]]
    of_token = tokens.text[slice(*tokens.source_offsets[clicked])]
    st.session_state["tokenizer_word"] = whole if len(whole) <= MAX_WORD else of_token[:MAX_WORD]
word = st.text_input("Word", key="tokenizer_word", max_chars=MAX_WORD, persist_state="session")
link.show_notice("tokenizer_word")
link.publish("tokenizer_word", word)
if word.strip():
    found = cache.found_tokens(model, word)
    steps_column, search_column = st.columns([3, 2], gap="large")
    with steps_column:
        st.text(
            f"“{show_graphemes(word)}” "
            + ("is not in the vocabulary" if found.token_id is None else f"is token {found.token_id}")
            + "; after a space, it "
            + ("is not either." if found.spaced_token_id is None else f"is token {found.spaced_token_id}.")
        )
        try:
            parts = cache.merges(model, word, special_tokens)
            rows = [(part, n) for part in parts for n in range(len(part.steps) + 1)]
            st.dataframe(
                pd.DataFrame(
                    {
                        "step": [n for _, n in rows],
                        "merged": [
                            f"{part.steps[n - 1].left} + {part.steps[n - 1].right}" if n else ""
                            for part, n in rows
                        ],
                        "rank": [part.steps[n - 1].rank if n else None for part, n in rows],
                        "parts": [" · ".join(part.labels_after(n)) for part, n in rows],
                    }
                ),
                hide_index=True,
                height="content" if len(rows) <= 8 else 320,
                placeholder="",
                key="tokenizer_merges",
                alt="The merges of the word",
                column_config={
                    "rank": st.column_config.NumberColumn(
                        help="Place of the rule in the list that training left: lower goes first."
                    ),
                    "parts": st.column_config.TextColumn(width="large"),
                },
            )
            apart = [
                f"{left} and {right}"
                for part in parts
                for left, right in itertools.pairwise(part.labels_after(len(part.steps)))
            ]
            if any(part.whole for part in parts):
                st.text("A part with no steps was taken from the vocabulary as it is.")
            if apart:
                st.text(f"No rule merges {', nor '.join(apart[:4])}{' …' if len(apart) > 4 else '.'}")
            st.caption(
                "Byte-pair encoding starts from single bytes or characters and applies its rules in the order of "
                "their rank, until none fits ([arXiv:1508.07909](https://arxiv.org/abs/1508.07909))."
            )
        except UnsupportedError as error:
            show_error(error)
    with search_column:
        st.text("With and without a leading space, in each letter case")
        variants = cache.variants(model, word)
        st.dataframe(
            pd.DataFrame(
                {
                    "written": [show_graphemes(v.tokenization.text) for v in variants],
                    "tokens": [" · ".join(v.tokenization.labels) for v in variants],
                    "ids": [" ".join(map(str, v.tokenization.token_ids)) for v in variants],
                }
            ),
            hide_index=True,
            key="tokenizer_variants",
            alt="The same word written differently",
        )
        st.text(f"Tokens that contain it: {found.n_found:,} of {cache.geometry(model).vocab_size:,}")
        if found.n_found:
            st.dataframe(
                pd.DataFrame({"id": found.token_ids, "token": found.pieces, "shown as": found.labels}),
                hide_index=True,
                height="content" if len(found.token_ids) <= 6 else 240,
                key="tokenizer_found",
                alt="Tokens that contain the word",
            )
        if found.n_found > len(found.token_ids):
            st.caption(f"The {len(found.token_ids)} shortest are listed.")
else:
    st.info("Type a word.", icon=":material/edit:")

st.subheader("Ids back to text")
sentence = cache.tokenization(model, SENTENCE, True)
link.restore("tokenizer_ids", " ".join(map(str, sentence.token_ids)), lambda ids: ids, allowed="token ids")
ids = st.text_area(
    "Ids, with spaces or commas between them", key="tokenizer_ids", height=68, persist_state="session"
)
link.publish("tokenizer_ids", ids)
try:
    decoded = cache.decoded_ids(model, parse_ids(ids))
    st.code(decoded.text, language=None, wrap_lines=True)
    token_strip(
        decoded.labels,
        key="tokenizer_decoded",
        ids=decoded.token_ids,
        hover=[data.hex(" ").upper() for data in decoded.token_bytes],
        name="The pasted ids as tokens",
    )
except GptCoreError as error:
    show_error(error)

show_sources(
    "tokenizer",
    functions=(
        "gpt_core.tokenizer.tokenize_text",
        "gpt_core.merges.replay_merges",
        "gpt_core.vocabulary.find_tokens",
    ),
    snippet=lambda: tokenizer_snippet(
        load_name(model), tokens.text, word=word, special_tokens=special_tokens
    ),
    notebook=NOTEBOOK,
)
