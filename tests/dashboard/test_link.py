"""Pickers whose names change under the reader's choice."""

from streamlit.testing.v1 import AppTest


def _app() -> None:
    import streamlit as st

    from dashboard.components import link

    if "said" in st.session_state:  # as a browser says it that has not heard of the new names
        st.session_state["pick"] = st.session_state.pop("said")
    words = st.session_state.get("words", "abc")
    st.session_state["found"] = link.pick_integer(
        "Pick", key="pick", low=0, high=len(words) - 1, default=0, name=lambda i: f"{i} {words[i]}"
    )


def test_a_choice_by_a_former_name_stays_the_same_number() -> None:
    at = AppTest.from_function(_app).run()
    at.selectbox(key="pick").select(2).run()
    assert at.session_state["found"] == 2
    at.session_state["words"], at.session_state["said"] = "xyz", "2 c"
    at.run()
    assert not at.exception
    assert (at.session_state["found"], at.query_params["pick"]) == (2, "2")
    # Where the number is gone with the names, the picker says so.
    at.session_state["words"], at.session_state["said"] = "u", "2 z"
    at.run()
    assert not at.exception
    assert at.session_state["found"] == 0
    assert "2 is not among 0 to 0" in at.caption[0].value
