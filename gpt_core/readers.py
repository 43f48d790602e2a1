"""Who works with which model now: a model that somebody has open is not deleted under him."""

import functools
import threading
from collections.abc import Callable


class Readers:
    """The model that each session has open. Safe under threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, tuple[str, Callable[[], bool]]] = {}

    def open(self, model_id: str, *, session: str, alive: Callable[[], bool]) -> None:
        """Note that `session` has the model open, instead of what it had; `alive` says whether it is still there."""
        with self._lock:
            self._open[session] = (model_id, alive)

    def count(self, model_id: str) -> int:
        """How many sessions that are still there have the model open."""
        with self._lock:
            held = dict(self._open)
        gone = [session for session, (_, alive) in held.items() if not alive()]
        with self._lock:
            for session in gone:
                if self._open.get(session) == held[session]:
                    del self._open[session]
        return sum(1 for session, (model, _) in held.items() if model == model_id and session not in gone)


@functools.cache
def shared_readers() -> Readers:
    """The readers of this process."""
    return Readers()
