"""What a model is made of: its parameters by part, its module tree, and the GPT family beside it."""

from dataclasses import dataclass

from gpt_core.model import LanguageModel

#: Parts in the order in which a text meets them.
PARTS = ("token embedding", "position embedding", "attention", "MLP", "norms", "head", "other")


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterPart:
    """The parameters of one part of the model, all blocks together."""

    part: str
    """One of PARTS."""
    n_parameters: int
    """Numbers that training sets; a matrix that two parts share is counted at the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyMember:
    """One model of the GPT family."""

    name: str
    """Its usual name."""
    year: int
    """Of its paper."""
    n_layers: int
    """Blocks."""
    n_heads: int
    """Heads per block."""
    d_model: int
    """Width of the residual stream."""
    context_length: int
    """Positions."""
    n_parameters: int
    """Counted from the architecture; for GPT-3, whose weights are not public, the paper's figure."""
    source: str
    """Paper or report."""


#: Sizes: Radford et al. 2018 and 2019 (OpenAI reports), Sanh et al. 2019 (arXiv:1910.01108), Brown et al. 2020.
FAMILY = (
    FamilyMember(
        name="GPT-1", year=2018, n_layers=12, n_heads=12, d_model=768, context_length=512,
        n_parameters=116_534_784, source="Radford et al. 2018",
    ),
    FamilyMember(
        name="distilgpt2", year=2019, n_layers=6, n_heads=12, d_model=768, context_length=1024,
        n_parameters=81_912_576, source="arXiv:1910.01108",
    ),
    FamilyMember(
        name="gpt2", year=2019, n_layers=12, n_heads=12, d_model=768, context_length=1024,
        n_parameters=124_439_808, source="Radford et al. 2019",
    ),
    FamilyMember(
        name="gpt2-medium", year=2019, n_layers=24, n_heads=16, d_model=1024, context_length=1024,
        n_parameters=354_823_168, source="Radford et al. 2019",
    ),
    FamilyMember(
        name="gpt2-large", year=2019, n_layers=36, n_heads=20, d_model=1280, context_length=1024,
        n_parameters=774_030_080, source="Radford et al. 2019",
    ),
    FamilyMember(
        name="gpt2-xl", year=2019, n_layers=48, n_heads=25, d_model=1600, context_length=1024,
        n_parameters=1_557_611_200, source="Radford et al. 2019",
    ),
    FamilyMember(
        name="GPT-3", year=2020, n_layers=96, n_heads=96, d_model=12288, context_length=2048,
        n_parameters=175_000_000_000, source="arXiv:2005.14165, table 2.1",
    ),
)  # fmt: skip


def count_parameters(lm: LanguageModel) -> tuple[ParameterPart, ...]:
    """Parameters by part; parts without any are left out; the sum is `lm.geometry.n_parameters`."""
    counts = dict.fromkeys(PARTS, 0)
    anatomy = lm.anatomy
    in_blocks = {
        id(parameter): _part_in_block(name) for name, parameter in anatomy.blocks.named_parameters()
    }
    for name, parameter in lm.network.named_parameters():  # a shared matrix comes once, under its first name
        if parameter is anatomy.token_embedding.weight:
            part = "token embedding"
        elif anatomy.position_embedding is not None and any(
            parameter is own for own in anatomy.position_embedding.parameters()
        ):
            part = "position embedding"
        elif id(parameter) in in_blocks:
            part = in_blocks[id(parameter)]
        elif any(parameter is own for norm in anatomy.norm_candidates for own in norm.parameters()):
            part = "norms"
        elif "head" in name or "embed_out" in name:
            part = "head"
        else:
            part = "other"
        counts[part] += parameter.numel()
    return tuple(
        ParameterPart(part=part, n_parameters=count) for part, count in counts.items() if count
    )


def _part_in_block(name: str) -> str:
    parts = name.lower().split(".")[1:-1]
    first = parts[0] if parts else ""
    if "norm" in first or first.startswith("ln"):
        return "norms"
    if "attn" in first or "attention" in first:
        return "attention"
    if any(word in first for word in ("mlp", "fc", "feed", "ff", "moe", "expert")):
        return "MLP"
    return "other"


def module_tree(lm: LanguageModel) -> str:
    """The network's modules as PyTorch prints them, equal blocks folded."""
    return repr(lm.network)
