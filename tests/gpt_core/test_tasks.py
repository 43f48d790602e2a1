"""A task is its values: equal ones are one job, they travel, and running one gives what the function itself gives."""

import dataclasses
import itertools
import pickle
import threading
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from gpt_core import head_grid as head_grid_module
from gpt_core import model as model_module
from gpt_core import trace as trace_module
from gpt_core.beams import beam_search, beam_steps
from gpt_core.decode_fast import int8_shift
from gpt_core.decoding import BeamSettings, GenerationSettings, SamplingSettings
from gpt_core.embeddings import walk_blocks
from gpt_core.engine import LANES, Engine, JobStatus, Move
from gpt_core.errors import ContextLengthError, InputError
from gpt_core.few_shot import QUESTIONS, SENTIMENT, compare_shots
from gpt_core.generation import generate_tokens, grow_branch
from gpt_core.head_grid import LayerThumbnails, kept_thumbnails, layer_thumbnails
from gpt_core.model import LanguageModel
from gpt_core.predictions import logit_lens, position_table
from gpt_core.recipes import sequence_settings
from gpt_core.registry import Registry
from gpt_core.tasks import (
    LOAD_SECONDS,
    BeamTask,
    BranchTask,
    GenerateTask,
    HeadGridTask,
    Int8ShiftTask,
    LensTask,
    LoadTask,
    ModelTask,
    PositionsTask,
    ShotsTask,
    TraceTask,
    WalkTask,
)
from gpt_core.trace import Trace, kept_trace, trace_tokens

PATIENCE = 60.0
IDS = (464, 3290, 318, 257, 922)
MODEL = "bundled:small-gpt2@0123456789ab"


def make_tasks(model: str = MODEL) -> list[ModelTask]:
    """Tasks of every kind, each of which is other work than all the others."""
    drawn = GenerationSettings(max_new_tokens=6, seed=7)
    warm = SamplingSettings(temperature=0.7, top_k=50)
    shots: dict[str, Any] = {"task": SENTIMENT, "examples": SENTIMENT.examples, "query": SENTIMENT.query}
    return [
        LoadTask(model=model),
        TraceTask(model=model, token_ids=IDS),
        TraceTask(model=model, token_ids=IDS[::-1]),
        TraceTask(model=model, token_ids=IDS[:-1]),
        WalkTask(model=model, token_ids=IDS),
        PositionsTask(model=model, token_ids=IDS),
        LensTask(model=model, token_ids=IDS, start=0, stop=3),
        LensTask(model=model, token_ids=IDS, start=1, stop=3),
        LensTask(model=model, token_ids=IDS, start=0, stop=4),
        GenerateTask(model=model, token_ids=IDS, settings=drawn),
        GenerateTask(model=model, token_ids=IDS, settings=drawn, n_sequences=2),
        GenerateTask(model=model, token_ids=IDS, settings=dataclasses.replace(drawn, seed=8)),
        GenerateTask(model=model, token_ids=IDS, settings=dataclasses.replace(drawn, sampling=warm)),
        GenerateTask(model=model, token_ids=IDS, settings=dataclasses.replace(drawn, do_sample=False)),
        GenerateTask(model=model, token_ids=IDS, settings=dataclasses.replace(drawn, stop_strings=(".",))),
        GenerateTask(
            model=model, token_ids=IDS, settings=drawn, others=(dataclasses.replace(drawn, seed=8),)
        ),
        GenerateTask(model=model, token_ids=IDS, settings=drawn, precision="int8"),
        BranchTask(model=model, token_ids=IDS, taken_ids=(6,), settings=drawn),
        BranchTask(model=model, token_ids=IDS, taken_ids=(5, 6), settings=drawn),
        BranchTask(model=model, token_ids=IDS, taken_ids=(6,), settings=drawn, precision="int8"),
        Int8ShiftTask(model=model),
        BeamTask(model=model, token_ids=IDS, settings=BeamSettings(max_new_tokens=4)),
        BeamTask(model=model, token_ids=IDS, settings=BeamSettings(max_new_tokens=4, early_stopping="never")),
        ShotsTask(model=model, **shots, shots=(0, 1)),
        ShotsTask(model=model, **shots, shots=(0,)),
        ShotsTask(model=model, **shots, shots=(0, 1), chat=True),
        ShotsTask(model=model, **shots | {"query": ("Fine.",)}, shots=(0, 1)),
        ShotsTask(model=model, **shots | {"examples": SENTIMENT.examples[::-1]}, shots=(0, 1)),
        ShotsTask(model=model, **shots | {"task": QUESTIONS}, shots=(0, 1)),
        HeadGridTask(model=model, token_ids=IDS),
        HeadGridTask(model=model, token_ids=IDS[::-1]),
    ]


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    yield made
    made.close(PATIENCE)


