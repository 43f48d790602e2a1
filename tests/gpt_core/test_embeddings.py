"""Vectors of a text: rows of the tables, neighbours by brute force, and a walk that ends where the model does."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from gpt_core.catalog import BUNDLED_FOLDER, ModelId
from gpt_core.embeddings import (
    SPACES,
    Walk,
    cosine_similarity,
    input_embeddings,
    nearest_tokens,
    print_vectors,
    token_similarity,
    walk_blocks,
)
from gpt_core.errors import CancelledError, InputError, UnsupportedError
from gpt_core.model import LanguageModel, wrap_network
from gpt_core.trace import Trace, trace_text, trace_tokens
from tests.conftest import ARCHITECTURES, make_network

TEXT = "The CS123 class was very intresting. I learned a lot."
IDS = (464, 9429, 10163, 1398, 373, 845, 493, 2118, 278, 13, 314, 4499, 257, 1256, 13)
LEARNED = ("gpt2", "opt")

TinyLM = Callable[[str], LanguageModel]


def largest(difference: Any) -> float:
    return float(np.abs(np.asarray(difference)).max())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_inputs_equal_plain_transformers(architecture: str, tiny_lm: TinyLM) -> None:
    lm = tiny_lm(architecture)
    found = input_embeddings(lm, trace_tokens(lm, IDS))
    plain = make_network(architecture).eval()
    with torch.inference_mode():
        table = plain.get_input_embeddings().weight.detach()
        states = plain(torch.tensor([IDS]), output_hidden_states=True).hidden_states
    assert np.array_equal(found.token_vectors, table[list(IDS)].numpy())
    assert largest(found.block_input - states[0][0].numpy()) < 1e-6
    assert (found.position_vectors is not None) == (architecture in LEARNED)
    assert largest(found.scale * found.total - found.block_input) <= 1e-6
    assert found.scale == pytest.approx(32**0.5 if architecture.startswith("gemma") else 1.0, abs=1e-6)


def test_position_vectors_are_rows_of_the_position_table(tiny_lm: TinyLM) -> None:
    gpt2, opt = tiny_lm("gpt2"), tiny_lm("opt")
    rows = make_network("gpt2").transformer.wpe.weight.detach().numpy()
    found = input_embeddings(gpt2, trace_tokens(gpt2, IDS))
    assert np.array_equal(found.position_vectors, rows[: len(IDS)])
    assert np.array_equal(found.total, found.token_vectors + rows[: len(IDS)])
    rows = make_network("opt").model.decoder.embed_positions.weight.detach().numpy()
    # OPT keeps two rows for padding in front.
    found = input_embeddings(opt, trace_tokens(opt, IDS))
    assert np.array_equal(found.position_vectors, rows[2 : 2 + len(IDS)])


def test_scale_is_found_and_what_is_no_scale_is_said(gpt2_tokenizer: Any) -> None:
    granite = wrap_network(
        make_network("granite", embedding_multiplier=7.0),
        gpt2_tokenizer,
        model_id=ModelId("local", "tiny-granite-7"),
    )
    found = input_embeddings(granite, trace_tokens(granite, IDS))
    assert found.scale == pytest.approx(7.0, abs=1e-5)
    assert found.difference < 1e-6
    bloom = wrap_network(make_network("bloom"), gpt2_tokenizer, model_id=ModelId("local", "tiny-bloom"))
    found = input_embeddings(bloom, trace_tokens(bloom, IDS))  # norms its embeddings
    assert np.isnan(found.scale)
    assert found.difference == pytest.approx(largest(found.total - found.block_input), rel=1e-5)


def test_results_cannot_be_written_to(bundled: LanguageModel) -> None:
    trace = trace_text(bundled, TEXT)
    inputs, walk = input_embeddings(bundled, trace), walk_blocks(bundled, trace)
    near = nearest_tokens(bundled, 464)
    for result in (inputs, walk, near):
        for field in dataclasses.fields(result):
            value = getattr(result, field.name)
            if isinstance(value, np.ndarray):
                assert not value.flags.writeable, field.name
                assert not any(np.shares_memory(value, kept) for kept in (trace.residual, trace.final))


def test_prints_as_the_notebook_does() -> None:
    vectors = np.zeros((7, 768), dtype=np.float32)
    vectors[0, :3], vectors[0, -3:] = (0.1403, -0.2976, -0.0616), (0.0405, 0.1980, 0.1238)
    lines = print_vectors(vectors).splitlines()
    assert lines[0] == "tensor([[[ 0.1403, -0.2976, -0.0616,  ...,  0.0405,  0.1980,  0.1238],"
    assert lines[3] == "         ...,"
    assert len(lines) == 7


@pytest.mark.parametrize("n_tokens", [6, 7, 15])
def test_prints_as_torch_does(n_tokens: int) -> None:
    rng = np.random.default_rng(0)
    vectors = (0.1 + 0.9 * rng.random((n_tokens, 200))).astype(np.float32) * rng.choice(
        [-1, 1], (n_tokens, 200)
    )
    assert print_vectors(vectors) == repr(torch.tensor(vectors, dtype=torch.float32)[None])


def test_prints_any_numbers() -> None:
    assert print_vectors(np.array([[0.5]], dtype=np.float32)) == "tensor([[[0.5000]]])"
    assert print_vectors(np.zeros((1, 7), dtype=np.float32)).count("0.0000") == 6
    assert "-2.0000e-09" in print_vectors(np.array([[1e-9, -2e-9]], dtype=np.float32))
    assert "1.0000e+30" in print_vectors(np.array([[1e30, 1]], dtype=np.float32))
    odd = print_vectors(np.array([[np.nan, np.inf, -1]], dtype=np.float32))
    assert odd == "tensor([[[    nan,     inf, -1.0000]]])"
    # PyTorch would write all of them with exponents because of the second.
    assert print_vectors(np.array([[0.5, 1e-6]], dtype=np.float32)) == "tensor([[[0.5000, 0.0000]]])"


# --- cosines ---------------------------------------------------------------------------------------------------------


def test_cosines_equal_torch() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(9, 40)).astype(np.float32)
    rows = torch.tensor(vectors)
    reference = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=-1).numpy()
    found = cosine_similarity(vectors)
    assert largest(found - reference) < 1e-6
    assert largest(np.diag(found) - 1) == 0


def test_cosines_of_extreme_rows() -> None:
    vectors = np.array([[1, 0], [1e30, 1e30], [1e-30, 0], [0, 0], [np.nan, 1], [np.inf, 1]], dtype=np.float32)
    found = cosine_similarity(vectors)
    half = np.sqrt(0.5)
    assert np.allclose(found[0, :4], [1, half, 1, 0])
    assert np.allclose(found[1, :4], [half, 1, half, 0])
    assert np.isnan(found[4:]).all()
    assert np.isnan(found[:, 4:]).all()


def test_similarity_of_a_repeated_token(bundled: LanguageModel) -> None:
    """The same token has the same row wherever it stands; its position and its context tell the two apart."""
    trace = trace_text(bundled, TEXT)
    first, last = 9, 14  # both "."
    tokens, placed, final = (token_similarity(bundled, trace, space=space) for space in SPACES)
    assert tokens[first, last] == 1
    assert placed[first, last] < 0.999
    assert final[first, last] < 0.999
    assert np.array_equal(final, cosine_similarity(trace.final.numpy()))


def test_similarity_refuses_what_is_not_there(bundled: LanguageModel, tiny_lm: TinyLM) -> None:
    with pytest.raises(InputError, match="token vectors, with positions, last hidden state"):
        token_similarity(bundled, trace_text(bundled, TEXT), space="logits")
    llama = tiny_lm("llama")
    with pytest.raises(UnsupportedError, match="no position table"):
        token_similarity(llama, trace_text(llama, TEXT), space="with positions")


# --- neighbours ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token_id", [0, 464, 1681, 50256])
def test_neighbours_equal_brute_force(token_id: int, bundled: LanguageModel) -> None:
    table = bundled.network.get_input_embeddings().weight
    cosines = torch.nn.functional.cosine_similarity(table, table[token_id][None], dim=-1)
    others = torch.cat([cosines[:token_id], cosines[token_id + 1 :]])
    cosines[token_id] = -2
    best = cosines.topk(25)
    found = nearest_tokens(bundled, token_id, k=25)
    assert largest(found.cosines - best.values.numpy()) < 1e-6
    assert found.token_ids.tolist() == best.indices.tolist()
    assert found.mean_cosine == pytest.approx(float(others.mean()), abs=1e-6)
    assert found.n_compared == 50256
    assert found.token_id == token_id


@pytest.fixture(scope="module")
def damaged(gpt2_tokenizer: Any) -> LanguageModel:
    """A table with rows beyond the vocabulary, and with zero, damaged, tiny and huge ones."""
    lm = wrap_network(
        make_network("llama", vocab_size=50304), gpt2_tokenizer, model_id=ModelId("local", "tiny-damaged")
    )
    table = lm.anatomy.token_embedding.weight
    with torch.no_grad():
        table[50257:] = table[7]  # no token has these rows
        table[1] = torch.nan
        table[2] = torch.inf
        table[3] = 0
        table[4] = table[7] * 1e-25
        table[5] = table[7] * 1e25
        table[6] = -table[7]
    return lm


def test_neighbours_leave_out_rows_without_a_direction(damaged: LanguageModel) -> None:
    found = nearest_tokens(damaged, 7, k=1000)
    assert found.token_ids[:2].tolist() == [4, 5]  # the same direction at any length, equal cosines by id
    assert np.allclose(found.cosines[:2], 1, atol=1e-6)
    assert found.n_compared == 50257 - 4
    assert not {1, 2, 3, 7} & set(found.token_ids.tolist())
    assert found.token_ids.max() < 50257
    assert np.isfinite(found.cosines).all()
    for near in (4, 5):
        assert np.isin([4, 5, 7], [near, *nearest_tokens(damaged, near, k=3).token_ids]).all()


@pytest.mark.parametrize("token_id", [1, 2, 3])
def test_a_row_without_a_direction_has_no_neighbours(token_id: int, damaged: LanguageModel) -> None:
    with pytest.raises(UnsupportedError, match=f"token {token_id} is zero or damaged"):
        nearest_tokens(damaged, token_id)


@pytest.mark.parametrize(
    ("token_id", "k"), [(-1, 5), (50257, 5), ("1", 5), (True, 5), (1, 0), (1, 1001), (1, 2.5)]
)
def test_neighbours_refuse_what_is_out_of_range(token_id: Any, k: Any, bundled: LanguageModel) -> None:
    with pytest.raises(InputError, match="must be a whole number"):
        nearest_tokens(bundled, token_id, k=k)


# --- the walk --------------------------------------------------------------------------------------------------------


def arrives(walk: Walk) -> bool:
    """The law: after each block and at the end, the walk is where the model is."""
    scale = max(1.0, largest(walk.reference))
    return walk.difference <= 1e-5 * scale and largest(walk.block_differences) <= 1e-4 * scale


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_walk_ends_at_the_last_hidden_state(architecture: str, tiny_lm: TinyLM) -> None:
    lm = tiny_lm(architecture)
    walk = walk_blocks(lm, trace_tokens(lm, IDS))
    assert arrives(walk)
    with torch.inference_mode():
        plain = make_network(architecture).eval()(torch.tensor([IDS]), output_hidden_states=True)
    assert largest(walk.hidden - plain.hidden_states[-1][0].numpy()) < 1e-4 * max(1, largest(walk.hidden))
    assert walk.lengths.shape == (4, len(IDS))
    assert largest(walk.lengths[0] - np.linalg.norm(plain.hidden_states[0][0].numpy(), axis=1)) < 1e-4


def without_mask(lm: LanguageModel, trace: Trace) -> tuple[LanguageModel, Trace]:
    """Every token sees every other."""
    n = trace.n_tokens
    arguments = []
    for block, (args, kwargs) in zip(lm.anatomy.blocks, trace.block_arguments, strict=True):
        bound = inspect.signature(block.forward).bind(trace.residual[0][None], *args, **kwargs)
        bound.arguments["attention_mask"] = torch.ones(1, 1, n, n, dtype=torch.bool)
        arguments.append((bound.args[1:], bound.kwargs))
    return lm, dataclasses.replace(trace, block_arguments=tuple(arguments))


def with_norm_twice(lm: LanguageModel, trace: Trace) -> tuple[LanguageModel, Trace]:
    norm = lm.anatomy.final_norm
    assert norm is not None
    twice = torch.nn.Sequential(norm, norm)
    return dataclasses.replace(lm, anatomy=dataclasses.replace(lm.anatomy, final_norm=twice)), trace


def without_norm(lm: LanguageModel, trace: Trace) -> tuple[LanguageModel, Trace]:
    nothing = torch.nn.Identity()
    return dataclasses.replace(lm, anatomy=dataclasses.replace(lm.anatomy, final_norm=nothing)), trace


class Skipped(torch.nn.Module):
    def forward(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return hidden


def with_block_skipped(lm: LanguageModel, trace: Trace) -> tuple[LanguageModel, Trace]:
    blocks = torch.nn.ModuleList([*lm.anatomy.blocks[:1], Skipped(), *lm.anatomy.blocks[2:]])
    return dataclasses.replace(lm, anatomy=dataclasses.replace(lm.anatomy, blocks=blocks)), trace


def with_blocks_swapped(lm: LanguageModel, trace: Trace) -> tuple[LanguageModel, Trace]:
    first, second, *rest = lm.anatomy.blocks
    blocks = torch.nn.ModuleList([second, first, *rest])
    return dataclasses.replace(lm, anatomy=dataclasses.replace(lm.anatomy, blocks=blocks)), trace


def without_positions(lm: LanguageModel, trace: Trace) -> tuple[LanguageModel, Trace]:
    """Starts from the token vectors alone; a rotary model is told that every token stands at position 0."""
    if trace.position_vectors is not None:
        residual = trace.residual.clone()
        residual[0] -= trace.position_vectors
        return lm, dataclasses.replace(trace, residual=residual)
    arguments = [
        (
            args,
            kwargs
            | {"position_embeddings": tuple(t[:, :1].expand_as(t) for t in kwargs["position_embeddings"])},
        )
        for args, kwargs in trace.block_arguments
    ]
    return lm, dataclasses.replace(trace, block_arguments=tuple(arguments))


@pytest.mark.parametrize(
    "mutate",
    [
        without_mask,
        with_norm_twice,
        without_norm,
        with_block_skipped,
        with_blocks_swapped,
        without_positions,
    ],
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_wrong_walk_does_not_arrive(
    architecture: str, mutate: Callable[[LanguageModel, Trace], tuple[LanguageModel, Trace]], tiny_lm: TinyLM
) -> None:
    lm = tiny_lm(architecture)
    if mutate is with_norm_twice or mutate is without_norm:
        # A norm that was never trained (gains 1) changes almost nothing the second time.
        lm = with_trained_norm(lm)
    wrong_lm, wrong_trace = mutate(lm, trace_tokens(lm, IDS))
    assert arrives(walk_blocks(lm, trace_tokens(lm, IDS)))
    assert not arrives(walk_blocks(wrong_lm, wrong_trace))


_trained: dict[str, LanguageModel] = {}


def with_trained_norm(lm: LanguageModel) -> LanguageModel:
    architecture = lm.network.config.model_type
    if architecture not in _trained:
        network = make_network(architecture)
        norms = [m for m in network.modules() if "norm" in type(m).__name__.lower()]
        with torch.no_grad():
            for norm in norms:
                norm.weight += torch.linspace(0.5, 2, norm.weight.shape[0])
        _trained[architecture] = wrap_network(
            network, lm.tokenizer, model_id=ModelId("local", f"tiny-{architecture}-gains")
        )
    return _trained[architecture]


def test_a_sliding_window_belongs_to_the_walk(tiny_lm: TinyLM) -> None:
    """Mistral's blocks without their mask are causal, but see further back than their window."""
    lm = tiny_lm("mistral")
    trace = trace_tokens(lm, IDS)
    arguments = tuple((args, kwargs | {"attention_mask": None}) for args, kwargs in trace.block_arguments)
    assert not arrives(walk_blocks(lm, dataclasses.replace(trace, block_arguments=arguments)))


