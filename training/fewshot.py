"""Made few-shot documents: a task shown by examples, in many formats. No third-party text but what is passed in.

Each family is a function `(rng) -> str`; FAMILIES says how often each is drawn. A document depends on nothing but the
`random.Random` that is passed in.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from training import sentiment_words as words
from training.stories import BOYS, GIRLS, PLACES, THINGS, Plot, expand, read_plots, tell, upper_first, with_article

Pair = tuple[str, str]
#: What stands before the question, between question and answer, and between two examples.
Format = tuple[str, str, str]

NOTES_FILE = Path(__file__).parent / "notes.txt"

ARROWS: list[Format] = [("", " -> ", "\n"), ("", " => ", "\n"), ("", ": ", "\n"), ("", " = ", "\n"), ("", " - ", "\n")]
INPUTS: list[Format] = [
    ("Input: ", "\nOutput: ", "\n\n"),
    ("Input: ", " Output: ", "\n"),
    ("Word: ", "\nAnswer: ", "\n\n"),
    ("Q: ", "\nA: ", "\n###\n"),
    ("Q: ", "\nA: ", "\n\n"),
]


def _pairs(text: str) -> list[Pair]:
    """`hot cold, big small` as pairs; where a side has several words they are joined by `_`."""
    both = [entry.split() for entry in text.replace("\n", " ").split(",")]
    return [(left.replace("_", " "), right.replace("_", " ")) for left, right in both]


OPPOSITES = _pairs("""hot cold, big small, day night, up down, fast slow, happy sad, open closed, old new, wet dry,
light dark, good bad, high low, rich poor, strong weak, hard soft, near far, early late, full empty, left right,
long short, loud quiet, clean dirty, thick thin, sweet sour, true false, first last, win lose, push pull, come go,
give take, buy sell, begin end, laugh cry, love hate, black white, inside outside, above below, young old, heavy light,
wide narrow, brave afraid, awake asleep, always never, more less, front back, north south, east west, summer winter,
boy girl, man woman, king queen, brother sister, top bottom, warm cool, right wrong, deep shallow, easy difficult,
cheap expensive, safe dangerous, alive dead, friend enemy, peace war, question answer, remember forget, find lose,
arrive leave, rise fall, smooth rough, sharp dull, tall short, beautiful ugly, kind cruel, polite rude, wise foolish,
success failure, start stop, build destroy, accept refuse, before after, over under, tight loose, same different,
noisy silent, healthy sick, lucky unlucky, honest dishonest, possible impossible, visible invisible, yes no,
increase decrease, entrance exit, import export, male female, husband wife, morning evening, sunrise sunset""")
FRENCH = _pairs("""dog chien, cat chat, house maison, water eau, bread pain, milk lait, book livre, table table,
chair chaise, door porte, sun soleil, moon lune, sea mer, tree arbre, flower fleur, bird oiseau, fish poisson,
horse cheval, cow vache, sheep mouton, apple pomme, cheese fromage, red rouge, blue bleu, green vert, white blanc,
black noir, yellow jaune, one un, two deux, three trois, four quatre, five cinq, six six, seven sept, eight huit,
nine neuf, ten dix, man homme, woman femme, boy garçon, girl fille, mother mère, father père, brother frère,
sister soeur, friend ami, king roi, queen reine, hand main, head tête, eye oeil, heart coeur, day jour, night nuit,
year an, city ville, school école, street rue, car voiture, train train, hello bonjour, yes oui, no non, thanks merci,
big grand, small petit, good bon, hot chaud, cold froid, new nouveau, old vieux, egg oeuf, rice riz, meat viande,
salt sel, sugar sucre, tea thé, coffee café, snow neige, rain pluie, wind vent, fire feu, earth terre, sky ciel,
star étoile, forest forêt, river rivière, garden jardin, window fenêtre, bed lit, key clé, knife couteau,
spoon cuillère, plate assiette, hat chapeau, shoe chaussure, dress robe, child enfant, mouth bouche, nose nez,
ear oreille, foot pied, arm bras, finger doigt, hair cheveux, bridge pont, mountain montagne, island île, boat bateau,
wall mur, kitchen cuisine, room chambre, paper papier, letter lettre, word mot, name nom, world monde, life vie,
time temps, money argent, work travail, music musique, song chanson, game jeu, wolf loup, bear ours, rabbit lapin,
pig cochon, duck canard, bee abeille, butter beurre, soup soupe, cake gâteau, wine vin, spring printemps, summer été,
autumn automne, winter hiver, Monday lundi, Friday vendredi, Sunday dimanche, love amour, peace paix, happy heureux,
sad triste, beautiful beau, strong fort, young jeune, long long, today aujourd'hui, tomorrow demain, always toujours,
never jamais, goodbye au_revoir, please s'il_vous_plaît, otter loutre, peppermint menthe, church église, bell cloche""")
CAPITALS = _pairs("""France Paris, Italy Rome, Spain Madrid, Germany Berlin, England London, Japan Tokyo, China Beijing,
Russia Moscow, Egypt Cairo, Greece Athens, Portugal Lisbon, Austria Vienna, Norway Oslo, Sweden Stockholm,
Finland Helsinki, Denmark Copenhagen, Poland Warsaw, Hungary Budapest, Ireland Dublin, Cuba Havana, Peru Lima,
Canada Ottawa, Turkey Ankara, Kenya Nairobi, Chile Santiago, Belgium Brussels, Scotland Edinburgh, Iran Tehran,
Iraq Baghdad, India Delhi, Thailand Bangkok, Vietnam Hanoi, Iceland Reykjavik, Syria Damascus, Lebanon Beirut,
Ukraine Kiev, Romania Bucharest, Bulgaria Sofia, Serbia Belgrade, Croatia Zagreb, Mexico Mexico_City,
Argentina Buenos_Aires, Colombia Bogota, Venezuela Caracas, Jamaica Kingston, Ghana Accra, Libya Tripoli,
Tunisia Tunis, Indonesia Jakarta, Nepal Kathmandu, Afghanistan Kabul, Israel Jerusalem, Wales Cardiff,
Australia Canberra, Switzerland Bern, Netherlands Amsterdam, Korea Seoul, Philippines Manila""")
PLURALS = _pairs("""cat cats, dog dogs, tree trees, book books, apple apples, child children, man men, woman women,
mouse mice, foot feet, tooth teeth, goose geese, leaf leaves, box boxes, city cities, baby babies, knife knives,
wolf wolves, sheep sheep, house houses, star stars, bus buses, story stories, fox foxes, dish dishes, wife wives,
life lives, shelf shelves, lady ladies, fly flies, key keys, toy toys, boy boys, day days, glass glasses,
church churches, potato potatoes, tomato tomatoes, piano pianos, hero heroes, fish fish, deer deer, berry berries,
country countries, bird birds, chair chairs, girl girls, king kings, window windows, door doors, flower flowers""")
PAST = _pairs("""go went, see saw, eat ate, run ran, come came, take took, give gave, make made, find found, say said,
think thought, know knew, sing sang, write wrote, read read, fly flew, swim swam, buy bought, bring brought,
sleep slept, fall fell, break broke, play played, walk walked, jump jumped, speak spoke, drink drank, drive drove,
teach taught, catch caught, sit sat, stand stood, hold held, tell told, sell sold, feel felt, keep kept, leave left,
lose lost, meet met, send sent, build built, grow grew, throw threw, draw drew, hear heard, begin began, ring rang,
hide hid, ride rode, rise rose, shake shook, win won, wear wore, look looked, help helped, open opened, call called,
dance danced, smile smiled, carry carried, cry cried, stop stopped, plan planned, laugh laughed, cook cooked""")
KINDS = _pairs("""dog animal, rose flower, apple fruit, carrot vegetable, red color, chair furniture, hammer tool,
piano instrument, cat animal, tulip flower, pear fruit, onion vegetable, blue color, table furniture, drum instrument,
horse animal, banana fruit, potato vegetable, green color, bed furniture, violin instrument, cow animal, daisy flower,
plum fruit, saw tool, flute instrument, France country, Spain country, Japan country, London city, Paris city, Rome city,
Monday day, Friday day, June month, March month, shirt clothing, coat clothing, hat clothing, car vehicle, bus vehicle,
train vehicle, boat vehicle, doctor job, teacher job, baker job, farmer job, bee insect, ant insect, fly insect,
robin bird, owl bird, eagle bird, salmon fish, shark fish, lily flower, orange fruit, grape fruit, lion animal,
purple color, desk furniture, spoon tool, guitar instrument, pea vegetable, mother family, uncle family, gold metal,
iron metal, silver metal, rain weather, snow weather, arm body, nose body, milk drink, tea drink, seven number""")
YOUNG = _pairs("""dog puppy, cat kitten, cow calf, horse foal, sheep lamb, goat kid, pig piglet, hen chick, duck duckling,
goose gosling, bear cub, lion cub, deer fawn, frog tadpole, swan cygnet, eagle eaglet, kangaroo joey, wolf pup""")
SOUNDS = _pairs("""dog barks, cat meows, cow moos, duck quacks, lion roars, sheep bleats, horse neighs, pig grunts,
owl hoots, bee buzzes, snake hisses, frog croaks, mouse squeaks, rooster crows, wolf howls, bird sings, hen clucks""")
COMPARED = _pairs("""big bigger, small smaller, tall taller, good better, bad worse, old older, young younger, long longer,
short shorter, fast faster, slow slower, high higher, low lower, happy happier, easy easier, hot hotter, cold colder,
warm warmer, strong stronger, weak weaker, rich richer, poor poorer, near nearer, far farther, early earlier, late later,
nice nicer, wide wider, thin thinner, thick thicker, heavy heavier, light lighter, dark darker, bright brighter""")
PLACES_OF = _pairs("""books library, bread bakery, money bank, stamps post_office, medicine pharmacy, fish sea, bees hive,
cows barn, birds nest, cars garage, trains station, planes airport, ships harbor, actors theater, pupils school,
patients hospital, kings castle, prayers church, flowers garden, trees forest, sand desert, paintings museum,
animals zoo, films cinema, stars sky, clothes closet, plates cupboard, rabbits burrow, monks monastery""")
COLOURS_OF = _pairs("""snow white, grass green, blood red, coal black, sky blue, lemon yellow, carrot orange, milk white,
banana yellow, night black, leaf green, tomato red, sea blue, chocolate brown, sun yellow, frog green, crow black,
cherry red, plum purple, pig pink, elephant gray, wood brown, cloud white, flame orange, ink black, bark brown""")
MAKERS = _pairs("""baker bread, painter pictures, writer books, tailor clothes, farmer corn, bee honey, hen eggs, cow milk,
carpenter tables, cook meals, poet poems, shoemaker shoes, potter pots, spider webs, composer music, weaver cloth""")
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
NEXT_DAYS = [(day, DAYS[(i + 1) % 7]) for i, day in enumerate(DAYS)]
NEXT_MONTHS = [(month, MONTHS[(i + 1) % 12]) for i, month in enumerate(MONTHS)]

