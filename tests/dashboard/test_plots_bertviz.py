"""BertViz's pages: what they carry is what they were given, and they need no network."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from bertviz import head_view, model_view

from dashboard.plots.bertviz import (
    BACKGROUND,
    LABEL_COLUMNS,
    TEXT,
    VENDOR,
    estimated_bytes,
    head_view_html,
    model_view_html,
)
from gpt_core.errors import GptCoreError

ROOT = Path(__file__).parents[2]
VIEWS = [model_view_html, head_view_html]


def causal_attention(n_layers: int = 3, n_heads: int = 2, n_tokens: int = 5) -> np.ndarray:
    logits = np.random.default_rng(7).normal(0, 2, (n_layers, n_heads, n_tokens, n_tokens))
    weights = np.exp(logits) * np.tri(n_tokens)
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def labels_of(n_tokens: int) -> list[str]:
    return [f"·w{i}" for i in range(n_tokens)]


def parameters(page: str) -> dict:
    assert page.count("const params = ") == 1
    return json.JSONDecoder().raw_decode(page.split("const params = ")[1])[0]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dark", [False, True])
def test_page_names_no_other_host(view, dark):
    page = view(causal_attention(), labels_of(5), dark=dark)
    # What is left are names, not addresses to fetch: XML namespaces, and in comments where the code comes from.
    assert set(re.findall(r"//(\w[\w-]*\.[\w.]+)", page)) <= {"www.w3.org", "d3js.org", "github.com"}
    assert "cdnjs" not in page
    assert "require.config" not in page
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", page)


@pytest.mark.parametrize("view", VIEWS)
def test_attention_is_there_once_to_three_decimals(view):
    attention = causal_attention()
    page = view(attention, labels_of(5))
    carried = parameters(page)["attention"]
    assert len(carried) == 1
    np.testing.assert_allclose(np.array(carried[0]["attn"]), attention, atol=0.0005 + 1e-9)
    np.testing.assert_array_equal(np.array(carried[0]["attn"]), np.round(attention.astype(np.float64), 3))
    assert page.count(json.dumps(carried[0]["attn"][0][0], separators=(",", ":"))) == 1
    assert page.count(json.dumps(carried[0]["left_text"])) == 2  # left and right


@pytest.mark.parametrize(("view", "original"), [(model_view_html, model_view), (head_view_html, head_view)])
@pytest.mark.parametrize("layers", [None, [2, 0]])
def test_parameters_are_those_that_bertviz_itself_makes(view, original, layers):
    attention, labels = causal_attention(), labels_of(5)
    rounded = torch.from_numpy(np.round(attention.astype(np.float64), 3))
    theirs = original(
        list(rounded[:, None]), labels, prettify_tokens=False, include_layers=layers, html_action="return"
    )
    expected = parameters(theirs.data)
    shown = attention if layers is None else attention[layers]
    found = parameters(view(shown, labels, layers=layers))
    assert found.pop("root_div_id") != expected.pop("root_div_id")  # random: two on one page
    assert found | {"display_mode": None} == expected | {"display_mode": None}


def test_masked_weights_given_as_nan_count_as_zero():
    attention = causal_attention()
    masked = np.where(np.tri(5, dtype=bool), attention, np.nan)
    page = model_view_html(masked, labels_of(5))
    assert parameters(page)["attention"] == parameters(model_view_html(attention, labels_of(5)))["attention"]


@pytest.mark.parametrize("view", VIEWS)
def test_no_label_can_end_the_script(view):
    labels = [
        "</script>",
        "<!--<script>",
        "<img src=x o…",
        '"};alert(1)//',
        "\\",
        "\u2028",
        "\ud800",
        "Ġ▁</w>",
        "PYTHON_PARAMS",
        '"attn": []',
        "'\n",
    ]
    attention = causal_attention(n_tokens=len(labels))
    page = view(attention, labels)
    plain = view(attention, labels_of(len(labels)))
    assert page.count("<") == plain.count("<")
    assert page.count("\n") == plain.count("\n")
    assert parameters(page)["attention"][0]["left_text"] == labels
    assert parameters(page)["attention"][0]["right_text"] == labels
    page.encode()  # no lone surrogate, however it came in


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("x" * LABEL_COLUMNS, "x" * LABEL_COLUMNS),
        ("x" * 66, "x" * (LABEL_COLUMNS - 1) + "…"),
        ("漢" * 66, "漢" * ((LABEL_COLUMNS - 1) // 2) + "…"),
    ],
)
def test_long_labels_are_cut_to_what_can_be_drawn(label, shown):
    page = head_view_html(causal_attention(n_tokens=1), [label])
    assert parameters(page)["attention"][0]["left_text"] == [shown]


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        (["a"], {}),
        (["a"] * 6, {}),
        (["a"] * 5, {"layers": []}),
        (["a"] * 5, {"layers": [3]}),
        (["a"] * 5, {"layers": [-1]}),
        (["a"] * 5, {"layers": [0, 1, -1]}),
        (["a"] * 5, {"layers": [0, 1, 1]}),
    ],
)
@pytest.mark.parametrize("view", VIEWS)
def test_what_does_not_fit_is_refused(view, labels, options):
    with pytest.raises(ValueError, match=r"labels|layers") as caught:
        view(causal_attention(), labels, **options)
    assert not isinstance(caught.value, GptCoreError)


def test_head_view_starts_at_the_layer_asked_for():
    assert parameters(head_view_html(causal_attention(), labels_of(5), layer=2))["layer"] == 2
    with pytest.raises(ValueError, match="not in include_layers"):
        head_view_html(causal_attention(2), labels_of(5), layer=1, layers=[0, 2])


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (6, 6, 15), (12, 12, 15), (12, 12, 50), (2, 3, 200)])
def test_estimate_is_above_the_true_size_and_near_it(view, shape):
    attention = causal_attention(*shape)
    true = len(view(attention, labels_of(shape[2])).encode())
    assert 0.4 * estimated_bytes(*shape) <= true <= estimated_bytes(*shape)


def test_colours_are_those_of_the_themes():
    import tomllib

    theme = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))["theme"]
    assert {name: theme[name]["backgroundColor"] for name in ("light", "dark")} == BACKGROUND
    assert {name: theme[name]["textColor"] for name in ("light", "dark")} == TEXT


def test_vendored_files_are_those_that_the_readme_names():
    table = re.findall(
        r"^\| `([\w.]+)` .*`([0-9a-f]{64})` \|$", (VENDOR / "README.md").read_text(), re.MULTILINE
    )
    assert len(table) == 2
    for name, digest in table:
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest
    assert {path.name for path in VENDOR.glob("*.LICENSE")} == {"d3.LICENSE", "jquery.LICENSE"}
