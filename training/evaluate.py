"""Measure models: heads, few-shot tasks, held-out loss, samples.

usage: python -m training.evaluate [MODEL ...] [--corpus ../shared/corpus] [--json FILE]

A MODEL is a folder that save_pretrained wrote, or an id such as `bundled:small-gpt2`, which is also what is measured
where none is named. All models see the same texts. What needs the third-party texts (held-out loss, 200 labelled rows
of each file) is measured where `--corpus` names the folder that holds them; the rest needs nothing but the project.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gpt_core.attention import all_attention_maps
from gpt_core.catalog import ModelId, bundled_model_id
from gpt_core.decoding import GenerationSettings, SamplingSettings
from gpt_core.generation import generate_tokens
from gpt_core.model import LanguageModel, load_model, wrap_network
from gpt_core.trace import trace_tokens
from training import fewshot, prepare
from training.overlap import LABELLED_FILES, SENTENCES_FILE, read_labelled, split_labelled
from training.vocabulary import END_OF_TEXT, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROOT = Path(__file__).parent.parent
FACTS_FILE = ROOT / "gpt_core" / "bundled" / "training.json"

#: Tokens of a row in which loss is measured.
ROW = 512
#: The random sequences by which heads are scored: length of the half that is said twice, and how many.
HALF, N_SEQUENCES = 64, 20
#: The notebook's two examples; the sentence to judge follows.
SENTIMENT_PROMPT = """Sentiment Analysis
Text: I hate it when my phone battery dies.
Sentiment: Negative
###
Text: My day has been really great!
Sentiment: Positive
###
Text: {text}
Sentiment:"""
LABELS = (" Positive", " Negative")
OPENING = "Once upon a time, there was"
CS123 = "The CS123 class was very intresting. I learned a lot."
#: Who receives? None of these sentences is made by fewshot.py: neither the words after "gave" nor the shapes.
TRANSFER_SHAPES = [
    "When {x} and {y} went to the store, {g} gave a drink to",
    "When {x} and {y} went to the park, {g} gave a sandwich to",
    "After {x} and {y} had dinner together, {g} gave the menu to",
    "{x} and {y} were working at the office. {g} decided to give a letter to",
    "Yesterday {x} and {y} had a long talk, and then {g} gave a flower to",
]


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    z = 1.959963984540054
    p = successes / trials
    centre = p + z * z / (2 * trials)
    spread = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return (centre - spread) / scale, (centre + spread) / scale


def describe_proportion(hits: Sequence[bool]) -> dict[str, Any]:
    """Hits, trials, their ratio and its interval."""
    low, high = wilson_interval(sum(hits), len(hits))
    return {
        "hits": int(sum(hits)),
        "of": len(hits),
        "accuracy": round(sum(hits) / len(hits), 4),
        "interval": [round(low, 3), round(high, 3)],
    }


# --- the heads


def known_ids(kind: str) -> np.ndarray:
    """`(n,)`: the ids that the bundled model's text held at least once ("trained_ids"), or the 10,240 most frequent
    of them, which took part in every softmax ("frequent_ids")."""
    bits = base64.b64decode(json.loads(FACTS_FILE.read_text())[kind])
    return np.flatnonzero(np.unpackbits(np.frombuffer(bits, dtype=np.uint8)))


def repeated_sequences(ids: np.ndarray) -> Iterator[np.ndarray]:
    """`(2 * HALF,)` each: random ids, no two equal, said twice; sequence number s is drawn by seed s."""
    for seed in range(N_SEQUENCES):
        half = np.random.default_rng(seed).choice(ids, HALF, replace=False)
        yield np.concatenate([half, half])


def head_scores(lm: LanguageModel, ids: np.ndarray, *, before: Sequence[int] = ()) -> dict[str, np.ndarray]:
    """Mean attention of each head to what gives it its name, `(n_layers, n_heads)` each, probability 0..1.

    On random ids said twice (Olsson et al. 2022, arXiv:2209.11895, section "Induction heads"): from the second half to
    the token after the same token's first place (induction) and to that place itself (duplicate); from every
    position but the first to the one before it (previous), to the first (first) and to itself (current). The ids
    `before` stand in front of both halves.
    """
    sums: dict[str, Any] = Counter()
    second, later = np.arange(HALF, 2 * HALF) + len(before), np.arange(1, 2 * HALF + len(before))
    for sequence in repeated_sequences(ids):
        maps = all_attention_maps(trace_tokens(lm, [*before, *sequence.tolist()]))
        sums["induction"] += maps[:, :, second, second - HALF + 1].mean(axis=-1)
        sums["duplicate"] += maps[:, :, second, second - HALF].mean(axis=-1)
        sums["previous"] += maps[:, :, later, later - 1].mean(axis=-1)
        sums["first"] += maps[:, :, later, 0].mean(axis=-1)
        sums["current"] += maps[:, :, later, later].mean(axis=-1)
    return {kind: total / N_SEQUENCES for kind, total in sums.items()}


def random_control(lm: LanguageModel) -> LanguageModel:
    """A model of the same configuration with random weights (seed 0)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: PreTrainedModel = type(lm.network)(lm.network.config)
    return wrap_network(network, lm.tokenizer, model_id=ModelId("local", "random weights"))


