"""The code that a page shows runs on its own and gives the numbers on the screen."""

import contextlib
import dataclasses
import io

import numpy as np
import pytest

from gpt_core.attention import attention_maps
from gpt_core.catalog import load_name
from gpt_core.decoding import STAGES, SamplingSettings
from gpt_core.model import LanguageModel
from gpt_core.predictions import next_token
from gpt_core.sampling import apply_stages
from gpt_core.snippets.attention import attention_snippet
from gpt_core.snippets.predictions import predictions_snippet
from gpt_core.tokenizer import decode_ids, tokenize_text
from gpt_core.trace import logits_at, trace_text, trace_tokens

TEXT = "He said \"no\"\\ and 'left'.\n"


def run(code: str) -> tuple[dict[str, object], str]:
    names: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "snippet", "exec"), names)
    return names, printed.getvalue()


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> None:
    """The bundled model's folder is named from the root of the project."""
    monkeypatch.chdir(pytestconfig.rootpath)


def test_attention(bundled: LanguageModel) -> None:
    names, printed = run(attention_snippet(load_name(str(bundled.model_id)), TEXT, layer=3, head=2))
    ours = attention_maps(trace_text(bundled, TEXT), layer=3, heads=[2]).weights[0]
    theirs = names["attention"]
    assert np.abs(np.asarray(theirs) - ours).max() < 1e-5
    assert f"{ours[-1, 0]:.3f}".rstrip("0") in printed


def test_attention_of_a_continued_text(bundled: LanguageModel) -> None:
    """Ids that no reading of their text gives back: "th" and "e", which would be one token."""
    ids = (*tokenize_text(bundled, TEXT).token_ids, 400, 68)
    assert tokenize_text(bundled, decode_ids(bundled, ids).text).token_ids != ids
    name = load_name(str(bundled.model_id))
    names, _ = run(attention_snippet(name, TEXT, layer=3, head=2, token_ids=ids))
    ours = attention_maps(trace_tokens(bundled, ids), layer=3, heads=[2]).weights[0]
    assert np.abs(np.asarray(names["attention"]) - ours).max() < 1e-5


def test_predictions(bundled: LanguageModel) -> None:
    _, printed = run(predictions_snippet(load_name(str(bundled.model_id)), TEXT, position=2, k=4))
    ours = next_token(bundled, trace_text(bundled, TEXT), position=2, k=4)
    lines = [line.split(maxsplit=3) for line in printed.splitlines()[:4]]
    assert [int(line[2]) for line in lines] == ours.token_ids.tolist()
    assert np.allclose([float(line[0]) for line in lines], ours.probs, atol=1e-5)
    assert [line[0] for line in lines] == [line[1] for line in lines]  # no stage is at work


EVERYTHING = SamplingSettings(
    logit_bias=((262, -1.0), (11, 2.0)),
    repetition_penalty=1.3,
    no_repeat_ngram=2,
    presence_penalty=0.4,
    frequency_penalty=-0.2,
    temperature=0.8,
    top_k=40,
    top_p=0.9,
    min_p=0.01,
    typical_p=0.8,
)


@pytest.mark.parametrize(
    "settings",
    [
        EVERYTHING,
        dataclasses.replace(EVERYTHING, order=STAGES[::-1]),
        dataclasses.replace(EVERYTHING, switched_off=("top_k", "temperature", "typical_p")),
        dataclasses.replace(EVERYTHING, temperature=0.0),
    ],
    ids=["all", "reversed", "some off", "greedy"],
)
def test_predictions_through_the_stages(bundled: LanguageModel, settings: SamplingSettings) -> None:
    code = predictions_snippet(load_name(str(bundled.model_id)), TEXT, position=5, k=6, settings=settings)
    names, printed = run(code)
    trace = trace_text(bundled, TEXT)
    result = apply_stages(logits_at(bundled, trace, [5])[0], trace.token_ids[:6], settings)
    assert np.abs(np.asarray(names["drawn_from"]) - result.probs).max() < 1e-4
    assert (np.asarray(names["drawn_from"]) > 0).sum() == (result.probs > 0).sum()
    for line in printed.splitlines()[:6]:
        own, after, token_id, _ = line.split(maxsplit=3)
        assert float(own) == pytest.approx(float(result.model_probs[int(token_id)]), abs=2e-5)
        assert float(after) == pytest.approx(float(result.probs[int(token_id)]), abs=2e-4)


def test_special_tokens_as_plain_text(bundled: LanguageModel) -> None:
    text = "a <|endoftext|>"
    for special_tokens, n_tokens in ((True, 3), (False, 8)):
        names, _ = run(
            predictions_snippet(
                load_name(str(bundled.model_id)), text, position=0, k=1, special_tokens=special_tokens
            )
        )
        assert len(names["tokens"]) == n_tokens  # type: ignore[arg-type]
        assert tokenize_text(bundled, text, special_tokens=special_tokens).n_tokens == n_tokens
