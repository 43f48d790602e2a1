"""Replacing a part is what it says, on every open architecture; nobody else sees it, and nothing of it remains."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from gpt_core import capture, trace
from gpt_core.capture import Plan, head_outputs
from gpt_core.errors import CancelledError, InputError, UnsupportedError
from gpt_core.interventions import (
    REFERENCE_TEXT,
    Interventions,
    compare_predictions,
    continue_greedily,
    mlp_writes,
    parse_parts,
    reference_ids,
)
from gpt_core.model import LanguageModel
from gpt_core.registry import Registry
from gpt_core.trace import Trace, logits_at, trace_tokens
from tests.conftest import ARCHITECTURES, CLOSED_ARCHITECTURES, make_network
from tests.gpt_core.test_writers import NAMES
from tests.laws import TEXT

TinyLm = Callable[[str], LanguageModel]
HEADS = ((0, 1), (1, 0), (1, 3), (2, 2))
OTHER = tuple(np.random.RandomState(8).randint(0, 50257, size=40).tolist())


@pytest.fixture(autouse=True)
def empty_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_traces", Registry(2**30, lambda kept: kept.n_bytes))


def blocks_of(network: Any, architecture: str) -> Any:
    return network.transformer.h if architecture == "gpt2" else network.get_decoder().layers


@cache
def plain(architecture: str) -> Any:
    return make_network(architecture).eval()


def plain_logits(
    architecture: str,
    *,
    heads: dict[tuple[int, int], Any] | None = None,
    mlps: dict[int, Any] | None = None,
    ids: tuple[int, ...] = TEXT,
    n_heads: int = 4,
) -> torch.Tensor:
    """Plain transformers, the columns before the output projection and what the MLPs give replaced by hooks."""
    network = plain(architecture)
    projection, _, mlp = NAMES.get(architecture, ("self_attn.o_proj", None, "mlp"))
    handles = []

    def edit_columns(layer: int) -> Callable[..., Any]:
        def hook(module: Any, args: Any) -> Any:
            columns = args[0].clone()
            width = columns.shape[-1] // n_heads
            for (at, head), value in (heads or {}).items():
                if at == layer:
                    columns[..., head * width : (head + 1) * width] = value
            return (columns, *args[1:])

        return hook

    def edit_output(value: Any) -> Callable[..., Any]:
        def hook(module: Any, args: Any, output: Any) -> Any:
            first = output[0] if isinstance(output, tuple) else output
            first = torch.zeros_like(first) + value
            return (first, *output[1:]) if isinstance(output, tuple) else first

        return hook

    for layer, block in enumerate(blocks_of(network, architecture)):
        handles.append(block.get_submodule(projection).register_forward_pre_hook(edit_columns(layer)))
        if mlps and layer in mlps:
            handles.append(block.get_submodule(mlp).register_forward_hook(edit_output(mlps[layer])))
    try:
        with torch.no_grad():
            logits: torch.Tensor = network(torch.tensor([ids]), use_cache=False).logits[0]
            return logits
    finally:
        for handle in handles:
            handle.remove()


def ours(lm: LanguageModel, interventions: Interventions | None, ids: tuple[int, ...] = TEXT) -> np.ndarray:
    return logits_at(lm, trace_tokens(lm, ids, interventions=interventions), range(len(ids)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_head_at_zero_is_its_columns_at_zero(tiny_lm: TinyLm, architecture: str) -> None:
    lm = tiny_lm(architecture)
    intact = ours(lm, None)
    changed = ours(lm, Interventions(heads=HEADS))
    np.testing.assert_allclose(
        changed, plain_logits(architecture, heads=dict.fromkeys(HEADS, 0.0)), atol=1e-4, rtol=1e-4
    )
    assert np.abs(changed - intact).max() > 1e-3
    np.testing.assert_array_equal(ours(lm, None), intact)
    trace._traces.clear()
    np.testing.assert_array_equal(ours(lm, None), intact)  # nothing remains


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_mlp_at_zero_writes_nothing(tiny_lm: TinyLm, architecture: str) -> None:
    lm = tiny_lm(architecture)
    intact = ours(lm, None)
    changed = ours(lm, Interventions(mlps=(0, 2)))
    np.testing.assert_allclose(
        changed, plain_logits(architecture, mlps={0: 0.0, 2: 0.0}), atol=1e-4, rtol=1e-4
    )
    assert np.abs(changed - intact).max() > 1e-3
    trace._traces.clear()
    np.testing.assert_array_equal(ours(lm, None), intact)


def recorded(architecture: str, ids: tuple[int, ...]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What plain transformers' projections get and MLPs give over `ids`, per layer `(n, …)`."""
    network = plain(architecture)
    projection, _, mlp = NAMES.get(architecture, ("self_attn.o_proj", None, "mlp"))
    columns: list[torch.Tensor] = []
    written: list[torch.Tensor] = []
    handles = []
    for block in blocks_of(network, architecture):
        handles.append(
            block.get_submodule(projection).register_forward_pre_hook(lambda m, a: columns.append(a[0][0]))
        )
        handles.append(
            block.get_submodule(mlp).register_forward_hook(
                lambda m, a, o: written.append((o[0] if isinstance(o, tuple) else o).reshape(len(ids), -1))
            )
        )
    try:
        with torch.no_grad():
            network(torch.tensor([ids]), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return columns, written


@pytest.mark.parametrize("kind", ["mean", "patch"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_mean_and_patch_are_what_plain_hooks_do(tiny_lm: TinyLm, architecture: str, kind: Any) -> None:
    lm = tiny_lm(architecture)
    ids = reference_ids(lm) if kind == "mean" else OTHER
    columns, written = recorded(architecture, ids)
    width = columns[0].shape[-1] // 4
    heads = {(layer, head): columns[layer][:, head * width : (head + 1) * width] for layer, head in HEADS}
    mlps = {1: written[1]}
    if kind == "mean":
        heads = {part: values.mean(dim=0) for part, values in heads.items()}
        mlps = {1: written[1].mean(dim=0)}
    asked = Interventions(kind=kind, heads=HEADS, mlps=(1,), source_ids=OTHER)
    changed = ours(lm, asked)
    np.testing.assert_allclose(
        changed, plain_logits(architecture, heads=heads, mlps=mlps), atol=2e-4, rtol=2e-4
    )
    assert np.abs(changed - ours(lm, None)).max() > 1e-3


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2", "opt"])
def test_patching_everything_gives_the_second_prompt(tiny_lm: TinyLm, architecture: str) -> None:
    """With its own text, patching changes nothing; with all parts and another embedding, only that differs."""
    lm = tiny_lm(architecture)
    every = tuple((layer, head) for layer in range(3) for head in range(4))
    same = Interventions(kind="patch", heads=every, mlps=(0, 1, 2), source_ids=TEXT)
    np.testing.assert_allclose(ours(lm, same), ours(lm, None), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_the_parts_give_is_read_from_a_trace(tiny_lm: TinyLm, architecture: str) -> None:
    lm, kept = tiny_lm(architecture), trace_tokens(tiny_lm(architecture), TEXT)
    columns, written = recorded(architecture, TEXT)
    for layer in range(3):
        torch.testing.assert_close(
            head_outputs(kept.attention[layer]).flatten(1), columns[layer], atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(mlp_writes(lm, kept, layer), written[layer], atol=1e-4, rtol=1e-3)


def test_two_readers_do_not_see_each_other(tiny_lm: TinyLm) -> None:
    lm = tiny_lm("llama")
    asked = [None, Interventions(heads=((0, 0),)), Interventions(heads=((2, 1),)), Interventions(mlps=(1,))]
    alone = [ours(lm, one) for one in asked]
    assert len({a.tobytes() for a in alone}) == 4
    start = threading.Barrier(8)

    def ask(place: int) -> np.ndarray:
        start.wait()
        trace._traces.clear()
        return ours(lm, asked[place % 4])

    with ThreadPoolExecutor(8) as pool:
        for place, found in enumerate(pool.map(ask, range(8))):
            np.testing.assert_allclose(found, alone[place % 4], atol=1e-5)


def test_interventions_are_part_of_the_key(tiny_lm: TinyLm) -> None:
    lm = tiny_lm("gpt2")
    one = trace_tokens(lm, TEXT, interventions=Interventions(heads=((0, 1), (1, 2))))
    assert trace_tokens(lm, TEXT, interventions=Interventions(heads=((1, 2), (0, 1), (0, 1)))) is one
    assert trace_tokens(lm, TEXT) is not one
    assert trace_tokens(lm, TEXT, interventions=Interventions()) is trace_tokens(lm, TEXT)
    assert trace_tokens(lm, TEXT, interventions=Interventions(kind="mean", heads=((0, 1), (1, 2)))) is not one
    assert one.interventions == Interventions(heads=((0, 1), (1, 2)))
    assert trace_tokens(lm, TEXT).interventions is None


def test_a_stopped_pass_leaves_nothing_behind(tiny_lm: TinyLm) -> None:
    lm = tiny_lm("gpt2")

    class Control:
        def check(self) -> None:
            raise CancelledError("Stopped.")

        def report(self, fraction: float, message: str) -> None: ...

    with pytest.raises(CancelledError):
        trace_tokens(lm, TEXT, interventions=Interventions(heads=HEADS), control=Control())
    with pytest.raises(CancelledError):
        continue_greedily(lm, TEXT, interventions=Interventions(heads=HEADS), control=Control())
    assert capture._plan.get() is None


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"heads": ((3, 0),)}, "`layer` must be a whole number from 0 to 2"),
        ({"heads": ((0, 4),)}, "`head` must be a whole number from 0 to 3"),
        ({"mlps": (3,)}, "`layer`"),
        (
            {"kind": "patch", "heads": ((0, 0),), "source_ids": TEXT[:-1]},
            "as many tokens as the first, 40.*Given: 39",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_said(tiny_lm: TinyLm, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        trace_tokens(tiny_lm("gpt2"), TEXT, interventions=Interventions(**asked))


def test_no_such_kind() -> None:
    with pytest.raises(InputError, match="`kind` must be one of: zero, mean, patch"):
        Interventions(kind="noise")  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", CLOSED_ARCHITECTURES)
def test_closed_models_say_why(tiny_lm: TinyLm, architecture: str) -> None:
    with pytest.raises(UnsupportedError, match="cannot be taken apart"):
        trace_tokens(tiny_lm(architecture), TEXT, interventions=Interventions(mlps=(0,)))


def test_parts_are_read() -> None:
    heads, mlps = parse_parts(" 2.1, 0.*  1.mlp 2.1", n_layers=3, n_heads=2)
    assert heads == ((0, 0), (0, 1), (2, 1))
    assert mlps == (1,)
    assert parse_parts("", n_layers=3, n_heads=2) == ((), ())
    for bad in ("1", "1.", ".1", "a.1", "1.b", "3.0", "0.2", "-1.0", "1.²", "0.1.2", "99999999.1"):
        with pytest.raises(InputError, match=r"Given"):
            parse_parts(bad, n_layers=3, n_heads=2)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2", "gpt_neox", "opt"])
def test_the_continuation_is_that_of_whole_passes(tiny_lm: TinyLm, architecture: str) -> None:
    """Each new token again from a pass over the whole text, parts replaced by plain hooks."""
    lm = tiny_lm(architecture)
    prompt = TEXT[:12]
    heads = ((0, 1), (1, 3))
    found = continue_greedily(
        lm, prompt, interventions=Interventions(heads=heads, mlps=(2,)), max_new_tokens=5
    )
    ids = prompt
    for _ in range(5):
        logits = plain_logits(architecture, heads=dict.fromkeys(heads, 0.0), mlps={2: 0.0}, ids=ids)
        ids = (*ids, int(logits[-1].argmax()))
    assert found == ids[12:]
    plain_ids = prompt
    for _ in range(5):
        plain_ids = (*plain_ids, int(plain_logits(architecture, ids=plain_ids)[-1].argmax()))
    assert continue_greedily(lm, prompt, max_new_tokens=5) == plain_ids[12:]


def test_patched_parts_are_so_at_the_prompts_positions_only(tiny_lm: TinyLm) -> None:
    lm, prompt, source = tiny_lm("llama"), TEXT[:12], OTHER[:12]
    heads = ((0, 1), (1, 3))
    columns, _ = recorded("llama", source)
    width = columns[0].shape[-1] // 4
    ids = prompt
    for _ in range(4):
        # At the new positions the heads give what they would: no hook replaces those rows.
        network = plain("llama")
        handles = []
        for layer, block in enumerate(network.model.layers):

            def hook(module: Any, args: Any, layer: int = layer) -> Any:
                edited = args[0].clone()
                for at, head in heads:
                    if at == layer:
                        part = slice(head * width, (head + 1) * width)
                        edited[0, :12, part] = columns[layer][:, part]
                return (edited,)

            handles.append(block.self_attn.o_proj.register_forward_pre_hook(hook))
        with torch.no_grad():
            logits = network(torch.tensor([ids]), use_cache=False).logits[0, -1]
        for handle in handles:
            handle.remove()
        ids = (*ids, int(logits.argmax()))
    asked = Interventions(kind="patch", heads=heads, source_ids=source)
    assert continue_greedily(lm, prompt, interventions=asked, max_new_tokens=4) == ids[12:]


def test_the_continuation_ends_with_the_context(tiny_lm: TinyLm) -> None:
    lm = tiny_lm("gpt2")
    assert len(continue_greedily(lm, (*TEXT, *TEXT[:22]), max_new_tokens=20)) == 2
    with pytest.raises(InputError, match="`max_new_tokens`"):
        continue_greedily(lm, TEXT, max_new_tokens=61)


def test_the_comparison(tiny_lm: TinyLm) -> None:
    lm = tiny_lm("gpt2")
    intact, changed = trace_tokens(lm, TEXT), trace_tokens(lm, TEXT, interventions=Interventions(heads=HEADS))
    found = compare_predictions(lm, intact, changed, position=20, k=4)
    rows = torch.from_numpy(np.stack([logits_at(lm, t, [20])[0] for t in (intact, changed)])).double()
    log_probs = rows.log_softmax(-1)
    assert set(found.token_ids.tolist()) == set(rows.topk(4).indices.flatten().tolist())
    ids = found.token_ids.copy()
    np.testing.assert_allclose(found.probs, log_probs[0, ids].exp(), rtol=1e-5)
    np.testing.assert_allclose(found.changed_probs, log_probs[1, ids].exp(), rtol=1e-5)
    np.testing.assert_allclose(found.logit_differences, rows[1, ids] - rows[0, ids], atol=1e-4)
    for position in range(40):
        rows = torch.from_numpy(
            np.stack([logits_at(lm, t, [position])[0] for t in (intact, changed)])
        ).double()
        one, other = rows.log_softmax(-1)
        kl = torch.nn.functional.kl_div(other, one, log_target=True, reduction="sum") / np.log(2)
        assert found.kl_bits[position] == pytest.approx(float(kl), abs=2e-5)
    assert compare_predictions(lm, intact, intact, position=20).kl_bits.max() < 1e-5


def test_the_reference_is_a_text_of_its_own(bundled: LanguageModel, tiny_lm: TinyLm) -> None:
    assert 90 < len(reference_ids(bundled)) < 140
    assert len(reference_ids(tiny_lm("gpt2"))) == 64  # its context
    assert "\n" not in REFERENCE_TEXT


def test_a_plan_replaces_only_the_rows_that_it_has() -> None:
    plan = Plan(mlps={0: torch.ones(3, 2)}, offset=2)
    edited = plan.edit_mlp(0, torch.zeros(1, 4, 2))
    assert edited[0, :, 0].tolist() == [1, 0, 0, 0]
    plan.offset = 3
    assert plan.edit_mlp(0, torch.zeros(1, 4, 2)).sum() == 0


def test_traces_are_plain(bundled: LanguageModel) -> None:
    kept: Trace = trace_tokens(bundled, TEXT[:5], interventions=Interventions(mlps=(0,)))
    assert kept.residual.shape[0] == bundled.geometry.n_layers + 1
