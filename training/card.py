"""The card of the model in the box: card.md filled with what was measured; and the folder's manifest, written anew.

usage: python -m training.card EVALUATION.json --corpus ../shared/corpus --shared N --blind FILE
                               [--folder gpt_core/bundled]

EVALUATION.json is what `python -m training.evaluate FOLDER FIRST SMOLLM2 --corpus ... --json EVALUATION.json` wrote:
this model, the one it began from, and SmolLM2, in that order. FILE says how a reader judged the samples blind.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from gpt_core.manifest import MANIFEST, write_manifest
from training.prepare import N_HELD_OUT
from training.vocabulary import VOCABULARY

ROOT = Path(__file__).parent.parent
TEMPLATE = Path(__file__).parent / "card.md"
CARD = "README.md"
SOURCES = {
    "gutenberg_children": "children's books",
    "storybooks_ccby": "CC BY storybooks",
    "tinyfabulist_permissive": "fables",
    "fairytaleqa_stories": "FairytaleQA",
    "stories": "made stories (49 plots)",
    "fewshot": "made few-shot documents",
    "first_stories": "first generator's stories (12 plots)",
    "first_fewshot": "first generator's few-shot documents",
    "tatoeba": "short sentences of Tatoeba, which neither read",
}
LISTS = {
    "sentiment_50": "50 sentences, committed before training",
    "sentiment_amazon_snippets": "200 product snippets",
    "sentiment_movie_sentences": "200 film sentences",
}
TASKS = {
    "transfer": "When X and Y went to …, X gave … to: the receiver before the giver (shapes that training never makes)",
    "capitals": "capitals, after three examples",
    "opposites": "opposites, likewise",
    "plurals": "plurals, likewise",
    "past": "past tense, likewise",
    "French": "French, likewise",
}
SCORES = ("induction", "previous", "duplicate", "first", "current")
SETTINGS = ("learning_rate", "warmup", "falling", "seed", "late_from", "answer_weight")
BAG_OF_WORDS = "bag of words, made sentences and labelled rows"


def make_table(rows: list[list[str]]) -> str:
    """Lines of a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def tell_proportion(value: dict[str, Any]) -> str:
    """`42 of 50 = 84 % [71–92]`."""
    low, high = value["interval"]
    return f"{value['hits']} of {value['of']} = {100 * value['accuracy']:.0f} % [{100 * low:.0f}–{100 * high:.0f}]"


def tell_head(described: dict[str, Any], *, which: str = "best") -> str:
    """`L5H4 0.905`."""
    return f"{described[which]} {described['score' if which == 'best' else 'next_score']:.3f}"


def head_rows(ours: dict[str, Any], first: dict[str, Any]) -> list[list[str]]:
    """The table of the heads."""
    rows = []
    for kind in SCORES:
        trained = ours["heads_on_all_ids"][kind]
        others = [
            ours["heads"],
            ours["heads_after_end_of_text"],
            ours["heads_of_random_weights"],
            first["heads_on_all_ids"],
            first["heads_after_end_of_text"],
        ]
        rows.append(
            [kind, trained["best"], f"{trained['score']:.3f}", tell_head(trained, which="next")]
            + [tell_head(other[kind]) for other in others]
        )
    return rows


def all_heads(ours: dict[str, Any]) -> str:
    """Every head's scores, a table for each score."""
    tables = []
    for kind in SCORES:
        scores = ours["heads_on_all_ids"][kind]["all"]
        head = [kind, *(f"head {head}" for head in range(len(scores[0])))]
        rows = [[f"layer {layer}", *(f"{score:.2f}" for score in row)] for layer, row in enumerate(scores)]
        tables.append(make_table([head, ["---"] * len(head), *rows]))
    return "\n\n".join(tables)


def list_books(corpus: Path) -> str:
    """The books among the third-party texts, as the corpus names them."""
    lines = (corpus / "SOURCES.md").read_text(encoding="utf-8").partition("## Books in")[2].splitlines()
    return "; ".join(line[2:].split(" (")[0] for line in lines if line.startswith("- ")) + "."


