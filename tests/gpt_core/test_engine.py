"""Jobs are joined, replaced, stopped, taken in turn and forgotten; whatever a task does, the engine goes on.

Nothing here sleeps or measures: what must be under way is waited for. Where seconds count, the clock is a false one.
"""

import contextvars
import gc
import random
import threading
import weakref
from collections.abc import Callable, Generator, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from gpt_core import engine as engine_module
from gpt_core.engine import KEEP_SECONDS, Control, Engine, JobStatus, Move, shared_engine
from gpt_core.errors import AbandonedError, CancelledError, DeadlineError, GptCoreError, InputError

#: Seconds after which something that must happen counts as not happening.
PATIENCE = 20.0

Steps = Generator[Any, None, Any]


@dataclass(frozen=True, eq=False)
class Script:
    """A task whose steps the test writes down."""

    key: Hashable
    body: Callable[[Control], Steps]
    lane: str = "compute"
    deadline: float = 600.0

    def run(self, control: Control) -> Steps:
        return self.body(control)


class Gate:
    """A step that says when it has been reached, and stays there until it is let go or told to stop."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def hold(self, control: Control | None = None) -> None:
        self.reached.set()
        while not self.opened.wait(0.002 if control else PATIENCE):
            assert control is not None, "nobody opened the gate"
            control.check()


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine of the test's own; its threads end with it."""
    made = Engine()
    yield made
    made.close(PATIENCE)
    assert not any(thread.is_alive() for thread in made._threads)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The engine's clock stands still."""
    made = Clock()
    monkeypatch.setattr(engine_module, "time", SimpleNamespace(monotonic=made.monotonic))
    return made


def answer(value: Any, *, key: Hashable = None, lane: str = "compute") -> Script:
    """A task of one step."""

    def body(control: Control) -> Steps:
        return value
        yield

    return Script(("answer", value) if key is None else key, body, lane)


def held(gate: Gate, *, key: Hashable = "held", listens: bool = True, lane: str = "compute") -> Script:
    """A task that waits at the gate in its only step, and hears of a stop there if it `listens`."""

    def body(control: Control) -> Steps:
        gate.hold(control if listens else None)
        return "through"
        yield

    return Script(key, body, lane)


def raising(error: BaseException) -> Script:
    def body(control: Control) -> Steps:
        yield "before"
        raise error

    return Script(("raising", repr(error)), body)


def end_of(engine: Engine, job_id: str) -> JobStatus:
    status = engine.wait(job_id, PATIENCE)
    assert status is not None
    assert status.finished, status
    return status


# Results


def test_a_job_gives_its_items_then_its_result(engine: Engine) -> None:
    def body(control: Control) -> Steps:
        yield from range(5)
        return "end"

    job_id = engine.submit(Script("count", body), session="a")
    status = end_of(engine, job_id)
    assert (status.job_id, status.state, status.result, status.error) == (job_id, "done", "end", None)
    assert (status.items, status.fraction, status.ahead) == ((0, 1, 2, 3, 4), 1.0, 0)


@pytest.mark.parametrize(("since", "items"), [(0, (0, 1, 2)), (2, (2,)), (3, ()), (99, ()), (-1, (0, 1, 2))])
def test_poll_gives_only_the_items_from_there_on(engine: Engine, since: int, items: tuple[int, ...]) -> None:
    gate = Gate()

    def body(control: Control) -> Steps:
        yield from range(3)
        gate.hold()

    job_id = engine.submit(Script("count", body), session="a")
    assert gate.reached.wait(PATIENCE)
    status = engine.poll(job_id, since=since)
    assert status is not None
    assert (status.state, status.items) == ("running", items)
    gate.opened.set()
    end_of(engine, job_id)


def test_items_handed_out_piece_by_piece_are_all_of_them_in_order(engine: Engine) -> None:
    def body(control: Control) -> Steps:
        yield from range(200)

    job_id = engine.submit(Script("count", body), session="a")
    seen: list[int] = []
    while True:
        status = engine.poll(job_id, since=len(seen))
        assert status is not None
        seen += status.items
        if status.finished:
            break
    assert seen == list(range(200))


