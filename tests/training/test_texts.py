"""The made texts: as many plots as promised, the same for a seed, well formed, and true in what they say."""

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from training import fewshot, stories
from training.overlap import SENTENCES_FILE, Overlap, read_labelled, split_labelled

PLOTS = stories.read_plots()


def by_words(text: str) -> list[int]:
    """An encoder that gives each word a number, and makes a difference of a space before it."""
    return [hash(piece) % 2**31 for piece in re.findall(r" ?\S+", text)]


def test_there_are_as_many_plots_as_promised() -> None:
    assert len(PLOTS) >= 40
    assert len({plot.title for plot in PLOTS}) == len(PLOTS)
    assert all(len(plot.paragraphs) >= 4 and plot.questions and plot.lesson for plot in PLOTS)


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.title)
def test_a_plot_is_written_out_whole(plot: stories.Plot) -> None:
    rng = random.Random(0)
    told = set()
    for _ in range(30):
        paragraphs, questions = stories.tell(plot, rng)
        text = " ".join(paragraphs)
        told.add(text)
        assert not re.search(r"[\[\]{}<>|]|  | [.,!?]", text)
        assert all(paragraph[0].isupper() or paragraph[0] == '"' for paragraph in paragraphs)
        assert text.count('"') % 2 == 0
        for question, answer in questions:
            assert not re.search(r"[\[\]{}<>|]", question + answer)
            assert question.endswith("?")
            assert answer.endswith(".")
    assert len(told) == 30, "no two alike"


def test_names_in_answers_are_in_the_story() -> None:
    rng = random.Random(1)
    names = {*stories.GIRLS, *stories.BOYS}
    for plot in PLOTS:
        paragraphs, questions = stories.tell(plot, rng)
        for _, answer in questions:
            for name in names & set(re.findall(r"\w+", answer)):
                assert re.search(rf"\b{name}\b", " ".join(paragraphs)), (plot.title, answer)


def test_the_people_of_a_story_have_different_names() -> None:
    rng = random.Random(0)
    for _ in range(200):
        people = stories.make_people(rng, 3, human=rng.random() < 0.5)
        assert len({person.name for person in people}) == 3


def test_texts_depend_on_their_own_generator_only() -> None:
    def make(seed: int) -> tuple[list[str], list[str]]:
        rng = random.Random(seed)
        return [stories.make_story(PLOTS, rng) for _ in range(20)], fewshot.make_documents(40, rng)

    before = random.getstate()
    first = make(3)
    random.seed(99)
    random.setstate(before)
    assert make(3) == first
    assert make(4) != first
    assert random.getstate() == before, "the global generator is left alone"


def test_the_receiver_is_the_other_one() -> None:
    rng = random.Random(0)
    giver_first = 0
    for _ in range(400):
        sentence = fewshot.make_transfer(rng).split('"')[0]
        people = [name for name in re.findall(r"\w+", sentence) if name in {*stories.GIRLS, *stories.BOYS}]
        x, y, giver, receiver = people[:4]
        assert x != y
        assert {giver, receiver} == {x, y}
        giver_first += giver == x
    assert 150 < giver_first < 250, "who is named first tells nothing"


def test_sentiment_in_the_notebooks_format() -> None:
    rng = random.Random(0)
    documents = [fewshot.make_sentiment(rng) for _ in range(800)]
    block = r"Text: [^\n]+\nSentiment: (Positive|Negative)"
    notebook = [
        text for text in documents if re.fullmatch(rf"Sentiment Analysis\n{block}(\n###\n{block})+", text)
    ]
    assert len(notebook) > 10


def test_labels_fit_their_sentences() -> None:
    rng = random.Random(0)
    good, bad = ({*fewshot.FEELINGS[f"{kind} adjectives"]} for kind in ("good", "bad"))
    assert good & bad == {"cheap"}, "which can be either"
    assert not {*fewshot.FEELINGS["good events"]} & {*fewshot.FEELINGS["bad events"]}
    for positive, wrong in ((True, bad - good), (False, good - bad)):
        for _ in range(300):
            shape = fewshot.make_sentence(rng, positive=positive).lower()
            adjectives = re.findall(r"(?:was|is|were) (?:very |so |really )?(\w+)[.]", shape)
            assert not set(adjectives) & wrong


