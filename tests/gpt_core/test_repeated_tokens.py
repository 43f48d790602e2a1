"""The probe of repeated random tokens: its text, its scores on perfect heads, and on the bundled model."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from gpt_core.errors import InputError
from gpt_core.model import LanguageModel
from gpt_core.repeated_tokens import _add_up, longest_probe, probe_repeated_tokens
from tests.gpt_core.test_attention_measures import _eager

TinyLm = Callable[[str], LanguageModel]


@pytest.mark.parametrize(("back", "best"), [(4, 0), (5, 1), (1, 2)])
@pytest.mark.parametrize("start", [0, 1])
def test_perfect_heads_score_one(back: int, best: int, start: int) -> None:
    """n = 5: a head that looks 4 back matches prefixes, 5 back finds itself, 1 back the previous token."""
    n = 5
    total = start + 2 * n
    weights = torch.zeros(1, total, total)
    for i in range(back, total):
        weights[0, i, i - back] = 1
    sums = torch.zeros(3, 1)
    for first in range(0, total, 3):
        rows = range(first, min(total, first + 3))
        sums += _add_up(rows, weights[:, rows.start : rows.stop, : rows.stop], start=start, n=n)
    counts = torch.tensor([n, n, total - max(1, start)])
    scores = (sums[:, 0] / counts).tolist()
    # With no token before the copies, the very first has nothing before it.
    assert scores[best] == 1
    assert all(score == 0 for place, score in enumerate(scores) if place != best)


def test_scores_are_means_over_eager_maps(tiny_lm: TinyLm) -> None:
    probe = probe_repeated_tokens(tiny_lm("llama"), n_repeated=12, seed=3)
    ids, n = probe.token_ids, 12
    assert ids[0] == 50256
    assert ids[1 : 1 + n] == ids[1 + n :]
    assert len(set(ids)) == n + 1
    maps = _eager("llama", ids)
    second = range(1 + n, 1 + 2 * n)
    # The last token's earlier occurrence ends the first copy: what follows it begins the second.
    assert [i - n + 1 for i in second] == [ids.index(ids[i]) + 1 for i in second]
    for place, value in enumerate(
        (
            np.mean([maps[:, :, i, i - n + 1] for i in second], axis=0),
            np.mean([maps[:, :, i, i - n] for i in second], axis=0),
            np.mean([maps[:, :, i, i - 1] for i in range(1, len(ids))], axis=0),
        )
    ):
        np.testing.assert_allclose(probe.scores[place], value, atol=1e-5)


def test_a_seed_means_the_same_text_and_the_global_generator_stays_as_it_was(tiny_lm: TinyLm) -> None:
    lm = tiny_lm("gpt2")
    state = torch.random.get_rng_state()
    first, again, other = (probe_repeated_tokens(lm, n_repeated=8, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.token_ids == again.token_ids != other.token_ids
    assert np.array_equal(first.scores, again.scores)


def test_the_bundled_model_has_an_induction_head(bundled: LanguageModel) -> None:
    probe = probe_repeated_tokens(bundled)
    assert probe.scores[0].max() > 0.3
    assert probe.second_surprisal < probe.first_surprisal - 1  # and it helps


@pytest.mark.parametrize("n", [1, 0, -3, 32, 10**9, True, 2.0])
def test_out_of_range_is_said(tiny_lm: TinyLm, n: int) -> None:
    lm = tiny_lm("gpt2")  # 64 positions
    assert longest_probe(lm) == 31
    with pytest.raises(InputError, match="`n_repeated` must be"):
        probe_repeated_tokens(lm, n_repeated=n)
