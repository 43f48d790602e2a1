"""A decode loop for GPT-2 and Llama at the speed at which their weights can be read.

Plain products over the model's own weights (nothing is copied; `row_product` has the one for a single token) and keys
and values in place: no module calls, no cache objects, no masks for a single token. A decoder is used only after its
logits agreed with the model's, when it is first asked for; every other model is read by its own forward (`reading`).

On a CPU there is also an int8 decoder: torch's dynamic quantization, weights in 8 bits with a scale for each output,
a row in 8 bits from its smallest to its largest number, products summed exactly in int32. It reads a quarter of the
bytes and shifts the probabilities; `int8_shift` measures by how much. Only the Generation page offers it.
"""

from __future__ import annotations

import copy
import functools
import math
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.nn import functional
from transformers import GPT2LMHeadModel, LlamaForCausalLM
from transformers.activations import NewGELUActivation

from gpt_core.errors import UnsupportedError
from gpt_core.model import LanguageModel, count_beside
from gpt_core.row_product import RowProduct

# Torch means to drop these tensors one day; `int8_machine_problem` finds out.
warnings.filterwarnings("ignore", message="torch.quantize_per_tensor, torch.quantize_per_channel")

#: Largest difference of a logit from the model's, relative to the largest logit.
TOLERANCE = 1e-4
#: Rotary tables that depend on the position alone; others change with the length of the text.
_FIXED_ROTARY = {"default", "linear", "llama3", "yarn"}
_CANARY_TOKENS = 24
_CANARY_STEPS = 4

#: What the int8 decoder's shift is measured on: four kinds of everyday text, read token by token.
REFERENCE_TEXT = (
    "Once upon a time, there was a little girl named Anna. She lived in a small house near the forest with her mother "
    "and her brother. One day she found a red box under the old tree. The capital of France is Paris, and the capital "
    "of Japan is Tokyo. Question: What is two plus two? Answer: four. I learned a lot in this class, and I would take "
    "it again."
)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Int8Shift:
    """How far the int8 decoder's predictions are from the model's own, over one reference text."""

    n_positions: int
    """Predictions compared."""
    total_variation: float
    """Mean over positions of half the sum of absolute differences of probability: 0 equal, 1 disjoint."""
    largest_total_variation: float
    """The largest over positions."""
    kl_bits: float
    """Mean Kullback-Leibler divergence of int8's predictions from the model's, bits."""
    same_favourite: float
    """Share of positions (0..1) at which both have the same most probable token."""


@dataclass(eq=False, slots=True)
class KeyValues:
    """Keys and values of the tokens read so far, with room for more."""

    keys: torch.Tensor
    """`(n_layers, n_kv_heads, capacity, d_head)` float32."""
    values: torch.Tensor
    """As `keys`."""
    n_tokens: int = 0
    """How many places are filled."""

    def copy(self, n_tokens: int, capacity: int) -> KeyValues:
        """The first `n_tokens` of them in memory of their own, with room for `capacity`."""
        shape = (*self.keys.shape[:2], capacity, self.keys.shape[3])
        made = KeyValues(self.keys.new_empty(shape), self.values.new_empty(shape), n_tokens)
        made.keys[:, :, :n_tokens] = self.keys[:, :, :n_tokens]
        made.values[:, :, :n_tokens] = self.values[:, :, :n_tokens]
        return made

    @property
    def n_bytes(self) -> int:
        """Bytes held."""
        return 2 * self.keys.numel() * self.keys.element_size()


