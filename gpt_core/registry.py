"""A store of what is costly to make: bounded by bytes, safe under threads, one making per key whoever asks.

The bound and the choice of what leaves are cachetools' LRU. What leaves lives on until its last user lets go of it,
and is found again as long as it lives, so that nobody makes a second one beside it.
"""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from cachetools import LRUCache

from gpt_core.errors import CancelledError, DeadlineError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

#: Seconds between two looks at whether someone who waits still wants to.
_PATIENCE = 0.05


class Registry(Generic[K, V]):
    """Keep values by key, at most `capacity` bytes of them, least recently used out first.

    Values must allow weak references.
    """

    def __init__(self, capacity: int, size_of: Callable[[V], int]) -> None:
        """`capacity` in bytes; `size_of` gives the bytes of a value."""
        self.capacity = capacity
        self._size_of = size_of
        self._values: LRUCache[K, V] = LRUCache(capacity, getsizeof=size_of)
        self._living: WeakValueDictionary[K, V] = WeakValueDictionary()
        self._making: dict[K, Future[V]] = {}
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """The value of `key` if it is kept, or still in use somewhere."""
        with self._lock:
            return self._find(key)

    def keys(self) -> tuple[K, ...]:
        """The keys of what is kept."""
        with self._lock:
            return tuple(self._values)

    def get_or_make(self, key: K, make: Callable[[], V], *, check: Callable[[], None] | None = None) -> V:
        """The kept value of `key`, or that of the one `make` that runs for it now.

        An exception of `make` reaches everyone who waits, except when the maker was stopped (cancel, deadline,
        the end of its thread): then the next one in line makes the value. Who waits for another's `make` calls
        `check` now and then, which raises to give up waiting.
        """
        while True:
            with self._lock:
                value = self._find(key)
                if value is not None:
                    return value
                others = self._making.get(key)
                if others is None:
                    mine = self._making[key] = Future()
            if others is None:
                return self._make(key, mine, make)
            while not others.done():
                if check is not None:
                    check()
                wait_for([others], timeout=_PATIENCE)
            error = others.exception()
            if error is None:
                return others.result()
            if isinstance(error, Exception) and not isinstance(error, (CancelledError, DeadlineError)):
                raise error

    def weigh_again(self, key: K) -> None:
        """Count the bytes of the value of `key` anew, for it has grown; others may have to leave, or it itself."""
        with self._lock:
            value = self._values.pop(key, None)
            if value is not None:
                self._keep(key, value)

    def drop(self, key: K) -> None:
        """Forget the value of `key`; who uses it keeps it."""
        with self._lock:
            self._values.pop(key, None)
            self._living.pop(key, None)

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            self._values.clear()
            self._living.clear()

    def _find(self, key: K) -> V | None:
        value = self._values.get(key)
        if value is None:
            value = self._living.get(key)
            if value is not None:
                self._keep(key, value)
        return value

    def _keep(self, key: K, value: V) -> None:
        self._living[key] = value
        if self._size_of(value) <= self.capacity:
            self._values[key] = value

    def _make(self, key: K, future: "Future[V]", make: Callable[[], V]) -> V:
        try:
            value = make()
            with self._lock:
                self._keep(key, value)
        except BaseException as error:
            with self._lock:
                del self._making[key]
            future.set_exception(error)
            raise
        with self._lock:
            del self._making[key]
        future.set_result(value)
        return value
