"""Made stories: plots from plots.txt, filled with names, things and places. No third-party text.

A story depends on nothing but the `random.Random` that is passed in. The notation of the plots is explained at the
top of plots.txt.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

from training.word_lists import read_lists, read_pairs

PLOTS_FILE = Path(__file__).parent / "plots.txt"

WORDS = read_lists("story_words.txt")
GIRLS, BOYS, THINGS = WORDS["girls"], WORDS["boys"], WORDS["things"]
ANIMAL_NAMES = dict(read_pairs(WORDS["animals"]))
#: `(place, spot)`: somewhere to go, and somewhere in it to find a thing.
PLACES = [tuple(place.split("=")) for place in WORDS["places"]]
#: Those who are called by what they are, and whether they are women.
ELDERS = {
    "mother": True,
    "father": False,
    "grandmother": True,
    "grandfather": False,
    "aunt": True,
    "uncle": False,
}

CHOICE = re.compile(r"\[([^\[\]]*)\]")
SPOKEN = re.compile(r"<([pfg]):([^<>]*)>")


@dataclass(frozen=True)
class Person:
    """Someone in a story; written out, it is the name."""

    name: str
    kind: str
    adj: str
    female: bool

    def __str__(self) -> str:
        return self.name

    @property
    def he(self) -> str:
        """The pronoun as subject."""
        return "she" if self.female else "he"

    @property
    def him(self) -> str:
        """The pronoun as object."""
        return "her" if self.female else "him"

    @property
    def his(self) -> str:
        """The possessive."""
        return "her" if self.female else "his"

    @property
    def He(self) -> str:  # noqa: N802 - the capital is the meaning
        """`he` at the beginning of a sentence."""
        return self.he.capitalize()

    @property
    def His(self) -> str:  # noqa: N802
        """`his` at the beginning of a sentence."""
        return self.his.capitalize()

    @property
    def a_adj(self) -> str:
        """The adjective with its article."""
        return with_article(self.adj)


@dataclass(frozen=True)
class Plot:
    """A plot as plots.txt has it."""

    title: str
    human: bool
    paragraphs: tuple[str, ...]
    questions: tuple[tuple[str, str], ...]
    lesson: str


def with_article(words: str) -> str:
    """`an apple`, `a ball`."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def upper_first(words: str) -> str:
    """The same with a capital at the beginning."""
    return words[:1].upper() + words[1:]


def read_plots(path: Path = PLOTS_FILE) -> list[Plot]:
    """The plots of the file, in its order."""
    plots = []
    for block in path.read_text(encoding="utf-8").split("\n== ")[1:]:
        title, *lines = [line for line in block.splitlines() if line]
        questions = [line[2:].split(" = ") for line in lines if line.startswith("? ")]
        (lesson,) = [line[2:] for line in lines if line.startswith("! ")]
        plots.append(
            Plot(
                title=title.removesuffix(" (human)"),
                human=title.endswith(" (human)"),
                paragraphs=tuple(line for line in lines if line[0] not in "?!"),
                questions=tuple((question, answer) for question, answer in questions),
                lesson=lesson,
            )
        )
    return plots


def expand(template: str, rng: random.Random) -> str:
    """The template with one alternative chosen for each [a|b|c], the innermost first."""
    while match := CHOICE.search(template):
        template = template[: match.start()] + rng.choice(match[1].split("|")) + template[match.end() :]
    return template


def make_person(rng: random.Random, *, human: bool) -> Person:
    """A child or an animal."""
    female = rng.random() < 0.5
    if human:
        name = rng.choice(GIRLS if female else BOYS)
        kind = "girl" if female else "boy"
    else:
        kind = rng.choice(sorted(ANIMAL_NAMES))
        name = rng.choice(ANIMAL_NAMES[kind].split())
    return Person(name=name, kind=kind, adj=rng.choice(WORDS["adjectives"]), female=female)


def make_people(rng: random.Random, count: int, *, human: bool) -> list[Person]:
    """`count` people with different names."""
    people: list[Person] = []
    while len(people) < count:
        person = make_person(rng, human=human or rng.random() < 0.2)
        if person.name not in {other.name for other in people}:
            people.append(person)
    return people


