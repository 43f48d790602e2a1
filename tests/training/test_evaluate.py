"""The measurements against references and by hand, on small models."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt_core.model import LanguageModel
from tests.conftest import make_network
from training import evaluate


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe 1998 (doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_wilsons(successes: int, trials: int, low: float, high: float) -> None:
    assert evaluate.wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_a_proportion_with_its_interval() -> None:
    found = evaluate.describe_proportion([True] * 45 + [False] * 5)
    assert found == {"hits": 45, "of": 50, "accuracy": 0.9, "interval": [0.786, 0.957]}


def test_naive_bayes_by_hand() -> None:
    judge = evaluate.naive_bayes([("good good film", True), ("bad film", False)])
    # log((2+1)/(3+3)) - log((0+1)/(2+3)) > 0 for "good", log((0+1)/(3+3)) - log((1+1)/(2+3)) < 0 for "bad"
    assert judge("Good!")
    assert not judge("BAD")
    assert not judge("unheard of"), "nothing known: not positive"
    assert judge("good good bad"), "2 log 2.5 - log 2.4 > 0"


@pytest.mark.parametrize("before", [[], [50256], [3, 5]])
def test_the_scores_are_the_attention_to_what_names_the_head(
    tiny_lm: Callable[[str], LanguageModel], monkeypatch: pytest.MonkeyPatch, before: list[int]
) -> None:
    """Against loops over eager maps of transformers' own."""
    monkeypatch.setattr(evaluate, "HALF", 10)
    monkeypatch.setattr(evaluate, "N_SEQUENCES", 3)
    lm, ids = tiny_lm("gpt2"), np.arange(500)
    scores = evaluate.head_scores(lm, ids, before=before)
    n = len(before)
    network = make_network("gpt2").eval()  # of the same weights
    sums = {kind: np.zeros((3, 4)) for kind in scores}
    for sequence in evaluate.repeated_sequences(ids):
        assert (sequence[:10] == sequence[10:]).all()
        with torch.inference_mode():
            maps = network(torch.tensor([*before, *sequence])[None], output_attentions=True).attentions
        for layer in range(3):
            for head in range(4):
                weights = maps[layer][0, head].numpy()
                sums["induction"][layer, head] += sum(weights[i, i - 9] for i in range(10 + n, 20 + n)) / 10
                sums["duplicate"][layer, head] += sum(weights[i, i - 10] for i in range(10 + n, 20 + n)) / 10
                sums["previous"][layer, head] += sum(weights[i, i - 1] for i in range(1, 20 + n)) / (19 + n)
                sums["first"][layer, head] += sum(weights[i, 0] for i in range(1, 20 + n)) / (19 + n)
                sums["current"][layer, head] += sum(weights[i, i] for i in range(1, 20 + n)) / (19 + n)
    for kind, total in sums.items():
        np.testing.assert_allclose(scores[kind], total / 3, atol=1e-4, err_msg=kind)


def test_the_sequences_are_always_the_same() -> None:
    ids = np.arange(1000, 2000)
    first, again = (list(evaluate.repeated_sequences(ids)) for _ in range(2))
    assert len(first) == 20
    assert all((one == two).all() for one, two in zip(first, again, strict=True))
    assert len({tuple(sequence) for sequence in first}) == 20
    assert all(len(sequence) == 128 and set(sequence) <= set(ids) for sequence in first)


def test_the_best_head_is_named() -> None:
    values = np.zeros((2, 3))
    values[1, 2], values[0, 1] = 0.5, 0.25
    found = evaluate.describe_heads({"induction": values})["induction"]
    assert (found["best"], found["score"]) == ("L1H2", 0.5)
    assert (found["next"], found["next_score"]) == ("L0H1", 0.25)
    assert found["all"] == values.tolist()


def test_random_weights_attend_to_nothing_in_particular(bundled: LanguageModel) -> None:
    """The control is not the model itself, and its heads are all near uniform: 1/(i+1) on average."""
    control = evaluate.random_control(bundled)
    ids = evaluate.known_ids("frequent_ids")
    scores = evaluate.head_scores(control, ids)
    expected = np.mean([1 / (i + 1) for i in range(64, 128)])
    assert np.abs(scores["induction"] - expected).max() < 0.01
    assert control.geometry.n_parameters == bundled.geometry.n_parameters


class Fixed:
    """A network that finds the next token by a rule on the ids so far."""

    def __init__(self, rule: Callable[[list[int]], int]) -> None:
        self.rule = rule

    def __call__(self, input_ids: torch.Tensor, **_: Any) -> Any:
        logits = torch.zeros(1, input_ids.shape[1], 50257)
        logits[0, -1, self.rule(input_ids[0].tolist())] = 5.0

        class Output:
            pass

        output = Output()
        output.logits = logits  # type: ignore[attr-defined]
        return output


def with_rule(lm: LanguageModel, rule: Callable[[list[int]], int]) -> LanguageModel:
    import dataclasses

    return dataclasses.replace(lm, network=Fixed(rule))  # type: ignore[arg-type]