#: A relation between words, with sentences that express it.
RELATIONS: list[tuple[list[Pair], list[Format]]] = [
    (OPPOSITES, [("The opposite of ", " is ", ".\n"), ("Word: ", "\nOpposite: ", "\n\n"), ("Q: What is the opposite of ", "?\nA: ", "\n###\n")]),
    (FRENCH, [("English: ", "\nFrench: ", "\n\n"), ("English: ", " French: ", "\n"), ("In French, ", " is ", ".\n"), ("The French word for ", " is ", ".\n")]),
    (CAPITALS, [("The capital of ", " is ", ".\n"), ("Country: ", "\nCapital: ", "\n\n"), ("Question: What is the capital of ", "?\nAnswer: ", "\n\n"), ("Q: What is the capital of ", "?\nA: ", "\n###\n"), ("The capital city of ", " is ", ". ")]),
    (PLURALS, [("one ", ", two ", "\n"), ("Singular: ", "\nPlural: ", "\n\n"), ("The plural of ", " is ", ".\n")]),
    (PAST, [("Today they ", ", yesterday they ", ".\n"), ("Present: ", "\nPast: ", "\n\n"), ("The past of ", " is ", ".\n")]),
    (KINDS, [("Word: ", "\nCategory: ", "\n\n"), ("", " is a kind of ", "\n")]),
    (YOUNG, [("A young ", " is called a ", ".\n"), ("Animal: ", "\nYoung: ", "\n\n")]),
    (SOUNDS, [("The ", " ", ".\n"), ("A ", " ", ". ")]),
    (COMPARED, [("This one is ", ", but that one is ", ".\n"), ("", ", ", "\n")]),
    (PLACES_OF, [("You find ", " in the ", ".\n"), ("Question: Where do you find ", "?\nAnswer: ", "\n\n")]),
    (COLOURS_OF, [("The color of ", " is ", ".\n"), ("Q: What color is ", "?\nA: ", "\n\n")]),
    (MAKERS, [("A ", " makes ", ".\n"), ("Q: What does a ", " make?\nA: ", "\n\n")]),
    (NEXT_DAYS, [("The day after ", " is ", ".\n"), ("After ", " comes ", ".\n")]),
    (NEXT_MONTHS, [("The month after ", " is ", ".\n"), ("After ", " comes ", ".\n")]),
]  # fmt: skip

