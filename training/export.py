"""A run -> a folder with the model as everyone reads it: GPT-2's 50,257 ids, float16, tokenizer, facts and manifest.

usage: python -m training.export [--run build/training/run] [--data build/training/data] [--out build/training/model]
                                 [--start FOLDER --keep 0.4]

Compact ids become GPT-2's again. An id that no text held has no trained row; it gets one that is improbable after
every text and near to no trained token (`fill_untrained`).

A run that began from a saved model may be mixed with it: `--keep 0.4` takes four tenths of the starting weights and six
tenths of the run's. What both know stays, and what the run forgot comes back (Wortsman et al. 2022, arXiv:2109.01903).
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from gpt_core.manifest import write_manifest
from training.train import N_FREQUENT, WEIGHTS, Ids, Settings, make_model
from training.vocabulary import END_OF_TEXT, VOCABULARY

ROOT = Path(__file__).parent.parent
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
#: How much further from a trained row an untrained one is than its tenth neighbour, as a cosine.
NEIGHBOUR_MARGIN = 0.06
#: Length from which an untrained row costs something.
LONGEST = 0.8
#: Length of what tells two untrained rows apart.
NOISE = 0.3
#: How often the untrained row is found again with what the model makes of it, and on how many rows of such text.
ROUNDS, N_ODD = 5, 12


def find_row(states: torch.Tensor, table: torch.Tensor, steps: int = 500) -> torch.Tensor:
    """A row `(d,)` for ids that were never trained: improbable after every state, and no trained row's near neighbour.

    states `(n, d)`, table `(n_ids, d)`. By gradient: the largest difference between the row's logit and the logarithm
    of the sum over the trained ids is made small, as long as the row is further from each trained row than its tenth
    neighbour is.
    """
    units = torch.nn.functional.normalize(table, dim=1)
    sums = torch.cat([(part @ table.T).logsumexp(dim=1) for part in states.split(512)])
    tenth = torch.cat([(part @ units.T).topk(11, dim=1).values[:, -1] for part in units.split(512)])
    start = -0.3 * states.mean(dim=0)
    row = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([row], lr=0.02)
    for _ in range(steps):
        leak = (states @ row - sums).logsumexp(dim=0)
        cosines = units @ torch.nn.functional.normalize(row, dim=0)
        too_near = (cosines - tenth + NEIGHBOUR_MARGIN).clamp(min=0).sum()
        too_long = (row.norm() - LONGEST).clamp(min=0) ** 2
        optimizer.zero_grad()
        (leak + 20 * too_near + 0.5 * too_long).backward()
        optimizer.step()
    return row.detach()


def odd_states(model: GPT2LMHeadModel, unheld: np.ndarray, data: Path) -> torch.Tensor:
    """`(n, d)`: what the head reads after text of which a tenth, half and all of the ids are ones that no text held."""
    rng = np.random.default_rng(0)
    length = model.config.n_positions // 2
    shares = np.resize([0.1, 0.5, 1.0], N_ODD)
    stream = np.load(data / f"train_{next(iter(WEIGHTS))}.npy")
    rows = np.resize(stream.astype(np.int64), (N_ODD, length))
    chosen = rng.random(rows.shape) < shares[:, None]
    rows[chosen] = rng.choice(unheld, int(chosen.sum()))
    with torch.inference_mode():
        states = model.transformer(input_ids=torch.from_numpy(rows)).last_hidden_state.flatten(0, 1)
    return states.clone()


def quiet_noise(states: torch.Tensor, count: int) -> torch.Tensor:
    """`(count, d)`: vectors of length NOISE where the states `(n, d)` hardly vary."""
    _, directions = torch.linalg.eigh(states.T @ states)
    quiet = directions[:, : len(directions) // 2]
    noise = torch.randn(count, quiet.shape[1], generator=torch.Generator().manual_seed(0))
    return NOISE * torch.nn.functional.normalize(noise, dim=1) @ quiet.T


def fill_untrained(model: GPT2LMHeadModel, states: torch.Tensor, ids: Ids, data: Path) -> None:
    """Give the ids of `model` that no text held rows of their own: `find_row`'s, and each a little noise.

    states `(n, d)`: what the head reads after text. The rows are inputs as well: what the head reads after such an id
    depends on them, and must not make them probable either. So the row is found again, with these states among the
    others, some times over. The noise lies where the states hardly vary: it tells the ids apart when they are read and
    moves no prediction.
    """
    table = model.transformer.wte.weight.detach()
    unheld = np.setdiff1d(np.arange(VOCABULARY), ids.gpt2)
    trained = table[torch.from_numpy(ids.gpt2)]
    noise = quiet_noise(states, len(unheld))
    every = [states]
    for _ in range(ROUNDS + 1):
        table[torch.from_numpy(unheld)] = find_row(torch.cat(every), trained) + noise
        every.append(odd_states(model, unheld, data))


def final_states(model: GPT2LMHeadModel, ids: Ids, data: Path) -> torch.Tensor:
    """`(n, d)`: what the head reads, on pieces of every source's training text."""
    states = []
    shape = 3, model.config.n_positions
    with torch.inference_mode():
        for name in WEIGHTS:
            stream = np.load(data / f"train_{name}.npy")[: shape[0] * shape[1]]
            rows = torch.from_numpy(ids.compact[stream].reshape(shape))
            states.append(model.transformer(input_ids=rows).last_hidden_state.flatten(0, 1))
    return torch.cat(states).clone()


