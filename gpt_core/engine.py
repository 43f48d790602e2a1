"""Jobs: work that takes longer than a blink, off the caller's thread.

A reader (a session) has one slot: what it submits next replaces what it submitted before. Equal jobs in flight are
one job. A job is a generator: the engine runs it a step at a time and goes round the readers between steps, so a long
generation does not make the others wait for its end. Cancel and deadline work within one step, and within one block
of a forward pass.

The interface (describe, submit, poll, cancel, plain results, errors of `errors`) says nothing of threads: a child
process or a cluster can stand behind it. Knows nothing of models or texts either; `tasks` does.
"""

import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

from gpt_core.errors import CancelledError, DeadlineError, GptCoreError

#: Finished jobs that nobody has fetched are kept this long, in seconds.
KEEP_SECONDS = 120.0


class Task(Protocol):
    """What a job does. Equal keys mean the same work."""

    @property
    def key(self) -> Hashable:
        """What makes two tasks the same work."""

    @property
    def lane(self) -> str:
        """`compute` (forward passes, in turn) or `load` (weights, beside them)."""

    @property
    def deadline(self) -> float:
        """Seconds of running after which the job is abandoned."""

    def run(self, control: "Control") -> Generator[Any, None, Any]:
        """Yield partial results (one a step); return the result."""


class Control:
    """How a running job hears that it should stop, and says how far it is."""

    def __init__(self, job: "_Job") -> None:
        self._job = job

    def check(self) -> None:
        """Raise CancelledError or DeadlineError where the job should stop."""
        job = self._job
        if job.cancelled.is_set() or not job.wanted():
            raise CancelledError("Stopped.")
        if job.started is not None and time.monotonic() - job.started > job.task.deadline:
            raise DeadlineError(
                f"This must take at most {job.task.deadline:,.0f} s. Shorten the text or choose a smaller model."
            )

    def report(self, fraction: float, message: str) -> None:
        """Say that `fraction` (0..1) is done and what is going on."""
        self._job.fraction = min(1.0, max(0.0, fraction))
        self._job.message = message


@dataclass(frozen=True, kw_only=True, slots=True)
class JobStatus:
    """A job as seen from outside."""

    job_id: str
    """Handle."""
    state: str
    """`queued`, `running`, `done`, `failed` or `cancelled`."""
    fraction: float
    """Share done, 0..1."""
    message: str
    """What is going on."""
    ahead: int
    """Jobs of other readers that run or wait in the same lane."""
    items: tuple[Any, ...]
    """Partial results from number `since` on."""
    result: Any
    """What the task returned; None until done."""
    error: GptCoreError | None
    """Why it failed."""

    @property
    def finished(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ("done", "failed", "cancelled")


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineDescription:
    """What the engine is doing."""

    running: int
    """Jobs that have begun."""
    queued: int
    """Jobs that wait."""


@dataclass(eq=False)
class _Job:
    job_id: str
    task: Task
    sessions: dict[str, Callable[[], bool]]
    steps: Generator[Any, None, Any] | None = None
    started: float | None = None
    ended: float | None = None
    fraction: float = 0.0
    message: str = ""
    items: list[Any] = field(default_factory=list)
    result: Any = None
    error: GptCoreError | None = None
    state: str = "queued"
    cancelled: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)

    def wanted(self) -> bool:
        return any(alive() for alive in tuple(self.sessions.values()))


def _always() -> bool:
    return True