#: Headings, the notebook's first; its separator is "\n###\n".
SENTIMENT_HEADS = ["Sentiment Analysis\n", "Sentiment Analysis\n", "", "", "Classify the text.\n", "Sentiment:\n\n"]
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
        return join_examples([(french, english) for english, french in examples], ("French: ", "\nEnglish: ", "\n\n"))
    forms = sentences if rng.random() < 0.6 else ARROWS + INPUTS
    return join_examples(examples, rng.choice(forms))


def make_sentence(rng: random.Random, *, positive: bool) -> str:
    """A sentence of praise or blame."""
    adjectives = words.GOOD_ADJECTIVES if positive else words.BAD_ADJECTIVES
    adverbs = words.GOOD_ADVERBS if positive else words.BAD_ADVERBS
    events = words.GOOD_EVENTS if positive else words.BAD_EVENTS
    thing, other = rng.sample(words.THINGS, 2)
    kind = rng.random()
    if kind < 0.45:
        text = rng.choice(events).replace("{t}", thing)
    elif kind < 0.55:
        verbs = words.GOOD_VERBS if positive else words.BAD_VERBS
        text = upper_first(f"{rng.choice(words.TOPICS)} {rng.choice(verbs)}.").replace("{t}", thing)
    else:
        a, b, c = rng.sample(adjectives, 3)
        parts = {"t": thing, "u": other, "v": rng.choice(adverbs), "a": a, "b": b, "c": c}
        parts |= {"aa": with_article(a), "A": upper_first(a), "Aa": upper_first(with_article(a))}
        text = rng.choice(words.SHAPES).format_map(parts)
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