def test_one_token_and_a_full_context(tiny_lm: TinyLM) -> None:
    lm = tiny_lm("gpt2")
    for ids in ([50256], [i % 50257 for i in range(0, 64 * 777, 777)]):
        trace = trace_tokens(lm, ids)
        assert arrives(walk_blocks(lm, trace))
        found = input_embeddings(lm, trace)
        assert found.total.shape == (len(ids), 32)
        for space in SPACES:
            assert token_similarity(lm, trace, space=space).shape == (len(ids), len(ids))


class Countdown:
    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.messages: list[str] = []

    def check(self) -> None:
        if len(self.messages) == self.allowed:
            raise CancelledError("Stopped.")

    def report(self, fraction: float, message: str) -> None:
        assert 0 <= fraction <= 1
        self.messages.append(message)


def test_the_walk_stops_between_blocks(bundled: LanguageModel) -> None:
    control = Countdown(allowed=2)
    with pytest.raises(CancelledError):
        walk_blocks(bundled, trace_text(bundled, TEXT), control=control)
    assert control.messages == ["Block 0 of 0–5", "Block 1 of 0–5"]


def test_without_a_proved_norm_there_is_no_walk(bundled: LanguageModel) -> None:
    closed = dataclasses.replace(bundled, closed_views={"walk": "No norm here."})
    with pytest.raises(UnsupportedError, match="No norm here"):
        walk_blocks(closed, trace_text(bundled, TEXT))