def describe_heads(scores: dict[str, np.ndarray]) -> dict[str, Any]:
    """Of each kind the best head, the next best, and all scores."""
    described = {}
    for kind, values in scores.items():
        order = np.argsort(-values, axis=None)[:2]
        (layer, head), (next_layer, next_head) = (np.unravel_index(index, values.shape) for index in order)
        described[kind] = {
            "best": f"L{layer}H{head}",
            "score": round(float(values[layer, head]), 3),
            "next": f"L{next_layer}H{next_head}",
            "next_score": round(float(values[next_layer, next_head]), 3),
            "all": [[round(float(value), 3) for value in row] for row in values],
        }
    return described


# --- few-shot


def next_logits(lm: LanguageModel, prompt: str) -> torch.Tensor:
    """`(vocab_size,)`: logits of what follows the prompt, of which the last tokens that fit are read."""
    ids = lm.tokenizer(prompt, return_tensors="pt")["input_ids"][:, -lm.geometry.context_length :]
    with torch.inference_mode():
        logits: torch.Tensor = lm.network(input_ids=ids.to(lm.device), use_cache=False).logits[0, -1].cpu()
    return logits


def first_id(lm: LanguageModel, text: str) -> int:
    """The first id of a text that follows another."""
    return int(lm.tokenizer.encode(text, add_special_tokens=False)[0])


def sentiment_hits(lm: LanguageModel, rows: Sequence[tuple[str, bool]]) -> dict[str, Any]:
    """How often the right label of LABELS is the more probable one, after the notebook's prompt with two examples."""
    positive, negative = (first_id(lm, label) for label in LABELS)
    hits, said, chosen = [], 0, 0
    for text, is_positive in rows:
        logits = next_logits(lm, SENTIMENT_PROMPT.format(text=text))
        judged_positive = bool(logits[positive] > logits[negative])
        hits.append(judged_positive == is_positive)
        chosen += judged_positive
        said += int(logits.argmax()) in {positive, negative}
    return describe_proportion(hits) | {"a_label_comes_first": said, "judged_positive": chosen}


def naive_bayes(rows: Sequence[tuple[str, bool]]) -> Callable[[str], bool]:
    """A bag of words: multinomial naive Bayes with add-one smoothing and equal priors."""
    counts = {True: Counter[str](), False: Counter[str]()}
    for text, positive in rows:
        counts[positive].update(re.findall(r"[a-z']+", text.lower()))
    vocabulary = set(counts[True]) | set(counts[False])
    totals = {label: sum(words.values()) + len(vocabulary) for label, words in counts.items()}

    def judge(text: str) -> bool:
        score = 0.0
        for word in re.findall(r"[a-z']+", text.lower()):
            if word in vocabulary:
                score += math.log((counts[True][word] + 1) / totals[True])
                score -= math.log((counts[False][word] + 1) / totals[False])
        return score > 0

    return judge


def bag_of_words(rows: Sequence[tuple[str, bool]] = ()) -> Callable[[str], bool]:
    """Naive Bayes on what the model was shown: made sentences, and eight times each of the labelled rows, if any."""
    rng = random.Random(0)
    made = []
    for _ in range(40_000):
        positive = rng.random() < 0.5
        made.append((fewshot.make_sentence(rng, positive=positive), positive))
    return naive_bayes([*made, *list(rows) * 8])


def transfer_hits(lm: LanguageModel, n: int = 200) -> dict[str, Any]:
    """How often the receiver's name is more probable than the giver's (arXiv:2211.00593), either named first."""
    rng = random.Random(0)
    hits, first = [], 0
    for _ in range(n):
        x, y = fewshot.two_names(rng)
        giver, receiver = rng.sample([x, y], 2)
        logits = next_logits(lm, rng.choice(TRANSFER_SHAPES).format(x=x, y=y, g=giver))
        hits.append(bool(logits[first_id(lm, " " + receiver)] > logits[first_id(lm, " " + giver)]))
        first += int(logits.argmax()) == first_id(lm, " " + receiver)
    return describe_proportion(hits) | {"the_receiver_comes_first": first}


#: Three examples of a relation, and then a question; every pair is in the training text.
RELATIONS = {
    "capitals": (fewshot.CAPITALS, "The capital of {} is"),
    "opposites": (fewshot.OPPOSITES, "The opposite of {} is"),
    "plurals": (fewshot.PLURALS, "The plural of {} is"),
    "past": (fewshot.PAST, "The past of {} is"),
    "French": (fewshot.FRENCH, "The French word for {} is"),
}


