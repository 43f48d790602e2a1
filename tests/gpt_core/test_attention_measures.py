"""Measures of heads on maps made by hand, and on every architecture beside a slow reference."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from gpt_core import attention_measures
from gpt_core.attention_measures import MEASURE_NAMES, MEASURES, HeadMeter, measure_heads
from gpt_core.errors import CancelledError, UnsupportedError
from gpt_core.model import LanguageModel
from gpt_core.trace import trace_tokens
from tests.conftest import ARCHITECTURES
from tests.laws import TEXT, plain_reference

TinyLm = Callable[[str], LanguageModel]
reference = cache(plain_reference)
#: With repetitions, at distances inside and outside the small models' windows.
REPEATING = (*TEXT[:12], *TEXT[5:12], *TEXT[:3], TEXT[2], TEXT[2], *TEXT[30:40])


def measure(weights: np.ndarray, token_ids: list[int], block: int = 3) -> dict[str, float]:
    meter = HeadMeter(token_ids)
    n = len(token_ids)
    for start in range(0, n, block):
        rows = range(start, min(n, start + block))
        meter.add(
            rows, torch.from_numpy(weights[None, rows.start : rows.stop, : rows.stop].astype(np.float32))
        )
    return dict(zip(MEASURE_NAMES, meter.values()[:, 0].tolist(), strict=True))


def looking_at(keys: list[int]) -> np.ndarray:
    """A map whose row i looks at key i of `keys` alone."""
    return np.eye(len(keys))[keys]


A, B, C, D = 10, 11, 12, 13


def test_previous_token_head() -> None:
    found = measure(looking_at([0, 0, 1, 2, 3]), [A, B, C, D, A])
    assert found["previous"] == 1
    assert found["current"] == found["induction"] == found["entropy"] == found["duplicate"] == 0
    assert found["first"] == 1 / 4  # the second token's previous one is the first
    assert found["distance"] == 1


def test_current_token_head() -> None:
    found = measure(looking_at([0, 1, 2, 3]), [A, A, A, A])
    assert found["current"] == 1
    assert (
        found["previous"]
        == found["first"]
        == found["duplicate"]
        == found["induction"]
        == found["distance"]
        == 0
    )


def test_first_token_head() -> None:
    found = measure(looking_at([0, 0, 0, 0]), [A, B, C, D])
    assert found["first"] == 1
    assert found["distance"] == 2  # 1, 2 and 3 back
    assert np.isnan(found["duplicate"])
    assert np.isnan(found["induction"])


def test_duplicate_and_induction_heads() -> None:
    ids = [A, B, C, A, B, A]
    #      the copies are at 3, 4 and 5; before 5 stand 0 and 3
    duplicate = measure(looking_at([0, 0, 0, 0, 1, 3]), ids)
    assert duplicate["duplicate"] == 1
    assert duplicate["induction"] == 0
    # After 0 comes 1; after 1 comes 2; after 0 and 3 come 1 and 4.
    induction = measure(looking_at([0, 0, 0, 1, 2, 4]), ids)
    assert induction["induction"] == 1
    assert induction["duplicate"] == 0
    spread = looking_at([0, 0, 0, 0, 0, 0])
    spread[5] = [0.1, 0.2, 0, 0.3, 0.4, 0]
    found = measure(spread, ids)
    np.testing.assert_allclose(found["duplicate"], (1 + 0 + 0.4) / 3, rtol=1e-6)
    np.testing.assert_allclose(found["induction"], (0 + 0 + 0.6) / 3, rtol=1e-6)


def test_induction_leaves_the_token_itself_out() -> None:
    found = measure(looking_at([0, 1]), [A, A])  # right after the earlier A comes the present one
    assert found["induction"] == 0
    assert found["current"] == 1


def test_entropy_and_distance_of_an_even_spread() -> None:
    n = 9
    even = np.tri(n) / np.arange(1, n + 1)[:, None]
    found = measure(even, list(range(n)))
    np.testing.assert_allclose(found["entropy"], np.log2(np.arange(2, n + 1)).mean(), rtol=1e-5)
    np.testing.assert_allclose(found["distance"], np.mean([i / 2 for i in range(1, n)]), rtol=1e-6)


def test_one_token_has_no_measure() -> None:
    assert all(np.isnan(value) for value in measure(np.ones((1, 1)), [A]).values())


def slow_measures(weights: np.ndarray, ids: tuple[int, ...]) -> dict[str, float]:
    """The definitions, cell by cell, in float64."""
    n = len(ids)
    rows = range(1, n)
    earlier = {i: [j for j in range(i) if ids[j] == ids[i]] for i in rows}
    repeated = [i for i in rows if earlier[i]]
    w = weights.astype(np.float64)
    return {
        "previous": np.mean([w[i, i - 1] for i in rows]),
        "current": np.mean([w[i, i] for i in rows]),
        "first": np.mean([w[i, 0] for i in rows]),
        "duplicate": np.mean([sum(w[i, j] for j in earlier[i]) for i in repeated]),
        "induction": np.mean([sum(w[i, j + 1] for j in earlier[i] if j + 1 < i) for i in repeated]),
        "entropy": np.mean([-sum(p * np.log2(p) for p in w[i] if p > 0) for i in rows]),
        "distance": np.mean([sum(w[i, j] * (i - j) for j in range(i + 1)) for i in rows]),
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_measures_are_the_definitions_on_eager_maps(tiny_lm: TinyLm, architecture: str) -> None:
    lm = tiny_lm(architecture)
    from tests import laws

    maps = _eager(architecture, REPEATING)
    found = measure_heads(trace_tokens(lm, REPEATING), max_bytes=4 * 4 * len(REPEATING) * 5)
    assert found.names == MEASURE_NAMES
    assert found.values.shape == (7, *maps.shape[:2])
    assert found.n_repeated == 12
    assert laws.TEXT == TEXT
    for layer in range(maps.shape[0]):
        for head in range(maps.shape[1]):
            for name, value in slow_measures(maps[layer, head], REPEATING).items():
                np.testing.assert_allclose(
                    found.of(name)[layer, head], value, rtol=1e-4, atol=3e-5, err_msg=f"{name} {layer}.{head}"
                )


@cache
def _eager(architecture: str, ids: tuple[int, ...]) -> np.ndarray:
    from tests.conftest import make_network

    network = make_network(architecture).eval()
    with torch.no_grad():
        output: Any = network(torch.tensor([ids]), output_attentions=True, use_cache=False)
    return np.stack([a[0].numpy() for a in output.attentions])


def test_a_wrong_count_or_shift_would_be_noticed(tiny_lm: TinyLm, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference tells apart what these measures are easily confused with."""
    lm = tiny_lm("gpt2")
    maps = _eager("gpt2", REPEATING)
    trace = trace_tokens(lm, REPEATING)
    true = {
        name: np.array([[slow_measures(h, REPEATING)[name] for h in layer] for layer in maps])
        for name in MEASURE_NAMES
    }
    shifted = np.roll(maps, 1, axis=-1)
    for name in ("previous", "current", "first", "duplicate", "induction", "distance"):
        wrong = np.array([[slow_measures(h, REPEATING)[name] for h in layer] for layer in shifted])
        assert np.abs(wrong - true[name]).max() > 1e-2, name
    monkeypatch.setattr(
        attention_measures, "attention_blocks", _transposed(attention_measures.attention_blocks)
    )
    found = measure_heads(trace)
    for name in ("first", "previous", "duplicate", "induction"):
        assert np.abs(found.of(name) - true[name]).max() > 1e-2, name