def list_sums(folder: Path) -> str:
    """sha256 of every file but the card and the manifest."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name not in {CARD, MANIFEST})
    return "\n".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in files)


def fill(report: dict[str, Any], folder: Path, corpus: Path, *, n_shared: int, blind: str) -> str:
    """The card's text."""
    ours, first, smollm2 = report["models"].values()
    facts = json.loads((folder / "training.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    made, settings = facts["corpus"], facts["settings"]
    shares = {name: [f"{100 * share:.0f} %" for share in pair] for name, pair in facts["shares"].items()}
    keep = facts["keep"]
    return TEMPLATE.read_text(encoding="utf-8").format(
        geometry=f"{config['n_layer']} layers × {config['n_head']} heads × {config['n_embd']}, context "
        f"{config['n_positions']}",
        parameters=f"{ours['parameters']:,}",
        megabytes=f"{(folder / 'model.safetensors').stat().st_size / 1e6:.1f}",
        files=make_table([[f"`{n}`", f"`{f['sha256']}`", f["licence"]] for n, f in made["files"].items()]),
        sources=make_table(
            [
                [SOURCES[name], f"{source['documents']:,}", f"{source['tokens']:,}", *shares[name]]
                for name, source in made["sources"].items()
            ]
        ),
        labelled_rows=f"{made['labelled_rows']:,}",
        n_shared=n_shared,
        steps=f"{facts['steps']:,}",
        rows=settings["rows"],
        row_tokens=settings["n_positions"],
        tokens=f"{facts['tokens']:,}",
        **{name: settings[name] for name in SETTINGS},
        mixed=f"{100 * keep:.0f} % of the weights that it began from are mixed back in." if keep else "",
        trained_ids=f"{made['trained_ids']:,}",
        untrained_ids=f"{VOCABULARY - made['trained_ids']:,}",
        held_out=f"{N_HELD_OUT:,}",
        losses=make_table(
            [
                [
                    title,
                    *(
                        f"{model['held_out'][which][name]:.3f}"
                        for which in ("nats_per_token", "nats_per_token_that_the_text_held")
                        for model in (ours, first)
                    ),
                ]
                for name, title in SOURCES.items()
            ]
        ),
        leaked=f"{ours['held_out']['probability_of_untrained_ids']:.0e}",
        n_heads=config["n_layer"] * config["n_head"],
        heads=make_table(head_rows(ours, first)),
        all_heads=all_heads(ours),
        sentiment=make_table(
            [
                [
                    title,
                    *(tell_proportion(model[name]) for model in (ours, first, smollm2)),
                    tell_proportion(report["baselines"][name][BAG_OF_WORDS]),
                    f"{100 * report['baselines'][name]['majority']:.0f} %",
                ]
                for name, title in LISTS.items()
            ]
        ),
        tasks=make_table(
            [
                [title, *(tell_proportion(m[name]) for m in (ours, first, smollm2))]
                for name, title in TASKS.items()
            ]
        ),
        samples="\n".join(f"{seed}. {' '.join(text.split())}" for seed, text in enumerate(ours["openings"])),
        cs123=" ".join(ours["CS123"].split()),
        blind=blind.strip(),
        sums=list_sums(folder),
        books=list_books(corpus),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument(
        "--shared", type=int, required=True, help="documents of the first model that share a run"
    )
    parser.add_argument("--blind", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=ROOT / "gpt_core" / "bundled")
    arguments = parser.parse_args()
    card = fill(
        json.loads(arguments.evaluation.read_text()),
        arguments.folder,
        arguments.corpus,
        n_shared=arguments.shared,
        blind=arguments.blind.read_text(encoding="utf-8"),
    )
    (arguments.folder / CARD).write_text(card, encoding="utf-8")
    write_manifest(arguments.folder)
