"""Train the small GPT-2 on the prepared streams, starting from a model or from nothing; stops and goes on anywhere.

usage: python -m training.train [--data build/training/data] [--run build/training/run] [--start FOLDER] [--steps 1820]

What makes it fast enough for two CPU cores, and how the result differs from plain training:
- Ids are renumbered by frequency ("compact"), and ids that no text holds have no row at all. Three steps of four
  compute the softmax over the 10,240 most frequent ids only (98.7 % of the tokens); every fourth takes them all, so
  that rare ids learn how rare they are.
- The logits of a whole batch never exist at once (ChunkedCrossEntropy).
- Muon for the matrices of the blocks, AdamW for everything else, one learning rate: warm up, hold, fall to zero.
- A quarter of the rows are random sequences said several times, whose repetitions alone count. They teach induction:
  "after this token, the same came as before".

Step s of a run draws its rows from a generator seeded with (seed, s): a run that was stopped goes on exactly as it
would have. The file RUN/steps.txt holds the number of steps; it may be changed while the run goes on, and the fall of
the learning rate moves with it. A GPU is used if there is one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from training.vocabulary import END_OF_TEXT, VOCABULARY

ROOT = Path(__file__).parent.parent
#: Ids that take part in every softmax.
N_FREQUENT = 10_240
#: Every so many steps the softmax runs over all ids.
FULL_EVERY = 4

#: Share of the text rows that each source gets, before `Settings.late_from` and after: tasks first, then the texts that
#: are harder to learn.
WEIGHTS = {
    "gutenberg_children": (0.27, 0.36),
    "storybooks_ccby": (0.11, 0.20),
    "tinyfabulist_permissive": (0.07, 0.10),
    "fairytaleqa_stories": (0.06, 0.08),
    "stories": (0.09, 0.05),
    "fewshot": (0.37, 0.17),
    "first_stories": (0.01, 0.01),
    "first_fewshot": (0.02, 0.03),
}

#: " Positive", " Negative", " positive", " negative": one token each. A label is one token of twenty, and what it takes
#: to be right about it is spread over the other nineteen: it is learned sooner where it counts for more than one.
ANSWERS = (33733, 36183, 3967, 4633)


@dataclass(frozen=True)
class Settings:
    """What a run is made with."""

    n_layer: int = 6
    n_head: int = 6
    n_embd: int = 192
    n_positions: int = 512
    rows: int = 8
    repeated_rows: int = 2
    learning_rate: float = 1.0e-3
    warmup: int = 30
    falling: float = 0.85
    """Share of the steps in which the learning rate falls to zero."""
    answer_weight: float = 0.1
    """What the mean loss at the labels of sentiment counts, beside the mean loss over all tokens."""
    late_from: int = 800
    """The step from which the texts are mixed in the second way."""
    seed: int = 2


class Ids:
    """GPT-2's ids and the compact ones: by falling frequency, and only those that the text holds."""

    def __init__(self, counts: np.ndarray) -> None:
        by_frequency = np.argsort(-counts, kind="stable")
        self.count = int((counts > 0).sum())
        #: `(count,)`: the GPT-2 id of each compact id.
        self.gpt2 = by_frequency[: self.count]
        #: `(50257,)`: the compact id of each GPT-2 id; the rarest one for an id that the text never holds.
        self.compact = np.full(VOCABULARY, self.count - 1, dtype=np.int64)
        self.compact[self.gpt2] = np.arange(self.count)


class ChunkedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy (nats) of hidden @ table.T.

    The gradients are made in the forward pass, chunk by chunk, so that no `(n, vocabulary)` array is ever held.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, table: torch.Tensor, targets: torch.Tensor, size: int = 2**21
    ) -> torch.Tensor:
        """hidden `(n, d)`, table `(vocabulary, d)`, targets `(n,)` -> `()`.

        One chunk's logits are about `size` numbers, and use the same memory as the last one's.
        """
        chunk = max(1, size // len(table))
        memory = hidden.new_empty(chunk, len(table))
        grad_hidden = torch.empty_like(hidden)
        grad_table = torch.zeros_like(table)
        total = hidden.new_zeros(())
        for start in range(0, len(hidden), chunk):
            part = hidden[start : start + chunk]
            column = targets[start : start + chunk, None]
            logits = torch.mm(part, table.T, out=memory[: len(part)])
            logits -= logits.amax(dim=1, keepdim=True)
            of_target = logits.gather(1, column)[:, 0]
            probs = logits.exp_()
            sums = probs.sum(dim=1, keepdim=True)
            total += (sums[:, 0].log() - of_target).sum()
            probs *= 1 / (sums * len(hidden))
            probs.scatter_add_(1, column, torch.full_like(column, -1 / len(hidden), dtype=probs.dtype))
            grad_hidden[start : start + chunk] = probs @ table
            grad_table.addmm_(probs.T, part)
        ctx.save_for_backward(grad_hidden, grad_table)
        return total / len(hidden)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients that the forward pass has made."""
        grad_hidden, grad_table = ctx.saved_tensors
        return grad_hidden * grad, grad_table * grad, None, None


def learning_rate_at(step: int, steps: int, settings: Settings) -> float:
    """Warm up, hold, fall linearly to zero over the last part."""
    up = min(1.0, (step + 1) / settings.warmup)
    down = min(1.0, (steps - step) / (settings.falling * steps))
    return settings.learning_rate * up * down


def repeated_row(
    rng: np.random.Generator, length: int, stream: np.ndarray, ids: Ids, end_of_text: int
) -> tuple[np.ndarray, np.ndarray]:
    """A row of random sequences, each said two to four times; and which of its ids were said before.

    Half of the sequences are uniformly random ids, half are shuffled pieces of text. Half of them begin a document,
    half follow each other: else a model learns to look for what was said only behind an end-of-text token.
    """
    row: list[int] = []
    said: list[bool] = []
    while len(row) < length:
        size, times = int(rng.integers(8, 96)), int(rng.integers(2, 5))
        if rng.random() < 0.5:
            pool = ids.count if rng.random() < 0.3 else min(N_FREQUENT, ids.count)
            sequence = rng.integers(0, pool, size)
        else:
            start = rng.integers(0, len(stream) - size)
            sequence = rng.permutation(stream[start : start + size])
        begins = [end_of_text] if rng.random() < 0.5 else []
        row += [*begins, *np.tile(sequence, times).tolist()]
        said += [False] * (len(begins) + size) + [True] * (size * (times - 1))
    return np.array(row[:length]), np.array(said[:length])


def make_batch(
    step: int, streams: dict[str, np.ndarray], ids: Ids, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of a step, `(rows, n_positions)` each; -100 where a target does not count."""
    rng = np.random.default_rng([settings.seed, step])
    length = settings.n_positions + 1
    names = list(WEIGHTS)
    weights = np.array([WEIGHTS[name][step >= settings.late_from] for name in names])
    end_of_text = int(ids.compact[END_OF_TEXT])
    inputs, targets = [], []
    for row in range(settings.rows):
        stream = streams[names[rng.choice(len(names), p=weights / weights.sum())]]
        if row < settings.repeated_rows:
            sequence, said = repeated_row(rng, length, stream, ids, end_of_text)
            target = np.where(said[1:], sequence[1:], -100)
        else:
            start = rng.integers(0, len(stream) - length)
            sequence = stream[start : start + length]
            target = sequence[1:]
        inputs.append(sequence[:-1])
        targets.append(target)
    return torch.from_numpy(np.stack(inputs)), torch.from_numpy(np.stack(targets))


def make_model(settings: Settings, ids: Ids, start: Path | None) -> GPT2LMHeadModel:
    """A model with compact ids: new, or with the weights of a saved model with GPT-2's ids."""
    end_of_text = int(ids.compact[END_OF_TEXT])
    config = GPT2Config(
        vocab_size=ids.count,
        n_positions=settings.n_positions,
        n_embd=settings.n_embd,
        n_layer=settings.n_layer,
        n_head=settings.n_head,
        activation_function="gelu_pytorch_tanh",  # the same function as gelu_new, in one pass
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
        attn_implementation="sdpa",
    )
    torch.manual_seed(settings.seed)
    model = GPT2LMHeadModel(config)
    if start is not None:
        weights = GPT2LMHeadModel.from_pretrained(start, dtype=torch.float32).state_dict()
        table = weights["transformer.wte.weight"][torch.from_numpy(ids.gpt2)]
        weights["transformer.wte.weight"] = weights["lm_head.weight"] = table
        model.load_state_dict(weights)
    return model


def describe_start(folder: Path) -> dict[str, str]:
    """Which saved model a run begins from: its folder's name and the sha256 of its weights."""
    weights = (folder / "model.safetensors").read_bytes()
    return {"name": folder.name, "sha256": hashlib.sha256(weights).hexdigest()}


def make_optimizers(model: GPT2LMHeadModel, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for tables, norms and biases."""
    matrices = [parameter for parameter in model.transformer.h.parameters() if parameter.ndim == 2]
    known = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in known]
    tables = {"params": [parameter for parameter in others if parameter.ndim == 2], "weight_decay": 0.01}
    vectors = {"params": [parameter for parameter in others if parameter.ndim < 2], "weight_decay": 0.0}
    return [
        torch.optim.Muon(
            matrices, lr=learning_rate, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW([tables, vectors], lr=learning_rate, betas=(0.9, 0.98)),
    ]


class Run:
    """A run in its folder: model, optimizers, and the step that comes next."""

    def __init__(self, data: Path, folder: Path, start: Path | None, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.ids = Ids(np.load(data / "counts.npy"))
        self.streams = {name: self.ids.compact[np.load(data / f"train_{name}.npy")] for name in WEIGHTS}
        self.held = {name: self.ids.compact[np.load(data / f"held_{name}.npy")] for name in WEIGHTS}
        self.answers = torch.from_numpy(self.ids.compact[list(ANSWERS)])
        self.model = make_model(settings, self.ids, start).to(self.device)
        self.optimizers = make_optimizers(self.model, settings.learning_rate)
        self.step = 0
        self.began_from = None if start is None else describe_start(start)
        if self.checkpoint.exists():
            self.load()

    @property
    def checkpoint(self) -> Path:
        """Where the run is kept."""
        return self.folder / "checkpoint.pt"

    def load(self) -> None:
        """Go on where the run stopped."""
        state = torch.load(self.checkpoint, weights_only=True, map_location=self.device)
        assert state["settings"] == asdict(self.settings), "this run was begun with other settings"
        assert state["shares"] == WEIGHTS, "this run was begun with other shares of the texts"
        self.began_from = state["began_from"]
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]

    def save(self) -> None:
        """Keep the run; a half-written file never takes the place of a whole one."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "settings": asdict(self.settings),
            "shares": WEIGHTS,
            "began_from": self.began_from,
        }
        unfinished = self.checkpoint.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(self.checkpoint)

    def say(self, words: str) -> None:
        """Print a line and add it to the log."""
        print(words, flush=True)
        with (self.folder / "log.txt").open("a") as log:
            log.write(words + "\n")

    def states_of(self, inputs: torch.Tensor) -> torch.Tensor:
        """`(rows, n_positions, d)`: what the head reads."""
        states: torch.Tensor = self.model.transformer(
            input_ids=inputs.to(self.device), use_cache=False
        ).last_hidden_state
        return states

    def loss_of(self, states: torch.Tensor, targets: torch.Tensor, *, n_ids: int) -> torch.Tensor:
        """Mean loss (nats) with a softmax over the first `n_ids` compact ids, at the targets among them."""
        counted = ((targets >= 0) & (targets < n_ids)).to(self.device)
        table = self.model.transformer.wte.weight[:n_ids]
        loss: torch.Tensor = ChunkedCrossEntropy.apply(
            states[counted], table, targets.to(self.device)[counted]
        )
        return loss

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """Loss of 4 rows of each source, over all compact ids: a glance, evaluate.py measures."""
        length, losses = self.settings.n_positions, {}
        for name, stream in self.held.items():
            rows = min(4, (len(stream) - 1) // length)
            inputs = torch.from_numpy(stream[: rows * length].reshape(rows, length))
            targets = torch.from_numpy(stream[1 : rows * length + 1].reshape(rows, length))
            losses[name] = round(
                float(self.loss_of(self.states_of(inputs), targets, n_ids=self.ids.count)), 3
            )
        return losses

    def train_step(self, steps: int) -> float:
        """One step of `steps`; its loss."""
        rate = learning_rate_at(self.step, steps, self.settings)
        inputs, targets = make_batch(self.step, self.streams, self.ids, self.settings)
        n_ids = self.ids.count if self.step % FULL_EVERY == 0 else N_FREQUENT
        states = self.states_of(inputs)
        loss = self.loss_of(states, targets, n_ids=n_ids)
        answers = torch.isin(targets, self.answers)
        if answers.any():
            of_answers = self.loss_of(states, targets.where(answers, -100), n_ids=n_ids)
            loss = loss + self.settings.answer_weight * of_answers
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(loss.detach())


def train(run: Run, steps_file: Path) -> None:
    """Train to the number of steps in the file, which is read again at every report."""
    smooth, started, n_since = float("nan"), time.monotonic(), 0
    steps = int(steps_file.read_text())
    if run.step == 0:
        run.say(f"step 0 held out {json.dumps(run.held_out())}")
    while run.step < steps:
        loss = run.train_step(steps)
        smooth = loss if smooth != smooth else 0.95 * smooth + 0.05 * loss
        n_since += 1
        if run.step % 20 == 0:
            seconds = time.monotonic() - started
            speed = n_since * run.settings.rows * run.settings.n_positions / seconds
            rate = learning_rate_at(run.step, steps, run.settings)
            run.say(f"step {run.step} of {steps} loss {smooth:.3f} rate {rate:.5f} {speed:.0f} tokens/s")
            started, n_since = time.monotonic(), 0
            steps = int(steps_file.read_text())
            run.save()
        if run.step % 100 == 0:
            run.say(f"step {run.step} held out {json.dumps(run.held_out())}")
    run.save()
    run.say(f"step {run.step} of {steps}, the end; held out {json.dumps(run.held_out())}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT / "build" / "training" / "data")
    parser.add_argument("--run", type=Path, default=ROOT / "build" / "training" / "run")
    parser.add_argument("--start", type=Path, help="folder of a saved GPT-2 of this size to begin from")
    parser.add_argument("--steps", type=int, default=1820, help="where RUN/steps.txt does not say")
    arguments = parser.parse_args()
    arguments.run.mkdir(parents=True, exist_ok=True)
    steps_file = arguments.run / "steps.txt"
    if not steps_file.exists():
        steps_file.write_text(f"{arguments.steps}\n")
    train(Run(arguments.data, arguments.run, arguments.start, Settings()), steps_file)