def relation_hits(lm: LanguageModel, pairs: Sequence[tuple[str, str]], shape: str) -> dict[str, Any]:
    """How often the answer's first token is the most probable one, after three other examples."""
    rng = random.Random(0)
    hits = []
    for question, answer in pairs:
        shown = rng.sample([pair for pair in pairs if pair[0] != question], 3)
        lines = [f"{shape.format(left)} {right}." for left, right in shown]
        prompt = "\n".join([*lines, shape.format(question)])
        hits.append(int(next_logits(lm, prompt).argmax()) == first_id(lm, " " + answer))
    return describe_proportion(hits)


# --- loss


def row_losses(lm: LanguageModel, stream: np.ndarray) -> tuple[float, float, float]:
    """Mean loss (nats per token) over all rows of ROW tokens, the same over the targets that the text held at least
    once, and the mean probability of all ids that it never held.

    The second number does not punish a model for finding an id improbable that it never saw.
    """
    n_rows = (len(stream) - 1) // ROW
    known = torch.zeros(lm.geometry.vocab_size, dtype=torch.bool)
    known[torch.from_numpy(known_ids("trained_ids"))] = True
    losses, seen, leaked = [], [], 0.0
    with torch.inference_mode():
        for row in range(n_rows):
            ids = torch.from_numpy(stream[row * ROW : (row + 1) * ROW + 1].astype(np.int64))
            logits = lm.network(input_ids=ids[None, :-1].to(lm.device), use_cache=False).logits[0].cpu()
            log_probs = logits.log_softmax(dim=-1)
            losses.append(-log_probs[torch.arange(ROW), ids[1:]])
            seen.append(known[ids[1:]])
            leaked += float(log_probs[:, ~known].exp().sum())
    loss, counted = torch.cat(losses), torch.cat(seen)
    return float(loss.mean()), float(loss[counted].mean()), leaked / (n_rows * ROW)


def held_out_losses(lm: LanguageModel, streams: dict[str, np.ndarray]) -> dict[str, Any]:
    """Loss of each source over the model's whole vocabulary, and the probability of never-trained ids over all."""
    found = {name: row_losses(lm, stream) for name, stream in streams.items()}
    return {
        "nats_per_token": {name: round(loss, 3) for name, (loss, _, _) in found.items()},
        "nats_per_token_that_the_text_held": {name: round(loss, 3) for name, (_, loss, _) in found.items()},
        "probability_of_untrained_ids": float(f"{np.mean([leaked for _, _, leaked in found.values()]):.2e}"),
    }


# --- text


def sample(lm: LanguageModel, prompt: str, *, seed: int, n: int = 60, temperature: float = 0.7) -> str:
    """The prompt and `n` tokens, drawn at a temperature with nothing cut off; greedy at temperature 0."""
    settings = GenerationSettings(
        max_new_tokens=n, seed=seed, sampling=SamplingSettings(temperature=temperature)
    )
    prompt_ids = lm.tokenizer.encode(prompt)
    last = None
    for step in generate_tokens(lm, prompt_ids, settings):
        last = step
    assert last is not None
    return prompt + last.text


def repetition(text: str) -> float:
    """Share of four-word runs that were there before: 0 where nothing is repeated."""
    words = text.split()
    runs = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return 1 - len(set(runs)) / len(runs)


def text_samples(lm: LanguageModel) -> dict[str, Any]:
    """Ten openings by seeds 0-9, and what follows the CS123 sentence without any chance."""
    greedy = sample(lm, CS123, seed=0, temperature=0.0)
    return {
        "openings": [sample(lm, OPENING, seed=seed) for seed in range(10)],
        "CS123": greedy,
        "CS123_repetition": round(repetition(greedy), 2),
    }


# --- all of it


def is_ours(lm: LanguageModel) -> bool:
    """Whether the model has GPT-2's ids, so that id-by-id measurements mean the same."""
    return lm.tokenizer.encode(OPENING) == [7454, 2402, 257, 640, 11, 612, 373]


