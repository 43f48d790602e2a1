"""Other programs' rates for generation.py: ctranslate2 and llama.cpp, each run by a Python that has them."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

#: Run by the peers' Python: the rate of ctranslate2 or llama.cpp on the same ids, as JSON.
PEER_PROGRAM = """\
import json, sys, time
kind, folder, ids, n = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])
times = []
if kind.startswith("ctranslate2"):
    import ctranslate2
    model = ctranslate2.Generator(folder, device="cpu", compute_type=kind.split()[1], intra_threads=int(sys.argv[5]))
    tokens = json.loads(open(folder + "/tokens.json").read())
    prompt = [tokens[i] for i in ids]
    for attempt in range(3):
        times = []
        for step in model.generate_tokens(prompt, max_length=n, min_length=n, sampling_topk=1, end_token=[]):
            times.append(time.perf_counter())
else:
    import llama_cpp
    model = llama_cpp.Llama(folder, n_ctx=1024, n_threads=int(sys.argv[5]), verbose=False)
    for attempt in range(3):
        model.reset()
        times = []
        for token in model.generate(ids, temp=0.0):
            times.append(time.perf_counter())
            if len(times) == n:
                break
print(json.dumps((len(times) - 1) / (times[-1] - times[0])))
"""


CTRANSLATE2 = ("ctranslate2 float32", "ctranslate2 int8")
LLAMA = "llama.cpp (SmolLM2, its file's precision)"


def peer_names(lengths: tuple[int, ...]) -> tuple[str, ...]:
    """What the peers' rates are called, timed or not."""
    return tuple(f"{kind} {length}" for kind in (*CTRANSLATE2, LLAMA) for length in lengths)


def time_peers(
    python: str | None,
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    *,
    lengths: tuple[int, ...],
    new_tokens: int,
) -> dict[str, float]:
    """ctranslate2 on GPT-2 small's geometry, and llama.cpp on the file that LLAMA_GGUF names."""
    if not python:
        print("\nctranslate2, llama.cpp: no Python that has them was named (PEERS_PYTHON)")
        return {}
    found: dict[str, float] = {}
    print("\nother programs, GPT-2 small's geometry unless said otherwise")
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "model"
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        converted = Path(home) / "ct2"
        program = (
            "import sys, ctranslate2.converters as c; "
            "c.TransformersConverter(sys.argv[1]).convert(sys.argv[2], force=True)"
        )
        made = subprocess.run(
            [python, "-c", program, str(folder), str(converted)], capture_output=True, text=True, check=False
        )
        if made.returncode:
            print(f"ctranslate2: {made.stderr.strip().splitlines()[-1][:160] if made.stderr else 'failed'}")
        else:
            tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
            (converted / "tokens.json").write_text(json.dumps(tokens))
        kinds = [(kind, converted) for kind in CTRANSLATE2]
        if os.environ.get("LLAMA_GGUF"):
            kinds.append((LLAMA, Path(os.environ["LLAMA_GGUF"])))
        for kind, place in kinds:
            for length in lengths:
                ids = np.random.RandomState(length).randint(2, 49_000, length).tolist()
                done = subprocess.run(
                    [
                        python,
                        "-c",
                        PEER_PROGRAM,
                        kind,
                        str(place),
                        json.dumps(ids),
                        str(new_tokens),
                        str(torch.get_num_threads()),
                    ],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode:
                    reason = done.stderr.strip().splitlines()[-1][:160] if done.stderr else "failed"
                    print(f"{length:>7}  {kind:<44} {reason}")
                    continue
                speed = float(done.stdout.strip().splitlines()[-1])
                print(f"{length:>7}  {kind:<44}{speed:>10.1f} tokens/s")
                found[f"{kind} {length}"] = round(speed, 1)
    return found
