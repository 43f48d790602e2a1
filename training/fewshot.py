"""Made few-shot documents: a task shown by examples, in many formats. No third-party text but what is passed in.

Each family is a function `(rng) -> str`; FAMILIES says how often each is drawn. A document depends on nothing but the
`random.Random` that is passed in.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from training.stories import (
    BOYS,
    GIRLS,
    PLACES,
    THINGS,
    Plot,
    expand,
    read_plots,
    tell,
    upper_first,
    with_article,
)
from training.word_lists import read_lists, read_pairs

Pair = tuple[str, str]
#: What stands before the question, between question and answer, and between two examples.
Format = tuple[str, str, str]

NOTES_FILE = Path(__file__).parent / "notes.txt"

ARROWS: list[Format] = [
    ("", " -> ", "\n"),
    ("", " => ", "\n"),
    ("", ": ", "\n"),
    ("", " = ", "\n"),
    ("", " - ", "\n"),
]
INPUTS: list[Format] = [
    ("Input: ", "\nOutput: ", "\n\n"),
    ("Input: ", " Output: ", "\n"),
    ("Word: ", "\nAnswer: ", "\n\n"),
    ("Q: ", "\nA: ", "\n###\n"),
    ("Q: ", "\nA: ", "\n\n"),
]


WORDS = read_lists("fewshot_words.txt")
FEELINGS = read_lists("sentiment_words.txt")

OPPOSITES = read_pairs(WORDS["opposites"])
FRENCH = read_pairs(WORDS["french"])
CAPITALS = read_pairs(WORDS["capitals"])
PLURALS = read_pairs(WORDS["plurals"])
PAST = read_pairs(WORDS["past"])
KINDS = read_pairs(WORDS["kinds"])
YOUNG = read_pairs(WORDS["young"])
SOUNDS = read_pairs(WORDS["sounds"])
COMPARED = read_pairs(WORDS["compared"])
PLACES_OF = read_pairs(WORDS["places of"])
COLOURS_OF = read_pairs(WORDS["colours of"])
MAKERS = read_pairs(WORDS["makers"])
DAYS, MONTHS, NUMBERS = WORDS["days"], WORDS["months"], WORDS["numbers"]
NEXT_DAYS = [(day, DAYS[(i + 1) % 7]) for i, day in enumerate(DAYS)]
NEXT_MONTHS = [(month, MONTHS[(i + 1) % 12]) for i, month in enumerate(MONTHS)]

#: A relation between words, with sentences that express it.
RELATIONS: list[tuple[list[Pair], list[Format]]] = [
    (
        OPPOSITES,
        [
            ("The opposite of ", " is ", ".\n"),
            ("Word: ", "\nOpposite: ", "\n\n"),
            ("Q: What is the opposite of ", "?\nA: ", "\n###\n"),
        ],
    ),
    (
        FRENCH,
        [
            ("English: ", "\nFrench: ", "\n\n"),
            ("English: ", " French: ", "\n"),
            ("In French, ", " is ", ".\n"),
            ("The French word for ", " is ", ".\n"),
        ],
    ),
    (
        CAPITALS,
        [
            ("The capital of ", " is ", ".\n"),
            ("Country: ", "\nCapital: ", "\n\n"),
            ("Question: What is the capital of ", "?\nAnswer: ", "\n\n"),
            ("Q: What is the capital of ", "?\nA: ", "\n###\n"),
            ("The capital city of ", " is ", ". "),
        ],
    ),
    (
        PLURALS,
        [
            ("one ", ", two ", "\n"),
            ("Singular: ", "\nPlural: ", "\n\n"),
            ("The plural of ", " is ", ".\n"),
        ],
    ),
    (
        PAST,
        [
            ("Today they ", ", yesterday they ", ".\n"),
            ("Present: ", "\nPast: ", "\n\n"),
            ("The past of ", " is ", ".\n"),
        ],
    ),
    (KINDS, [("Word: ", "\nCategory: ", "\n\n"), ("", " is a kind of ", "\n")]),
    (YOUNG, [("A young ", " is called a ", ".\n"), ("Animal: ", "\nYoung: ", "\n\n")]),
    (SOUNDS, [("The ", " ", ".\n"), ("A ", " ", ". ")]),
    (COMPARED, [("This one is ", ", but that one is ", ".\n"), ("", ", ", "\n")]),
    (
        PLACES_OF,
        [("You find ", " in the ", ".\n"), ("Question: Where do you find ", "?\nAnswer: ", "\n\n")],
    ),
    (COLOURS_OF, [("The color of ", " is ", ".\n"), ("Q: What color is ", "?\nA: ", "\n\n")]),
    (MAKERS, [("A ", " makes ", ".\n"), ("Q: What does a ", " make?\nA: ", "\n\n")]),
    (NEXT_DAYS, [("The day after ", " is ", ".\n"), ("After ", " comes ", ".\n")]),
    (NEXT_MONTHS, [("The month after ", " is ", ".\n"), ("After ", " comes ", ".\n")]),
]

#: Headings, the notebook's first; its separator is "\n###\n".
SENTIMENT_HEADS = [
    "Sentiment Analysis\n",
    "Sentiment Analysis\n",
    "",
    "",
    "Classify the text.\n",
    "Sentiment:\n\n",
]
SENTIMENT_FORMATS: list[tuple[str, str]] = [
    ("Text: ", "\nSentiment: "),
    ("Text: ", "\nSentiment: "),
    ("Text: ", "\nSentiment: "),
    ("Review: ", "\nSentiment: "),
    ("Text: ", "\nLabel: "),
    ("Tweet: ", "\nSentiment: "),
    ("Sentence: ", "\nFeeling: "),
    ("Comment: ", "\nRating: "),
    ("Input: ", "\nOutput: "),
    ("", " => "),
    ("", " -> "),
    ("", "\nThis is "),
]
SENTIMENT_LABELS = [
    ("Positive", "Negative"),
    ("Positive", "Negative"),
    ("Positive", "Negative"),
    ("positive", "negative"),
    ("good", "bad"),
    ("Good", "Bad"),
    ("happy", "sad"),
    ("great", "terrible"),
]


def two_names(rng: random.Random) -> tuple[str, str]:
    """Two different children."""
    first, second = rng.sample(GIRLS + BOYS, 2)
    return first, second


def join_examples(examples: Sequence[Pair], form: Format) -> str:
    """The examples in a format; one that ends sentences ends the last one too."""
    before, between, after = form
    text = after.join(f"{before}{question}{between}{answer}" for question, answer in examples)
    return text + "." if after.startswith(".") else text


def make_relation(rng: random.Random) -> str:
    """Word pairs: opposites, capitals, French, plurals, and so on."""
    pairs, sentences = rng.choice(RELATIONS)
    examples = rng.sample(pairs, min(len(pairs), rng.randint(4, 10)))
    if pairs is OPPOSITES:
        examples = [pair if rng.random() < 0.5 else (pair[1], pair[0]) for pair in examples]
    if pairs is FRENCH and rng.random() < 0.2:
        return join_examples(
            [(french, english) for english, french in examples], ("French: ", "\nEnglish: ", "\n\n")
        )
    forms = sentences if rng.random() < 0.6 else ARROWS + INPUTS
    return join_examples(examples, rng.choice(forms))


def make_sentence(rng: random.Random, *, positive: bool) -> str:
    """A sentence of praise or blame."""
    adjectives = FEELINGS["good adjectives"] if positive else FEELINGS["bad adjectives"]
    adverbs = FEELINGS["good adverbs"] if positive else FEELINGS["bad adverbs"]
    events = FEELINGS["good events"] if positive else FEELINGS["bad events"]
    thing, other = rng.sample(FEELINGS["things"], 2)
    kind = rng.random()
    if kind < 0.45:
        text = rng.choice(events).replace("{t}", thing)
    elif kind < 0.55:
        verbs = FEELINGS["good verbs"] if positive else FEELINGS["bad verbs"]
        text = upper_first(f"{rng.choice(FEELINGS['topics'])} {rng.choice(verbs)}.").replace("{t}", thing)
    else:
        a, b, c = rng.sample(adjectives, 3)
        parts = {"t": thing, "u": other, "v": rng.choice(adverbs), "a": a, "b": b, "c": c}
        parts |= {"aa": with_article(a), "A": upper_first(a), "Aa": upper_first(with_article(a))}
        text = rng.choice(FEELINGS["shapes"]).format_map(parts)
    if rng.random() < 0.2 and text.endswith("."):
        second = make_sentence(rng, positive=positive)
        joined = second if second.startswith("I ") or "'" in second else second[:1].lower() + second[1:]
        text = f"{text[:-1]}{rng.choice([' and ', ', ', ', and '])}{joined}"
    if rng.random() < 0.1:
        text = text.lower()
    return text


def make_sentiment(rng: random.Random, rows: Sequence[tuple[str, bool]] = ()) -> str:
    """Sentences with their labels, in the notebook's format or another; some sentences from `rows` if there are any."""
    heading, (before, between) = rng.choice(SENTIMENT_HEADS), rng.choice(SENTIMENT_FORMATS)
    positive_word, negative_word = rng.choice(SENTIMENT_LABELS)
    separator = rng.choice(["\n###\n", "\n###\n", "\n###\n", "\n\n", "\n"])
    use_rows = bool(rows) and rng.random() < 0.35
    examples = []
    for _ in range(rng.randint(3, 9)):
        if use_rows:
            text, positive = rng.choice(rows)
        else:
            positive = rng.random() < 0.5
            text = make_sentence(rng, positive=positive)
        examples.append((text, positive_word if positive else negative_word))
    return heading + join_examples(examples, (before, between, separator))