def make_parts(rng: random.Random, *, human: bool) -> dict[str, object]:
    """Everything that stays the same throughout one story."""
    p, f, g = make_people(rng, 3, human=human)
    elder = rng.choice(sorted(ELDERS))
    place, spot = rng.choice(PLACES)
    words = {
        "thing": rng.choice(THINGS),
        "house_thing": rng.choice(WORDS["house things"]),
        "gift": rng.choice(WORDS["gifts"]),
        "colour": rng.choice(WORDS["colours"]),
        "animal": rng.choice(sorted(ANIMAL_NAMES)),
        "place": place,
        "spot": spot,
        "town": rng.choice(WORDS["towns"]),
        "place_water": rng.choice(WORDS["waters"]),
        "food": rng.choice(WORDS["foods"]),
        "fruit": rng.choice(WORDS["fruits"]),
        "need": rng.choice(WORDS["needs"]),
        "shelter": rng.choice(WORDS["shelters"]),
        "instrument": rng.choice(WORDS["instruments"]),
        "prize": rng.choice(WORDS["prizes"]),
        "noise": rng.choice(WORDS["noises"]),
        "happy": rng.choice(WORDS["happy"]),
        "sad": rng.choice(WORDS["sad"]),
        "weather": rng.choice(WORDS["weather"]),
        "weather_snow": rng.choice(WORDS["snow"]),
        "a_bowl": rng.choice(WORDS["bowls"]),
        "a_lamp": rng.choice(WORDS["lamps"]),
        "a_fruit_one": rng.choice(["an apple", "a pear", "a plum", "a peach", "a nut"]),
    }
    for name in ("thing", "animal", "gift", "colour"):
        words[f"a_{name}"] = with_article(words[name])
        words[f"A_{name}"] = upper_first(words[f"a_{name}"])
    for name in ("spot", "colour", "food", "fruit", "need", "prize", "sad"):
        words[upper_first(name)] = upper_first(words[name])
    e = Person(name=elder, kind=elder, adj="old", female=ELDERS[elder])
    return {**words, "p": p, "f": f, "g": g, "e": e, "a_adj": p.a_adj}


def speak(match: re.Match[str], parts: dict[str, object], rng: random.Random) -> str:
    """The words of <p:words> with who says them, in one of several ways."""
    person, quote = parts[match[1]], match[2]
    verb = "asked" if quote.endswith("?") else "cried" if quote.endswith("!") else "said"
    comma = quote[:-1] + "," if quote.endswith(".") else quote
    way = (
        rng.choice(WORDS["speech"])
        .replace("{n}", str(person))
        .replace("{he}", person.he)
        .replace("{v}", verb)
    )
    return expand(way, rng).replace("{c}", comma).replace("{q}", quote)


def fill(template: str, parts: dict[str, object], rng: random.Random) -> str:
    """A line of a plot, written out."""
    text = expand(template, rng).format_map(parts)
    text = SPOKEN.sub(lambda match: speak(match, parts, rng), text)
    return re.sub(r" {2,}", " ", text).strip()


def tell(plot: Plot, rng: random.Random) -> tuple[list[str], list[tuple[str, str]]]:
    """The paragraphs of one story with this plot, and questions about it with their answers."""
    parts = make_parts(rng, human=plot.human or rng.random() < 0.45)
    lesson = plot.lesson.format_map(parts)
    intro = rng.choice(WORDS["intros"]) + (
        " " + rng.choice(WORDS["after intro"]) if rng.random() < 0.5 else ""
    )
    parts["intro"] = fill(intro, parts, rng)
    parts["lesson"] = lesson
    parts["Lesson"] = upper_first(lesson)
    parts["lesson_p"] = rng.choice(
        [f"{parts['p']} was never lonely", f"{parts['p']} remembered that {lesson}"]
    )
    paragraphs = [fill(line, parts, rng) for line in plot.paragraphs]
    if rng.random() < 0.8:
        paragraphs.append(fill(rng.choice(WORDS["endings"]), parts, rng))
    questions = [(q.format_map(parts), a.format_map(parts)) for q, a in plot.questions]
    return [upper_first(paragraph) for paragraph in paragraphs], questions


def make_story(plots: list[Plot], rng: random.Random) -> str:
    """One story; sometimes with questions and answers after it."""
    paragraphs, questions = tell(rng.choice(plots), rng)
    text = ("\n\n" if rng.random() < 0.7 else " ").join(paragraphs)
    if rng.random() < 0.3:
        question, answer = rng.choice([("Question: ", "Answer: "), ("Q: ", "A: ")])
        asked = rng.sample(questions, rng.randint(1, len(questions)))
        text += "\n\n" + "\n".join(f"{question}{q}\n{answer}{a}" for q, a in asked)
    return text
