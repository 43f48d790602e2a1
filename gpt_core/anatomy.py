"""Where the parts of an architecture are, found by structure. The canary proves what is found here.

Does not know any architecture by name.
"""

import inspect
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from gpt_core.errors import ModelLoadError


def forward_arguments(module: torch.nn.Module) -> frozenset[str]:
    """Names of the arguments that the module's forward says it takes."""
    return frozenset(inspect.signature(module.forward).parameters)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Anatomy:
    """The parts of one loaded network that the views ask for."""

    decoder: torch.nn.Module
    """The module that the language model's forward calls: ids in, last hidden state out."""
    blocks: torch.nn.ModuleList
    """The transformer blocks, in order."""
    token_embedding: torch.nn.Embedding
    """Token id to vector (`wte` in GPT-2)."""
    position_embedding: torch.nn.Module | None
    """Position to vector (`wpe` in GPT-2); None where positions are not looked up in a table."""
    final_norm: torch.nn.Module | None
    """The norm between the last block and the head; None until the canary has proved one."""
    norm_candidates: tuple[torch.nn.Module, ...]
    """Modules beside the blocks that could be the final norm."""
    rotary: torch.nn.Module | None
    """The module that holds the rotary frequencies of all blocks; None where there is none, or several."""
    rotates: bool
    """Whether some module holds rotary frequencies, for all blocks or for one kind of them."""


def find_anatomy(network: PreTrainedModel) -> Anatomy:
    """The parts of `network`; `final_norm` stays None until proved.

    Raises ModelLoadError where the blocks cannot be told apart from the rest.
    """
    decoder: torch.nn.Module = network.get_decoder()  # type: ignore[no-untyped-call]
    if decoder is network:
        decoder = network.base_model
    if (
        decoder is network
    ):  # its prefix names no part of it: the model inside is the one child that is a model
        decoder = next((part for part in network.children() if isinstance(part, PreTrainedModel)), network)
    n_layers = int(getattr(network.config.get_text_config(), "num_hidden_layers", 0) or 0)
    stacks = [
        module
        for module in decoder.modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == n_layers > 0
    ]
    if not stacks:
        raise ModelLoadError(
            f"No stack of {n_layers} blocks was found in {type(network).__name__}. "
            "Choose a causal language model made of blocks in a row."
        )
    # Not a list inside a block (experts). Blocks are of one kind, except where attention and recurrence alternate.
    inner = {id(module) for stack in stacks for module in stack.modules() if module is not stack}
    outer = [stack for stack in stacks if id(stack) not in inner]
    blocks = next((stack for stack in outer if len({type(block) for block in stack}) == 1), outer[0])
    inside = {id(module) for module in blocks.modules()}
    outside = [module for module in decoder.modules() if id(module) not in inside]
    token_embedding = network.get_input_embeddings()
    if not isinstance(token_embedding, torch.nn.Embedding):
        raise ModelLoadError(f"{type(network).__name__} has no table of token embeddings.")
    position_tables = [
        module
        for module in outside
        if isinstance(module, torch.nn.Embedding) and module is not token_embedding
    ]
    rotaries = [module for module in outside if _has_frequencies(module)]
    return Anatomy(
        decoder=decoder,
        blocks=blocks,
        token_embedding=token_embedding,
        position_embedding=position_tables[0] if len(position_tables) == 1 else None,
        final_norm=None,
        norm_candidates=tuple(module for module in outside if _is_norm(module)),
        rotary=rotaries[0] if len(rotaries) == 1 else None,
        rotates=any(name.endswith("inv_freq") for name, _ in decoder.named_buffers()),
    )


def _is_norm(module: torch.nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return (
        "norm" in type(module).__name__.lower()
        and not any(True for _ in module.children())
        # A norm has one gain per dimension, or none (OLMo).
        and (not isinstance(weight, torch.Tensor) or weight.dim() == 1)
    )


def _has_frequencies(module: torch.nn.Module) -> bool:
    return isinstance(getattr(module, "inv_freq", None), torch.Tensor)