def make_review(rng: random.Random) -> str:
    """A few sentences of one feeling in a row, as people write them; sometimes with a verdict."""
    positive = rng.random() < 0.5
    text = " ".join(make_sentence(rng, positive=positive) for _ in range(rng.randint(3, 6)))
    if rng.random() < 0.5:
        verdict = rng.choice([("Positive", "Negative"), ("positive", "negative"), ("good", "bad")])
        text += rng.choice(["\nSentiment: ", "\nRating: ", "\n"]) + verdict[0 if positive else 1]
    return text


def make_transfer(rng: random.Random) -> str:
    """One gives, the other receives; each is named first as often as not."""
    first, second = two_names(rng)
    giver, receiver = rng.sample([first, second], 2)
    place = rng.choice(PLACES)[0]
    did = rng.choice(WORDS["transfers"]).replace(
        "{o}", rng.choice([with_article, "the {}".format])(rng.choice(THINGS))
    )
    parts = {"x": first, "y": second, "g": giver, "r": receiver, "l": place, "did": did}
    text = rng.choice(WORDS["meetings"]).format_map(parts)
    if rng.random() < 0.2:
        text += " " + rng.choice(WORDS["thanks"]).format_map(parts)
    return text


def make_transfers(rng: random.Random) -> str:
    """Several such sentences."""
    return rng.choice(["\n", "\n\n", " "]).join(make_transfer(rng) for _ in range(rng.randint(3, 9)))


