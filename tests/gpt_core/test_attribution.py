"""The parts of a logit add up to it, and each is what that part wrote, by hooks on a plain copy of the network."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from gpt_core import attribution
from gpt_core.attribution import direct_contributions
from gpt_core.catalog import ModelId
from gpt_core.errors import InputError, UnsupportedError
from gpt_core.model import LanguageModel, wrap_network
from gpt_core.trace import trace_tokens
from tests.conftest import ARCHITECTURES, CLOSED_ARCHITECTURES, make_network
from tests.gpt_core.test_writers import NAMES
from tests.laws import TEXT

TinyLm = Callable[[str], LanguageModel]
POSITION = 29


@cache
def watched(architecture: str) -> dict[str, Any]:
    """One pass of plain transformers: what the projections got, what the parts gave, the states and the logits."""
    network = make_network(architecture).eval()
    blocks = network.get_decoder().layers if architecture != "gpt2" else network.transformer.h
    projection, norm, mlp = NAMES.get(architecture, ("self_attn.o_proj", None, "mlp"))
    heads: list[torch.Tensor] = []
    attention: list[torch.Tensor] = []
    mlps: list[torch.Tensor] = []
    for block in blocks:
        out = block.get_submodule(projection)
        out.register_forward_pre_hook(lambda m, args: heads.append(args[0][0]))
        block.get_submodule(norm or projection).register_forward_hook(lambda m, a, o: attention.append(o[0]))
        block.get_submodule(mlp).register_forward_hook(
            lambda m, a, o: mlps.append((o[0] if isinstance(o, tuple) else o).reshape(len(TEXT), -1))
        )
    with torch.no_grad():
        output = network(torch.tensor([TEXT]), output_hidden_states=True, use_cache=False)
    return {
        "network": network,
        "blocks": blocks,
        "heads": heads,
        "attention": attention,
        "mlps": mlps,
        "states": [state[0] for state in output.hidden_states],
        "logits": output.logits[0],
    }


def final_map(architecture: str) -> Callable[[torch.Tensor, int], float]:
    """The final norm, its scale as it is at POSITION, and the head's row, written for each kind by hand."""
    seen = watched(architecture)
    network, config = seen["network"], seen["network"].config
    last = sum(part[POSITION].double() for part in (seen["states"][0], *seen["attention"], *seen["mlps"]))
    decoder = network.get_decoder()
    norms = ("norm", "ln_f", "final_layer_norm", "final_layernorm")
    norm = next(getattr(decoder, name) for name in norms if hasattr(decoder, name))
    gain = norm.weight.double()
    if architecture.startswith("gemma"):
        gain = gain + 1
    eps = getattr(norm, "eps", None) or getattr(norm, "variance_epsilon", 0)
    centre = bool(torch.nn.LayerNorm is type(norm)) or architecture == "cohere"
    middle = last - last.mean() if centre else last
    scale = 1 / torch.sqrt((middle**2).mean() + eps)
    multiplier = getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)

    def read(vector: torch.Tensor, token_id: int) -> float:
        vector = vector.double()
        vector = vector - vector.mean() if centre else vector
        row = network.get_output_embeddings().weight[token_id].double()
        return float(multiplier * (row @ (gain * vector * scale)).detach())

    return read


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_sum_is_the_models_logit(tiny_lm: TinyLm, architecture: str) -> None:
    lm, logits = tiny_lm(architecture), watched(architecture)["logits"]
    trace = trace_tokens(lm, TEXT)
    for position, token_id, versus_id in ((POSITION, 11, None), (0, 262, None), (39, 7, 50000), (12, 0, 1)):
        found = direct_contributions(lm, trace, position=position, token_id=token_id, versus_id=versus_id)
        assert found.table.shape == (3, lm.geometry.n_heads + 1)
        assert found.total == pytest.approx(found.logit, abs=1e-4)
        cap = found.cap
        assert cap == (3.0 if architecture == "gemma2" else None)
        uncapped = (cap * torch.atanh(logits.double() / cap)) if cap else logits.double()
        expected = uncapped[position, token_id] - (0 if versus_id is None else uncapped[position, versus_id])
        assert found.total == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_part_is_what_that_part_wrote(tiny_lm: TinyLm, architecture: str) -> None:
    lm, seen, read = tiny_lm(architecture), watched(architecture), final_map(architecture)
    found = direct_contributions(lm, trace_tokens(lm, TEXT), position=POSITION, token_id=11)
    mlps = [read(written[POSITION], 11) for written in seen["mlps"]]
    np.testing.assert_allclose(found.mlps, mlps, atol=1e-4)
    if NAMES.get(architecture, ("", None))[1] is None:
        n_heads = lm.geometry.n_heads
        for layer, (block, heads) in enumerate(zip(seen["blocks"], seen["heads"], strict=True)):
            out = block.get_submodule(NAMES.get(architecture, ("self_attn.o_proj",))[0])
            weight = out.weight.T if architecture != "gpt2" else out.weight  # (n_heads * d_value, d_model)
            width = weight.shape[0] // n_heads
            for head in range(n_heads):
                columns = slice(head * width, (head + 1) * width)
                written = heads[POSITION, columns] @ weight[columns]
                assert found.heads[layer, head] == pytest.approx(read(written, 11), abs=1e-4)
    else:  # the norm after the projection: its share of all heads together, its scale known
        for layer, written in enumerate(seen["attention"]):
            assert found.heads[layer].sum() == pytest.approx(read(written[POSITION], 11), abs=1e-4)
    first = read(seen["states"][0][POSITION], 11)
    assert found.token_embedding + found.position_embedding == pytest.approx(first, abs=1e-4)
    if architecture == "gpt2":
        assert found.position_embedding == pytest.approx(
            read(seen["network"].transformer.wpe.weight[POSITION], 11), abs=1e-4
        )


