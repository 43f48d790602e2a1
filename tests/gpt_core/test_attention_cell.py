"""One cell, from q·k to what it moves, against a plain copy of the network whose projections are known by name."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from gpt_core import attention_output
from gpt_core.attention_cell import explain_cell
from gpt_core.attention_output import output_matrix
from gpt_core.errors import InputError
from gpt_core.model import LanguageModel
from gpt_core.trace import trace_tokens
from tests.conftest import ARCHITECTURES, make_network
from tests.laws import TEXT, plain_reference

TinyLm = Callable[[str], LanguageModel]
reference = cache(plain_reference)
#: The module that the architectures call their output projection, at the end of its path.
OUTPUT_NAMES = ("c_proj", "o_proj", "out_proj", "dense")


def named_output(network: torch.nn.Module, layer: int) -> torch.nn.Module:
    """The output projection of a layer by its name, in a path that names the attention."""
    found = [
        module
        for name, module in network.named_modules()
        if f".{layer}." in name and "att" in name and name.rsplit(".", 1)[-1] in OUTPUT_NAMES
    ]
    assert len(found) == 1, found
    return found[0]


@cache
def plain_outputs(architecture: str, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """What goes into the output projection of a plain copy, and what comes out, its bias taken off."""
    network = make_network(architecture).eval()
    module = named_output(network, layer)
    seen: dict[str, Any] = {}
    handle = module.register_forward_hook(
        lambda _, args, output: seen.update(given=args[0][0], made=output[0])
    )
    with torch.no_grad():
        network(torch.tensor([TEXT]), use_cache=False)
        handle.remove()
        bias = module(torch.zeros(1, seen["given"].shape[-1]))[0]
    return seen["given"].numpy(), (seen["made"] - bias).numpy()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_output_matrix_is_found_and_the_moved_vectors_add_up(tiny_lm: TinyLm, architecture: str) -> None:
    """Σ over heads and keys of α v W_O is what the network's own projection makes, without its bias."""
    lm = tiny_lm(architecture)
    trace = trace_tokens(lm, TEXT)
    for layer in (0, 2):
        matrix = output_matrix(lm, trace, layer=layer)
        assert matrix is not None
        _, made = plain_outputs(architecture, layer)
        value = trace.attention[layer].value
        values = value.repeat_interleave(len(matrix) // len(value), dim=0)
        weights = torch.from_numpy(reference(architecture).attentions[layer])
        moved = torch.einsum("hqk,hkv,hvd->qd", weights, values, matrix)
        np.testing.assert_allclose(moved.numpy(), made, atol=1e-4 * max(1.0, float(np.abs(made).max())))


def test_no_matrix_where_none_reads_the_heads(tiny_lm: TinyLm, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm("gpt2")
    trace = trace_tokens(lm, TEXT)
    monkeypatch.setattr(attention_output._Watch, "_look", lambda self, given, matrix: None)
    assert output_matrix(lm, trace, layer=1) is None
    cell = explain_cell(lm, trace, layer=1, head=2, query=20, key=3)
    assert not cell.projected
    np.testing.assert_allclose(cell.lengths, trace.attention[1].value[2].norm(dim=-1), rtol=1e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "mistral", "gemma2", "granite", "opt"])
def test_a_cell_follows_from_q_and_k(tiny_lm: TinyLm, architecture: str) -> None:
    lm = tiny_lm(architecture)
    trace = trace_tokens(lm, TEXT)
    weights = reference(architecture).attentions
    for layer, head, query, key in ((0, 0, 0, 0), (1, 3, 20, 15), (2, 2, 39, 38)):
        cell = explain_cell(lm, trace, layer=layer, head=head, query=query, key=key)
        np.testing.assert_allclose(
            cell.contributions.sum(dtype=np.float64), cell.product, rtol=1e-4, atol=1e-4
        )
        scaled = cell.product * cell.scaling
        if architecture == "gemma2":
            assert cell.softcap == 5.0
            scaled = 5.0 * np.tanh(scaled / 5.0)
        else:
            assert cell.softcap is None
        np.testing.assert_allclose(cell.score, scaled, rtol=1e-4, atol=1e-5)
        assert cell.bias == 0
        np.testing.assert_allclose(
            np.exp(cell.score + cell.bias - cell.log_sum), cell.weight, rtol=1e-4, atol=1e-7
        )
        np.testing.assert_allclose(cell.weight, weights[layer, head, query, key], atol=1e-5)
        assert cell.projected
        # The lengths by the network's own projection, fed with one head's value and zeros elsewhere.
        projection = named_output(make_network(architecture), layer)
        value = trace.attention[layer].value
        v = value[head // (4 // len(value)), key]
        alone = torch.zeros(4, len(v))
        alone[head] = v
        with torch.no_grad():
            out = projection(alone.flatten()[None]) - projection(torch.zeros(1, alone.numel()))
        np.testing.assert_allclose(cell.lengths[key], float(out.norm()), rtol=1e-3)
        np.testing.assert_allclose(
            cell.moved, weights[layer, head, query] * cell.lengths, rtol=1e-3, atol=1e-5
        )
        np.testing.assert_allclose(cell.moved_share, cell.moved[key] / cell.moved.sum(), rtol=1e-5)


def test_a_closed_cell_moves_nothing(tiny_lm: TinyLm) -> None:
    lm = tiny_lm("mistral")  # window of 8
    cell = explain_cell(lm, trace_tokens(lm, TEXT), layer=0, head=0, query=20, key=5)
    assert cell.bias == -np.inf
    assert cell.weight == cell.moved[5] == cell.moved_share == 0
    with pytest.raises(InputError, match="key"):
        explain_cell(lm, trace_tokens(lm, TEXT), layer=0, head=0, query=20, key=40)