TRANSFERS = """gave {o} to;handed {o} to;passed {o} to;threw {o} to;sold {o} to;lent {o} to;brought {o} to;showed {o} to;
sent {o} to;offered {o} to;gave {o} back to;said hello to;told a story to;waved to;read a book to;spoke to""".replace(
    "\n", ""
).split(";")
MEETINGS = """When {x} and {y} went to {l}, {g} {did} {r}.
When {x} and {y} were at {l}, {g} {did} {r}.
When {x} and {y} came to {l}, {g} {did} {r}.
After {x} and {y} went to {l}, {g} {did} {r}.
While {x} and {y} were walking to {l}, {g} {did} {r}.
Then, {x} and {y} went to {l}. {g} {did} {r}.
{x} and {y} met at {l}. {g} {did} {r}.
{x} and {y} had a lot of fun at {l}, and {g} {did} {r}.
{x} and {y} went to {l}. There, {g} {did} {r}.
One day, {x} and {y} were at {l}, and {g} {did} {r}.
Before {x} and {y} left {l}, {g} {did} {r}.
{x} was at {l} with {y}. {g} {did} {r}.
Afterwards, {x} and {y} went home from {l}. {g} {did} {r}.""".split("\n")
THANKS = """ {r} said, "Thank you, {g}."; {r} thanked {g}.; {r} was happy.; Now {r} has it.; "Thank you," said {r}.; {g} smiled at {r}.""".split(";")  # fmt: skip