def measure(lm: LanguageModel, corpus: Path | None) -> dict[str, Any]:
    """Everything about one model; what needs the corpus where there is one."""
    sentences = read_labelled(SENTENCES_FILE)
    found: dict[str, Any] = {"parameters": lm.geometry.n_parameters}
    if is_ours(lm):
        ids = known_ids("frequent_ids")
        found["heads"] = describe_heads(head_scores(lm, ids))
        begun = head_scores(lm, ids, before=[END_OF_TEXT])
        found["heads_after_end_of_text"] = describe_heads(begun)
        found["heads_on_all_ids"] = describe_heads(head_scores(lm, known_ids("trained_ids")))
        found["heads_of_random_weights"] = describe_heads(head_scores(random_control(lm), ids))
    found["sentiment_50"] = sentiment_hits(lm, sentences)
    found["transfer"] = transfer_hits(lm)
    for name, (pairs, shape) in RELATIONS.items():
        found[name] = relation_hits(lm, pairs, shape)
    found |= text_samples(lm)
    if corpus is not None:
        for name in LABELLED_FILES:
            test, _ = split_labelled(corpus / "fewshot" / f"{name}.jsonl")
            found[name] = sentiment_hits(lm, test)
        if is_ours(lm):
            tokenizer = load_tokenizer()
            streams = prepare.held_out_streams(corpus, tokenizer)
            found["held_out"] = held_out_losses(
                lm, streams | {"tatoeba": prepare.unread_stream(corpus, tokenizer)}
            )
    return found


def measure_baselines(corpus: Path | None) -> dict[str, Any]:
    """What the sentiment lists are worth without a language model."""
    sentences = read_labelled(SENTENCES_FILE)
    lists = {"sentiment_50": sentences}
    judges = {"bag of words, made sentences": bag_of_words()}
    if corpus is not None:
        for name in LABELLED_FILES:
            lists[name], _ = split_labelled(corpus / "fewshot" / f"{name}.jsonl")
        tokenizer = load_tokenizer()
        rows, _ = prepare.split_rows(corpus, lambda text: list(tokenizer.encode(text).ids))
        judges["bag of words, made sentences and labelled rows"] = bag_of_words(rows)
    found: dict[str, Any] = {}
    for name, rows in lists.items():
        n_positive = sum(positive for _, positive in rows)
        found[name] = {"majority": round(max(n_positive, len(rows) - n_positive) / len(rows), 3)}
        for title, judge in judges.items():
            found[name][title] = describe_proportion([judge(text) == positive for text, positive in rows])
    return found


def format_proportion(value: dict[str, Any]) -> str:
    """`42 of 50 = 0.840 [0.71, 0.92]`."""
    low, high = value["interval"]
    return f"{value['hits']:4} of {value['of']:4} = {value['accuracy']:.3f} [{low:.2f}, {high:.2f}]"


def print_model(found: dict[str, Any]) -> None:
    """What `measure` found, as tables."""
    for kind in ("heads", "heads_after_end_of_text", "heads_on_all_ids", "heads_of_random_weights"):
        for name, head in found.get(kind, {}).items():
            best, after = f"{head['best']} {head['score']:.3f}", f"{head['next']} {head['next_score']:.3f}"
            print(f"{kind.replace('_', ' '):24} {name:10} {best}, next {after}")
    for name, value in found.items():
        if isinstance(value, dict) and "accuracy" in value:
            shown = ("hits", "of", "accuracy", "interval")
            more = ", ".join(f"{key.replace('_', ' ')} {n}" for key, n in value.items() if key not in shown)
            print(f"{name:26} {format_proportion(value)} {more}")
    if "held_out" in found:
        for name, loss in found["held_out"]["nats_per_token"].items():
            held = found["held_out"]["nats_per_token_that_the_text_held"][name]
            print(f"{name:26} held-out loss {loss:.3f} nats per token, {held:.3f} of ids that the text held")
        print(f"probability of never-trained ids {found['held_out']['probability_of_untrained_ids']:.1e}")
    for text in [*found["openings"], found["CS123"]]:
        print(f"| {' '.join(text.split())}")


def print_report(report: dict[str, Any]) -> None:
    """All models and the baselines, as tables."""
    for model, found in report["models"].items():
        print(f"\n== {model}, {found['parameters']:,} parameters")
        print_model(found)
    print("\n== without a language model")
    for name, found in report["baselines"].items():
        print(f"{name:26} majority {found['majority']:.3f}")
        for title, value in found.items():
            if title != "majority":
                print(f"{name:26} {title}: {format_proportion(value)}")


def main() -> None:
    """Measure the models that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--corpus", type=Path, default=ROOT / ".." / "shared" / "corpus")
    parser.add_argument("--json", type=Path, help="write all figures there")
    arguments = parser.parse_args()
    corpus: Path | None = arguments.corpus
    if not arguments.corpus.is_dir():
        print(
            f"There is no folder {arguments.corpus}: without the third-party texts, held-out loss and the labelled "
            "rows are left out. Name their folder by --corpus."
        )
        corpus = None
    report: dict[str, Any] = {"models": {}, "baselines": measure_baselines(corpus)}
    for name in arguments.models or [bundled_model_id()]:
        lm = load_model(name if ":" in name else f"local:{Path(name).resolve()}")
        report["models"][name] = measure(lm, corpus)
    print_report(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
