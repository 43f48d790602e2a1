"""The tasks of the Predictions page: a task is its values, and running one gives what the function itself gives."""

import dataclasses
import itertools
import pickle
from typing import Any

import numpy as np
import pytest

from gpt_core.engine import Engine
from gpt_core.errors import InputError
from gpt_core.interventions import Interventions, compare_predictions, continue_greedily
from gpt_core.model import LanguageModel
from gpt_core.saliency import gradient_times_input, leave_one_out
from gpt_core.tasks import AblateTask, ContinueTask, ModelTask, SaliencyTask
from gpt_core.trace import trace_tokens
from tests.gpt_core.test_tasks import IDS, MODEL, PATIENCE, empty_store, engine, run, same

__all__ = ["empty_store", "engine"]  # fixtures

ZERO = Interventions(heads=((0, 1),))


def make_tasks(model: str = MODEL) -> list[ModelTask]:
    ablate: dict[str, Any] = {"model": model, "token_ids": IDS, "position": 4}
    saliency: dict[str, Any] = {"model": model, "token_ids": IDS, "position": 4, "token_id": 11}
    return [
        AblateTask(**ablate, interventions=ZERO),
        AblateTask(**ablate, interventions=Interventions(heads=((0, 2),))),
        AblateTask(**ablate, interventions=Interventions(kind="mean", heads=((0, 1),))),
        AblateTask(
            **ablate, interventions=Interventions(kind="patch", heads=((0, 1),), source_ids=IDS[::-1])
        ),
        AblateTask(**ablate | {"position": 3}, interventions=ZERO),
        AblateTask(**ablate, interventions=ZERO, k=9),
        ContinueTask(model=model, token_ids=IDS, interventions=ZERO),
        ContinueTask(model=model, token_ids=IDS, interventions=Interventions(mlps=(1,))),
        ContinueTask(model=model, token_ids=IDS, interventions=ZERO, max_new_tokens=5),
        SaliencyTask(**saliency, method="gradient"),
        SaliencyTask(**saliency, method="leave one out"),
        SaliencyTask(**saliency | {"token_id": 12}, method="gradient"),
        SaliencyTask(**saliency | {"position": 3}, method="gradient"),
    ]


def test_equal_work_has_an_equal_key_and_other_work_another() -> None:
    for left, right in itertools.product(enumerate(make_tasks()), enumerate(make_tasks())):
        assert (left[1].key == right[1].key) is (left[0] == right[0]), (left, right)


def test_tasks_travel_and_are_not_changed() -> None:
    for task in make_tasks():
        arrived = pickle.loads(pickle.dumps(task))
        assert arrived.key == task.key
        assert hash(arrived.key) == hash(task.key)
        with pytest.raises(dataclasses.FrozenInstanceError):
            task.model = "another"  # type: ignore[misc]


def test_results_are_those_of_the_functions(engine: Engine, bundled: LanguageModel) -> None:
    model = str(bundled.model_id)
    intact, changed = trace_tokens(bundled, IDS), trace_tokens(bundled, IDS, interventions=ZERO)
    same(
        run(engine, AblateTask(model=model, token_ids=IDS, interventions=ZERO, position=4, k=3)).result,
        compare_predictions(bundled, intact, changed, position=4, k=3),
    )
    both = run(engine, ContinueTask(model=model, token_ids=IDS, interventions=ZERO, max_new_tokens=4)).result
    assert both == (
        continue_greedily(bundled, IDS, max_new_tokens=4),
        continue_greedily(bundled, IDS, interventions=ZERO, max_new_tokens=4),
    )
    for method, function in (("gradient", gradient_times_input), ("leave one out", leave_one_out)):
        task = SaliencyTask(model=model, token_ids=IDS, position=3, token_id=11, method=method)
        found, expected = run(engine, task).result, function(bundled, IDS, position=3, token_id=11)
        assert found.method == expected.method == method
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)


def test_what_does_not_fit_fails_with_its_sentence(engine: Engine, bundled: LanguageModel) -> None:
    asked = Interventions(kind="patch", heads=((0, 1),), source_ids=IDS[:2])
    task = AblateTask(model=str(bundled.model_id), token_ids=IDS, interventions=asked, position=4)
    status = engine.wait(engine.submit(task, session="a"), PATIENCE)
    assert status is not None
    assert status.state == "failed"
    assert isinstance(status.error, InputError)
    assert "as many tokens as the first, 5" in str(status.error)
