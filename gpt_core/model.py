"""A language model, loaded once and read-only: weights, tokenizer, geometry, and what was proved about it.

Does not know what is asked of it.
"""

import copy
import dataclasses
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from gpt_core import capture
from gpt_core.acquire import acquire_model, check_causal
from gpt_core.anatomy import Anatomy, find_anatomy
from gpt_core.canary import Canary, run_canary
from gpt_core.catalog import DEVICE_VARIABLE, ModelId, find_model
from gpt_core.control import Control
from gpt_core.errors import GptCoreError, InputError, ModelLoadError, UnsupportedError
from gpt_core.memory import memory_limit
from gpt_core.registry import Registry
from gpt_core.row_product import lay_out_for_rows
from gpt_core.storage import mark_used
from gpt_core.writers import LayerWriters, find_writers

# Bars on the server's console say nothing to a reader; `Control.report` does.
transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """The sizes of a network."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    vocab_size: int
    """Rows of the token embedding: what logits range over."""
    context_length: int
    """Most tokens that the network can look at."""
    n_parameters: int
    """Shared matrices counted once."""
    position_kind: str
    """`learned`, `rotary` or `other`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LanguageModel:
    """Weights, tokenizer and geometry. Shared by all readers; nobody changes it after it is made."""

    model_id: ModelId
    """Identity, with its revision."""
    network: PreTrainedModel
    """The transformers model: eval mode, float32, attention that can be recorded."""
    tokenizer: PreTrainedTokenizerFast
    """Its settings are never changed; `backend_tokenizer.encode` is safe under threads."""
    plain_tokenizer: Tokenizer
    """A copy that reads special tokens in a text as plain text."""
    anatomy: Anatomy
    """Where its parts are."""
    geometry: Geometry
    """Its sizes."""
    canary: Canary
    """What was measured when it was loaded."""
    writers: tuple[LayerWriters, ...]
    """`(n_layers,)` the parts that write between the blocks; empty where they cannot be told apart."""
    closed_views: Mapping[str, str]
    """View (`attention`, `logits`, `lens`, `walk`, `writers`) to the sentence why this model cannot serve it
    exactly."""
    device: torch.device
    """Where its weights are."""

    @property
    def n_bytes(self) -> int:
        """Bytes of parameters and buffers, and of what is kept beside them (`count_beside`)."""
        own = sum(t.numel() * t.element_size() for t in (*self.network.parameters(), *self.network.buffers()))
        return own + _beside.get(self, 0)


def wrap_network(
    network: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, model_id: ModelId, device: str = "cpu"
) -> LanguageModel:
    """Turn a freshly made network into a LanguageModel: find its parts, prove them, freeze it.

    The network must be nobody else's: its attention function is set here, once. Raises ModelLoadError where it
    has no blocks, where its vocabulary is smaller than its tokenizer's, or where its numbers are not finite.
    """
    network.to(device=device, dtype=torch.float32)  # type: ignore[call-arg]
    network.eval()  # type: ignore[no-untyped-call]
    network.requires_grad_(False)
    lay_out_for_rows(network)
    anatomy = find_anatomy(network)
    vocab_size = anatomy.token_embedding.weight.shape[0]
    n_ids = max(tokenizer.get_vocab().values(), default=-1) + 1  # ids may have holes
    if n_ids > vocab_size:
        raise ModelLoadError(
            f"The tokenizer of {model_id} has ids up to {n_ids - 1:,}, but its model only {vocab_size:,} rows. "
            "They do not belong together."
        )
    capture.install(
        anatomy.decoder,
        blocks=anatomy.blocks,
        token_embedding=anatomy.token_embedding,
        position_embedding=anatomy.position_embedding,
    )
    # What a configuration asks for by default: what a pass is asked for is said where it is made.
    for config in {id(c): c for c in (network.config, network.config.get_text_config())}.values():
        config.return_dict, config.output_hidden_states, config.output_attentions = True, False, False
    canary, final_norm = run_canary(network, anatomy)
    anatomy = dataclasses.replace(anatomy, final_norm=final_norm)
    closed_views = dict(canary.closed_views)
    writers: tuple[LayerWriters, ...] = ()
    try:
        if "attention" in closed_views:
            raise UnsupportedError(
                f"{type(network).__name__} computes attention in its own way, which cannot be taken apart into heads "
                "exactly here. The other parts of the page work."
            )
        writers = find_writers(network, anatomy)
        capture.install_mlps([layer.mlp for layer in writers])
    except UnsupportedError as error:
        closed_views["writers"] = str(error)
    plain = copy.deepcopy(tokenizer.backend_tokenizer)
    plain.encode_special_tokens = True
    config = network.config.get_text_config()
    context_length = int(getattr(config, "max_position_embeddings", 0) or 0)
    return LanguageModel(
        model_id=model_id,
        network=network,
        tokenizer=tokenizer,
        plain_tokenizer=plain,
        anatomy=anatomy,
        geometry=Geometry(
            n_layers=len(anatomy.blocks),
            n_heads=canary.n_heads,
            n_kv_heads=canary.n_kv_heads,
            d_model=canary.d_model,
            d_head=canary.d_head,
            vocab_size=vocab_size,
            context_length=min(context_length or 2048, canary.longest or context_length or 2048),
            n_parameters=sum(parameter.numel() for parameter in network.parameters()),
            position_kind="learned"
            if anatomy.position_embedding is not None
            else "rotary"
            if anatomy.rotates
            else "other",
        ),
        canary=canary,
        writers=writers,
        closed_views=MappingProxyType(closed_views),
        device=torch.device(device),
    )


