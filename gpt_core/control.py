"""How long work hears that it should stop, and says how far it is; `engine` gives one to every job."""

from typing import Protocol


class Control(Protocol):
    """What long work asks and tells."""

    def check(self) -> None:
        """Raise CancelledError, AbandonedError or DeadlineError where the work should stop."""

    def report(self, fraction: float, message: str) -> None:
        """Say that `fraction` (0..1) is done and what is going on."""
