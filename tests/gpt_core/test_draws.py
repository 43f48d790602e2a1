"""What the generator draws has the distribution that the page shows: a chi-square test that also sees small mistakes.

Pearson's test with 20,000 draws of `draw_token` from `filter_logits`, as the generator calls them; cells whose expected
count is under 5 are pooled.
"""

import numpy as np
import pytest
import torch

from gpt_core.decoding import STAGES, GenerationSettings, SamplingSettings
from gpt_core.generation import generate_tokens
from gpt_core.model import LanguageModel
from gpt_core.sampling import apply_stages, draw_token, filter_logits
from gpt_core.trace import logits_at, trace_text

N_DRAWS = 20_000
#: After these words many tokens may come, some far more probable than others.
PROMPT = "One day, a fox and a hen"


def draws(logits: np.ndarray, context: tuple[int, ...], shape: SamplingSettings, seed: int) -> np.ndarray:
    """Counts `(vocab_size,)` of what the generator's own functions draw."""
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        filtered = filter_logits(torch.from_numpy(logits.copy())[None], torch.tensor([context]), shape)
        probs = filtered.softmax(dim=-1)[0]
        # All but the tokens that can come are left out: the draw of 50,257 would take a minute.
        ids = torch.nonzero(probs)[:, 0]
        counts = np.bincount([draw_token(probs[ids], generator) for _ in range(N_DRAWS)], minlength=len(ids))
    found = np.zeros(len(logits), dtype=np.int64)
    found[ids.numpy()] = counts
    return found


def p_value(counts: np.ndarray, probs: np.ndarray) -> float:
    """That counts as far from `probs`, or farther, come by chance (Pearson 1900)."""
    expected = counts.sum() * probs.astype(np.float64) / probs.sum(dtype=np.float64)
    if counts[expected == 0].sum() > 0:
        return 0.0
    own = expected >= 5
    cells = [*zip(counts[own], expected[own], strict=True)]
    if expected[~own].sum() > 0:
        cells.append((counts[~own].sum(), expected[~own].sum()))
    statistic = sum((count - mean) ** 2 / mean for count, mean in cells)
    half = torch.tensor([(len(cells) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


@pytest.fixture(scope="module")
def place(bundled: LanguageModel) -> tuple[np.ndarray, tuple[int, ...]]:
    trace = trace_text(bundled, PROMPT)
    return logits_at(bundled, trace, [trace.n_tokens - 1])[0], trace.token_ids


SHAPES = {
    "temperature and top-p": SamplingSettings(temperature=0.9, top_p=0.95),
    "many tokens": SamplingSettings(top_k=1000),
    "everything": SamplingSettings(
        logit_bias=((262, 2.0),),
        repetition_penalty=1.2,
        no_repeat_ngram=2,
        presence_penalty=0.3,
        frequency_penalty=0.2,
        temperature=1.1,
        top_k=60,
        top_p=0.9,
        min_p=0.002,
        typical_p=0.9,
    ),
    "another order": SamplingSettings(
        temperature=1.5, top_p=0.9, order=("top_p", *(stage for stage in STAGES if stage != "top_p"))
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_draws_agree_with_what_is_shown(place: tuple[np.ndarray, tuple[int, ...]], name: str) -> None:
    logits, context = place
    shown = apply_stages(logits, context, SHAPES[name]).probs
    assert p_value(draws(logits, context, SHAPES[name], seed=0), shown) > 0.001


@pytest.mark.parametrize("name", SHAPES)
def test_the_generator_draws_from_what_is_shown(
    bundled: LanguageModel, place: tuple[np.ndarray, tuple[int, ...]], name: str
) -> None:
    """The first step of a generation tells the page's own numbers, whatever the stages and their order."""
    logits, context = place
    settings = GenerationSettings(sampling=SHAPES[name], max_new_tokens=1, seed=1)
    (step,) = generate_tokens(bundled, context, settings)
    shown = apply_stages(logits, context, SHAPES[name])
    np.testing.assert_allclose(step.alternative_filtered_probs, shown.probs[step.alternative_ids], atol=1e-5)
    assert step.filtered_prob == pytest.approx(float(shown.probs[step.token_id]), abs=1e-5)
    assert step.n_survivors == shown.stages[-1].n_survivors


@pytest.mark.parametrize(
    "mistaken",
    [
        SamplingSettings(temperature=0.9, top_p=0.93),
        SamplingSettings(temperature=0.9, top_p=0.97),
        SamplingSettings(temperature=0.9 * 1.05, top_p=0.95),
        SamplingSettings(temperature=0.9 * 0.95, top_p=0.95),
    ],
    ids=lambda shape: f"{shape.temperature:g} {shape.top_p:g}",
)
def test_a_small_mistake_is_seen(
    place: tuple[np.ndarray, tuple[int, ...]], mistaken: SamplingSettings
) -> None:
    logits, context = place
    shown = apply_stages(logits, context, SHAPES["temperature and top-p"]).probs
    assert p_value(draws(logits, context, mistaken, seed=0), shown) < 0.001


def test_a_temperature_alone_is_seen(place: tuple[np.ndarray, tuple[int, ...]]) -> None:
    """The same tokens can come whatever the temperature: only the frequencies can tell."""
    logits, context = place
    shown = apply_stages(logits, context, SamplingSettings(temperature=0.9, top_k=1000)).probs
    for temperature in (0.9 * 1.05, 0.9 * 0.95):
        counts = draws(logits, context, SamplingSettings(temperature=temperature, top_k=1000), seed=0)
        assert p_value(counts, shown) < 0.001


@pytest.mark.slow
def test_draws_of_the_whole_vocabulary(place: tuple[np.ndarray, tuple[int, ...]]) -> None:
    logits, context = place
    shape = SamplingSettings(temperature=0.9)
    counts = draws(logits, context, shape, seed=0)
    assert p_value(counts, apply_stages(logits, context, shape).probs) > 0.001


def test_the_test_itself_keeps_its_level() -> None:
    """Of 200 honest samples about one in 20 has p under 0.05, and the p-values are spread evenly."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.full(300, 0.3))
    found = [p_value(rng.multinomial(N_DRAWS, probs), probs) for _ in range(200)]
    assert 2 <= np.sum(np.array(found) < 0.05) <= 22
    assert 0.4 < np.mean(found) < 0.6
