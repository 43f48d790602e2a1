"""Code for the Attention page."""

from collections.abc import Sequence


def attention_snippet(
    model: str,
    text: str,
    *,
    layer: int,
    head: int,
    special_tokens: bool = True,
    token_ids: Sequence[int] | None = None,
) -> str:
    """A program of plain transformers that prints the map of one head, rounded to 3 decimals as in the notebook.

    `model` is what `from_pretrained` takes; without `special_tokens`, names of special tokens in the text are plain
    text. `token_ids`: the text and how the model continued it, as ids, because decoded and read again it may be other
    tokens; None where there is only the text.
    """
    plain = "" if special_tokens else ", split_special_tokens=True"
    read = f'inputs = tokenizer({text!r}, return_tensors="pt"{plain})'
    if token_ids is not None:
        written = f"torch.tensor([{list(token_ids)}])"
        read = f'# The prompt and what the model wrote after it.\ninputs = {{"input_ids": {written}}}'
    return f"""\
import pandas as pd
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({model!r})
# Without "eager" today's transformers returns no attention maps, and says nothing about it.
model = AutoModelForCausalLM.from_pretrained({model!r}, dtype=torch.float32, attn_implementation="eager").eval()

{read}
with torch.inference_mode():
    output = model(**inputs, output_attentions=True)

tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
attention = output.attentions[{layer}][0][{head}]  # layer {layer}, head {head}, both counted from 0
print(pd.DataFrame(attention.numpy().round(3), index=tokens, columns=tokens))
"""
