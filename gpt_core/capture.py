"""What a forward pass leaves behind for a reader: the vectors between the blocks, and q, k and v inside them.

Everything here is installed once, when a model is loaded, and never changed. Whether anything is recorded or replaced,
and where, belongs to the call: a context variable. So two threads trace the same model without seeing each other, and
a pass that nobody records costs a look at that variable.

Does not know what a language model, a tokenizer or a page is.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from typing import Any
from weakref import ref

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

#: The name under which the capturing attention is known to transformers.
ATTENTION_NAME = "gpt_core_capture"

_SOFTCAP_QUERIES = 256


@dataclass(slots=True)
class LayerCapture:
    """What one attention call used. All tensors without batch axis."""

    query: torch.Tensor
    """`(n_heads, n_queries, d_head)`, after any rotation and query norm."""
    key: torch.Tensor
    """`(n_kv_heads, n_keys, d_head)`."""
    value: torch.Tensor
    """`(n_kv_heads, n_keys, d_value)`."""
    scaling: float
    """The factor on q·k."""
    mask: torch.Tensor | None
    """`(1 or n_heads, n_queries, n_keys)`, boolean (True: may look) or additive; None: causal."""
    softcap: float | None
    """Scores are `softcap * tanh(scores / softcap)` where this is set."""


@dataclass(slots=True)
class Recording:
    """The store of one recorded pass."""

    check: Callable[[], None] | None = None
    """Called before each block; raises to abandon the pass."""
    attention: list[LayerCapture] = field(default_factory=list)
    block_inputs: list[torch.Tensor] = field(default_factory=list)
    block_outputs: list[torch.Tensor] = field(default_factory=list)
    block_arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    token_vectors: torch.Tensor | None = None
    position_vectors: torch.Tensor | None = None


@dataclass(slots=True, kw_only=True)
class Plan:
    """What a pass is to use instead of some of its own vectors. Belongs to the call that makes the pass."""

    heads: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    """Layer to the heads `(k,)` int64 and what each gives instead: `(1 or n_tokens, k, d_value)`, before the output
    projection."""
    mlps: dict[int, torch.Tensor] = field(default_factory=dict)
    """Layer to what its MLP writes instead: `(1 or n_tokens, d_model)`."""
    offset: int = 0
    """Tokens that earlier passes have read. What is given for each token ends with the last of them."""
    layer: int = 0
    """The block that runs now."""

    def edit_heads(self, output: torch.Tensor) -> torch.Tensor:
        """The heads' outputs `(batch, n_queries, n_heads, d_value)` of the block that runs now."""
        if self.layer not in self.heads:
            return output
        heads, values = self.heads[self.layer]
        rows = self._rows(output.shape[1], values)
        output = output.clone()
        output[:, rows[0], heads] = values[rows[1]].to(output)
        return output

    def edit_mlp(self, layer: int, output: torch.Tensor) -> torch.Tensor:
        """What the MLP of a block writes, `(batch, n, d_model)`."""
        values = self.mlps[layer]
        rows = self._rows(output.shape[1], values)
        output = output.clone()
        output[:, rows[0]] = values[rows[1]].to(output)
        return output

    def _rows(self, n_queries: int, values: torch.Tensor) -> tuple[slice, slice]:
        """Which queries are replaced, and by which rows of `values`."""
        if values.shape[0] == 1:  # the same at every position, new tokens included
            return slice(None), slice(None)
        here = slice(self.offset, min(self.offset + n_queries, values.shape[0]))
        return slice(0, max(0, here.stop - here.start)), here


_recording: ContextVar[Recording | None] = ContextVar("gpt_core_recording", default=None)
_replay: ContextVar[torch.Tensor | None] = ContextVar("gpt_core_replay", default=None)
_check: ContextVar[Callable[[], None] | None] = ContextVar("gpt_core_check", default=None)
_plan: ContextVar[Plan | None] = ContextVar("gpt_core_plan", default=None)


@contextmanager
def record(check: Callable[[], None] | None = None) -> Iterator[Recording]:
    """Record the passes made inside the `with` block by this thread."""
    recording = Recording(check=check)
    token = _recording.set(recording)
    try:
        yield recording
    finally:
        _recording.reset(token)