@pytest.fixture(autouse=True)
def empty_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was traced elsewhere is not there."""
    store: Registry[Any, Trace] = Registry(2**30, lambda kept: kept.n_bytes)
    monkeypatch.setattr(trace_module, "_traces", store)


class Unhurried:
    """A control that never stops anybody."""

    def __init__(self) -> None:
        self.reports: list[tuple[float, str]] = []

    def check(self) -> None:
        pass

    def report(self, fraction: float, message: str) -> None:
        self.reports.append((fraction, message))


def run(engine: Engine, task: ModelTask) -> JobStatus:
    status = engine.wait(engine.submit(task, session="a"), PATIENCE)
    assert status is not None
    assert status.state == "done", status
    return status


def same(one: Any, other: Any) -> None:
    """Equal, field by field; time that has passed is not looked at."""
    assert type(one) is type(other)
    if dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            if field.name != "elapsed":
                same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, (tuple, list)):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            same(left, right)
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


# Values


def test_equal_work_has_an_equal_key_and_other_work_another() -> None:
    for left, right in itertools.product(enumerate(make_tasks()), enumerate(make_tasks())):
        assert (left[1].key == right[1].key) is (left[0] == right[0]), (left, right)


def test_another_model_or_revision_is_other_work() -> None:
    others = [task.key for task in make_tasks("bundled:small-gpt2@ba9876543210")]
    assert not {task.key for task in make_tasks()} & set(others)
    assert len(set(others)) == len(others)


def test_every_value_of_a_task_is_part_of_its_key() -> None:
    for task in make_tasks():
        for field in dataclasses.fields(task):
            changed = dataclasses.replace(task)
            object.__setattr__(changed, field.name, "something else")
            assert changed.key != task.key, field.name


def test_a_task_travels() -> None:
    for task in make_tasks():
        arrived = pickle.loads(pickle.dumps(task))  # as it would reach a child process
        assert arrived == task
        assert arrived.key == task.key
        assert hash(arrived.key) == hash(task.key)
        assert (arrived.lane, arrived.deadline) == (task.lane, task.deadline)
        assert arrived.lane in LANES


def test_a_task_is_not_changed() -> None:
    for task in make_tasks():
        with pytest.raises(dataclasses.FrozenInstanceError):
            task.model = "another"  # type: ignore[misc]


# What running one gives


def test_a_trace_is_left_in_the_store(engine: Engine, bundled: LanguageModel) -> None:
    task = TraceTask(model=str(bundled.model_id), token_ids=IDS)
    assert kept_trace(bundled, IDS) is None
    assert run(engine, task).result == len(IDS)
    kept = kept_trace(bundled, IDS)
    assert kept is not None
    assert kept.token_ids == IDS
    run(engine, task)
    assert kept_trace(bundled, IDS) is kept


def test_a_load_gives_the_full_id(engine: Engine, bundled: LanguageModel) -> None:
    assert run(engine, LoadTask(model="bundled:small-gpt2")).result == str(bundled.model_id)


def test_walk_positions_and_lens_are_what_their_functions_give(
    engine: Engine, bundled: LanguageModel
) -> None:
    model, trace = str(bundled.model_id), trace_tokens(bundled, IDS)
    same(run(engine, WalkTask(model=model, token_ids=IDS)).result, walk_blocks(bundled, trace))
    same(run(engine, PositionsTask(model=model, token_ids=IDS)).result, position_table(bundled, trace))
    same(
        run(engine, LensTask(model=model, token_ids=IDS, start=1, stop=4)).result,
        logit_lens(bundled, trace, positions=range(1, 4)),
    )


def test_pictures_come_layer_by_layer_and_stay_in_their_store(
    engine: Engine, bundled: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Registry[Any, LayerThumbnails] = Registry(2**20, lambda kept: kept.cells.nbytes)
    monkeypatch.setattr(head_grid_module, "_store", store)
    task = HeadGridTask(model=str(bundled.model_id), token_ids=IDS)
    control: Any = Unhurried()
    for number, layer in enumerate(task.run(control)):
        assert layer == number
        assert len(store.keys()) == number + 1  # the next one is not computed before it is asked for
        assert control.reports[-1][0] == (number + 1) / 6
    status = run(engine, task)
    assert (status.items, status.result) == (tuple(range(6)), 6)
    kept = kept_thumbnails(bundled, IDS, layer=4)
    same(kept.cells, layer_thumbnails(trace_tokens(bundled, IDS), layer=4).cells)


@pytest.mark.parametrize("do_sample", [True, False])
def test_a_generation_gives_every_step_as_an_item(
    engine: Engine, bundled: LanguageModel, do_sample: bool
) -> None:
    chosen = GenerationSettings(max_new_tokens=6, seed=3, do_sample=do_sample)
    status = run(
        engine,
        GenerateTask(model=str(bundled.model_id), token_ids=IDS, settings=chosen, n_sequences=3),
    )
    runs = sequence_settings(chosen, 3)
    assert status.result == len(runs) == (3 if do_sample else 1)
    expected = [
        (sequence, step) for sequence, one in enumerate(runs) for step in generate_tokens(bundled, IDS, one)
    ]
    same(list(status.items), expected)


def test_a_generation_says_how_far_it_is(bundled: LanguageModel) -> None:
    chosen = GenerationSettings(max_new_tokens=4, do_sample=False)
    control: Any = Unhurried()
    steps = GenerateTask(model=str(bundled.model_id), token_ids=IDS, settings=chosen).run(control)
    for number, _ in enumerate(steps, start=1):
        assert control.reports[-1] == (number / 4, f"Token {number} of at most 4")


def test_beams_are_those_of_beam_search(engine: Engine, bundled: LanguageModel) -> None:
    chosen = BeamSettings(n_beams=3, n_return=2, max_new_tokens=4)
    task = BeamTask(model=str(bundled.model_id), token_ids=IDS, settings=chosen)
    same(run(engine, task).result, beam_search(bundled, IDS, chosen))


def test_several_settings_are_runs_of_their_own(engine: Engine, bundled: LanguageModel) -> None:
    chosen = [GenerationSettings(max_new_tokens=n, seed=3) for n in (2, 4, 3)]
    control: Any = Unhurried()
    task = GenerateTask(
        model=str(bundled.model_id), token_ids=IDS, settings=chosen[0], others=tuple(chosen[1:])
    )
    assert task.runs == tuple(chosen)
    items = list(task.run(control))
    assert [report[0] for report in control.reports] == pytest.approx([i / 9 for i in range(1, 10)])
    same(
        items, [(run, step) for run, one in enumerate(chosen) for step in generate_tokens(bundled, IDS, one)]
    )


def test_the_steps_of_a_beam_search_are_items(engine: Engine, bundled: LanguageModel) -> None:
    chosen = BeamSettings(n_beams=3, n_return=2, max_new_tokens=4)
    status = run(engine, BeamTask(model=str(bundled.model_id), token_ids=IDS, settings=chosen))
    same(list(status.items), list(beam_steps(bundled, IDS, chosen)))


def test_a_branch_is_that_of_grow_branch(engine: Engine, bundled: LanguageModel) -> None:
    chosen = GenerationSettings(max_new_tokens=5, seed=3)
    task = BranchTask(model=str(bundled.model_id), token_ids=IDS, taken_ids=(262, 3290), settings=chosen)
    status = run(engine, task)
    assert status.result == len(status.items) == 5
    expected = list(grow_branch(bundled, IDS, (262, 3290), chosen))
    assert [step.text for step in status.items] == [step.text for step in expected]
    # One of the two may have gone on from what was kept.
    assert [step.prob for step in status.items] == pytest.approx([step.prob for step in expected], rel=1e-3)


def test_the_shift_is_that_of_int8_shift(engine: Engine, bundled: LanguageModel) -> None:
    status = run(engine, Int8ShiftTask(model=str(bundled.model_id)))
    assert status.result is int8_shift(bundled)


@pytest.mark.parametrize("n_neighbours", [8])
def test_a_seed_gives_the_same_text_alone_and_among_neighbours(
    engine: Engine, bundled: LanguageModel, n_neighbours: int
) -> None:
    """Nine readers through one engine, their steps in turn: each text is the one that its seed gives alone."""
    model = str(bundled.model_id)
    chosen = [
        GenerationSettings(
            max_new_tokens=10, seed=seed, sampling=SamplingSettings(temperature=1.2, top_p=0.95)
        )
        for seed in range(n_neighbours + 1)
    ]
    alone = [[step.token_id for step in generate_tokens(bundled, IDS, one)] for one in chosen]
    jobs = [
        engine.submit(GenerateTask(model=model, token_ids=IDS, settings=one), session=f"reader {one.seed}")
        for one in chosen
    ]
    together = []
    for job in jobs:
        status = engine.wait(job, PATIENCE)
        assert status is not None
        together.append([step.token_id for _, step in status.items])
    assert together == alone
    assert len({tuple(ids) for ids in alone}) == n_neighbours + 1


def test_shots_are_those_of_compare_shots(engine: Engine, bundled: LanguageModel) -> None:
    task = ShotsTask(
        model=str(bundled.model_id),
        task=SENTIMENT,
        examples=SENTIMENT.examples[:1],
        query=("What a day.",),
        shots=(0, 1),
    )
    expected = compare_shots(
        bundled, SENTIMENT, ("What a day.",), shots=(0, 1), examples=SENTIMENT.examples[:1]
    )
    assert expected[0].scores is not None
    same(run(engine, task).result, expected)


# Where it runs


def lanes_of(steps: Generator[Any, None, Any]) -> tuple[list[Move], Any]:
    moves = []
    while True:
        try:
            item = next(steps)
        except StopIteration as stop:
            return moves, stop.value
        if isinstance(item, Move):
            moves.append(item)


def test_a_model_in_memory_is_not_waited_for(bundled: LanguageModel) -> None:
    control: Any = Unhurried()
    moves, result = lanes_of(TraceTask(model=str(bundled.model_id), token_ids=IDS).run(control))
    assert (moves, result) == ([], len(IDS))


@pytest.mark.parametrize("kind", [TraceTask, WalkTask, PositionsTask])
def test_a_model_that_is_not_in_memory_is_loaded_in_the_other_lane(
    bundled: LanguageModel, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    monkeypatch.setattr(model_module, "kept_model", lambda model_id: None)
    task = kind(model=str(bundled.model_id), token_ids=IDS)
    control: Any = Unhurried()
    moves, _ = lanes_of(task.run(control))
    assert moves == [
        Move(lane="load", deadline=LOAD_SECONDS),
        Move(lane="compute", deadline=task.deadline),
    ]


def test_a_load_does_not_hold_up_another_model(
    engine: Engine, bundled: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, loaded = threading.Event(), threading.Event()

    def load(model_id: str, *, control: Any) -> LanguageModel:
        loading.set()
        assert loaded.wait(PATIENCE)
        return bundled

    monkeypatch.setattr(model_module, "load_model", load)
    waits = engine.submit(TraceTask(model="local:large@0123456789ab", token_ids=IDS), session="a")
    assert loading.wait(PATIENCE)
    other = TraceTask(model=str(bundled.model_id), token_ids=IDS[:2])
    status = engine.wait(engine.submit(other, session="b"), PATIENCE)
    assert status is not None
    assert status.result == 2
    loaded.set()
    status = engine.wait(waits, PATIENCE)
    assert status is not None
    assert status.result == len(IDS)


# What cannot be done


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ({"token_ids": ()}, InputError, "no token"),
        ({"token_ids": (50257,)}, InputError, "50,256"),
        ({"token_ids": (-1,)}, InputError, "token id"),
        ({"token_ids": (1,) * 513}, ContextLengthError, "513"),
        ({"model": "local:gone", "token_ids": IDS}, InputError, "not on this machine"),
        ({"model": "../../etc/passwd", "token_ids": IDS}, InputError, "source:name@revision"),
    ],
)
def test_a_bad_value_is_the_jobs_error(
    engine: Engine, bundled: LanguageModel, values: dict[str, Any], error: type[Exception], said: str
) -> None:
    task = TraceTask(**{"model": str(bundled.model_id)} | values)
    status = engine.wait(engine.submit(task, session="a"), PATIENCE)
    assert status is not None
    assert status.state == "failed"
    assert type(status.error) is error
    assert said in str(status.error)
