"""Who has which model open, without those who have gone."""

from gpt_core.readers import Readers


def test_a_session_has_one_model_open() -> None:
    readers = Readers()
    readers.open("a", session="one", alive=lambda: True)
    readers.open("a", session="two", alive=lambda: True)
    readers.open("b", session="two", alive=lambda: True)
    assert (readers.count("a"), readers.count("b"), readers.count("c")) == (1, 1, 0)


def test_who_has_gone_does_not_count() -> None:
    readers, there = Readers(), [True]
    readers.open("a", session="one", alive=lambda: there[0])
    assert readers.count("a") == 1
    there[0] = False
    assert readers.count("a") == 0
    there[0] = True
    assert readers.count("a") == 0  # forgotten until it opens the model again