def test_an_unknown_job_is_none(engine: Engine) -> None:
    assert engine.poll("job-7") is None
    assert engine.wait("job-7", PATIENCE) is None
    engine.cancel("job-7", session="a")


@pytest.mark.parametrize(("given", "shown"), [(0.25, 0.25), (7.0, 1.0), (-1.0, 0.0)])
def test_progress_is_a_share(engine: Engine, given: float, shown: float) -> None:
    gate = Gate()

    def body(control: Control) -> Steps:
        control.report(given, "Reading")
        gate.hold()
        return None
        yield

    job_id = engine.submit(Script("progress", body), session="a")
    assert gate.reached.wait(PATIENCE)
    status = engine.poll(job_id)
    assert status is not None
    assert (status.fraction, status.message) == (shown, "Reading")
    gate.opened.set()
    end_of(engine, job_id)


# One slot per session, equal jobs joined


def test_equal_jobs_in_flight_are_one(engine: Engine) -> None:
    gate = Gate()
    first = engine.submit(held(gate), session="a")
    assert gate.reached.wait(PATIENCE)
    assert {engine.submit(held(Gate()), session=session) for session in "abcd"} == {first}
    assert engine.describe().running == 1
    gate.opened.set()
    assert end_of(engine, first).result == "through"


def test_equal_jobs_that_wait_are_one(engine: Engine) -> None:
    gate = Gate()
    engine.submit(held(gate), session="a")
    assert gate.reached.wait(PATIENCE)
    waiting = {engine.submit(answer(1), session=session) for session in "bcd"}
    assert len(waiting) == 1
    assert (engine.describe().running, engine.describe().queued) == (1, 1)
    gate.opened.set()
    end_of(engine, waiting.pop())


def test_a_finished_or_stopped_job_is_not_joined(engine: Engine) -> None:
    done = engine.submit(answer(1), session="a")
    end_of(engine, done)
    assert engine.submit(answer(1), session="b") != done
    gate = Gate()
    stopped = engine.submit(held(gate, listens=False), session="a")
    assert gate.reached.wait(PATIENCE)
    engine.cancel(stopped, session="a")
    again = engine.submit(held(gate), session="a")
    assert again != stopped
    gate.opened.set()
    assert end_of(engine, again).state == "done"


def test_what_a_session_submits_next_replaces_what_it_submitted_before(engine: Engine) -> None:
    gate = Gate()
    former = engine.submit(held(gate), session="a")
    assert gate.reached.wait(PATIENCE)
    later = engine.submit(answer(2), session="a")
    assert end_of(engine, former).state == "cancelled"
    assert end_of(engine, later).result == 2


def test_the_former_job_goes_on_for_another_session(engine: Engine) -> None:
    gate = Gate()
    shared = engine.submit(held(gate), session="a")
    assert gate.reached.wait(PATIENCE)
    engine.submit(held(Gate()), session="b")
    engine.submit(answer(2), session="a")
    gate.opened.set()
    assert end_of(engine, shared).result == "through"


def test_fifty_values_of_a_slider_leave_one_job_in_flight_and_the_last_wins(engine: Engine) -> None:
    gate = Gate()
    begun: list[int] = []

    def body(number: int) -> Callable[[Control], Steps]:
        def steps(control: Control) -> Steps:
            begun.append(number)
            if number == 0:
                gate.hold()
            return number
            yield

        return steps

    jobs = [engine.submit(Script(0, body(0)), session="a")]
    assert gate.reached.wait(PATIENCE)
    for number in range(1, 50):
        jobs.append(engine.submit(Script(number, body(number)), session="a"))
        described = engine.describe()
        assert (described.running, described.queued) == (1, 1)
    gate.opened.set()
    assert end_of(engine, jobs[-1]).result == 49
    assert begun == [0, 49]
    # The step of the first could not be stopped; it ended before the last began.
    assert {end_of(engine, job_id).state for job_id in jobs[1:-1]} == {"cancelled"}


def test_enter_held_is_one_job(engine: Engine) -> None:
    gate = Gate()
    assert len({engine.submit(held(gate), session="a") for _ in range(50)}) == 1
    gate.opened.set()


# Cancel


