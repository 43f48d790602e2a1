"""What a model is made of: its parameters by part, its module tree, and the GPT family beside it."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gpt_core.anatomy import Anatomy

if TYPE_CHECKING:
    from gpt_core.model import LanguageModel

#: Parts in the order in which a text meets them.
PARTS = ("token embedding", "position embedding", "attention", "MLP", "norms", "head", "other")

_NORM = re.compile(r"norm|(^|_)ln(_|\d|$)")
_ATTENTION = re.compile(r"attn|attention")
_MLP = re.compile(r"mlp|(^|_)fc|ffn|feed_?forward|(^|_)ff(_|\d|$)|moe|expert")


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterPart:
    """The parameters of one part of the model, all blocks together."""

    part: str
    """One of PARTS."""
    n_parameters: int
    """Numbers that training sets. A matrix that two parts share is counted once, at the first."""
    modules: tuple[str, ...]
    """`(n_modules,)` where they are in the module tree, all blocks as one: `transformer.h.*.attn`."""
    shared_with: str
    """The part whose matrix this one uses, counted there; empty where all is its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyMember:
    """One model of the GPT family."""

    name: str
    """Its usual name."""
    year: int | None
    """Of its paper or release; None where not known."""
    n_layers: int
    """Blocks."""
    n_heads: int
    """Heads per block."""
    d_model: int
    """Width of the residual stream."""
    context_length: int
    """Positions."""
    n_parameters: int
    """Counted from the architecture, shared matrices once."""
    stated: str
    """The count in its paper or model card; empty where there is none."""
    source: str
    """Paper, report or model card."""
    present: bool = False
    """Whether this is the model on the screen."""


_GPT2_REPORT = "Radford et al. 2019, table 2"

#: Sizes as in the sources named. GPT-2's report states its counts too low, as its authors later said
#: (github.com/openai/gpt-2, README). GPT-3's weights are not public: its count is that of GPT-2's layout at its sizes.
FAMILY = (
    FamilyMember(
        name="GPT-1", year=2018, n_layers=12, n_heads=12, d_model=768, context_length=512,
        n_parameters=116_534_784, stated="117M", source="Radford et al. 2018; card of openai-gpt",
    ),
    FamilyMember(
        name="distilgpt2", year=2019, n_layers=6, n_heads=12, d_model=768, context_length=1024,
        n_parameters=81_912_576, stated="82M", source="card of distilgpt2; method arXiv:1910.01108",
    ),
    FamilyMember(
        name="gpt2", year=2019, n_layers=12, n_heads=12, d_model=768, context_length=1024,
        n_parameters=124_439_808, stated="117M", source=_GPT2_REPORT,
    ),
    FamilyMember(
        name="gpt2-medium", year=2019, n_layers=24, n_heads=16, d_model=1024, context_length=1024,
        n_parameters=354_823_168, stated="345M", source=_GPT2_REPORT,
    ),
    FamilyMember(
        name="gpt2-large", year=2019, n_layers=36, n_heads=20, d_model=1280, context_length=1024,
        n_parameters=774_030_080, stated="762M", source=_GPT2_REPORT,
    ),
    FamilyMember(
        name="gpt2-xl", year=2019, n_layers=48, n_heads=25, d_model=1600, context_length=1024,
        n_parameters=1_557_611_200, stated="1542M", source=_GPT2_REPORT,
    ),
    FamilyMember(
        name="GPT-3", year=2020, n_layers=96, n_heads=96, d_model=12288, context_length=2048,
        n_parameters=174_604_259_328, stated="175.0B", source="Brown et al. 2020 (arXiv:2005.14165), table 2.1",
    ),
)  # fmt: skip


def count_parameters(lm: LanguageModel) -> tuple[ParameterPart, ...]:
    """Parameters by part, in the order of PARTS; their sum is `lm.geometry.n_parameters`. See `count_parts`."""
    return count_parts(lm.network, lm.anatomy)