# --- what the page says about the notebook's lines ------------------------------------------------------------------


def plain_gpt2(attention: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        BUNDLED_FOLDER, dtype=torch.float32, attn_implementation=attention
    ).eval()


def test_the_notebooks_line_stops_with_an_index_error() -> None:
    model = plain_gpt2("sdpa")
    with torch.inference_mode():
        in_ip = model.transformer.wte(torch.tensor([IDS])) + model.transformer.wpe(
            torch.arange(len(IDS))[None]
        )
        in_ip = model.transformer.h[0](in_ip)[0]
        assert in_ip.shape == (len(IDS), 192)  # the batch is gone
        with pytest.raises(IndexError):
            model.transformer.h[1](in_ip)


@pytest.mark.parametrize(("attention", "arrives"), [("sdpa", True), ("eager", False)])
def test_todays_line_needs_an_attention_that_is_causal_by_itself(attention: str, arrives: bool) -> None:
    model = plain_gpt2(attention)
    with torch.inference_mode():
        in_ip = model.transformer.wte(torch.tensor([IDS])) + model.transformer.wpe(
            torch.arange(len(IDS))[None]
        )
        for module in model.transformer.h:
            in_ip = module(in_ip)
        in_ip = model.transformer.ln_f(in_ip)
        last = model(torch.tensor([IDS]), output_hidden_states=True).hidden_states[-1]
    assert (largest(in_ip - last) < 1e-4) == arrives


