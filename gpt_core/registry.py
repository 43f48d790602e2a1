"""A store of what is costly to make: bounded by bytes, safe under threads, one making per key whoever asks.

The bound and the choice of what leaves are cachetools' LRU. What leaves lives on until its last user lets go of it.
"""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

from cachetools import LRUCache

from gpt_core.errors import CancelledError, DeadlineError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Registry(Generic[K, V]):
    """Keep values by key, at most `capacity` bytes of them, least recently used out first."""

    def __init__(self, capacity: int, size_of: Callable[[V], int]) -> None:
        """`capacity` in bytes; `size_of` gives the bytes of a value."""
        self.capacity = capacity
        self._values: LRUCache[K, V] = LRUCache(capacity, getsizeof=size_of)
        self._size_of = size_of
        self._making: dict[K, Future[V]] = {}
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """The value of `key` if it is kept."""
        with self._lock:
            return self._values.get(key)

    def keys(self) -> tuple[K, ...]:
        """The keys of what is kept."""
        with self._lock:
            return tuple(self._values)

    def get_or_make(self, key: K, make: Callable[[], V]) -> V:
        """The kept value of `key`, or that of the one `make` that runs for it now.

        An exception of `make` reaches everyone who waits, except when the maker's own reader stopped it: then the
        next one in line makes the value.
        """
        while True:
            with self._lock:
                if key in self._values:
                    return self._values[key]
                future = self._making.get(key)
                mine = future is None
                if future is None:
                    future = self._making[key] = Future()
            if not mine:
                try:
                    return future.result()
                except (CancelledError, DeadlineError):
                    continue
            try:
                value = make()
            except BaseException as error:
                with self._lock:
                    del self._making[key]
                future.set_exception(error)
                raise
            with self._lock:
                if self._size_of(value) <= self.capacity:
                    self._values[key] = value
                del self._making[key]
            future.set_result(value)
            return value

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            self._values.clear()