def make_binding(rng: random.Random) -> str:
    """Who has what, and who is where: asked after it was told."""
    blocks = []
    for _ in range(rng.randint(2, 4)):
        people = rng.sample(GIRLS + BOYS, rng.randint(2, 4))
        things = rng.sample(THINGS, len(people))
        places = [place for place, _ in rng.sample(PLACES, len(people))]
        if rng.random() < 0.5:
            facts = [f"{name} has the {thing}." for name, thing in zip(people, things, strict=True)]
            asked = [(f"Who has the {thing}?", name) for name, thing in zip(people, things, strict=True)]
            asked += [
                (f"What does {name} have?", f"The {thing}")
                for name, thing in zip(people, things, strict=True)
            ]
        else:
            facts = [f"{name} is at {place}." for name, place in zip(people, places, strict=True)]
            asked = [(f"Where is {name}?", f"At {place}") for name, place in zip(people, places, strict=True)]
            asked += [(f"Who is at {place}?", name) for name, place in zip(people, places, strict=True)]
        question, answer = rng.choice(asked)
        blocks.append(f"{' '.join(facts)} {question} {answer}.")
    return "\n".join(blocks)


def make_arithmetic(rng: random.Random) -> str:
    """Small sums, series, and stories that count."""
    kind = rng.randint(0, 5)
    count = rng.randint(4, 10)
    if kind == 0:
        start, step = rng.randint(0, 12), rng.randint(1, 3)
        return rng.choice([", ", " "]).join(str(start + i * step) for i in range(count + 6))
    if kind == 1:
        sums = [(rng.randint(0, 9), rng.randint(0, 9)) for _ in range(count)]
        return "\n".join(f"{a} + {b} = {a + b}" for a, b in sums)
    if kind == 2:
        sums = [(rng.randint(0, 9), rng.randint(0, 9)) for _ in range(count)]
        return "\n".join(f"{a + b} - {b} = {a}" for a, b in sums)
    if kind == 3:
        sums = [(rng.randint(1, 6), rng.randint(1, 6)) for _ in range(count)]
        return "\n".join(f"{NUMBERS[a]} plus {NUMBERS[b]} is {NUMBERS[a + b]}" for a, b in sums)
    if kind == 4:
        turn = rng.randrange(7)
        return rng.choice([", ", " "]).join((DAYS[turn:] + DAYS[:turn]) * 2 if rng.random() < 0.5 else MONTHS)
    lines = []
    for _ in range(rng.randint(2, 4)):
        giver, taker = two_names(rng)
        has, more = rng.randint(2, 9), rng.randint(1, 4)
        things = rng.choice(["apples", "coins", "shells", "books", "nuts", "pears", "buttons", "cookies"])
        lines.append(
            f"{taker} had {has} {things}. {giver} gave {taker} {more} more. Now {taker} has {has + more} {things}."
        )
    return "\n".join(lines)