def test_labels_are_balanced_and_rows_keep_theirs() -> None:
    rng = random.Random(0)
    rows = [("a row of praise", True), ("a row of blame", False)]
    labels = Counter[tuple[str, bool]]()
    for _ in range(400):
        for label in re.findall(r"Sentiment: (Positive|Negative)", fewshot.make_sentiment(rng)):
            labels[label, False] += 1
        for text, label in re.findall(r"(a row of \w+)\nSentiment: (\w+)", fewshot.make_sentiment(rng, rows)):
            assert (text == "a row of praise") == (label in {pair[0] for pair in fewshot.SENTIMENT_LABELS})
            labels[text, True] += 1
    assert 0.4 < labels["Positive", False] / (labels["Positive", False] + labels["Negative", False]) < 0.6
    assert labels["a row of praise", True] > 50


@pytest.mark.parametrize("pairs", [pairs for pairs, _ in fewshot.RELATIONS])
def test_a_relation_has_one_answer_to_a_question(pairs: list[fewshot.Pair]) -> None:
    questions = [question for question, _ in pairs]
    assert len(questions) == len(set(questions))
    assert all(question and answer for question, answer in pairs)


def test_sums_are_right() -> None:
    rng = random.Random(0)
    n_sums = 0
    for _ in range(300):
        for left, sign, right, result in re.findall(
            r"(\d+) ([+-]) (\d+) = (\d+)", fewshot.make_arithmetic(rng)
        ):
            assert int(result) == (int(left) + int(right) if sign == "+" else int(left) - int(right))
            n_sums += 1
    assert n_sums > 100


# What the model is tested on


def test_the_fifty_sentences() -> None:
    rows = read_labelled(SENTENCES_FILE)
    assert len(rows) == len({text for text, _ in rows}) == 50
    assert sum(positive for _, positive in rows) == 25


def test_hardly_a_phrase_of_ours_is_lost_to_the_check(gpt2_tokenizer: object) -> None:
    encode = gpt2_tokenizer.encode  # type: ignore[attr-defined]
    overlap = Overlap((text for text, _ in read_labelled(SENTENCES_FILE)), encode)
    phrases = [item for section in fewshot.FEELINGS.values() for item in section]
    lost = [phrase for phrase in phrases if overlap.shares(phrase, encode(phrase))]
    assert lost == ["I am proud of my son."], "documents that hold one are left out"


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        ("He said: the bread from the new BAKERY, is it good?", True),
        ("the bread from the old bakery is delicious", False),
        ("The bread from the", False),
        ("xx The bread from the new", True),
        ("", False),
    ],
)
def test_a_run_of_five_words_is_found(text: str, shared: bool) -> None:
    overlap = Overlap(["The bread from the new bakery is delicious."], by_words)
    assert overlap.shares_words(text) is shared


def test_a_run_of_five_tokens_is_found_with_and_without_a_space_before_it() -> None:
    overlap = Overlap(["a b c d e f"], by_words)
    assert overlap.shares_ids(by_words("a b c d e"))
    assert overlap.shares_ids(by_words("x a b c d e"))
    assert overlap.shares_ids(by_words("x b c d e f"))
    assert not overlap.shares_ids(by_words("x a b c d x e f"))
    assert not overlap.shares_ids([])


def test_rows_for_testing_are_not_among_the_others(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"text": str(i), "label": "positive" if i % 2 else "negative"} for i in range(500)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    test, others = split_labelled(file)
    assert len(test) == 200
    assert {text for text, _ in test} | {text for text, _ in others} == {str(i) for i in range(500)}
    assert split_labelled(file) == (test, others)
    assert all(positive == bool(int(text) % 2) for text, positive in [*test, *others])