def read_run(run: Path, data: Path) -> tuple[GPT2LMHeadModel, Ids, dict[str, Any]]:
    """The model of a run with its compact ids, and the run's state."""
    ids = Ids(np.load(data / "counts.npy"))
    state = torch.load(run / "checkpoint.pt", weights_only=True, map_location="cpu")
    model = make_model(Settings(**state["settings"]), ids, None).eval()
    model.load_state_dict(state["model"])
    return model, ids, state


def mix_weights(run: dict[str, Any], start: dict[str, Any], keep: float) -> dict[str, Any]:
    """keep · start + (1 - keep) · run, weight by weight."""
    return {name: torch.lerp(weight, start[name], keep) for name, weight in run.items()}


def describe(data: Path, ids: Ids, state: dict[str, Any], keep: float) -> dict[str, Any]:
    """The facts about the training that the card states and the measurement needs."""
    settings = state["settings"]

    def bitmap(chosen: np.ndarray) -> str:
        marks = np.zeros(VOCABULARY, dtype=np.uint8)
        marks[chosen] = 1
        return base64.b64encode(np.packbits(marks).tobytes()).decode()

    return {
        "steps": state["step"],
        "tokens": state["step"] * settings["rows"] * settings["n_positions"],
        "settings": settings,
        "keep": keep,
        "shares": state["shares"],
        "began_from": state["began_from"],
        "corpus": json.loads((data / "manifest.json").read_text()),
        "trained_ids": bitmap(ids.gpt2),
        "frequent_ids": bitmap(ids.gpt2[:N_FREQUENT]),
    }


def export(run: Path, data: Path, out: Path, start: Path | None = None, keep: float = 0.0) -> None:
    """Write the folder."""
    small, ids, state = read_run(run, data)
    if start is not None:
        began = make_model(Settings(**state["settings"]), ids, start)
        state["model"] = mix_weights(state["model"], began.state_dict(), keep)
        small.load_state_dict(state["model"])
    config = small.config.to_dict() | {
        "vocab_size": VOCABULARY,
        "activation_function": "gelu_new",
        "bos_token_id": END_OF_TEXT,
        "eos_token_id": END_OF_TEXT,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }
    model = GPT2LMHeadModel(GPT2Config(**config)).eval()
    rows = torch.zeros(VOCABULARY, small.config.n_embd)
    rows[torch.from_numpy(ids.gpt2)] = state["model"]["transformer.wte.weight"]
    model.load_state_dict(state["model"] | {"transformer.wte.weight": rows, "lm_head.weight": rows})
    fill_untrained(model, final_states(small, ids, data), ids, data)
    out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(out)
    bundled = ROOT / "gpt_core" / "bundled"
    if out.resolve() != bundled.resolve():
        for name in TOKENIZER_FILES:
            shutil.copyfile(bundled / name, out / name)
    (out / "training.json").write_text(json.dumps(describe(data, ids, state, keep), indent=1) + "\n")
    write_manifest(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=ROOT / "build" / "training" / "run")
    parser.add_argument("--data", type=Path, default=ROOT / "build" / "training" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "training" / "model")
    parser.add_argument("--start", type=Path, help="folder of the model that the run began from")
    parser.add_argument("--keep", type=float, default=0.0, help="share of its weights in the result")
    arguments = parser.parse_args()
    export(arguments.run, arguments.data, arguments.out, arguments.start, arguments.keep)