@contextmanager
def interruptible(check: Callable[[], None] | None) -> Iterator[None]:
    """Call `check` before each block of the passes made inside the `with` block; it raises to abandon the pass."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


@contextmanager
def intervening(plan: Plan | None) -> Iterator[None]:
    """Replace what `plan` says in the passes made inside the `with` block by this thread, and in no others."""
    token = _plan.set(plan)
    try:
        yield
    finally:
        _plan.reset(token)


@contextmanager
def replayed(last_hidden_state: torch.Tensor) -> Iterator[None]:
    """Inside the `with` block the decoder returns `last_hidden_state` (batch, n, d_model) instead of running.

    So the model's own forward applies its head, with its bias, scale and cap, to vectors that are already known.
    """
    token = _replay.set(last_hidden_state)
    try:
        yield
    finally:
        _replay.reset(token)


def _softcapped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    softcap: float,
) -> torch.Tensor:
    """Attention with capped scores (Gemma 2, arXiv:2408.00118), which SDPA cannot compute."""
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    n_queries, n_keys = query.shape[2], key.shape[2]
    if mask is None and n_queries > 1:
        # What SDPA makes of "no mask".
        mask = torch.ones(n_queries, n_keys, dtype=torch.bool, device=query.device).tril()
    parts = []
    # A block of queries at a time: all scores at once would grow with the square of the text.
    for start in range(0, n_queries, _SOFTCAP_QUERIES):
        rows = slice(start, start + _SOFTCAP_QUERIES)
        scores = torch.matmul(query[:, :, rows], key.transpose(2, 3)) * scaling
        scores = softcap * torch.tanh(scores / softcap)
        if mask is not None:
            scores = _masked(scores, mask[..., rows, :])
        parts.append(torch.matmul(scores.softmax(dim=-1), value))
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous()


def _masked(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, float("-inf"))
    return scores + mask


def attention_scores(
    capture: LayerCapture, *, heads: torch.Tensor, queries: slice, masked: bool = True
) -> torch.Tensor:
    """Scores before the softmax, `(n_chosen_heads, n_chosen_queries, n_keys)`, float32.

    `heads` (int64) and `queries` choose; each query head reads the key head of its group (arXiv:2305.13245).
    """
    groups = capture.query.shape[0] // capture.key.shape[0]
    query = capture.query[heads, queries].float()
    key = capture.key[heads // groups].float()
    scores = torch.matmul(query, key.transpose(-1, -2)).mul_(capture.scaling)
    if capture.softcap is not None:
        scores = capture.softcap * torch.tanh(scores / capture.softcap)
    if not masked:
        return scores
    mask = capture.mask
    if mask is None:
        # SDPA's own reading of "no mask": causal.
        n_keys = key.shape[1]
        rows = torch.arange(capture.query.shape[1], device=key.device)[queries]
        return scores.masked_fill_(
            torch.arange(n_keys, device=key.device)[None, :] > rows[:, None], float("-inf")
        )
    mask = mask[:, queries] if mask.shape[0] == 1 else mask[heads][:, queries]
    return _masked(scores, mask)


def _capturing_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    if scaling is None:
        scaling = float(query.shape[-1]) ** -0.5
    recording = _recording.get()
    if recording is not None:
        recording.attention.append(
            LayerCapture(
                query=query[0],
                key=key[0],
                value=value[0],
                scaling=float(scaling),
                mask=None if attention_mask is None else attention_mask[0],
                softcap=softcap,
            )
        )
    if softcap is not None:
        output = _softcapped_attention(module, query, key, value, attention_mask, scaling, softcap)
    else:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    plan = _plan.get()
    return (output if plan is None else plan.edit_heads(output)), None


# Without the mask's registration under the same name a sliding window vanishes silently.
AttentionInterface.register(ATTENTION_NAME, _capturing_attention)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)


class _KnownState(tuple[torch.Tensor]):
    """A decoder's output of which only the last hidden state is known; every other field is None."""

    @property
    def last_hidden_state(self) -> torch.Tensor:
        return self[0]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def _first_tensor(output: Any) -> torch.Tensor:
    tensor = output[0] if isinstance(output, (tuple, list)) else output
    assert isinstance(tensor, torch.Tensor)
    return tensor


