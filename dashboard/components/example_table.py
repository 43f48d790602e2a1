"""The editable parts of a few-shot task: rows of examples, the query, and the labels. All in the link."""

import json
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.components import link
from gpt_core.few_shot import MAX_CELL_CHARACTERS, MAX_EXAMPLES, FewShotExample, FewShotTask

ANSWER = "Answer"


def edit_examples(task: FewShotTask) -> tuple[FewShotExample, ...]:
    """A table with a row an example; rows can be added and removed."""
    key = f"few_shot_{task.name}_rows"
    columns = [*(field.name for field in task.fields), ANSWER]
    default = [[*example.values, example.answer] for example in task.examples]
    link.restore(
        key, default, lambda text: _read_rows(text, len(columns)), allowed="a table with a row an example"
    )
    link.show_notice(key)
    edited = st.data_editor(
        pd.DataFrame(st.session_state[key], columns=columns, dtype="str"),
        key=f"{key}_editor",
        num_rows="dynamic",
        hide_index=True,
        alt="Examples",
        column_config={
            name: st.column_config.TextColumn(max_chars=MAX_CELL_CHARACTERS, required=True)
            for name in columns[:-1]
        }
        | {ANSWER: st.column_config.TextColumn(max_chars=MAX_CELL_CHARACTERS, required=True)},
    ).fillna("")
    rows = [[str(cell) for cell in row] for row in edited.itertuples(index=False)][:MAX_EXAMPLES]
    if len(edited) > MAX_EXAMPLES:
        st.caption(f":material/info: At most {MAX_EXAMPLES} examples are used; given: {len(edited):,}.")
    if not link.publish(key, json.dumps(rows, ensure_ascii=False)):
        st.caption(":material/link_off: This table is too large for the address, which does not carry it.")
    return tuple(
        FewShotExample(values=tuple(row[:-1]), answer=row[-1]) for row in rows if any(c.strip() for c in row)
    )


def edit_query(task: FewShotTask) -> tuple[str, ...]:
    """A field for each line of the last row."""
    values = []
    for field, default in zip(task.fields, task.query, strict=True):
        key = f"few_shot_{task.name}_{field.name.lower()}"
        link.restore(key, default, lambda text: text, allowed="any text")
        values.append(
            st.text_area(
                f"{field.name} to answer (Ctrl/⌘+Enter submits)",
                key=key,
                height=80 if len(default) < 200 else 200,
                max_chars=MAX_CELL_CHARACTERS,
                persist_state="session",
            )
            or ""
        )
        link.publish(key, values[-1])
    return tuple(values)


def edit_labels(task: FewShotTask) -> tuple[str, ...]:
    """A field with the possible answers, separated by commas."""
    key = f"few_shot_{task.name}_labels"
    link.restore(key, ", ".join(task.labels), lambda text: text, allowed="labels separated by commas")
    typed = st.text_input("Labels, separated by commas", key=key, persist_state="session") or ""
    link.publish(key, typed)
    return tuple(part.strip() for part in typed.split(",") if part.strip())


def _read_rows(text: str, n_columns: int) -> list[list[str]] | None:
    try:
        rows: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    valid = (
        isinstance(rows, list)
        and len(rows) <= MAX_EXAMPLES
        and all(
            isinstance(row, list) and len(row) == n_columns and all(isinstance(cell, str) for cell in row)
            for row in rows
        )
    )
    return rows if valid else None
