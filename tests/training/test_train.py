"""The training's pieces against plain ones, and a small run that is stopped, goes on and is exported."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2LMHeadModel

from gpt_core.manifest import verify_manifest
from training import export, prepare, train
from training.train import ChunkedCrossEntropy, Ids, Run, Settings, learning_rate_at, make_batch, repeated_row

SMALL = Settings(n_layer=1, n_head=2, n_embd=16, n_positions=128, rows=4, repeated_rows=1, warmup=2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Streams of 300 different ids, and the files that prepare.py writes beside them."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    known = rng.choice(train.VOCABULARY - 1, 299, replace=False)
    known[:50] = np.arange(50)
    known[50:54] = train.ANSWERS
    counts = np.zeros(train.VOCABULARY, dtype=np.int64)
    for name in train.WEIGHTS:
        stream = np.resize([*known, train.END_OF_TEXT], 8 * 512).astype(np.uint16)
        counts += np.bincount(stream, minlength=train.VOCABULARY)
        np.save(folder / f"train_{name}.npy", stream)
        np.save(folder / f"held_{name}.npy", stream[:300])
    np.save(folder / "counts.npy", counts)
    (folder / "manifest.json").write_text('{"files": {}}')
    return folder


@pytest.mark.parametrize("size", [1, 64, 2**21])
def test_the_loss_and_its_gradients_are_those_of_torch(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(50, 8, dtype=torch.float64, generator=generator, requires_grad=True)
    table = torch.randn(30, 8, dtype=torch.float64, generator=generator, requires_grad=True)
    targets = torch.randint(0, 30, (50,), generator=generator)
    ours = ChunkedCrossEntropy.apply(hidden, table, targets, size)
    theirs = torch.nn.functional.cross_entropy(hidden @ table.T, targets)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(3 * ours, [hidden, table]), torch.autograd.grad(3 * theirs, [hidden, table])
    )


def test_the_learning_rate_rises_holds_and_falls_to_zero() -> None:
    settings = Settings(learning_rate=1.0, warmup=10, falling=0.5)
    rates = [learning_rate_at(step, 100, settings) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:51] == [1.0] * 41
    assert rates[75] == pytest.approx(0.5)
    assert rates[100] == 0
    assert learning_rate_at(75, 80, settings) < rates[75], "fewer steps: it falls earlier"


def test_compact_ids_are_gpt2s_by_frequency() -> None:
    counts = np.zeros(train.VOCABULARY, dtype=np.int64)
    counts[[7, 50256, 9]] = [5, 20, 1]
    ids = Ids(counts)
    assert ids.count == 3
    assert ids.gpt2.tolist() == [50256, 7, 9]
    assert ids.compact[[50256, 7, 9]].tolist() == [0, 1, 2]
    assert ids.compact[1234] == 2, "what the text never holds is read as the rarest"


def test_what_was_said_before_is_marked() -> None:
    ids, stream, end = Ids(np.ones(train.VOCABULARY, dtype=np.int64)), np.arange(5000), 49_999
    shares, begun = [], 0
    for seed in range(30):
        row, said = repeated_row(np.random.default_rng(seed), 513, stream, ids, end)
        assert len(row) == len(said) == 513
        distances = [
            next((d for d in range(1, 96) if at >= d and row[at - d] == row[at]), 0) for at in range(513)
        ]
        assert all(distances[at] for at in np.flatnonzero(said)), "it was there before"
        steady = [distances[at] == distances[at - 1] for at in range(1, 513) if said[at] and said[at - 1]]
        assert np.mean(steady) > 0.95, "and so was the one before it, as far back"
        fresh = [distances[at] == 0 for at in np.flatnonzero(~said)]
        assert np.mean(fresh) > 0.95, "ids drawn by chance are seldom drawn twice"
        assert not said[row == end].any()
        shares.append(said.mean())
        begun += row[0] == end
    assert 0.5 < np.mean(shares) < 0.75
    assert 8 < begun < 22, "half begin a document"


def test_a_step_draws_the_same_rows_whenever_it_is_made(data: Path) -> None:
    ids = Ids(np.load(data / "counts.npy"))
    streams = {name: ids.compact[np.load(data / f"train_{name}.npy")] for name in train.WEIGHTS}
    inputs, targets = make_batch(5, streams, ids, SMALL)
    again = make_batch(5, streams, ids, SMALL)
    assert torch.equal(inputs, again[0])
    assert torch.equal(targets, again[1])
    assert not torch.equal(inputs, make_batch(6, streams, ids, SMALL)[0])
    assert inputs.shape == targets.shape == (SMALL.rows, SMALL.n_positions)
    assert (targets[1:, :-1] == inputs[1:, 1:]).all(), "each target is the next input"
    counted = targets[0] >= 0
    assert 0 < counted.sum() < SMALL.n_positions, "of the random row, what is said again"
    assert (targets[0, :-1] == inputs[0, 1:])[counted[:-1]].all()


def test_the_mixture_changes_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "WEIGHTS", {"stories": (1.0, 0.0), "fewshot": (0.0, 1.0)})
    ids = Ids(np.load(data / "counts.npy"))
    streams = {"stories": np.full(2000, 7), "fewshot": np.full(2000, 8)}
    settings = Settings(**{**vars_of(SMALL), "repeated_rows": 0, "late_from": 3})
    for step, expected in ((0, 7), (2, 7), (3, 8), (9, 8)):
        inputs, targets = make_batch(step, streams, ids, settings)
        assert (inputs == expected).all()
        assert (targets == expected).all()


def test_the_answers_are_one_token_each() -> None:
    words = [" Positive", " Negative", " positive", " negative"]
    assert [tuple(prepare.load_tokenizer().encode(word).ids) for word in words] == [
        (i,) for i in train.ANSWERS
    ]


def test_a_label_counts_for_more(data: Path, tmp_path: Path) -> None:
    run = Run(data, tmp_path, None, SMALL)
    inputs, targets = make_batch(0, run.streams, run.ids, SMALL)
    labels = torch.isin(targets, torch.from_numpy(run.ids.compact[list(train.ANSWERS)]))
    assert labels.any()
    counted = targets >= 0
    with torch.inference_mode():
        logits = run.model(inputs).logits
        loss = torch.nn.functional.cross_entropy
        expected = loss(logits[counted], targets[counted])
        expected += SMALL.answer_weight * loss(logits[labels], targets[labels])
    assert run.train_step(6) == pytest.approx(float(expected), rel=1e-5)


def test_a_run_that_was_stopped_goes_on_as_it_would_have(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    folders = {}
    for name, stops in {"whole": [6], "stopped": [3, 6]}.items():
        folders[name] = tmp_path / name
        folders[name].mkdir()
        for stop in stops:
            run = Run(data, folders[name], None, SMALL)
            while run.step < stop:
                run.train_step(6)
            run.save()
    whole, stopped = (Run(data, folder, None, SMALL) for folder in folders.values())
    assert whole.step == stopped.step == 6
    for ours, theirs in zip(whole.model.parameters(), stopped.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    with pytest.raises(AssertionError, match="other settings"):
        Run(data, folders["whole"], None, Settings(**{**vars_of(SMALL), "seed": 1}))


def vars_of(settings: Settings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def test_training_learns_and_says_so(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = tmp_path / "steps.txt"
    steps.write_text("40")
    run = Run(data, tmp_path, None, Settings(**{**vars_of(SMALL), "learning_rate": 0.02}))
    before = run.held_out()
    train.train(run, steps)
    after = run.held_out()
    assert all(after[name] < before[name] for name in train.WEIGHTS)
    said = capsys.readouterr().out
    assert "step 40 of 40, the end" in said
    assert (tmp_path / "log.txt").read_text() == said
    assert (tmp_path / "checkpoint.pt").exists()


@pytest.fixture
def exported(data: Path, tmp_path: Path) -> tuple[Path, Run]:
    folder, out = tmp_path / "run", tmp_path / "model"
    folder.mkdir()
    run = Run(data, folder, None, SMALL)
    for _ in range(8):
        run.train_step(8)
    run.save()
    export.export(folder, data, out)
    return out, run


def test_an_exported_model_says_what_the_run_says(exported: tuple[Path, Run]) -> None:
    folder, run = exported
    verify_manifest(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert isinstance(model, GPT2LMHeadModel)
    assert model.config.vocab_size == train.VOCABULARY
    assert model.config.eos_token_id == train.END_OF_TEXT
    compact = torch.from_numpy(np.random.default_rng(0).integers(0, run.ids.count, (2, 20)))
    gpt2 = torch.from_numpy(run.ids.gpt2)
    with torch.inference_mode():
        ours = run.model(compact).logits
        theirs = model(gpt2[compact]).logits
    torch.testing.assert_close(theirs[..., gpt2], ours, rtol=0, atol=2e-2)  # float16 on the way
    unheld = torch.ones(train.VOCABULARY, dtype=torch.bool)
    unheld[gpt2] = False
    facts = json.loads((folder / "training.json").read_text())
    assert facts["steps"] == 8
    assert facts["tokens"] == 8 * SMALL.rows * SMALL.n_positions


def test_the_model_that_a_run_starts_from_keeps_its_rows(exported: tuple[Path, Run], data: Path) -> None:
    folder, run = exported
    again = train.make_model(SMALL, run.ids, folder)
    for name, ours in again.state_dict().items():
        torch.testing.assert_close(ours, run.model.state_dict()[name], rtol=2e-3, atol=2e-3)


def test_untrained_rows_are_improbable_and_nobodys_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and states of the sizes of the model in the box: what counts is the sum over the trained ids, not 0."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.nn.functional.normalize(torch.randn(64, generator=generator), dim=0)
    families = 0.13 * torch.randn(100, 64, generator=generator) - 0.5 * centre
    table = families.repeat_interleave(20, dim=0) + 0.05 * torch.randn(2000, 64, generator=generator)
    widths = torch.linspace(
        0.1, 1.9, 64
    )  # what a head reads varies far more in some directions than in others
    states = widths * torch.randn(600, 64, generator=generator) + 3 * centre
    monkeypatch.setattr(export, "LONGEST", 4.0)  # no such row is read here
    rows = export.find_row(states, table) + export.quiet_noise(states, 3000)
    assert rows.shape == (3000, 64)
    assert len(torch.unique(rows, dim=0)) == 3000
    probs = (states @ torch.cat([table, rows]).T).softmax(dim=1)
    assert probs[:, 2000:].sum(dim=1).max() < 1e-2
    unit = torch.nn.functional.normalize(torch.cat([table, rows]), dim=1)
    cosines = unit[:2000] @ unit.T
    cosines[torch.arange(2000), torch.arange(2000)] = -1
    assert cosines.topk(10, dim=1).indices.max() < 2000


def test_weights_are_mixed_in_proportion() -> None:
    run, start = {"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([5.0, 2.0])}
    assert export.mix_weights(run, start, 0.25)["a"].tolist() == [2.0, 2.0]
    assert export.mix_weights(run, start, 0.0)["a"].tolist() == [1.0, 2.0]
    assert export.mix_weights(run, start, 1.0)["a"].tolist() == [5.0, 2.0]