class _Linear(RowProduct):
    """`x @ weight.T + bias`, in float32."""

    __slots__ = ()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Rows `(n, n_in)` -> `(n, n_out)`."""
        return functional.linear(x, self.weight, self.bias)


class _Int8Linear:
    """The same in int8 for one row: a scale for each output of the weight, and one for the row."""

    __slots__ = ("n_bytes", "narrow", "packed")

    def __init__(self, exact: _Linear, *, narrow: bool) -> None:
        """`narrow`: rows are rounded to 7 bits instead of 8."""
        scales = exact.weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny).double() / 127
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        rounded = torch.quantize_per_channel(exact.weight, scales, zeros, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(rounded, exact.bias)
        self.narrow = narrow
        self.n_bytes = rounded.numel() + 4 * scales.numel()

    def of_one(self, row: torch.Tensor) -> torch.Tensor:
        """`(n_in,)` -> `(n_out,)`."""
        product: torch.Tensor = torch.ops.quantized.linear_dynamic(row[None], self.packed, self.narrow)[0]
        return product


@functools.cache
def _rows_are_narrow() -> bool:
    """Whether 8 bits of a row are one too many here: processors without VNNI sum pairs of products in 16 bits."""
    widest = _Int8Linear(_Linear(torch.ones(1, 64), None), narrow=False)
    return abs(float(widest.of_one(torch.ones(64))) - 64) > 0.5


def _attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, n_past: int, scaling: float
) -> torch.Tensor:
    """Causal attention of `query` `(n, n_heads, d_head)` over all filled places; `(n, n_heads * d_head)`."""
    n, n_heads, d_head = query.shape
    mask = None
    if n_past:
        mask = torch.ones(n, n_past + n, dtype=torch.bool, device=query.device).tril(n_past)
    mixed = functional.scaled_dot_product_attention(
        query.transpose(0, 1)[None],
        keys[None, :, : n_past + n],
        values[None, :, : n_past + n],
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=keys.shape[0] != n_heads,
    )
    return mixed[0].transpose(0, 1).reshape(n, n_heads * d_head)


def _attend_one(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, n_past: int, scaling: float
) -> torch.Tensor:
    """Attention of the last token's `query` `(n_heads * d_head,)` over all filled places, itself among them."""
    # The query heads that share a key head stand as its rows; the last token may look at everything.
    grouped = query.view(1, keys.shape[0], -1, keys.shape[2])
    places = slice(None, n_past + 1)
    mixed = functional.scaled_dot_product_attention(
        grouped, keys[None, :, places], values[None, :, places], scale=scaling
    )
    return mixed.view(-1)