def make_transfer(rng: random.Random) -> str:
    """One gives, the other receives; each is named first as often as not."""
    first, second = two_names(rng)
    giver, receiver = rng.sample([first, second], 2)
    place = rng.choice(PLACES).split("=")[0]
    did = rng.choice(TRANSFERS).replace("{o}", rng.choice([with_article, "the {}".format])(rng.choice(THINGS)))
    parts = {"x": first, "y": second, "g": giver, "r": receiver, "l": place, "did": did}
    text = rng.choice(MEETINGS).format_map(parts)
    if rng.random() < 0.2:
        text += rng.choice(THANKS).format_map(parts)
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
        places = [place.split("=")[0] for place in rng.sample(PLACES, len(people))]
        if rng.random() < 0.5:
            facts = [f"{name} has the {thing}." for name, thing in zip(people, things, strict=True)]
            asked = [(f"Who has the {thing}?", name) for name, thing in zip(people, things, strict=True)]
            asked += [(f"What does {name} have?", f"The {thing}") for name, thing in zip(people, things, strict=True)]
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
        lines.append(f"{taker} had {has} {things}. {giver} gave {taker} {more} more. Now {taker} has {has + more} {things}.")
    return "\n".join(lines)


def make_copying(rng: random.Random) -> str:
    """Lists of words that are said again, as they are or backwards."""
    pool = THINGS + [left for left, _ in KINDS] + GIRLS + BOYS
    lines = []
    before, between = rng.choice([("Copy: ", " | "), ("", " -> "), ("Say: ", "\nSaid: "), ("List: ", "\nAgain: ")])
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
        blocks.append(f"{context}{' '.join(paragraphs[:4])}\n{question}{asked_question}\n{answer}{given_answer}")
    heading = rng.choice(["Question/Answering\n", ""])
    return heading + rng.choice(["\n###\n", "\n\n"]).join(blocks)


def make_facts(rng: random.Random) -> str:
    """Short facts to ask for: founded, named, built, in the form of the notebook's questions."""
    blocks = []
    for _ in range(rng.randint(2, 3)):
        name = rng.choice("Acorn Bluebird Northwind Lighthouse Copper Sunrise Harbor Maple Comet Pioneer Falcon".split())
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
    parts = {"x": first, "y": second, "t": rng.choice(words.THINGS), "l": rng.choice(PLACES).split("=")[0]}
    parts["n"] = str(rng.randint(101, 499))
    sentences = [line for line in rng.choice(notes) if not line.startswith("~") or rng.random() < 0.6]
    text = " ".join(expand(line.removeprefix("~ "), rng) for line in sentences)
    return re.sub(r" {2,}", " ", text.format_map(parts)).strip()


def make_document(
    rng: random.Random, plots: Sequence[Plot], notes: Sequence[Sequence[str]], rows: Sequence[tuple[str, bool]] = ()
) -> str:
    """One few-shot document of any family."""
    families: list[tuple[Callable[[], str], int]] = [
        (lambda: make_sentiment(rng, rows), 30),
        (lambda: make_review(rng), 5),
        (lambda: make_relation(rng), 22),
        (lambda: make_transfers(rng), 14),
        (lambda: make_binding(rng), 5),
        (lambda: make_arithmetic(rng), 5),
        (lambda: make_copying(rng), 4),
        (lambda: make_questions(rng, plots), 5),
        (lambda: make_facts(rng), 3),
        (lambda: make_note(rng, notes), 7),
    ]
    (family,) = rng.choices([make for make, _ in families], weights=[weight for _, weight in families])
    return family()


def make_documents(count: int, rng: random.Random, rows: Sequence[tuple[str, bool]] = ()) -> list[str]:
    """`count` few-shot documents."""
    plots, notes = read_plots(), read_notes()
    return [make_document(rng, plots, notes, rows) for _ in range(count)]
