"""Which model everything on the screen is about."""

import argparse
import os
from pathlib import Path

import streamlit as st

from dashboard import cache
from dashboard.components import job, link
from dashboard.components.message import show_problem
from gpt_core.catalog import (
    DEVICE_VARIABLE,
    MODEL_FOLDERS_VARIABLE,
    ModelEntry,
    ModelId,
    find_model,
    list_models,
)
from gpt_core.errors import GptCoreError, InputError
from gpt_core.tasks import LoadTask

KEY = "model"


def choose_device(arguments: list[str]) -> None:
    """Take `--device cpu|cuda|mps` from the words after `--` on the command line."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--device")
    device = parser.parse_known_args(arguments)[0].device
    if device is not None:
        os.environ[DEVICE_VARIABLE] = device


def current() -> str:
    """Full id of the chosen model, `source:name@revision`. The router has loaded it before a page runs."""
    model = st.session_state[KEY]
    assert isinstance(model, str)
    return model


def draw() -> None:
    """The list of models, and how to add one."""
    entries = {str(entry.model_id): entry for entry in (*list_models(), *_added())}
    _restore(entries)
    st.selectbox(
        "Model",
        list(entries),
        key=KEY,
        format_func=lambda model: entries[model].title,
        placeholder="Choose a model",
        persist_state="session",
    )
    with st.popover("Use another model", icon=":material/folder_open:", width="stretch"):
        st.markdown(
            "Any causal language model that transformers can run, from a folder written by `save_pretrained` "
            "(weights as `.safetensors`). Code inside a model's folder is never run."
        )
        st.text_input("Folder", key="model_folder", placeholder="/path/to/the/model", on_change=_add_folder)
        if st.session_state.get("_model_problem"):
            show_problem(st.session_state["_model_problem"])
        st.caption(
            f"Or name a folder of models in the variable `{MODEL_FOLDERS_VARIABLE}` before the start: "
            "they are then in the list."
        )


def load() -> None:
    """Bring the chosen model into memory; ends the run until it is there."""
    model = st.session_state.get(KEY)
    if model is None:
        show_problem(st.session_state.get("_model_missing") or "Choose a model in the sidebar.")
        bundled = list_models()[0].model_id
        st.button(
            f"Open this with {bundled.name} instead",
            key="model_instead",
            on_click=st.session_state.update,
            args=({KEY: str(bundled)},),
        )
        st.stop()
    job.run(LoadTask(model=model), slot="load", message="Loading the model.")
    link.publish(KEY, model)


def show_details() -> None:
    """What the chosen model is, at the end of the sidebar."""
    facts = cache.geometry(current())
    entry = find_model(current())
    with st.sidebar:
        st.caption(
            f"{facts.n_parameters:,} parameters, {facts.n_layers} layers × {facts.n_heads} heads, "
            f"{entry.size / 1e6:,.1f} MB on disk, float32 on {facts.device}, {entry.model_id.source} "
            f"revision {entry.model_id.revision}"
        )


def _restore(entries: dict[str, ModelEntry]) -> None:
    if KEY in st.session_state:
        return
    asked = st.query_params.get(KEY)
    if asked is None:
        st.session_state[KEY] = next(iter(entries))
    elif asked in entries:
        st.session_state[KEY] = asked
    else:
        # Another model's numbers under this link would be wrong numbers.
        st.session_state[KEY] = None
        st.session_state["_model_missing"] = _missing(asked)


def _missing(asked: str) -> str:
    outside = "This link names a folder outside the model folders. Open that folder under “Use another model” first."
    try:
        if Path(ModelId.parse(asked).name).is_absolute():
            return outside  # a stranger's link must not find out what is on this disk
        find_model(asked)
    except InputError as error:
        return f"This link was made with another model. {error}"
    return outside


def _added() -> list[ModelEntry]:
    return list(st.session_state.get("_added_models", ()))


def _add_folder() -> None:
    """Take the typed folder into the list and choose it."""
    st.session_state["_model_problem"] = ""
    typed = st.session_state["model_folder"].strip()
    if not typed:
        return
    try:
        entry = find_model(f"local:{Path(typed).expanduser().absolute()}")
    except (GptCoreError, OSError, ValueError) as error:
        st.session_state["_model_problem"] = str(error)
        return
    st.session_state["_added_models"] = [*_added(), entry]
    st.session_state[KEY] = str(entry.model_id)
    st.session_state["model_folder"] = ""