def count_parts(network: torch.nn.Module, anatomy: Anatomy) -> tuple[ParameterPart, ...]:
    """Parameters of `network` by part; parts that it does not have are left out. Reads no weight.

    A norm of q or k inside an attention counts as attention. What fits no other part is `other`.
    """
    names = {id(module): name for name, module in network.named_modules()}
    counts = dict.fromkeys(PARTS, 0)
    modules: dict[str, dict[str, None]] = {part: {} for part in PARTS}  # keys: a set that keeps its order
    part_of: dict[int, str] = {}
    for module, name, part in _modules_by_part(network, anatomy, names):
        for parameter in module.parameters():
            if id(parameter) not in part_of:
                part_of[id(parameter)] = part
                counts[part] += parameter.numel()
                modules[part].setdefault(name)
    head = getattr(network, "get_output_embeddings", lambda: None)()
    shared = "" if head is None else part_of[id(head.weight)]
    return tuple(
        ParameterPart(
            part=part,
            n_parameters=counts[part],
            modules=tuple(modules[part])
            or ((names[id(head)],) if part == "head" and head is not None else ()),
            shared_with=shared if part == "head" and shared != "head" else "",
        )
        for part in PARTS
        if counts[part] or (part == "head" and head is not None)
    )


def _modules_by_part(
    network: torch.nn.Module, anatomy: Anatomy, names: dict[int, str]
) -> list[tuple[torch.nn.Module, str, str]]:
    """Every module that may own parameters, with its folded name and its part; what comes first owns what is shared."""
    found: list[tuple[torch.nn.Module, str, str]] = []
    for table, part in (
        (anatomy.token_embedding, "token embedding"),
        (anatomy.position_embedding, "position embedding"),
    ):
        if table is not None:
            found.append((table, names[id(table)], part))
    inside = names[id(anatomy.blocks)]
    for block in anatomy.blocks:
        for name, child in block.named_children():
            found.append((child, f"{inside}.*.{name}", _part_in_block(name, child)))
    found += [(block, f"{inside}.*", "other") for block in anatomy.blocks]  # what a block owns by itself
    head = getattr(network, "get_output_embeddings", lambda: None)()
    if head is not None:
        found.append((head, names[id(head)], "head"))
    for name, module in network.named_modules():
        if not any(True for _ in module.children()):
            is_norm = "norm" in type(module).__name__.lower()
            found.append((module, name, "norms" if is_norm else "other"))
    found.append((network, "", "other"))  # what is owned by a module that has children too
    return found


def _part_in_block(name: str, module: torch.nn.Module) -> str:
    """Part of a block's child, by what it is called and by what its class is called."""
    name, kind = name.lower(), type(module).__name__.lower()
    if _NORM.search(name) or "norm" in kind:
        return "norms"
    if _ATTENTION.search(name) or "attention" in kind:
        return "attention"
    if _MLP.search(name) or _MLP.search(kind):
        return "MLP"
    return "other"


def module_tree(lm: LanguageModel) -> str:
    """The network's modules as PyTorch prints them, equal blocks folded."""
    return repr(lm.network)


def compare_family(lm: LanguageModel) -> tuple[FamilyMember, ...]:
    """FAMILY with `lm` in it, smallest first: marked where it has a member's sizes, else as one more row."""
    g = lm.geometry
    sizes = (g.n_layers, g.n_heads, g.d_model, g.context_length, g.n_parameters)
    members = [
        dataclasses.replace(
            member,
            present=(
                member.n_layers,
                member.n_heads,
                member.d_model,
                member.context_length,
                member.n_parameters,
            )
            == sizes,
        )
        for member in FAMILY
    ]
    if not any(member.present for member in members):
        members.append(
            FamilyMember(
                name=lm.model_id.name.rpartition("/")[2],
                year=None,
                n_layers=g.n_layers,
                n_heads=g.n_heads,
                d_model=g.d_model,
                context_length=g.context_length,
                n_parameters=g.n_parameters,
                stated="",
                source=f"this model's own configuration ({lm.network.config.model_type})",
                present=True,
            )
        )
    return tuple(sorted(members, key=lambda member: member.n_parameters))