# --- the notebook's numbers ------------------------------------------------------------------------------------------

NOTEBOOK_TEXT = "Agney loves to train DL models"
#: Row: first three and last three values of the sum (tolerance 1e-4) and of the last hidden state (2e-3).
NOTEBOOK_SUM = {
    0: ([0.1403, -0.2976, -0.0616], [0.0405, 0.1980, 0.1238]),
    1: ([0.1928, 0.0561, -0.0121], [0.1482, -0.1949, 0.1143]),
    2: ([-0.0716, -0.1690, 0.0386], [-0.2034, -0.0197, -0.1113]),
    4: ([0.1304, -0.0271, 0.1958], [0.0857, 0.1632, 0.0726]),
    5: ([-0.2261, -0.0656, 0.1254], [0.0857, -0.1021, -0.0282]),
    6: ([-0.1487, 0.0684, 0.1842], [0.1306, 0.0932, -0.0753]),
}
NOTEBOOK_FINAL = {
    0: ([-0.0578, -0.0684, -0.2763], [-0.2680, -0.0396, -0.0371]),
    1: ([-0.1789, -0.2259, -0.0601], [0.2241, 0.1912, -0.1086]),
    2: ([0.0849, 0.0022, -0.2257], [-0.2161, 0.2136, 0.1241]),
    4: ([-0.2689, 0.7370, -0.4208], [0.0213, 0.2345, 0.3032]),
    5: ([-0.3449, -0.5953, 0.0507], [-0.4362, -0.5700, -0.5165]),
    6: ([-0.5068, -0.3567, -2.1490], [0.1868, 0.3962, 0.2917]),
}


def assert_rows(
    found: np.ndarray, expected: dict[int, tuple[list[float], list[float]]], tolerance: float
) -> None:
    for row, (first, last) in expected.items():
        assert found[row, :3] == pytest.approx(first, abs=tolerance)
        assert found[row, -3:] == pytest.approx(last, abs=tolerance)


@pytest.mark.hub
def test_the_notebooks_numbers(gpt2: LanguageModel) -> None:
    trace = trace_text(gpt2, NOTEBOOK_TEXT)
    found, walk = input_embeddings(gpt2, trace), walk_blocks(gpt2, trace)
    assert found.token_vectors.shape == found.total.shape == (7, 768)
    assert found.position_vectors is not None
    assert found.position_vectors.shape == (7, 768)
    assert_rows(found.total, NOTEBOOK_SUM, 1e-4)
    assert_rows(walk.hidden, NOTEBOOK_FINAL, 2e-3)
    assert walk.difference < 1e-4
    assert gpt2.geometry.n_parameters == 124_439_808
