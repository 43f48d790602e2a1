"""Router: page settings, the list of pages, and what every page shares. Run with `python -m dashboard`."""

import sys
from pathlib import Path

import streamlit as st

from dashboard.components import model_picker, prompt
from dashboard.components.device import choose_device
from gpt_core.warmup import start_warmup

st.set_page_config(page_title="Inside a GPT", page_icon=Path(__file__).with_name("icon.svg"), layout="wide")
choose_device(sys.argv[1:])
start_warmup()

models = st.Page("views/models.py", title="Models", icon=":material/deployed_code:")
page = st.navigation(
    [
        st.Page("views/tokenizer.py", title="Tokenizer", icon=":material/segment:", default=True),
        st.Page("views/embeddings.py", title="Embeddings", icon=":material/scatter_plot:"),
        st.Page("views/attention.py", title="Attention", icon=":material/grid_on:"),
        st.Page("views/predictions.py", title="Predictions", icon=":material/bar_chart:"),
        st.Page("views/generation.py", title="Generation", icon=":material/edit_note:"),
        st.Page("views/few_shot.py", title="Few-Shot", icon=":material/school:"),
        models,
    ],
    position="top",
)
with st.sidebar:
    model_picker.draw()
    prompt.draw()
    model_picker.offer_better()
if page != models:  # where a model can be exchanged, a bad one must not stand in the way
    model_picker.load()
    prompt.show_length()
    model_picker.show_details()
page.run()