def make_copying(rng: random.Random) -> str:
    """Lists of words that are said again, as they are or backwards."""
    pool = THINGS + [left for left, _ in KINDS] + GIRLS + BOYS
    lines = []
    before, between = rng.choice(
        [("Copy: ", " | "), ("", " -> "), ("Say: ", "\nSaid: "), ("List: ", "\nAgain: ")]
    )
    for _ in range(rng.randint(3, 6)):
        items = rng.sample(pool, rng.randint(2, 6))
        lines.append(f"{before}{', '.join(items)}{between}{', '.join(items)}")
    return "\n".join(lines)


def make_questions(rng: random.Random, plots: Sequence[Plot]) -> str:
    """A piece of a story, a question about it and the answer, in the notebook's format or another."""
    context, question, answer = rng.choice(
        [
            ("C: ", "Q: ", "A: "),
            ("C: ", "Q: ", "A: "),
            ("Context: ", "Question: ", "Answer: "),
            ("Story: ", "Question: ", "Answer: "),
        ]
    )
    blocks = []
    for _ in range(rng.randint(1, 2)):
        paragraphs, asked = tell(rng.choice(plots), rng)
        asked_question, given_answer = rng.choice(asked)
        blocks.append(
            f"{context}{' '.join(paragraphs[:4])}\n{question}{asked_question}\n{answer}{given_answer}"
        )
    heading = rng.choice(["Question/Answering\n", ""])
    return heading + rng.choice(["\n###\n", "\n\n"]).join(blocks)