def test_cancel_works_within_a_step(engine: Engine) -> None:
    gate, closed = Gate(), threading.Event()

    def body(control: Control) -> Steps:
        try:
            gate.hold(control)
            yield
        finally:
            closed.set()

    job_id = engine.submit(Script("stop", body), session="a")
    assert gate.reached.wait(PATIENCE)
    engine.cancel(job_id, session="a")
    status = end_of(engine, job_id)
    assert status.state == "cancelled"
    assert isinstance(status.error, CancelledError)
    assert closed.is_set()


def test_cancel_between_steps_winds_the_task_up(engine: Engine) -> None:
    closed = threading.Event()

    def body(control: Control) -> Steps:
        try:
            while True:
                yield
        finally:
            closed.set()

    job_id = engine.submit(Script("stop", body), session="a")
    engine.cancel(job_id, session="a")
    assert end_of(engine, job_id).state == "cancelled"
    other = engine.submit(Script("stop too", body), session="a")
    while not (engine.poll(other) or pytest.fail("forgotten")).items:
        pass
    engine.cancel(other, session="a")
    assert end_of(engine, other).state == "cancelled"
    assert closed.is_set()


def test_a_job_that_waits_is_cancelled_at_once(engine: Engine) -> None:
    gate = Gate()
    engine.submit(held(gate), session="a")
    assert gate.reached.wait(PATIENCE)
    waiting = engine.submit(answer(1), session="b")
    assert (engine.poll(waiting) or pytest.fail("forgotten")).ahead == 1
    engine.cancel(waiting, session="b")
    status = engine.poll(waiting)
    assert status is not None
    assert (status.state, status.ahead, engine.describe().queued) == ("cancelled", 0, 0)
    gate.opened.set()


def test_who_cancels_does_not_stop_anothers_equal_job(engine: Engine) -> None:
    gate = Gate()
    job_id = engine.submit(held(gate), session="a")
    assert gate.reached.wait(PATIENCE)
    engine.submit(held(gate), session="b")
    engine.cancel(job_id, session="a")
    engine.cancel(job_id, session="somebody else")
    gate.opened.set()
    assert end_of(engine, job_id).result == "through"


def test_cancel_after_the_end_changes_nothing(engine: Engine) -> None:
    job_id = engine.submit(answer(1), session="a")
    end_of(engine, job_id)
    engine.cancel(job_id, session="a")
    status = end_of(engine, job_id)
    assert (status.state, status.result) == ("done", 1)


# A reader who is gone


def gone() -> bool:
    return False


def broken() -> bool:
    raise RuntimeError("no such session")


@pytest.mark.parametrize("alive", [gone, broken])
def test_a_job_that_nobody_wants_is_abandoned(engine: Engine, alive: Callable[[], bool]) -> None:
    begun = threading.Event()

    def body(control: Control) -> Steps:
        begun.set()
        yield

    status = end_of(engine, engine.submit(Script("unwanted", body), session="a", alive=alive))
    assert status.state == "cancelled"
    assert not begun.is_set()


def test_a_reader_who_leaves_within_a_step_stops_it(engine: Engine) -> None:
    gate, here = Gate(), threading.Event()
    here.set()
    job_id = engine.submit(held(gate), session="a", alive=here.is_set)
    assert gate.reached.wait(PATIENCE)
    here.clear()
    assert end_of(engine, job_id).state == "cancelled"
    assert end_of(engine, engine.submit(answer(1), session="b")).state == "done"


@pytest.mark.parametrize("alive", [gone, broken])
def test_a_job_goes_on_for_the_reader_who_is_there(engine: Engine, alive: Callable[[], bool]) -> None:
    gate = Gate()
    here = threading.Event()
    here.set()
    job_id = engine.submit(held(gate), session="a", alive=lambda: here.is_set() or alive())
    assert gate.reached.wait(PATIENCE)
    engine.submit(held(gate), session="b")
    here.clear()
    gate.opened.set()
    assert end_of(engine, job_id).result == "through"


# Deadline


def test_the_deadline_counts_steps(engine: Engine, clock: Clock) -> None:
    def body(control: Control) -> Steps:
        while True:
            clock.now += 2.0
            yield clock.now

    status = end_of(engine, engine.submit(Script("long", body, deadline=5.0), session="a"))
    assert status.state == "failed"
    assert isinstance(status.error, DeadlineError)
    assert "at most 5 s" in str(status.error)
    assert len(status.items) == 3