def _fused(activation: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same function in one step where transformers has it in eight."""
    if isinstance(activation, NewGELUActivation):
        return functools.partial(functional.gelu, approximate="tanh")
    return activation


class _Gpt2Block:
    def __init__(self, block: Any, layer: int, config: Any) -> None:
        self.norms = [(norm.weight, norm.bias, norm.eps) for norm in (block.ln_1, block.ln_2)]
        # Its Conv1D keeps (n_in, n_out).
        self.qkv, self.out, self.up, self.down = (
            _Linear(part.weight.t(), part.bias)
            for part in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)
        )
        self.activation = _fused(block.mlp.act)
        self.n_heads = config.num_attention_heads
        self.d_head = config.hidden_size // config.num_attention_heads
        self.scaling = self.d_head**-0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self.scaling /= layer + 1

    def read(
        self, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, n_past: int, rotation: Any
    ) -> torch.Tensor:
        n, (width,) = len(x), self.norms[0][0].shape
        qkv = self.qkv(functional.layer_norm(x, (width,), *self.norms[0])).view(
            n, 3, self.n_heads, self.d_head
        )
        keys[:, n_past : n_past + n] = qkv[:, 1].transpose(0, 1)
        values[:, n_past : n_past + n] = qkv[:, 2].transpose(0, 1)
        x = x + self.out(_attend(qkv[:, 0], keys, values, n_past=n_past, scaling=self.scaling))
        y: torch.Tensor = self.activation(self.up(functional.layer_norm(x, (width,), *self.norms[1])))
        return x + self.down(y)

    def step(
        self, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, n_past: int, rotation: Any
    ) -> torch.Tensor:
        y = functional.layer_norm(x, x.shape, *self.norms[0])
        query, key, value = self.qkv.of_one(y).view(3, self.n_heads, self.d_head)
        keys[:, n_past] = key
        values[:, n_past] = value
        x = x + self.out.of_one(_attend_one(query, keys, values, n_past=n_past, scaling=self.scaling))
        y = self.activation(self.up.of_one(functional.layer_norm(x, x.shape, *self.norms[1])))
        return x.add_(self.down.of_one(y))

    def int8(self) -> _Gpt2Block:
        return _replaced(self, ("qkv", "out", "up", "down"))


class _LlamaBlock:
    def __init__(self, block: Any, layer: int, config: Any) -> None:
        self.norms = [
            (norm.weight, norm.variance_epsilon)
            for norm in (block.input_layernorm, block.post_attention_layernorm)
        ]
        attention, mlp = block.self_attn, block.mlp
        self.query, self.key, self.value, self.out, self.gate, self.up, self.down = (
            _Linear(part.weight, part.bias)
            for part in (
                attention.q_proj,
                attention.k_proj,
                attention.v_proj,
                attention.o_proj,
                mlp.gate_proj,
                mlp.up_proj,
                mlp.down_proj,
            )
        )
        self.activation = _fused(mlp.act_fn)
        self.n_heads, self.n_kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.d_head = attention.head_dim
        self.scaling = attention.scaling

    def read(
        self, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, n_past: int, rotation: Any
    ) -> torch.Tensor:
        n = len(x)
        y = _rms_norm(x, *self.norms[0])
        query = _rotate(self.query(y).view(n, self.n_heads, self.d_head), *rotation)
        key = _rotate(self.key(y).view(n, self.n_kv_heads, self.d_head), *rotation)
        keys[:, n_past : n_past + n] = key.transpose(0, 1)
        values[:, n_past : n_past + n] = self.value(y).view(n, self.n_kv_heads, self.d_head).transpose(0, 1)
        x = x + self.out(_attend(query, keys, values, n_past=n_past, scaling=self.scaling))
        y = _rms_norm(x, *self.norms[1])
        return x + self.down(self.activation(self.gate(y)) * self.up(y))

    def step(
        self, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, n_past: int, rotation: Any
    ) -> torch.Tensor:
        y = _rms_norm_one(x, *self.norms[0])
        query = _rotate(self.query.of_one(y).view(self.n_heads, self.d_head), *rotation)
        keys[:, n_past] = _rotate(self.key.of_one(y).view(self.n_kv_heads, self.d_head), *rotation)
        values[:, n_past] = self.value.of_one(y).view(self.n_kv_heads, self.d_head)
        x = x + self.out.of_one(_attend_one(query, keys, values, n_past=n_past, scaling=self.scaling))
        y = _rms_norm_one(x, *self.norms[1])
        gate = self.activation(self.gate.of_one(y))
        return x.add_(self.down.of_one(gate.mul_(self.up.of_one(y))))

    def int8(self) -> _LlamaBlock:
        return _replaced(self, ("query", "key", "value", "out", "gate", "up", "down"))


B = TypeVar("B")


def _replaced(block: B, names: tuple[str, ...]) -> B:
    """A copy of the block with int8 products under `names`."""
    made = copy.copy(block)
    for name in names:
        setattr(made, name, _Int8Linear(getattr(block, name), narrow=_rows_are_narrow()))
    return made


def _rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps) * weight


def _rms_norm_one(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """The same of one row `(n,)`, in fewer steps."""
    return (x * weight).mul_(1 / math.sqrt(float(torch.dot(x, x)) / len(x) + eps))


def _rotate(x: torch.Tensor, cos: torch.Tensor, signed_sin: torch.Tensor) -> torch.Tensor:
    """Rotate `(..., n_heads, d_head)` by angles `(..., 1, d_head)`: halves, as Llama's weights want it.

    The sines of the first half are negative.
    """
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), signed_sin)


class FastDecoder:
    """Reads tokens and gives the logits after the last; what it knows of a text is in its KeyValues."""

    def __init__(self, lm: LanguageModel) -> None:
        network: Any = lm.network
        config = network.config
        decoder: Any = lm.anatomy.decoder
        self.context_length = lm.geometry.context_length
        self._tokens = lm.anatomy.token_embedding.weight
        self._positions: torch.Tensor | None = None
        self._rotation: tuple[torch.Tensor, torch.Tensor] | None = None
        self._blocks: list[Any]
        if isinstance(network, GPT2LMHeadModel):
            self._positions = decoder.wpe.weight
            self._blocks = [_Gpt2Block(block, i, config) for i, block in enumerate(lm.anatomy.blocks)]
            norm = decoder.ln_f
            self._norm: Callable[[torch.Tensor], torch.Tensor] = lambda x: functional.layer_norm(
                x, norm.weight.shape, norm.weight, norm.bias, norm.eps
            )
        else:
            assert isinstance(network, LlamaForCausalLM)
            places = torch.arange(self.context_length, device=lm.device)[None]
            cos, sin = decoder.rotary_emb(self._tokens[:1], places)
            signs = torch.ones_like(sin[0, 0])
            signs[: len(signs) // 2] = -1
            self._rotation = (cos[0, :, None], sin[0, :, None] * signs)
            self._blocks = [_LlamaBlock(block, i, config) for i, block in enumerate(lm.anatomy.blocks)]
            gain = decoder.norm
            self._norm = lambda x: _rms_norm(x, gain.weight, gain.variance_epsilon)
        self._head: _Linear = _Linear(network.lm_head.weight, network.lm_head.bias)
        self._shape = (lm.geometry.n_layers, lm.geometry.n_kv_heads, lm.geometry.d_head)
        self._quick: tuple[list[Any], _Int8Linear] | None = None

    def with_int8(self) -> FastDecoder:
        """The same, but single tokens go through int8 products; several at once are read in float32."""
        made = copy.copy(self)
        head = _Int8Linear(self._head, narrow=_rows_are_narrow())
        made._quick = ([block.int8() for block in self._blocks], head)
        return made

    @property
    def int8_bytes(self) -> int:
        """Bytes of the rounded weights and their scales; 0 without int8."""
        if self._quick is None:
            return 0
        blocks, head = self._quick
        parts = [part for block in blocks for part in vars(block).values()] + [head]
        return sum(part.n_bytes for part in parts if isinstance(part, _Int8Linear))

    def new_state(self, capacity: int) -> KeyValues:
        """Room for the keys and values of that many tokens."""
        n_layers, n_kv_heads, d_head = self._shape
        shape = (n_layers, n_kv_heads, capacity, d_head)
        return KeyValues(self._tokens.new_empty(shape), self._tokens.new_empty(shape))

    def read(
        self,
        token_ids: torch.Tensor,
        state: KeyValues,
        *,
        check: Callable[[], None] | None = None,
        exact: bool = False,
    ) -> torch.Tensor:
        """The logits `(1, vocab_size)` after `token_ids` `(n,)`, which come after what is in `state`.

        `check` is called before each block; where it raises, `state` is as it was. With `exact`, a single token too
        is read in float32.
        """
        n, n_past = len(token_ids), state.n_tokens
        # An int8 step is for one row; several are a prompt, where float32 is as quick and nothing is lost.
        rounded = self._quick if n == 1 and not exact else None
        blocks, head = (self._blocks, self._head) if rounded is None else rounded
        # A single token is a vector, several are the rows of a matrix.
        places = n_past if n == 1 else slice(n_past, n_past + n)
        rotation = None
        with torch.inference_mode():
            x = self._tokens[token_ids[0] if n == 1 else token_ids]
            if self._positions is not None:
                x = x + self._positions[places]
            if self._rotation is not None:
                rotation = tuple(table[places] for table in self._rotation)
            for block, keys, values in zip(blocks, state.keys, state.values, strict=True):
                if check is not None:
                    check()
                x = (block.step if n == 1 else block.read)(x, keys, values, n_past, rotation)
            logits = head.of_one(self._norm(x if n == 1 else x[-1]))
        state.n_tokens = n_past + n
        return logits[None]


def _why_not_served(lm: LanguageModel) -> str:
    """Why the loop is not for this model, as part of a sentence; empty where it may be."""
    network = lm.network
    if lm.device.type != "cpu":
        return f"it is on {lm.device.type}"
    if not isinstance(network, (GPT2LMHeadModel, LlamaForCausalLM)):
        return "it is neither GPT-2 nor Llama"
    if "logits" in lm.closed_views:
        return "its logits cannot be read"
    if isinstance(network, GPT2LMHeadModel):
        return "it has cross-attention" if network.config.add_cross_attention else ""
    kind: str = getattr(lm.anatomy.rotary, "rope_type", "")
    return "" if kind in _FIXED_ROTARY else f"it has position angles of the kind {kind!r}"


def largest_difference(lm: LanguageModel, decoder: FastDecoder) -> float:
    """Largest difference of the decoder's logits from the model's own forward, relative to the largest logit.

    Over a short text of random tokens: read at once, then token by token, then again from its middle.
    """
    n = min(_CANARY_TOKENS, lm.geometry.context_length)
    n_steps = min(_CANARY_STEPS, n - 1)
    ids = torch.from_numpy(np.random.RandomState(0).randint(0, lm.geometry.vocab_size, size=n))
    network: Any = lm.network
    with torch.inference_mode():
        expected = network(input_ids=ids[None], use_cache=False).logits[0].float()
    state = decoder.new_state(n)
    found = [(n - n_steps - 1, decoder.read(ids[: n - n_steps], state))]
    found += [(i, decoder.read(ids[i : i + 1], state)) for i in range(n - n_steps, n)]
    if n > 8:
        state.n_tokens = n // 2
        found.append((n - 1, decoder.read(ids[n // 2 :], state)))
    differences = [float((logits[0] - expected[i]).abs().max()) for i, logits in found]
    return max(differences) / max(float(expected.abs().max()), 1e-30)


def fast_decoder(lm: LanguageModel, *, int8: bool = False) -> FastDecoder | None:
    """The fast decoder of a model; None where there is none for its kind or its logits did not agree.

    Proved when a model is first asked for. With `int8`, raises UnsupportedError with the reason where there is none.
    """
    with _lock:
        if lm not in _proved:
            decoder = None if _why_not_served(lm) else FastDecoder(lm)
            agrees = decoder is not None and largest_difference(lm, decoder) <= TOLERANCE
            _proved[lm] = decoder if agrees else None
        decoder = _proved[lm]
        if not int8:
            return decoder
        problem = int8_problem(lm, decoder)
        if problem:
            raise UnsupportedError(problem)
        assert decoder is not None
        if lm not in _int8:
            with torch.inference_mode():
                _int8[lm] = decoder.with_int8()
            count_beside(lm, _int8[lm].int8_bytes)
        return _int8[lm]


def int8_problem(lm: LanguageModel, decoder: FastDecoder | None) -> str:
    """Why this model cannot be read in int8 on this machine; empty where it can."""
    if lm.device.type != "cpu":
        return f"int8 is for the CPU; this model is on {lm.device.type}."
    if decoder is None:
        kind, why = type(lm.network).__name__, _why_not_served(lm)
        if not isinstance(lm.network, (GPT2LMHeadModel, LlamaForCausalLM)):
            return f"int8 is there for GPT-2 and Llama only; {kind} is read in float32 as always."
        why = why or f"its logits there are not the model's within {TOLERANCE:g}"
        return f"int8 needs the fast loop, which does not read this {kind}: {why}. It is read in float32 as always."
    return int8_machine_problem()


@functools.cache
def int8_machine_problem() -> str:
    """Why torch cannot multiply int8 here; empty where it can and the product is right."""
    rng = np.random.RandomState(0)
    try:
        narrow = _rows_are_narrow()
        # Whole numbers that need no rounding: both ends of the range are among them.
        largest = 127 if narrow else 255
        row, weight = rng.randint(0, largest + 1, size=64), rng.randint(-127, 128, size=(4, 64))
        row[:2], weight[:, 0], weight[3] = (0, largest), 127, 127
        exact = _Linear(torch.from_numpy(weight.astype(np.float32)), None)
        product = _Int8Linear(exact, narrow=narrow).of_one(torch.from_numpy(row.astype(np.float32)))
    except (AttributeError, RuntimeError, NotImplementedError) as error:
        # A question to this build of torch, not a stub of ours: its quantized tensors may be gone one day, and a
        # build without a kernel for this machine raises one of the other two.
        return f"This build of torch does not multiply int8 here ({str(error)[:120]})."
    right = np.allclose(product.numpy(), weight @ row, rtol=0, atol=0.5)
    return "" if right else "int8 products come out wrong on this machine, so they are not used."


def int8_shift(lm: LanguageModel, *, check: Callable[[], None] | None = None) -> Int8Shift:
    """Measure once per model how far int8's predictions are from the model's own, over REFERENCE_TEXT.

    Raises UnsupportedError where there is no int8 decoder, and what `check` raises; it is called for every token.
    """
    decoder = fast_decoder(lm, int8=True)
    assert decoder is not None
    with _lock:
        kept = _shifts.get(lm)
    if kept is not None:
        return kept
    encode = lm.tokenizer.backend_tokenizer.encode
    ids = torch.tensor(encode(REFERENCE_TEXT).ids[: lm.geometry.context_length])
    network: Any = lm.network
    with torch.inference_mode():
        exact = network(input_ids=ids[None], use_cache=False).logits[0].double().log_softmax(dim=-1)
        state = decoder.new_state(len(ids))
        distances, divergences, same = [], [], 0
        for i in range(len(ids)):
            if check is not None:
                check()
            ours = decoder.read(ids[i : i + 1], state)[0].double().log_softmax(dim=-1)
            p, q = exact[i].exp(), ours.exp()
            distances.append(float((p - q).abs().sum()) / 2)
            divergences.append(max(0.0, float((p * (exact[i] - ours)).sum()) / math.log(2)))
            same += int(exact[i].argmax() == ours.argmax())
    found = Int8Shift(
        n_positions=len(ids),
        total_variation=float(np.mean(distances)),
        largest_total_variation=max(distances),
        kl_bits=float(np.mean(divergences)),
        same_favourite=same / len(ids),
    )
    with _lock:
        _shifts[lm] = found
    return found


# What was proved and made for each model, for as long as it lives.
_lock = threading.RLock()
_proved: WeakKeyDictionary[LanguageModel, FastDecoder | None] = WeakKeyDictionary()
_int8: WeakKeyDictionary[LanguageModel, FastDecoder] = WeakKeyDictionary()
_shifts: WeakKeyDictionary[LanguageModel, Int8Shift] = WeakKeyDictionary()