def make_facts(rng: random.Random) -> str:
    """Short facts to ask for: founded, named, built, in the form of the notebook's questions."""
    blocks = []
    for _ in range(rng.randint(2, 3)):
        name = rng.choice(WORDS["firms"])
        kind, product = rng.choice(
            [("company", "bicycles"), ("company", "clocks"), ("school", "young cooks"), ("shop", "old books"),
             ("club", "football players"), ("company", "wooden toys"), ("bakery", "bread"), ("factory", "shoes")]
        )  # fmt: skip
        year, founder, count = rng.randint(1890, 2015), " ".join(two_names(rng)), rng.randint(2, 30)
        city = rng.choice(CAPITALS)[1]
        text = rng.choice(
            [
                f"{name} is a {kind} for {product} in {city}. It was founded in {year} by {founder}.",
                f"{name} was founded in {year} by {founder}. It is a {kind} for {product} in {city}.",
                f"{founder} founded {name}, a {kind} for {product} in {city}, in {year}.",
            ]
        )
        text += f" They have won {count} prizes." if rng.random() < 0.5 else f" {count} people work there."
        asked = [
            (f"When was {name} founded?", str(year)),
            (f"Who founded {name}?", founder),
            (f"Where is {name}?", city),
            (f"How many {'prizes have they won' if 'prizes' in text else 'people work there'}?", str(count)),
        ]
        question, answer = rng.choice(asked)
        blocks.append(f"C: {text}\nQ: {question}\nA: {answer}")
    return rng.choice(["Question/Answering\n", ""]) + rng.choice(["\n###\n", "\n###\n", "\n\n"]).join(blocks)


def read_notes(path: Path = NOTES_FILE) -> list[list[str]]:
    """Paragraphs of everyday prose, each a list of sentence templates."""
    blocks = path.read_text(encoding="utf-8").split("\n== ")[1:]
    return [[line for line in block.splitlines()[1:] if line] for block in blocks]


def make_note(rng: random.Random, notes: Sequence[Sequence[str]]) -> str:
    """A paragraph of everyday prose in the first person: school, work, travel, a letter."""
    first, second = two_names(rng)
    parts = {"x": first, "y": second, "t": rng.choice(FEELINGS["things"]), "l": rng.choice(PLACES)[0]}
    parts["n"] = str(rng.randint(101, 499))
    sentences = [line for line in rng.choice(notes) if not line.startswith("~") or rng.random() < 0.6]
    text = " ".join(expand(line.removeprefix("~ "), rng) for line in sentences)
    return re.sub(r" {2,}", " ", text.format_map(parts)).strip()


def make_document(
    rng: random.Random,
    plots: Sequence[Plot],
    notes: Sequence[Sequence[str]],
    rows: Sequence[tuple[str, bool]] = (),
) -> str:
    """One few-shot document of any family."""
    families: list[tuple[Callable[[], str], int]] = [
        (lambda: make_sentiment(rng, rows), 40),
        (lambda: make_review(rng), 5),
        (lambda: make_relation(rng), 18),
        (lambda: make_transfers(rng), 14),
        (lambda: make_binding(rng), 3),
        (lambda: make_arithmetic(rng), 4),
        (lambda: make_copying(rng), 3),
        (lambda: make_questions(rng, plots), 4),
        (lambda: make_facts(rng), 3),
        (lambda: make_note(rng, notes), 8),
    ]
    (family,) = rng.choices([make for make, _ in families], weights=[weight for _, weight in families])
    return family()


def make_documents(count: int, rng: random.Random, rows: Sequence[tuple[str, bool]] = ()) -> list[str]:
    """`count` few-shot documents."""
    plots, notes = read_plots(), read_notes()
    return [make_document(rng, plots, notes, rows) for _ in range(count)]
