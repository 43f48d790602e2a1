"""What is installed in a network: seen by the call that asks for it alone, and gone with the network."""

import gc
import inspect
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from gpt_core import capture
from gpt_core.catalog import ModelId
from gpt_core.errors import CancelledError
from gpt_core.model import LanguageModel, wrap_network
from tests.conftest import ARCHITECTURES, CLOSED_ARCHITECTURES, make_network
from tests.laws import TEXT

TinyLm = Callable[[str], LanguageModel]
IDS = torch.tensor([TEXT])


def _stop() -> None:
    raise CancelledError("Stopped.")


def test_nothing_is_recorded_unasked(tiny_lm: TinyLm) -> None:
    network = tiny_lm("llama").network
    with torch.inference_mode():
        network(IDS)
        with capture.record() as recording:
            network(IDS[:, :5])
        network(IDS)
    assert len(recording.block_outputs) == 3
    assert all(output.shape[0] == 5 for output in recording.block_outputs)


def test_a_stopped_pass_leaves_nothing_behind(tiny_lm: TinyLm) -> None:
    lm = tiny_lm("llama")
    with pytest.raises(CancelledError):
        capture.recorded_pass(lm.anatomy.decoder, IDS[0], _stop)
    with pytest.raises(CancelledError), torch.inference_mode(), capture.interruptible(_stop):
        lm.network(IDS)
    assert capture._recording.get() is None
    assert capture._check.get() is None
    with torch.inference_mode():
        assert lm.network(IDS).logits.shape == (1, 40, 50257)  # and nobody stops this one


def test_a_known_state_is_gone_after_the_head(tiny_lm: TinyLm) -> None:
    lm = tiny_lm("gpt2")
    with torch.inference_mode():
        before = lm.network(IDS).logits
        capture.apply_head(lm.network, torch.zeros(3, 32))
        with pytest.raises(RuntimeError):  # of another width: the head fails
            capture.apply_head(lm.network, torch.zeros(3, 31))
        assert torch.equal(lm.network(IDS).logits, before)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *CLOSED_ARCHITECTURES])
def test_the_head_runs_no_block(tiny_lm: TinyLm, architecture: str) -> None:
    lm = tiny_lm(architecture)
    handle = lm.anatomy.blocks[0].register_forward_pre_hook(lambda *_: pytest.fail("a block ran"))
    try:
        assert capture.apply_head(lm.network, torch.ones(2, 32)).shape == (2, 50257)
    finally:
        handle.remove()


def test_the_decoder_still_says_what_it_takes(tiny_lm: TinyLm) -> None:
    """`generate` looks at the signature to tell which arguments there are."""
    lm, plain = tiny_lm("llama"), make_network("llama")
    assert inspect.signature(lm.anatomy.decoder.forward) == inspect.signature(plain.get_decoder().forward)


def test_a_model_is_gone_with_its_last_user(gpt2_tokenizer: Any) -> None:
    """Not when Python next looks for circles: until then its weights would fill the memory."""
    lm = wrap_network(make_network("gpt2"), gpt2_tokenizer, model_id=ModelId("local", "short-lived"))
    with torch.inference_mode():
        lm.network(IDS)
    gc.collect()
    gc.disable()
    try:
        parts = [
            weakref.ref(p) for p in (lm, lm.network, lm.anatomy.decoder, lm.anatomy.token_embedding.weight)
        ]
        del lm
        assert [part() for part in parts] == [None] * 4
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["none", "boolean", "additive", "by head"])
def test_scores_under_every_kind_of_mask(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(n, 9, 4, generator=generator) for n in (4, 2))
    open_cells = torch.ones(9, 9, dtype=torch.bool).tril()
    lowest = torch.zeros(1, 9, 9).masked_fill(~open_cells, torch.finfo(torch.float32).min)
    masks = {
        "none": None,
        "boolean": open_cells[None],
        "additive": lowest,
        "by head": lowest.repeat(4, 1, 1) + torch.arange(4.0)[:, None, None] * torch.arange(9.0),
    }
    record = capture.LayerCapture(
        query=query, key=key, value=key, scaling=0.7, mask=masks[kind], softcap=None
    )
    heads, rows = torch.tensor([3, 0]), slice(4, 8)
    weights = capture.attention_scores(record, heads=heads, queries=rows).softmax(-1)
    for place, head in enumerate((3, 0)):
        expected = 0.7 * query[head] @ key[head // 2].T
        if kind == "by head":
            expected = expected + head * torch.arange(9.0)
        expected = expected.masked_fill(~open_cells, -torch.inf).softmax(-1)[rows]
        torch.testing.assert_close(weights[place], expected)