def test_a_factor_on_what_is_added_counts(gpt2_tokenizer: Any) -> None:
    lm = wrap_network(
        make_network("granite", residual_multiplier=0.22), gpt2_tokenizer, model_id=ModelId("local", "scaled")
    )
    found = direct_contributions(lm, trace_tokens(lm, TEXT), position=POSITION, token_id=11)
    assert found.total == pytest.approx(found.logit, abs=1e-4)


def _neighbouring_head(patch: pytest.MonkeyPatch) -> None:
    whole = attribution.head_outputs
    patch.setattr(attribution, "head_outputs", lambda *args, **kwargs: whole(*args, **kwargs).roll(1, dims=1))


def _no_centring(patch: pytest.MonkeyPatch) -> None:
    import dataclasses

    whole = attribution.freeze_norm
    patch.setattr(attribution, "freeze_norm", lambda *args: dataclasses.replace(whole(*args), centred=False))


@pytest.mark.parametrize("mutation", [_neighbouring_head, _no_centring])
def test_a_mistake_shows(
    tiny_lm: TinyLm, monkeypatch: pytest.MonkeyPatch, mutation: Callable[[pytest.MonkeyPatch], None]
) -> None:
    test_each_part_is_what_that_part_wrote(tiny_lm, "gpt2")
    mutation(monkeypatch)
    with pytest.raises((AssertionError, UnsupportedError)):
        test_each_part_is_what_that_part_wrote(tiny_lm, "gpt2")


@pytest.mark.parametrize("architecture", CLOSED_ARCHITECTURES)
def test_closed_models_say_why(tiny_lm: TinyLm, architecture: str) -> None:
    lm = tiny_lm(architecture)
    with pytest.raises(UnsupportedError, match="cannot be taken apart"):
        direct_contributions(lm, trace_tokens(lm, TEXT), position=0, token_id=1)


@pytest.mark.parametrize(
    "bad",
    [
        {"position": 40, "token_id": 1},
        {"position": 0, "token_id": 50257},
        {"position": 0, "token_id": 1, "versus_id": -1},
        {"position": 0, "token_id": 1, "versus_id": 1},
    ],
    ids=str,
)
def test_out_of_range_is_said(tiny_lm: TinyLm, bad: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        direct_contributions(tiny_lm("gpt2"), trace_tokens(tiny_lm("gpt2"), TEXT), **bad)


def test_bundled(bundled: LanguageModel) -> None:
    trace = trace_tokens(bundled, [7454, 2402, 257, 640])
    for position in range(4):
        found = direct_contributions(bundled, trace, position=position, token_id=11, versus_id=612)
        assert found.total == pytest.approx(found.logit, abs=1e-4)
