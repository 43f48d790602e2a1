"""Jobs: work that takes longer than a blink, off the caller's thread.

A reader (a session) has one slot: what it submits next replaces what it submitted before. Equal jobs in flight are
one job. A job is a generator: the engine runs it a step at a time and goes round the readers between steps, so a long
generation does not make the others wait for its end. Cancel and deadline work within one step, and within one block
of a forward pass. There are lanes, a thread each: what waits for a disk or a network holds up nobody's forward pass.

The interface (describe, submit, poll, cancel, plain results, errors of `errors`) says nothing of threads: a child
process or a cluster can stand behind it. Knows nothing of models or texts either; `tasks` does.
"""

import atexit
import contextlib
import contextvars
import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

from gpt_core.errors import AbandonedError, CancelledError, DeadlineError, GptCoreError

LANES = ("compute", "load", "look_up", "download")
#: What a reader can do where a job took too long, by the lane that it was in.
_TOO_LONG = {
    "compute": "Shorten the text or choose a smaller model.",
    "load": "Choose a smaller model.",
    "look_up": "Check the connection, then try again.",
    "download": "Check the connection, then start it again.",
}
#: Finished jobs that nobody has fetched are kept this long, in seconds.
KEEP_SECONDS = 120.0


class Task(Protocol):
    """What a job does. Equal keys mean the same work."""

    @property
    def key(self) -> Hashable:
        """What makes two tasks the same work."""

    @property
    def lane(self) -> str:
        """Where it begins, one of LANES: `compute` (forward passes, in turn), `load` (weights, beside them), `look_up`
        (a question to a network) or `download` (one at a time)."""

    @property
    def deadline(self) -> float:
        """Seconds of its own running, waiting for others left out, after which the job is abandoned."""

    def run(self, control: "Control") -> Generator[Any, None, Any]:
        """Yield partial results (one a step), or a `Move` to go on elsewhere; return the result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """Yielded by a task: its next step runs in another lane, with a deadline of its own."""

    lane: str
    """One of LANES."""
    deadline: float
    """Seconds of running from here on."""


class Control:
    """How a running job hears that it should stop, and says how far it is."""

    def __init__(self, engine: "Engine", job: "_Job") -> None:
        self._engine = engine
        self._job = job

    def check(self) -> None:
        """Raise CancelledError, AbandonedError or DeadlineError where the job should stop."""
        self._engine._check_wanted(self._job)
        if self._job.seconds() > self._job.deadline:
            raise DeadlineError(
                f"This must take at most {self._job.deadline:,.0f} s. {_TOO_LONG[self._job.lane]}"
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
    lane: str
    deadline: float
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    steps: Generator[Any, None, Any] | None = None
    ran: float = 0.0
    step_started: float | None = None
    ended: float | None = None
    fraction: float = 0.0
    message: str = ""
    items: list[Any] = field(default_factory=list)
    result: Any = None
    error: GptCoreError | None = None
    state: str = "queued"
    cancelled: bool = False
    finished: threading.Event = field(default_factory=threading.Event)

    def seconds(self) -> float:
        """How long it has run, its present step included."""
        return self.ran + (0.0 if self.step_started is None else time.monotonic() - self.step_started)


def _always() -> bool:
    return True


def _is_alive(alive: Callable[[], bool]) -> bool:
    try:
        return alive()
    except Exception:  # noqa: BLE001 - whoever cannot say that he is there is not; the job may be others' too
        return False


class Engine:
    """Runs jobs in lanes, one thread each, in turn by steps."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake = {lane: threading.Condition(self._lock) for lane in LANES}
        self._queues: dict[str, deque[_Job]] = {lane: deque() for lane in LANES}
        self._current: dict[str, _Job | None] = dict.fromkeys(LANES)
        self._jobs: dict[str, _Job] = {}
        self._slots: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, args=(lane,), name=f"gpt_core-{lane}", daemon=True)
            for lane in LANES
        ]
        for thread in self._threads:
            thread.start()

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
            if self._closed:
                raise GptCoreError("The program is about to end and takes no more work.")
            self._forget_old()
            for job in self._jobs.values():
                if job.task.key == task.key and not job.finished.is_set() and not job.cancelled:
                    job.sessions[session] = alive
                    break
            else:
                job = _Job(
                    job_id=f"job-{next(self._numbers)}",
                    task=task,
                    sessions={session: alive},
                    lane=task.lane,
                    deadline=task.deadline,
                )
                self._jobs[job.job_id] = job
                self._enqueue(job)
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
            others = (self._current[job.lane], *self._queues[job.lane])
            return JobStatus(
                job_id=job_id,
                state=job.state,
                fraction=job.fraction,
                message=job.message,
                ahead=0
                if job.finished.is_set()
                else sum(1 for other in others if other is not None and other is not job),
                items=tuple(job.items[max(0, since) :]),
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

    def cancel(self, job_id: str, *, session: str) -> bool:
        """Let the job go for `session`; it stops within one step unless others wait for it too.

        Whether it stops, or has ended already; False where it goes on for others.
        """
        with self._lock:
            self._leave(job_id, session)
            job = self._jobs.get(job_id)
            return job is None or job.cancelled or job.finished.is_set()

    def close(self, timeout: float = 2.0) -> None:
        """Abandon all jobs and end the threads; waits at most `timeout` seconds for what does not hear of it."""
        with self._lock:
            self._closed = True
            for job in self._jobs.values():
                self._drop_waiting(job)
            for wake in self._wake.values():
                wake.notify_all()
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    # What follows, up to _serve, is called with the lock held.

    def _enqueue(self, job: _Job) -> None:
        self._queues[job.lane].append(job)
        self._wake[job.lane].notify()

    def _leave(self, job_id: str, session: str) -> None:
        job = self._jobs.get(job_id)
        if job is not None:
            job.sessions.pop(session, None)
            if not job.sessions:
                self._cancel(job)

    def _cancel(self, job: _Job) -> None:
        job.cancelled = True
        self._drop_waiting(job)

    def _drop_waiting(self, job: _Job) -> None:
        if job.steps is None and job in self._queues[job.lane]:
            # It has not begun: there is nothing to wind up, and nobody to wait for.
            self._queues[job.lane].remove(job)
            self._finish(job, "cancelled", error=CancelledError("Stopped."))

    def _finish(
        self, job: _Job, state: str, *, result: Any = None, error: GptCoreError | None = None
    ) -> None:
        job.result, job.error, job.state = result, error, state
        job.fraction = 1.0 if state == "done" else job.fraction
        job.ended = time.monotonic()
        job.finished.set()

    def _forget_old(self) -> None:
        now = time.monotonic()
        old = [i for i, job in self._jobs.items() if job.ended is not None and now - job.ended > KEEP_SECONDS]
        for job_id in old:
            del self._jobs[job_id]
        self._slots = {session: job_id for session, job_id in self._slots.items() if job_id in self._jobs}

    # What follows takes the lock itself.

    def _check_wanted(self, job: _Job) -> None:
        """Raise where nobody waits for `job` any more. Once it has raised, nobody can join it."""
        with self._lock:
            if job.cancelled:
                raise CancelledError("Stopped.")
            if self._closed:
                # No reader asked for it: what the job would keep for a next time is kept.
                raise AbandonedError("Stopped: the program is about to end.")
            readers = dict(job.sessions)
        if any(_is_alive(alive) for alive in readers.values()):
            return
        with self._lock:
            if job.sessions == readers:  # else somebody came while we asked
                job.cancelled = True
                raise AbandonedError("Stopped: nobody waits for it any more.")

    def _serve(self, lane: str) -> None:
        while True:
            with self._lock:
                while not self._queues[lane] and not self._closed:
                    self._wake[lane].wait()
                if not self._queues[lane]:
                    return
                job = self._queues[lane].popleft()
                self._current[lane] = job
            more = self._step(job)
            with self._lock:
                self._current[lane] = None
                closed = self._closed
                if more and not closed:
                    self._enqueue(job)
            if more and closed:  # the other lane's thread may have ended already
                self._end(job, "cancelled", error=AbandonedError("Stopped: the program is about to end."))
            del job  # a job that is over must not live on until the next one comes

    def _step(self, job: _Job) -> bool:
        """Run one step of `job`; whether there is more to do. Nothing that a task does comes out of here."""
        control = Control(self, job)
        job.step_started = time.monotonic()
        try:
            control.check()
            if job.steps is None:
                job.state = "running"
                job.steps = job.task.run(control)
            # In a context of its own: what a task sets between two steps is no other job's business.
            item = job.context.run(next, job.steps)
            job.ran, job.step_started = job.seconds(), None
            if isinstance(item, Move):
                assert item.lane in LANES
                job.lane, job.deadline, job.ran = item.lane, item.deadline, 0.0
                control.report(0.0, "")
            else:
                job.items.append(item)
            return True
        except StopIteration as stop:
            self._end(job, "done", result=stop.value)
        except CancelledError as error:
            self._end(job, "cancelled", error=error)
        except GptCoreError as error:
            self._end(job, "failed", error=error)
        except MemoryError:
            self._end(
                job,
                "failed",
                error=GptCoreError(
                    "This needs more memory than is free. Shorten the text or choose a smaller model."
                ),
            )
        except BaseException as error:  # noqa: BLE001 - the engine outlives any job; the reader gets its kind
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
            # A task that fails while it is wound up has failed already.
            with contextlib.suppress(BaseException):
                job.context.run(job.steps.close)
        if error is not None:
            # The frames of its traceback hold what the task worked on, and it is kept for minutes.
            error.__traceback__ = error.__cause__ = error.__context__ = None
        with self._lock:
            self._finish(job, state, result=result, error=error)


@functools.cache
def shared_engine() -> Engine:
    """The engine of this process, started when first asked for."""
    engine = Engine()
    # A thread in the middle of a forward pass while Python winds up can crash the process.
    atexit.register(engine.close)
    return engine