def _transposed(blocks: Callable[..., Any]) -> Callable[..., Any]:
    def changed(*args: Any, **options: Any) -> Any:
        for queries, weights in blocks(*args, **options):
            yield queries, weights.flip(-1).contiguous()

    return changed


def test_the_result_does_not_depend_on_the_blocks(tiny_lm: TinyLm) -> None:
    trace = trace_tokens(tiny_lm("llama"), REPEATING)
    whole = measure_heads(trace).values
    for max_bytes in (1, 4 * 4 * 36 * 5):
        np.testing.assert_allclose(
            measure_heads(trace, max_bytes=max_bytes).values, whole, rtol=1e-4, atol=1e-6
        )


class Stopped:
    """A control that stops at the second look."""

    def __init__(self) -> None:
        self.looks = 0

    def check(self) -> None:
        self.looks += 1
        if self.looks == 2:
            raise CancelledError("Stopped.")

    def report(self, fraction: float, message: str) -> None:
        assert 0 <= fraction <= 1


def test_it_stops_within_a_block(tiny_lm: TinyLm) -> None:
    trace = trace_tokens(tiny_lm("gpt2"), REPEATING)
    control = Stopped()
    with pytest.raises(CancelledError):
        measure_heads(trace, max_bytes=4 * 4 * 36 * 5, control=control)
    assert control.looks == 2


def test_closed_models_say_so(tiny_lm: TinyLm) -> None:
    with pytest.raises(UnsupportedError, match="no map"):
        measure_heads(trace_tokens(tiny_lm("bloom"), TEXT))


def test_every_measure_is_one_sentence_with_a_unit() -> None:
    assert len({measure.name for measure in MEASURES}) == 7
    for measure_ in MEASURES:
        assert measure_.definition.endswith(".")
        assert measure_.definition.count(". ") == 0
        assert measure_.unit in {"probability", "bits", "tokens"}
