"""The jobs of the Attention page give what their functions give, and equal work has an equal key."""

import pickle
from collections.abc import Iterator

import numpy as np
import pytest

from gpt_core.attention_export import write_maps
from gpt_core.attention_measures import measure_heads
from gpt_core.attention_summaries import combine_heads, roll_out
from gpt_core.engine import Engine
from gpt_core.model import LanguageModel
from gpt_core.repeated_tokens import probe_repeated_tokens
from gpt_core.tasks import (
    MapsFileTask,
    MeasureHeadsTask,
    ModelTask,
    RepeatedTokensTask,
    SummariseHeadsTask,
)
from gpt_core.trace import trace_tokens

IDS = (464, 3797, 3332, 319, 262, 2603, 13, 383, 3797)
HEADS = ((5, 4), (0, 1))


def make_tasks(model: str) -> list[ModelTask]:
    """Tasks of every kind, each of which is other work than all the others."""
    file = {"model": model, "token_ids": IDS, "labels": tuple("abcdefghi"), "heads": None, "kind": "npz"}
    return [
        MeasureHeadsTask(model=model, token_ids=IDS),
        MeasureHeadsTask(model=model, token_ids=IDS[:-1]),
        RepeatedTokensTask(model=model, n_repeated=10, seed=0),
        RepeatedTokensTask(model=model, n_repeated=11, seed=0),
        RepeatedTokensTask(model=model, n_repeated=10, seed=1),
        SummariseHeadsTask(model=model, token_ids=IDS, kind="mean", heads=HEADS),
        SummariseHeadsTask(model=model, token_ids=IDS, kind="mean", heads=HEADS[:1]),
        SummariseHeadsTask(model=model, token_ids=IDS, kind="maximum", heads=HEADS),
        SummariseHeadsTask(model=model, token_ids=IDS, kind="rollout"),
        SummariseHeadsTask(model=model, token_ids=IDS, kind="value-weighted rollout"),
        MapsFileTask(**file, layers=(0, 1)),  # type: ignore[arg-type]
        MapsFileTask(**file, layers=(0,)),  # type: ignore[arg-type]
        MapsFileTask(**file | {"heads": (2,)}, layers=(0,)),  # type: ignore[arg-type]
        MapsFileTask(**file | {"kind": "csv"}, layers=(0,)),  # type: ignore[arg-type]
    ]


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    yield made
    made.close(10)


def test_keys_tell_work_apart_and_tasks_travel(bundled: LanguageModel) -> None:
    model = str(bundled.model_id)
    keys = [task.key for task in make_tasks(model)]
    assert len(set(keys)) == len(keys)
    assert keys == [task.key for task in make_tasks(model)]
    # As they would reach a child process.
    assert keys == [pickle.loads(pickle.dumps(task)).key for task in make_tasks(model)]
    assert not {task.key for task in make_tasks("local:other@0123456789ab")} & set(keys)


def test_results_are_those_of_the_functions(engine: Engine, bundled: LanguageModel) -> None:
    trace = trace_tokens(bundled, IDS)
    results = []
    for task in make_tasks(str(bundled.model_id)):
        job_id = engine.submit(task, session="reader")
        status = engine.wait(job_id, 60)
        assert status is not None
        assert (status.state, status.error) == ("done", None)
        results.append(status.result)
    assert np.array_equal(results[0].values, measure_heads(trace).values, equal_nan=True)
    assert np.array_equal(results[2].scores, probe_repeated_tokens(bundled, n_repeated=10, seed=0).scores)
    assert np.array_equal(results[5].weights, combine_heads(trace, HEADS, kind="mean").weights)
    assert np.array_equal(results[7].weights, combine_heads(trace, HEADS, kind="maximum").weights)
    assert np.array_equal(results[8].weights, roll_out(bundled, trace).weights)
    assert np.array_equal(results[9].weights, roll_out(bundled, trace, value_weighted=True).weights)
    assert results[13] == write_maps(trace, layers=(0,), kind="csv", labels=tuple("abcdefghi"))
    assert results[12][:2] == b"PK"
