"""Every page, through the router, with what readers and links can bring."""

import pytest
from streamlit.testing.v1 import AppTest

from gpt_core.engine import shared_engine
from gpt_core.model import LanguageModel
from gpt_core.validation import MAX_CHARACTERS
from tests.dashboard.pages import NAMES, errors, open_page, settle, texts

pytestmark = pytest.mark.usefixtures("bundled")

HOSTILE = {
    "script": "</script><script>window.__pwned=1</script>",
    "image": "<img src=x onerror=window.__pwned=1>",
    "style": "<style>*{display:none}</style><base href=//evil>",
    "markdown": "![x](http://127.0.0.1:9/b.png) [a](javascript:alert(1)) **b** `c`",
    "streamlit": "$x$ :red[hi] :material/home: %{y} $\\href{javascript:1}$",
    "formula": "=1+1 @SUM -2+3",
    "controls": "a\x00b\x1bc\u2028d\ufeffe\u202ef",
    "emoji": "👩\u200d👩\u200d👧\u200d👦 🇩🇪 👍🏽 e\u0301 é",
    "zalgo": "z" + "\u0335" * 500,
    "whitespace": " \n\t  ",
    "special": "one <|endoftext|> two",
    "rtl": "שלום עולם",
}


@pytest.mark.parametrize("name", NAMES)
def test_default(name: str) -> None:
    at = open_page(name)
    assert errors(at) == []
    assert at.title[0].value
    assert at.text_area(key="prompt").value


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prompt", HOSTILE.values(), ids=HOSTILE.keys())
def test_any_prompt(name: str, prompt: str) -> None:
    at = open_page(name, prompt=prompt)
    assert errors(at) == []
    assert at.text_area(key="prompt").value == prompt
    # Markdown of any kind never holds a reader's text.
    markdown = "\n".join(
        e.value for kind in ("title", "subheader", "markdown", "caption") for e in getattr(at, kind)
    )
    assert prompt not in markdown


@pytest.mark.parametrize("name", [name for name in NAMES if name != "few_shot"])
def test_empty_prompt_gets_a_hint(name: str) -> None:
    at = open_page(name)
    at.text_area(key="prompt").set_value("").run()
    assert errors(at) == []
    assert any("Type a prompt" in info.value for info in at.info)
    if name != "tokenizer":
        at.button(key="prompt_start").click()
        settle(at.run())
        assert errors(at) == []
        assert at.text_area(key="prompt").value == "<|endoftext|>"
        assert "1 of 512 tokens" in _length(at)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prompt", ["a", " "])
def test_one_token(name: str, prompt: str) -> None:
    assert errors(open_page(name, prompt=prompt)) == []


@pytest.mark.parametrize("name", NAMES)
def test_lone_surrogate(name: str) -> None:
    at = open_page(name)
    at.text_area(key="prompt").set_value("a\ufffdb")
    at.session_state["prompt"] = "a\ud800b"
    settle(at.run())
    assert errors(at) == []


@pytest.mark.parametrize("name", [name for name in NAMES if name != "few_shot"])
def test_context_length_and_one_more(name: str, bundled: LanguageModel) -> None:
    n = bundled.geometry.context_length
    full = open_page(name, prompt=" a" * n)
    assert errors(full) == []
    more = open_page(name, prompt=" a" * (n + 1))
    assert errors(more) == []
    if name == "tokenizer":
        return  # counts tokens of any length
    said = texts(more)
    assert f"{n:,}" in said
    assert f"{n + 1:,}" in said
    more.button(key="prompt_keep_last").click()
    settle(more.run())
    assert errors(more) == []
    assert more.text_area(key="prompt").value == " a" * n


@pytest.mark.parametrize("name", [name for name in NAMES if name != "few_shot"])
def test_a_very_long_text_is_refused_before_the_tokenizer(name: str) -> None:
    at = open_page(name)
    at.text_area(key="prompt").set_value("a" * (MAX_CHARACTERS + 1)).run()
    settle(at)
    assert errors(at) == []
    assert f"{MAX_CHARACTERS:,}" in texts(at)
    assert f"{MAX_CHARACTERS + 1:,}" in texts(at)


