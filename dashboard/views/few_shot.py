"""Not yet."""

import streamlit as st

st.title("few_shot")