def test_the_deadline_works_within_a_step(engine: Engine, clock: Clock) -> None:
    def body(control: Control) -> Steps:
        clock.now += 4.0
        control.check()
        clock.now += 2.0
        control.check()
        return "too late"
        yield

    status = end_of(engine, engine.submit(Script("long", body, deadline=5.0), session="a"))
    assert isinstance(status.error, DeadlineError)


def test_waiting_for_others_does_not_count(engine: Engine, clock: Clock) -> None:
    gate = Gate()

    def slow(control: Control) -> Steps:
        gate.hold()
        for _ in range(20):
            clock.now += 100.0
            yield

    def quick(control: Control) -> Steps:
        for _ in range(4):
            clock.now += 1.0
            yield
        return "in time"

    first = engine.submit(Script("slow", slow, deadline=1e6), session="a")
    assert gate.reached.wait(PATIENCE)
    second = engine.submit(Script("quick", quick, deadline=5.0), session="b")
    gate.opened.set()
    assert end_of(engine, second).result == "in time"
    assert end_of(engine, first).state == "done"


def test_a_move_has_a_lane_and_a_deadline_of_its_own(engine: Engine, clock: Clock) -> None:
    def body(control: Control) -> Steps:
        lanes = [threading.current_thread().name]
        control.report(0.7, "Before")
        clock.now += 4.0
        yield Move(lane="load", deadline=50.0)
        lanes.append(threading.current_thread().name)
        clock.now += 40.0
        yield Move(lane="compute", deadline=5.0)
        lanes.append(threading.current_thread().name)
        clock.now += 4.0
        yield "item"
        return lanes

    status = end_of(engine, engine.submit(Script("moves", body, deadline=5.0), session="a"))
    assert status.result == ["gpt_core-compute", "gpt_core-load", "gpt_core-compute"]
    assert status.items == ("item",)


# Taking turns


def test_a_long_job_does_not_starve_a_short_one(engine: Engine) -> None:
    gate = Gate()
    taken = 0

    def long(control: Control) -> Steps:
        nonlocal taken
        gate.hold()
        for _ in range(10_000):
            taken += 1
            yield

    def short(control: Control) -> Steps:
        for _ in range(3):
            yield taken
        return taken

    long_id = engine.submit(Script("long", long), session="a")
    assert gate.reached.wait(PATIENCE)
    short_id = engine.submit(Script("short", short), session="b")
    gate.opened.set()
    status = end_of(engine, short_id)
    assert status.items == (1, 2, 3)
    assert status.result == 4
    engine.cancel(long_id, session="a")
    end_of(engine, long_id)


def test_a_load_holds_up_no_forward_pass(engine: Engine) -> None:
    gate = Gate()
    load = engine.submit(held(gate, lane="load"), session="a")
    assert gate.reached.wait(PATIENCE)
    status = end_of(engine, engine.submit(answer(1), session="b"))
    assert status.result == 1
    assert (engine.poll(load) or pytest.fail("forgotten")).state == "running"
    gate.opened.set()
    assert end_of(engine, load).result == "through"


def test_a_task_that_has_moved_to_load_lets_the_others_compute(engine: Engine) -> None:
    gate = Gate()

    def body(control: Control) -> Steps:
        yield Move(lane="load", deadline=60.0)
        gate.hold()
        yield Move(lane="compute", deadline=60.0)
        return "loaded"

    job_id = engine.submit(Script("moves", body), session="a")
    assert gate.reached.wait(PATIENCE)
    assert end_of(engine, engine.submit(answer(1), session="b")).result == 1
    gate.opened.set()
    assert end_of(engine, job_id).result == "loaded"


def test_what_a_task_sets_is_no_other_jobs_business(engine: Engine) -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    gate = Gate()

    def sets(control: Control) -> Steps:
        variable.set("set")
        gate.hold()
        yield
        return variable.get()

    def reads(control: Control) -> Steps:
        return variable.get()
        yield

    first = engine.submit(Script("sets", sets), session="a")
    assert gate.reached.wait(PATIENCE)
    second = engine.submit(Script("reads", reads), session="b")
    gate.opened.set()
    assert end_of(engine, second).result == "unset"
    assert end_of(engine, first).result == "set"