class Engine:
    """Runs jobs in two lanes, one thread each: `compute` in turn by steps, `load` one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake = {lane: threading.Condition(self._lock) for lane in ("compute", "load")}
        self._queues: dict[str, deque[_Job]] = {lane: deque() for lane in self._wake}
        self._jobs: dict[str, _Job] = {}
        self._slots: dict[str, str] = {}
        self._numbers = itertools.count(1)
        for lane in self._wake:
            threading.Thread(target=self._serve, args=(lane,), name=f"gpt_core-{lane}", daemon=True).start()

    def describe(self) -> EngineDescription:
        """How much runs and waits."""
        with self._lock:
            states = [job.state for job in self._jobs.values()]
        return EngineDescription(running=states.count("running"), queued=states.count("queued"))

    def submit(self, task: Task, *, session: str, alive: Callable[[], bool] = _always) -> str:
        """Start `task` for `session`, or join the equal one in flight; the session's former job is let go.

        `alive` says whether the session still wants the result; a job that nobody wants is abandoned.
        """
        with self._lock:
            self._forget_old()
            for job in self._jobs.values():
                if job.task.key == task.key and not job.finished.is_set() and not job.cancelled.is_set():
                    job.sessions[session] = alive
                    break
            else:
                job = _Job(job_id=f"job-{next(self._numbers)}", task=task, sessions={session: alive})
                self._jobs[job.job_id] = job
                self._queues[task.lane].append(job)
                self._wake[task.lane].notify()
            former = self._slots.get(session)
            if former is not None and former != job.job_id:
                self._leave(former, session)
            self._slots[session] = job.job_id
        return job.job_id

    def poll(self, job_id: str, *, since: int = 0) -> JobStatus | None:
        """How the job stands, with its partial results from number `since` on; None if it is forgotten."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None:
                return None
            queue = self._queues[job.task.lane]
            ahead = sum(1 for other in queue if other is not job and not job.finished.is_set())
            return JobStatus(
                job_id=job_id,
                state=job.state,
                fraction=job.fraction,
                message=job.message,
                ahead=ahead,
                items=tuple(job.items[since:]),
                result=job.result,
                error=job.error,
            )

    def wait(self, job_id: str, timeout: float) -> JobStatus | None:
        """As `poll`, after the job has finished or `timeout` seconds have passed."""
        with self._lock:
            job = self._jobs.get(job_id)
        if job is not None:
            job.finished.wait(timeout)
        return self.poll(job_id)

    def cancel(self, job_id: str, *, session: str) -> None:
        """Let the job go for `session`; it stops within one step unless others wait for it too."""
        with self._lock:
            self._leave(job_id, session)

    def _leave(self, job_id: str, session: str) -> None:
        job = self._jobs.get(job_id)
        if job is None:
            return
        job.sessions.pop(session, None)
        if not job.sessions and not job.finished.is_set():
            job.cancelled.set()

    def _forget_old(self) -> None:
        now = time.monotonic()
        old = [i for i, job in self._jobs.items() if job.ended is not None and now - job.ended > KEEP_SECONDS]
        for job_id in old:
            del self._jobs[job_id]
        self._slots = {session: job_id for session, job_id in self._slots.items() if job_id in self._jobs}

    def _serve(self, lane: str) -> None:
        queue = self._queues[lane]
        while True:
            with self._lock:
                while not queue:
                    self._wake[lane].wait()
                job = queue[0]
            more = self._step(job)
            with self._lock:
                queue.popleft()
                if more:
                    queue.append(job)

    def _step(self, job: _Job) -> bool:
        """Run one step of `job`; whether there is more to do."""
        control = Control(job)
        try:
            if job.steps is None:
                job.started = time.monotonic()
                control.check()
                job.state = "running"
                job.steps = job.task.run(control)
            control.check()
            job.items.append(next(job.steps))
            return True
        except StopIteration as stop:
            self._end(job, "done", result=stop.value)
        except CancelledError as error:
            self._end(job, "cancelled", error=error)
        except GptCoreError as error:
            self._end(job, "failed", error=error)
        except MemoryError:
            self._end(
                job, "failed", error=GptCoreError("This needs more memory than is free. Shorten the text.")
            )
        except Exception as error:  # noqa: BLE001 - the engine outlives any job; the reader gets its kind
            self._end(
                job,
                "failed",
                error=GptCoreError(
                    f"Something went wrong inside ({type(error).__name__}: {str(error)[:200]}). "
                    "The rest goes on working; please report it."
                ),
            )
        return False

    def _end(self, job: _Job, state: str, *, result: Any = None, error: GptCoreError | None = None) -> None:
        if job.steps is not None:
            job.steps.close()
        with self._lock:
            job.result, job.error, job.state = result, error, state
            job.fraction = 1.0 if state == "done" else job.fraction
            job.ended = time.monotonic()
            job.finished.set()


@functools.cache
def shared_engine() -> Engine:
    """The engine of this process, started when first asked for."""
    return Engine()