BAD_LINKS = [
    {
        "attention_layer": "99",
        "attention_head": "-1",
        "attention_query": "NaN",
        "attention_bertviz_view": "<b>",
    },
    {"predictions_temperature": "NaN", "predictions_top_k": "-1", "predictions_top_p": "1e9"},
    {"predictions_position": "99999", "predictions_lens_colour": "![x](http://127.0.0.1:9/)"},
    {"generation_max_new_tokens": "1000000000", "generation_seed": "abc", "generation_mode": "../.."},
    {"generation_n_sequences": "1000000", "generation_stop_strings": "x\n" * 9},
    {"few_shot_task": "none", "few_shot_sentiment_rows": "[[[[", "few_shot_sentiment_shots": "77"},
    {"few_shot_sentiment_rows": '[["a"]]', "few_shot_sentiment_labels": ",,,"},
    {"page": "../..", "k": "NaN"},
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("query", BAD_LINKS, ids=lambda query: next(iter(query)))
def test_bad_link_values(name: str, query: dict[str, str]) -> None:
    at = open_page(name, **query)
    assert errors(at) == []
    assert "![x]" not in texts(at)
    assert "<b>" not in texts(at)
    wanted = [key for key in query if key.startswith(name)]
    if name == "attention" and "attention_layer" in wanted:
        assert "The link asks for 99 here. Possible: 0 to 5." in texts(at)


@pytest.mark.usefixtures("tiny_llama")
def test_a_link_without_a_revision_finds_the_model_and_says_which() -> None:
    at = open_page("attention", model="local:tiny-llama")
    assert errors(at) == []
    chosen = at.selectbox(key="model").value
    assert chosen.startswith("local:tiny-llama@")
    assert at.query_params["model"] == chosen
    assert at.get("plotly_chart")


@pytest.mark.parametrize(
    "model",
    ["local:gpt2@0123456789ab", "bundled:small-gpt2@000000000000", "../../etc/passwd", "hub:x", "local:/etc"],
)
def test_a_model_that_is_not_here_is_said_and_not_replaced(model: str) -> None:
    at = open_page("attention", model=model)
    assert errors(at) == []
    assert "link" in texts(at)
    assert not at.get("plotly_chart"), "another model's numbers were shown"
    at.button(key="model_instead").click()
    settle(at.run())
    assert at.get("plotly_chart")


def test_history_goes_back_and_forward() -> None:
    at = open_page("tokenizer")
    first = at.text_area(key="prompt").value
    at.text_area(key="prompt").set_value("second").run()
    at.selectbox(key="prompt_example").select("Hello World. This is Agney").run()
    at.button(key="prompt_back").click().run()
    assert at.text_area(key="prompt").value == "second"
    at.button(key="prompt_back").click().run()
    assert at.text_area(key="prompt").value == first
    assert at.button(key="prompt_back").disabled
    at.button(key="prompt_forward").click().run()
    assert at.text_area(key="prompt").value == "second"


def test_a_long_prompt_stays_out_of_the_link() -> None:
    at = open_page("tokenizer")
    at.text_area(key="prompt").set_value("ö " * 1500).run()
    settle(at)
    assert "prompt" not in at.query_params
    assert "not carry it" in texts(at)
    at.text_area(key="prompt").set_value("short").run()
    assert at.query_params["prompt"] == "short"


def test_special_tokens_can_be_read_as_plain_text() -> None:
    at = open_page("tokenizer", prompt="a <|endoftext|>")
    assert "3 of 512 tokens" in _length(at)
    at.toggle(key="special").set_value(False).run()
    assert "3 of 512 tokens" not in _length(at)
    assert at.query_params["special"] == "0"
    assert "3 of 512 tokens" not in _length(open_page("tokenizer", prompt="a <|endoftext|>", special="0"))


def _length(at: AppTest) -> str:
    return " ".join(element.proto.text for element in at.get("progress"))


@pytest.mark.usefixtures("tiny_llama")
def test_a_switch_of_models_ends_the_own_generation_and_says_whose_text_it_was() -> None:
    at = open_page("generation", generation_max_new_tokens="400", generation_n_sequences="8")
    at.button(key="generation_start").click().run()
    first = at.selectbox(key="model").value
    held = at.session_state["_job_generation"]
    other = next(model for model in at.selectbox(key="model").options if "tiny-llama" in model)
    at.selectbox(key="model").select(other)
    settle(at.run())
    assert errors(at) == []
    assert "Made with other settings, another prompt or another model" in texts(at)
    assert held.task.model == first
    assert _state(held.job_id) == "cancelled"


def _state(job_id: str) -> str:
    status = shared_engine().wait(job_id, 10)
    return "forgotten" if status is None else status.state
