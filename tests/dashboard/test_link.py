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


def test_a_choice_made_elsewhere_clears_what_was_said_of_the_former() -> None:
    def page() -> None:
        from types import SimpleNamespace
        from typing import Any

        import streamlit as st

        from dashboard.components import attention_map, head_grid, link, token_strip

        def clicked(*points: dict[str, Any]) -> Any:
            return SimpleNamespace(selection=SimpleNamespace(points=list(points)))

        names = ("attention_layer", "attention_head", "attention_query", "attention_key", "measure", "order")
        state = st.session_state
        for name in names:
            state[name] = "former"
            link.notice(name, "stale")
        state["heads"], state["cells"] = clicked({"x": 3.0, "y": 2}), clicked({"x": 1, "y": 4})
        state["none"], state["between"] = clicked(), clicked({"x": 0.5, "y": 1})
        attention_map.take_head("none")
        attention_map.take_cell("between")
        st.text([state[name] for name in names].count("former"))
        attention_map.take_head("heads")
        attention_map.take_cell("cells")
        state["grid"] = {"arranged": {"measure": "a", "order": "lowest"}}
        head_grid._take_arrangement("grid", ("a",), {"measure": "measure", "order": "order"})
        st.text([state[name] for name in names])
        link.notice("attention_query", "stale")
        state["strip"] = {"clicked": 5}
        token_strip._take_click("strip", 9, "attention_query", None)
        st.text(state["attention_query"])
        for name in names:
            link.show_notice(name)

    at = AppTest.from_function(page).run()
    assert not at.exception
    assert [element.value for element in at.text] == ["6", "[2, 3, 4, 1, 'a', 'lowest']", "5"]
    assert not at.caption
