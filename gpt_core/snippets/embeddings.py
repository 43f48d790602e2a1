"""Code for the Embeddings page, with the names that the model on the screen gives its parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpt_core.model import LanguageModel


def embeddings_snippet(
    lm: LanguageModel, token_ids: Sequence[int], *, name: str, text: str, token_id: int, k: int = 20
) -> str:
    """A program of plain transformers that prints the vectors of `text`, the neighbours of `token_id`, the walk's
    largest difference and the number of parameters. `name` is what `from_pretrained` takes.

    GPT-2 is walked through as in the notebook; any other model with what its own forward pass gives to each block.
    """
    ids = list(token_ids)
    # A template, or a special token read as plain text, would make other ids of the text.
    as_typed = lm.tokenizer(text)["input_ids"] == ids
    encoded = (
        f'encoded = tokenizer({text!r}, return_tensors="pt")["input_ids"]'
        if as_typed
        else f"encoded = torch.tensor([{ids}])  # {text!r}, as it is read on the page"
    )
    paths = {id(module): path for path, module in lm.network.named_modules()}
    anatomy = lm.anatomy
    notebook = lm.network.config.model_type == "gpt2"
    norm = paths.get(id(anatomy.final_norm))
    parts = {
        "tokens": paths[id(anatomy.token_embedding)],
        "positions": paths.get(id(anatomy.position_embedding), ""),
        "blocks": paths[id(anatomy.blocks)],
        "norm": f"\n    in_ip = model.{norm}(in_ip)" if norm else "",
    }
    return (
        _HEAD.format(name=name, encoded=encoded)
        + (_NOTEBOOK_WALK if notebook else _HOOKED_WALK).format(**parts)
        + _TAIL.format(token_id=token_id, k=k)
    )


_HEAD = """\
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({name!r})
model = AutoModelForCausalLM.from_pretrained({name!r}, dtype=torch.float32).eval()

{encoded}
"""

_NOTEBOOK_WALK = """
# SDPA is causal by itself where no mask is given. With "eager", blocks called by hand would see the tokens to come.
model.set_attn_implementation("sdpa")
with torch.inference_mode():
    wte = model.{tokens}(encoded)
    wpe = model.{positions}(torch.arange(encoded.shape[1])[None])
    in_ip = wte + wpe
    print(wte.shape, wpe.shape, in_ip.shape)
    print(in_ip)

    cosines = torch.nn.functional.cosine_similarity(in_ip[0][:, None], in_ip[0][None], dim=-1)

    for module in model.{blocks}:
        in_ip = module(in_ip)  # no [0], as in the notebook: a block gives a tensor now, no tuple{norm}
    last = model(encoded, output_hidden_states=True, use_cache=False).hidden_states[-1]
"""

_HOOKED_WALK = """
given = []  # what the model gives to each block: the hidden state, mask and positions
hooks = [
    block.register_forward_pre_hook(lambda module, args, kwargs: given.append((args, kwargs)), with_kwargs=True)
    for block in model.{blocks}
]
with torch.inference_mode():
    wte = model.{tokens}.weight[encoded]
    last = model(encoded, output_hidden_states=True, use_cache=False).hidden_states[-1]
    for hook in hooks:
        hook.remove()
    args, kwargs = given[0]
    in_ip = args[0] if args else kwargs["hidden_states"]
    print(wte.shape, in_ip.shape)
    print(in_ip)

    cosines = torch.nn.functional.cosine_similarity(wte[0][:, None], wte[0][None], dim=-1)

    for module, (args, kwargs) in zip(model.{blocks}, given):
        kwargs.pop("hidden_states", None)
        in_ip = module(in_ip, *args[1:], **kwargs)
        in_ip = in_ip[0] if isinstance(in_ip, tuple) else in_ip{norm}
"""

_TAIL = """\
    print("largest difference:", (in_ip - last).abs().max().item())

    table = model.get_input_embeddings().weight[: len(tokenizer)]
    similarity = torch.nn.functional.cosine_similarity(table, table[[{token_id}]], dim=-1)
    similarity[{token_id}] = -2  # not its own neighbour
    for cosine, token_id in zip(*similarity.topk({k})):
        print(f"{{cosine:.4f}}", int(token_id), repr(tokenizer.decode([int(token_id)])))

print(f"total_params : {{sum(parameter.numel() for parameter in model.parameters()):,}}")
"""