def test_sentiment_counts_what_is_right(bundled: LanguageModel) -> None:
    positive = bundled.tokenizer.encode(" Positive")[0]
    rows = [("I am fine.", True), ("I am not.", False), ("Hello.", True)]
    found = evaluate.sentiment_hits(with_rule(bundled, lambda ids: positive), rows)
    assert (found["hits"], found["of"], found["judged_positive"], found["a_label_comes_first"]) == (
        2,
        3,
        3,
        3,
    )
    seen: list[str] = []

    def read(ids: list[int]) -> int:
        seen.append(bundled.tokenizer.decode(ids))
        return 0

    assert evaluate.sentiment_hits(with_rule(bundled, read), rows)["a_label_comes_first"] == 0
    assert seen[1].endswith("\n###\nText: I am not.\nSentiment:")
    assert seen[1].startswith("Sentiment Analysis\nText: I hate it when my phone battery dies.\n")


@pytest.mark.parametrize(("which", "hits"), [("giver", 0), ("receiver", 20)])
def test_the_receiver_is_right_and_the_giver_wrong(bundled: LanguageModel, which: str, hits: int) -> None:
    def name_one(ids: list[int]) -> int:
        people = [word for word in re.findall(r"\w+", bundled.tokenizer.decode(ids)) if word in NAMES]
        giver = people[-1]
        (receiver,) = set(people) - {giver}
        return evaluate.first_id(bundled, " " + (giver if which == "giver" else receiver))

    found = evaluate.transfer_hits(with_rule(bundled, name_one), n=20)
    assert (found["hits"], found["the_receiver_comes_first"]) == (hits, hits)


NAMES = {*evaluate.fewshot.GIRLS, *evaluate.fewshot.BOYS}


def test_all_names_are_one_token(bundled: LanguageModel) -> None:
    """Else the first id would not tell two names apart."""
    firsts = [evaluate.first_id(bundled, " " + name) for name in sorted(NAMES)]
    assert len(set(firsts)) >= 0.98 * len(firsts)


def test_relations_are_judged_by_the_first_token(bundled: LanguageModel) -> None:
    pairs = [("France", "Paris"), ("Italy", "Rome"), ("Spain", "Madrid"), ("Japan", "Tokyo")]
    rome = evaluate.first_id(bundled, " Rome")
    found = evaluate.relation_hits(with_rule(bundled, lambda ids: rome), pairs, "The capital of {} is")
    assert (found["hits"], found["of"]) == (1, 4)


def test_loss_is_that_of_transformers(bundled: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "ROW", 16)
    stream = np.array(bundled.tokenizer.encode("Once upon a time there was a hen. " * 6), dtype=np.uint16)[
        :33
    ]
    ids = torch.from_numpy(stream.astype(np.int64))
    expected = []
    for start in (0, 16):
        row = ids[None, start : start + 17]
        with torch.inference_mode():
            logits = bundled.network(input_ids=row[:, :-1]).logits[0]
        expected.append(float(torch.nn.functional.cross_entropy(logits, row[0, 1:])))
    loss, held, leaked = evaluate.row_losses(bundled, stream)
    assert loss == held == pytest.approx(np.mean(expected), abs=1e-5), "the text held all of these"
    assert 0 <= leaked < 0.1
    known = np.setdiff1d(evaluate.known_ids("trained_ids"), stream[5])
    monkeypatch.setattr(evaluate, "known_ids", lambda kind: known)
    with torch.inference_mode():
        losses = [
            torch.nn.functional.cross_entropy(
                bundled.network(input_ids=ids[None, start : start + 16]).logits[0],
                ids[start + 1 : start + 17],
                reduction="none",
            )
            for start in (0, 16)
        ]
    kept = ids[1:33] != ids[5]
    assert 0 < kept.sum() < 32
    assert evaluate.row_losses(bundled, stream)[1] == pytest.approx(
        float(torch.cat(losses)[kept].mean()), abs=1e-5
    )


def test_repetition() -> None:
    assert evaluate.repetition("a b c d e f g") == 0
    assert evaluate.repetition("a b c d a b c d") == pytest.approx(1 / 5)
    assert evaluate.repetition("a " * 13) == pytest.approx(0.9)


def test_what_is_missing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the third-party texts everything else is measured, and written where asked."""
    found = {"parameters": 3, "openings": ["Once"], "CS123": "x", "asked_for": None}

    def measure(lm: LanguageModel, corpus: Path | None) -> dict[str, Any]:
        assert corpus is None
        return found

    monkeypatch.setattr(evaluate, "measure", measure)
    missing, written = tmp_path / "nowhere", tmp_path / "figures.json"
    monkeypatch.setattr("sys.argv", ["evaluate", "--corpus", str(missing), "--json", str(written)])
    evaluate.main()
    said = capsys.readouterr().out
    assert f"There is no folder {missing}: without the third-party texts, held-out loss" in said
    assert "majority 0.500" in said
    report = json.loads(written.read_text())
    assert list(report["models"].values()) == [found]
    assert set(report["baselines"]) == {"sentiment_50"}