def install(
    decoder: torch.nn.Module,
    *,
    blocks: torch.nn.ModuleList,
    token_embedding: torch.nn.Module,
    position_embedding: torch.nn.Module | None,
) -> None:
    """Prepare a freshly loaded model for recording and replay. Call once per model."""

    def before_block(
        layer: int, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        check = _check.get()
        if check is not None:
            check()
            hidden = args[0] if args else kwargs["hidden_states"]
            if hidden.requires_grad:  # the way back through the blocks can be stopped as well
                hidden.register_hook(lambda gradient: check())
        plan = _plan.get()
        if plan is not None:
            plan.layer = layer
        recording = _recording.get()
        if recording is not None:
            if recording.check is not None:
                recording.check()
            hidden = args[0] if args else kwargs["hidden_states"]
            recording.block_inputs.append(hidden[0])
            recording.block_arguments.append(
                (args[1:], {name: value for name, value in kwargs.items() if name != "hidden_states"})
            )

    def after_block(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        recording = _recording.get()
        if recording is not None:
            recording.block_outputs.append(_first_tensor(output)[0])

    def after_tokens(module: torch.nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
        recording = _recording.get()
        if recording is not None and recording.token_vectors is None:
            recording.token_vectors = output[0]

    def after_positions(module: torch.nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
        recording = _recording.get()
        if recording is not None:
            recording.position_vectors = output[0] if output.dim() == 3 else output

    for layer, block in enumerate(blocks):
        block.register_forward_pre_hook(partial(before_block, layer), with_kwargs=True)
        block.register_forward_hook(after_block)
    token_embedding.register_forward_hook(after_tokens)
    if position_embedding is not None:
        position_embedding.register_forward_hook(after_positions)

    # Held weakly: a model that holds itself in a circle would keep its weights until Python looks for circles.
    own, original = ref(decoder), type(decoder).forward

    def forward_or_replay(*args: Any, **kwargs: Any) -> Any:
        known = _replay.get()
        if known is not None:
            return _KnownState((known,))
        return original(own(), *args, **kwargs)

    # `generate` reads it to tell which arguments there are.
    forward_or_replay.__signature__ = signature(decoder.forward)  # type: ignore[attr-defined]
    decoder.forward = forward_or_replay


def install_mlps(mlps: Sequence[torch.nn.Module]) -> None:
    """Prepare the modules `(n_layers,)` whose outputs the blocks add as their MLPs' for `intervening`. Once a model."""

    def after_mlp(layer: int, module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        plan = _plan.get()
        if plan is None or layer not in plan.mlps:
            return None
        written = _first_tensor(output)
        edited = plan.edit_mlp(layer, written.reshape(-1, *written.shape[-2:])).reshape(written.shape)
        return (edited, *output[1:]) if isinstance(output, tuple) else edited

    for layer, mlp in enumerate(mlps):
        mlp.register_forward_hook(partial(after_mlp, layer))


def head_outputs(capture: LayerCapture, *, queries: slice = slice(None)) -> torch.Tensor:
    """What each head gives to the output projection, `(n_queries, n_heads, d_value)`, float32: its map times v."""
    n_heads = capture.query.shape[0]
    heads = torch.arange(n_heads, device=capture.query.device)
    value = capture.value[heads // (n_heads // capture.key.shape[0])].float()
    weights = attention_scores(capture, heads=heads, queries=queries).softmax(dim=-1)
    return torch.matmul(weights, value).transpose(0, 1)


def recorded_pass(
    decoder: torch.nn.Module, token_ids: torch.Tensor, check: Callable[[], None] | None = None
) -> tuple[Recording, torch.Tensor]:
    """One pass of the decoder over `token_ids` (n_tokens,), and the last hidden state (n_tokens, d_model)."""
    with torch.inference_mode(), record(check) as recording:
        output = decoder(input_ids=token_ids[None], use_cache=False)
    return recording, output[0][0]


def apply_head(network: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """Logits `(n, vocab_size)` that the network's own head gives for last hidden states `(n, d_model)`."""
    placeholder = torch.zeros(1, hidden.shape[0], dtype=torch.long, device=hidden.device)
    with torch.inference_mode(), replayed(hidden[None]):
        logits = network(input_ids=placeholder, use_cache=False).logits
    assert isinstance(logits, torch.Tensor)
    return logits[0]
