"""One making per key whoever asks; what is kept is bounded by bytes, and what is in use is not made twice."""

import gc
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_core.errors import CancelledError, DeadlineError, InputError
from gpt_core.registry import Registry

#: Seconds after which something that must happen counts as not happening.
PATIENCE = 20.0


class Value:
    """Something of a size."""

    def __init__(self, size: int = 1) -> None:
        self.size = size


Store = Registry[str, Value]


def make_store(capacity: int = 100) -> Store:
    return Registry(capacity, lambda value: value.size)


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


class Makers:
    """Several threads that ask for one key; who makes the value waits for the gate."""

    def __init__(self, store: Store, pool: ThreadPoolExecutor) -> None:
        self.store, self.pool = store, pool
        self.begun = threading.Semaphore(0)
        self.gate = threading.Event()
        self.made = 0
        self.asking = 0

    def ask(self, outcome: Value | BaseException, n: int = 1) -> "list[Future[Value]]":
        def make() -> Value:
            self.made += 1
            self.begun.release()
            assert self.gate.wait(PATIENCE)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        def waiting() -> None:
            # Called by each who waits for another.
            self.asking += 1

        return [self.pool.submit(self.store.get_or_make, "key", make, check=waiting) for _ in range(n)]

    def await_maker(self) -> None:
        assert self.begun.acquire(timeout=PATIENCE)


def test_sixteen_threads_make_one_value() -> None:
    with ThreadPoolExecutor(16) as pool:
        makers = Makers(make_store(), pool)
        value = Value()
        asked = makers.ask(value, 16)
        makers.await_maker()
        wait_until(lambda: makers.asking >= 15)
        makers.gate.set()
        assert all(future.result(PATIENCE) is value for future in asked)
    assert makers.made == 1
    assert makers.store.get("key") is value


def test_keys_are_made_beside_each_other() -> None:
    store = make_store()
    both = threading.Barrier(2, timeout=PATIENCE)

    def make() -> Value:
        both.wait()  # passes only if both makers run
        return Value()

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.submit(store.get_or_make, "1", make), pool.submit(store.get_or_make, "2", make)
        assert one.result(PATIENCE) is not two.result(PATIENCE)


def test_an_exception_reaches_all_who_wait_and_is_not_kept() -> None:
    with ThreadPoolExecutor(16) as pool:
        makers = Makers(make_store(), pool)
        asked = makers.ask(InputError("no such model"), 16)
        makers.await_maker()
        wait_until(lambda: makers.asking >= 15)
        makers.gate.set()
        for future in asked:
            assert isinstance(future.exception(PATIENCE), InputError)
    assert makers.made == 1
    assert makers.store.get("key") is None
    value = Value()
    assert makers.store.get_or_make("key", lambda: value) is value


@pytest.mark.parametrize("stop", [CancelledError("Stopped."), DeadlineError("Too long."), SystemExit()])
def test_a_maker_that_is_stopped_hands_over_to_the_next(stop: BaseException) -> None:
    with ThreadPoolExecutor(8) as pool:
        makers = Makers(make_store(), pool)
        (stopped,) = makers.ask(stop)
        makers.await_maker()
        value = Value()
        others = makers.ask(value, 7)
        wait_until(lambda: makers.asking >= 7)
        makers.gate.set()
        assert stopped.exception(PATIENCE) is stop
        assert all(future.result(PATIENCE) is value for future in others)
    assert makers.made == 2


def test_who_waits_can_give_up() -> None:
    with ThreadPoolExecutor(2) as pool:
        makers = Makers(make_store(), pool)
        value = Value()
        (asked,) = makers.ask(value)
        makers.await_maker()

        def give_up() -> None:
            raise CancelledError("Stopped.")

        with pytest.raises(CancelledError):
            makers.store.get_or_make("key", Value, check=give_up)
        makers.gate.set()
        assert asked.result(PATIENCE) is value


def test_an_error_in_the_size_is_the_makers_error() -> None:
    def size_of(value: Value) -> int:
        raise ValueError("no size")

    store: Store = Registry(10, size_of)
    for _ in range(2):  # the key is free again
        with pytest.raises(ValueError, match="no size"):
            store.get_or_make("key", Value)


# The bound


def add(store: Store, key: str, size: int) -> Value:
    value = Value(size)
    assert store.get_or_make(key, lambda: value) is value
    return value


def test_the_least_recently_used_leaves() -> None:
    store = make_store(30)
    for key in "abc":
        add(store, key, 10)
    assert store.get("a") is not None
    add(store, "d", 10)
    assert set(store.keys()) == {"a", "c", "d"}
    assert store.get("b") is None


def test_one_large_value_takes_the_place_of_several() -> None:
    store = make_store(30)
    for key in "abc":
        add(store, key, 10)
    add(store, "d", 25)
    assert store.keys() == ("d",)


def test_a_value_that_has_grown_is_weighed_again() -> None:
    store = make_store(10)
    add(store, "a", 4)
    grown = add(store, "b", 4)
    grown.size = 8
    store.weigh_again("b")
    assert store.keys() == ("b",)
    grown.size = 11
    store.weigh_again("b")
    assert store.keys() == ()
    store.weigh_again("c")
    assert store.keys() == ()


def test_a_value_larger_than_the_bound_is_given_but_not_kept() -> None:
    store = make_store(30)
    add(store, "a", 10)
    large = add(store, "large", 31)
    assert set(store.keys()) == {"a"}
    assert store.get("large") is large  # in use
    del large
    gc.collect()
    assert store.get("large") is None
    assert add(store, "full", 30).size == 30
    assert store.keys() == ("full",)


def test_a_value_in_use_is_found_after_it_has_left() -> None:
    store = make_store(10)
    used = add(store, "a", 10)
    add(store, "b", 10)
    assert store.keys() == ("b",)
    assert store.get_or_make("a", lambda: pytest.fail("made twice")) is used
    assert store.keys() == ("a",)  # and it is the most recently used again


def test_clear_forgets_even_what_is_in_use() -> None:
    store = make_store()
    used = add(store, "a", 10)
    store.clear()
    assert store.keys() == ()
    assert store.get("a") is None
    assert add(store, "a", 10) is not used


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 40), st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 50)), max_size=40))
def test_the_bound_holds_whatever_is_asked_for(capacity: int, asked: list[tuple[str, int]]) -> None:
    """Against a list in the order of use, from which the first leave until the rest fits."""
    store = make_store(capacity)
    kept: list[tuple[str, int]] = []
    for key, size in asked:
        value = store.get_or_make(key, lambda size=size: Value(size))  # type: ignore[misc]
        known: Any = next((pair for pair in kept if pair[0] == key), None)
        assert value.size == (known[1] if known else size)
        if known:
            kept.remove(known)
            kept.append(known)
        elif size <= capacity:
            while sum(n for _, n in kept) + size > capacity:
                kept.pop(0)
            kept.append((key, size))
        del value
        assert {pair[0] for pair in kept} == set(store.keys())
    assert sum(n for _, n in kept) <= capacity