# Whatever a task does


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("The text must be shorter."), "The text must be shorter."),
        (MemoryError(), "memory"),
        (ValueError("x" * 5000), "ValueError: xxx"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(3), "SystemExit"),
        (GeneratorExit(), "GeneratorExit"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_is_a_sentence_and_the_engine_goes_on(
    engine: Engine, error: BaseException, said: str
) -> None:
    status = end_of(engine, engine.submit(raising(error), session="a"))
    assert (status.state, status.result, status.items) == ("failed", None, ("before",))
    assert isinstance(status.error, GptCoreError)
    assert said in str(status.error)
    assert "Traceback" not in str(status.error)
    assert len(str(status.error)) < 400
    assert end_of(engine, engine.submit(answer(1), session="a")).result == 1


def test_a_task_that_cannot_begin_fails(engine: Engine) -> None:
    def body(control: Control) -> Steps:
        raise OSError("no such disk")

    status = end_of(engine, engine.submit(Script("broken", body), session="a"))
    assert status.state == "failed"
    assert "no such disk" in str(status.error)


def test_a_move_to_no_lane_fails(engine: Engine) -> None:
    def body(control: Control) -> Steps:
        yield Move(lane="moon", deadline=1.0)

    assert end_of(engine, engine.submit(Script("moon", body), session="a")).state == "failed"
    assert end_of(engine, engine.submit(answer(1), session="a")).state == "done"


def test_a_task_that_fails_while_it_is_wound_up_ends_all_the_same(engine: Engine) -> None:
    gate = Gate()

    def body(control: Control) -> Steps:
        try:
            gate.hold()
            yield
        finally:
            raise RuntimeError("cannot let go")

    job_id = engine.submit(Script("stubborn", body), session="a")
    assert gate.reached.wait(PATIENCE)
    engine.cancel(job_id, session="a")
    gate.opened.set()
    assert end_of(engine, job_id).state == "cancelled"
    assert end_of(engine, engine.submit(answer(1), session="a")).state == "done"


class _Tensor:
    """Something large that a task works on."""


@pytest.mark.parametrize("error", [None, InputError("No."), ValueError("no"), MemoryError()])
def test_what_a_failed_or_stopped_task_worked_on_is_let_go(engine: Engine, error: Exception | None) -> None:
    gate = Gate()
    works_on: list[weakref.ref[_Tensor]] = []

    def body(control: Control) -> Steps:
        tensor = _Tensor()
        works_on.append(weakref.ref(tensor))
        gate.hold(control)
        if error is not None:
            raise type(error)(*error.args) from KeyError(tensor)
        yield tensor

    job_id = engine.submit(Script("large", body), session="a")
    assert gate.reached.wait(PATIENCE)
    if error is None:
        engine.cancel(job_id, session="a")
    else:
        gate.opened.set()
    status = end_of(engine, job_id)
    assert status.state == ("cancelled" if error is None else "failed")
    # The thread has left the step as soon as it has done something else.
    end_of(engine, engine.submit(answer(1), session="b"))
    gc.collect()
    assert works_on[0]() is None


# Keeping, forgetting, closing


def test_a_result_is_kept_then_forgotten(engine: Engine, clock: Clock) -> None:
    old = engine.submit(answer(1), session="a")
    end_of(engine, old)
    clock.now += KEEP_SECONDS - 1.0
    end_of(engine, engine.submit(answer(2), session="b"))
    assert end_of(engine, old).result == 1
    clock.now += 2.0
    engine.submit(answer(3), session="c")
    assert engine.poll(old) is None
    assert "a" not in engine._slots


def test_a_job_under_way_is_never_forgotten(engine: Engine, clock: Clock) -> None:
    gate = Gate()
    job_id = engine.submit(held(gate, listens=False), session="a")
    assert gate.reached.wait(PATIENCE)
    clock.now += 10 * KEEP_SECONDS
    engine.submit(answer(1), session="b")
    gate.opened.set()
    assert end_of(engine, job_id).state == "done"


def test_close_stops_what_runs_and_waits_and_ends_the_threads() -> None:
    engine = Engine()
    gates = Gate(), Gate()
    running = [
        engine.submit(held(gates[0], key=1), session="a"),
        engine.submit(held(gates[1], key=2, lane="load"), session="b"),
    ]
    for gate in gates:
        assert gate.reached.wait(PATIENCE)
    waiting = engine.submit(answer(1), session="c")
    engine.close(PATIENCE)
    assert not any(thread.is_alive() for thread in engine._threads)
    assert {end_of(engine, job_id).state for job_id in (*running, waiting)} == {"cancelled"}
    with pytest.raises(GptCoreError, match="no more work"):
        engine.submit(answer(1), session="a")
    engine.close(PATIENCE)


def test_what_runs_at_the_end_of_the_program_is_abandoned_not_stopped_by_its_reader() -> None:
    """A download keeps what came: nobody said that he does not want it."""
    engine = Engine()
    gate = Gate()
    job_id = engine.submit(held(gate, lane="download"), session="a")
    assert gate.reached.wait(PATIENCE)
    engine.close(PATIENCE)
    assert isinstance(end_of(engine, job_id).error, AbandonedError)


def test_a_stop_before_the_end_of_the_program_stays_a_stop() -> None:
    engine = Engine()
    gate = Gate()
    job_id = engine.submit(held(gate, listens=False), session="a")
    assert gate.reached.wait(PATIENCE)
    engine.cancel(job_id, session="a")
    engine.close(0.0)
    gate.opened.set()
    engine.close(PATIENCE)
    assert not isinstance(end_of(engine, job_id).error, AbandonedError)


def test_whoever_stops_is_told_whether_it_stops(engine: Engine) -> None:
    gate = Gate()
    job_id = engine.submit(held(gate), session="a")
    assert engine.submit(held(gate), session="b") == job_id
    assert gate.reached.wait(PATIENCE)
    assert not engine.cancel(job_id, session="a")
    assert engine.cancel(job_id, session="b")
    assert end_of(engine, job_id).state == "cancelled"
    assert engine.cancel(job_id, session="b")
    assert engine.cancel("job-0", session="b")


@pytest.mark.parametrize(
    ("lane", "said"),
    [
        ("compute", "Shorten the text"),
        ("load", "Choose a smaller model"),
        ("look_up", "try again"),
        ("download", "start it again"),
    ],
)
def test_a_deadline_names_what_can_be_done_about_it(
    engine: Engine, clock: Clock, lane: str, said: str
) -> None:
    gate = Gate()
    job_id = engine.submit(held(gate, lane=lane), session="a")
    assert gate.reached.wait(PATIENCE)
    clock.now += 601
    error = str(end_of(engine, job_id).error)
    assert said in error
    assert ("text" in error) == (lane == "compute")


def test_a_job_that_moves_while_the_engine_closes_is_stopped() -> None:
    engine = Engine()
    gate = Gate()

    def body(control: Control) -> Steps:
        gate.hold()
        yield Move(lane="load", deadline=60.0)
        return "loaded"

    job_id = engine.submit(Script("moves", body), session="a")
    assert gate.reached.wait(PATIENCE)
    engine.close(0.0)
    engine._threads[1].join(PATIENCE)
    assert not engine._threads[1].is_alive()
    gate.opened.set()
    assert end_of(engine, job_id).state == "cancelled"
    engine.close(PATIENCE)


def test_there_is_one_shared_engine() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(shared_engine).result() is shared_engine()


def test_many_readers_at_once_each_get_what_they_asked_for_last(engine: Engine) -> None:
    def body(value: int) -> Callable[[Control], Steps]:
        def steps(control: Control) -> Steps:
            for step in range(3):
                control.report(step / 3, "")
                yield step
            return value

        return steps

    def read(number: int) -> bool:
        chance = random.Random(number)
        for turn in range(40):
            value = chance.randrange(6)
            lane = "load" if value % 2 else "compute"
            job_id = engine.submit(Script(value, body(value), lane), session=f"reader {number}")
            if turn % 3 == 0:
                engine.cancel(job_id, session=f"reader {number}")
        job_id = engine.submit(Script(5, body(5)), session=f"reader {number}")
        status = end_of(engine, job_id)
        return (status.state, status.result, status.items) == ("done", 5, (0, 1, 2))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))
    assert (engine.describe().running, engine.describe().queued) == (0, 0)