def default_device() -> str:
    """The device named by GPT_CORE_DEVICE, `cpu` where none is."""
    return os.environ.get(DEVICE_VARIABLE, "cpu")


def load_model(model_id: str, *, control: Control | None = None) -> LanguageModel:
    """The model that `source:name[@revision]` names, loaded once however many ask.

    Raises InputError (no such model here), ModelLoadError (it cannot be loaded, with the reason), MemoryLimitError
    (it is larger than half of this machine's memory, or than what is free of it), and what `control` raises.
    """
    entry = find_model(model_id)
    lm = _models.get_or_make(
        (str(entry.model_id), default_device()),
        lambda: _load_folder(acquire_model(entry, max_bytes=_models.capacity), entry.model_id, control),
        check=None if control is None else control.check,
    )
    mark_used(str(entry.model_id))
    return lm


def release_model(model_id: str) -> None:
    """Let go of the model of that full id; who works with it now keeps it until the work is done."""
    _models.drop((model_id, default_device()))


def count_beside(lm: LanguageModel, n_bytes: int) -> None:
    """Count `n_bytes` as the model's own: something that was made for it and lives as long as it does."""
    _beside[lm] = _beside.get(lm, 0) + n_bytes
    _models.weigh_again((str(lm.model_id), default_device()))


def kept_model(model_id: str) -> LanguageModel | None:
    """The model of that full id (`source:name@revision`) if it is in memory; loads nothing."""
    return _models.get((model_id, default_device()))


def _check_device(device: str) -> None:
    here = ["cpu"]
    here += ["cuda"] if torch.cuda.is_available() else []
    here += ["mps"] if torch.backends.mps.is_available() else []
    if device.partition(":")[0] not in here:
        raise InputError(
            f"The device must be one that torch finds on this machine: {', '.join(here)}. Given: {device[:40]}. "
            "Start again with one of these, or without naming one."
        )


def loaded_models() -> tuple[str, ...]:
    """The ids of the models that are in memory now."""
    return tuple(model_id for model_id, _ in _models.keys())  # noqa: SIM118 - a Registry is no mapping


def _load_folder(folder: Path, model_id: ModelId, control: Control | None) -> LanguageModel:
    def report(fraction: float, message: str) -> None:
        if control is not None:
            control.check()
            control.report(fraction, message)

    device = default_device()
    _check_device(device)
    try:
        # transformers builds a network on the meta device under a process-wide switch: one load at a time.
        with _one_load(control):
            report(0.05, "Reading the tokenizer")
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            _check_causal(config, model_id)
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_fast=True
            )
            if not isinstance(tokenizer, PreTrainedTokenizerFast):
                raise ModelLoadError(
                    f"{model_id} has no fast tokenizer (tokenizer.json), which is needed here."
                )
            report(0.2, "Reading the weights")
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                attn_implementation="eager",
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
            network, info = loaded
            if info["missing_keys"]:
                missing = sorted(info["missing_keys"])
                raise ModelLoadError(
                    f"{model_id} lacks {len(missing)} weights, the first of them {missing[0]}; "
                    "random values in their place would show wrong numbers."
                )
            report(0.8, "Checking the numbers")
            return wrap_network(network, tokenizer, model_id=model_id, device=device)
    except GptCoreError:
        raise
    except Exception as error:  # transformers, tokenizers, safetensors and torch each have their own kinds
        raise ModelLoadError(f"{model_id} cannot be loaded: {_first_line(error, folder)}") from error


@contextmanager
def _one_load(control: Control | None) -> Iterator[None]:
    while not _load_lock.acquire(timeout=0.05):
        if control is not None:
            control.check()
    try:
        yield
    finally:
        _load_lock.release()


def _check_causal(config: object, model_id: ModelId) -> None:
    if type(config) not in AutoModelForCausalLM._model_mapping:
        kind = getattr(config, "model_type", type(config).__name__)
        raise ModelLoadError(
            f"{model_id} is a {kind} model, not a causal language model. Choose one that continues text."
        )
    check_causal({"architectures": getattr(config, "architectures", None)}, str(model_id))


def _first_line(error: Exception, folder: Path) -> str:
    """What an error says first, without the place of the folder on this machine."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).replace(str(folder), folder.name)[:300]


_load_lock = threading.Lock()
_beside: WeakKeyDictionary[LanguageModel, int] = WeakKeyDictionary()
_models: Registry[tuple[str, str], LanguageModel] = Registry(memory_limit(), lambda lm: lm.n_bytes)
