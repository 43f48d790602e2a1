"""Made stories: plots from plots.txt, filled with names, things and places. No third-party text.

A story depends on nothing but the `random.Random` that is passed in. The notation of the plots is explained at the
top of plots.txt.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

PLOTS_FILE = Path(__file__).parent / "plots.txt"

GIRLS = """Anna Mia Lucy Rosa Ella Nora Ruby Lily Clara Zoe Maya Ivy Jane Kate Emma Sara Tess Nina Amy Fay Grace Hana
Leah Meg Molly Penny Sue Vera Wendy Lena Mary Alice Sarah Maria Laura Emily Julia Sophie Helen Ruth Linda Susan Karen
Lisa Diana Eva Olivia Hannah Martha Rachel Claire Ellen Jenny Nancy Betty Sally Rose Amina Fatima Priya Mei Yuki Aisha
Ingrid Carmen Elena Nadia""".split()
BOYS = """Tom Ben Sam Max Leo Jack Theo Owen Finn Noah Adam Carl Dan Eli Fred Gus Hugo Ian Joe Kit Luke Mark Ned Omar
Paul Ray Seth Tim Will Zac John James Peter David Michael Robert Daniel Henry George Charlie Harry Oliver Simon Martin
Alex Andrew Frank Jim Bill Bob Jake Eric Kevin Steve Tony Victor Oscar Ali Ahmed Raj Chen Kenji Kofi Diego Pedro Ivan
Lars""".split()
ANIMAL_NAMES = {
    "rabbit": "Hop Pip Clover Thump",
    "fox": "Red Rusty Ember Sly",
    "bear": "Bruno Honey Burl Moss",
    "mouse": "Squeak Dot Crumb Nib",
    "duck": "Quill Puddle Dilly Webb",
    "frog": "Lily Croak Bounce Fern",
    "cat": "Misty Whisk Socks Velvet",
    "dog": "Rex Biscuit Patch Scout",
    "owl": "Hoot Oak Sage Feather",
    "turtle": "Shelly Slow Rock Tilly",
    "squirrel": "Nutty Chip Hazel Acorn",
    "hedgehog": "Spike Bristle Prick Thorn",
    "pig": "Truffle Rosie Mud Snort",
    "goat": "Billy Nan Bramble Gruff",
    "sheep": "Woolly Fluff Cloud Daisy",
    "bird": "Wren Sky Robin Chirp",
    "pony": "Star Dusty Chestnut Breeze",
    "hen": "Henny Pearl Dora Speck",
    "donkey": "Gray Plod Thistle Jasper",
    "badger": "Stripe Digger Bark Bracken",
    "beaver": "Chop Willow River Twig",
    "goose": "Gertie Snow Honk Pond",
    "mole": "Velvet Tunnel Dusk Pebble",
    "deer": "Dapple Swift Meadow Aspen",
    "otter": "Splash Ripple Skip Brook",
    "crow": "Jet Ink Caw Shadow",
}
COLOURS = "red blue green yellow white brown black pink purple orange gray golden silver".split()
THINGS = """ball kite doll drum hat book scarf bell spoon basket lamp key ring button box bag whistle wagon blanket cup
shell coin map mitten ribbon puzzle paintbrush umbrella necklace pencil flute jacket hammer mirror compass bucket cap
candle marble lantern glove teapot top sled top balloon""".split()
HOUSE_THINGS = "vase window cup clock plate lamp chair mirror bowl jug teapot shelf".split()
GIFTS = """shiny stone;white feather;blue shell;little wooden bird;red apple;round nut;silver coin;jar of honey;
bunch of flowers;four-leaf clover;pine cone;warm scarf;small bell;loaf of bread""".replace("\n", "").split(";")
FOODS = """apple pie;bread;soup;cookies;a big cake;pancakes;jam;honey buns;carrot stew;berry tarts;corn bread;muffins;
noodles;dumplings;rice pudding;cheese rolls;plum cake;potato soup;waffles;roast chicken;bean stew;ginger cookies""".replace(
    "\n", ""
).split(";")
FRUITS = """apples berries pears plums nuts carrots cherries pumpkins beans peas grapes peaches tomatoes mushrooms
strawberries potatoes onions lemons""".split()
NEEDS = "flour milk sugar butter salt honey cinnamon oil yeast cream".split()
PLACES = """the park=under a bench;the forest=behind an old log;the beach=in the wet sand;
the garden=between the bean plants;the farm=beside the barn;the river=near the smooth stones;the hill=in the tall grass;
the market=under a fruit stand;the school=on a shelf by the window;the yard=under the big tree;the pond=among the reeds;
the village square=next to the fountain;the meadow=under a yellow flower;the library=between two thick books;
the kitchen=behind the flour jar;the attic=inside an old chest;the station=beside the ticket window;
the harbor=behind a pile of nets;the mill=under the wooden wheel;the church=on the stone steps;
the playground=at the foot of the slide;the bakery=next to the oven;the zoo=near the big gate;
the museum=behind a tall statue;the shop=on the lowest shelf;the orchard=between two apple trees;
the mountain=under a flat rock;the stable=in a heap of hay;the lake=beside the old boat;the bridge=by the iron rail;
the theater=under the third seat;the castle=at the end of a long hall;the field=in the yellow corn;
the cave=in a dark corner;the swamp=on top of a stump;the desert=in the shade of a rock""".replace("\n", "").split(";")
TOWNS = """Millbrook;Ashford;Greenhill;Little Bay;Oakville;Stonebridge;Red River;Maple Valley;Northport;Willow Creek;
Sandy Point;Elmwood;Rosedale;Fairview;Cedar Falls;Silver Lake;Brightwater;Foxton;Kingsley;Lindale""".replace(
    "\n", ""
).split(";")
WATERS = "the river;the lake;the pond;the stream;the bay;the harbor".split(";")
SHELTERS = "an old barn;the roof of a cave;a hollow tree;a little hut;a big umbrella;a stone bridge;a hay wagon".split(";")
INSTRUMENTS = "violin flute piano guitar drum harp trumpet accordion".split()
PRIZES = """a golden cup;a big cake;a blue ribbon;a shiny medal;a new bicycle;a silver spoon;a basket of plums;a brass bell;
a pair of red boots""".replace("\n", "").split(";")
NOISES = """Tap, tap, tap.;Bump, bump, bump.;Scratch, scratch.;Creak, creak.;Thump! Thump!;Rustle, rustle.;Click, clack.;
Drip, drip, drip.;Whoo, whoo.""".replace("\n", "").split(";")
BOWLS = "an old cup;a wooden bowl;a tin bucket;a cooking pot;a rusty pan".split(";")
LAMPS = "a lantern;a candle;a small lamp;an oil lamp".split(";")
ADJECTIVES = """little kind brave quiet cheerful curious clever shy careful busy gentle funny lazy young stubborn polite
patient hungry lonely bold thoughtful tiny tall playful friendly dreamy honest noisy""".split()
HAPPY = "happy;glad;very happy;full of joy;proud;so pleased;delighted;happier than ever;grateful".split(";")
SAD = "sad;very sad;upset;worried;unhappy;close to tears;disappointed;heavy at heart".split(";")
WEATHER = """The sun was warm and bright.;It was a cool and windy day.;Soft white clouds moved across the sky.;
A little rain had fallen in the night, and the leaves were still wet.;The air smelled like flowers.;
The birds were singing in the trees.;The morning was clear and fresh.;A thin fog lay over the fields.;
It was so hot that even the flies were tired.;The leaves were turning yellow and red.;
The wind blew from the sea.;It was one of those gray days when nothing happens.;There was not a cloud in the sky.;
Far away, a bell rang.;The grass was full of small white flowers.;Bees hummed around the open windows.""".replace(
    "\n", ""
).split(";")
SNOW = """Snow lay on the ground, and everything was quiet.;It had snowed all night.;The first snow of the year had fallen.;
The windows were white with frost.;Big flakes fell from a gray sky.""".replace("\n", "").split(";")
ELDERS = {"mother": True, "father": False, "grandmother": True, "grandfather": False, "aunt": True, "uncle": False}
INTROS = """Once upon a time, there was {p.a_adj} {p.kind} named {p}.
Once upon a time, there was {p.a_adj} {p.kind} who lived in {town}. {p.His} name was {p}.
Once upon a time, there was {p.a_adj} {p.kind} called {p}, who lived [near the woods|by a river|in a small house|at the end of a long street].
Once upon a time, there were two friends, {p} and {f}. {p} was {p.a_adj} {p.kind}, and {f} was {f.a_adj} {f.kind}.
Once upon a time, there was {p.a_adj} {p.kind}. {p.His} name was {p}, and {p.he} lived with {p.his} {e}.
Once upon a time in {town}, there lived {p.a_adj} {p.kind} named {p}.
Once there lived {p.a_adj} {p.kind} by the name of {p}.
There once was {p.a_adj} {p.kind} whose name was {p}.
{p} was {p.a_adj} {p.kind}.
{p} was {p.a_adj} {p.kind} who lived in {town}.
In a small town there lived {p.a_adj} {p.kind} named {p}.
Long ago, {p.a_adj} {p.kind} named {p} lived near the woods.
One day, {p.a_adj} {p.kind} named {p} woke up early.
Everyone in {town} knew {p}, the {p.adj} {p.kind}.
This is the story of {p}, {p.a_adj} {p.kind} from {town}.
At the edge of {town} lived {p}, {p.a_adj} {p.kind}.
Far away, where the hills are blue, {p.a_adj} {p.kind} named {p} lived with {p.his} {e}.
My {e} once told me about {p.a_adj} {p.kind} called {p}.""".split("\n")
AFTER_INTRO = """{p.He} loved to [play outside|look at the clouds|sing|tell stories|climb trees|draw|collect stones].
{p} lived in a small house with {p.his} family.
{p.He} always had a smile on {p.his} face.
{p} liked to ask many questions.
Every morning, {p.he} helped {p.his} {e} with the work.
{p} wanted to see the whole world.
{p.His} best friend was {f}.
[Nobody|Hardly anyone] in {town} was [as curious|up as early|as fond of {food}] as {p}.
{p.His} {e} used to say, "[You have your head in the clouds|Slow and steady, my dear|One thing at a time]."
{p.He} had {a_thing}, two good friends, and [not much else|a lot of time].""".split("\n")
ENDINGS = """From that day on, {lesson_p}.
{p} went home and slept very well that night.
It was the best day {p} had ever had.
That night, {p} told {p.his} {e} the whole story.
{p} smiled and thought about it for a long time.
And they all lived happily ever after.
{p} knew now that {lesson}.
"So you see," said {p.his} {e}, "{lesson}."
{p} had learned that {lesson}.
And if you go to {town}, you can still hear people tell it.
From then on, {p} and {f} were the best of friends.
{p} was {happy}.
They never forgot that day.
The end.
And what do we learn from this? {Lesson}.""".split("\n")
SPEECH = """"{c}" said {n}.
"{c}" {he} said.
{n} said, "{q}"
"{c}" {v} {n}.
"{c}" said {n}[ quietly| softly| with a smile| at once| after a while| in a small voice].
{n} [turned around|looked up|took a deep breath|laughed] and said, "{q}"
{n} {v}, "{q}\"""".split("\n")

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
    return Person(name=name, kind=kind, adj=rng.choice(ADJECTIVES), female=female)


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
    place, spot = rng.choice(PLACES).split("=")
    words = {
        "thing": rng.choice(THINGS),
        "house_thing": rng.choice(HOUSE_THINGS),
        "gift": rng.choice(GIFTS),
        "colour": rng.choice(COLOURS),
        "animal": rng.choice(sorted(ANIMAL_NAMES)),
        "place": place,
        "spot": spot,
        "town": rng.choice(TOWNS),
        "place_water": rng.choice(WATERS),
        "food": rng.choice(FOODS),
        "fruit": rng.choice(FRUITS),
        "need": rng.choice(NEEDS),
        "shelter": rng.choice(SHELTERS),
        "instrument": rng.choice(INSTRUMENTS),
        "prize": rng.choice(PRIZES),
        "noise": rng.choice(NOISES),
        "happy": rng.choice(HAPPY),
        "sad": rng.choice(SAD),
        "weather": rng.choice(WEATHER),
        "weather_snow": rng.choice(SNOW),
        "a_bowl": rng.choice(BOWLS),
        "a_lamp": rng.choice(LAMPS),
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
    way = rng.choice(SPEECH).replace("{n}", str(person)).replace("{he}", person.he).replace("{v}", verb)  # type: ignore[attr-defined]
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
    intro = rng.choice(INTROS) + (" " + rng.choice(AFTER_INTRO) if rng.random() < 0.5 else "")
    parts["intro"] = fill(intro, parts, rng)
    parts["lesson"] = lesson
    parts["Lesson"] = upper_first(lesson)
    parts["lesson_p"] = rng.choice([f"{parts['p']} was never lonely", f"{parts['p']} remembered that {lesson}"])
    paragraphs = [fill(line, parts, rng) for line in plot.paragraphs]
    if rng.random() < 0.8:
        paragraphs.append(fill(rng.choice(ENDINGS), parts, rng))
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
