"""Code for the Attention page."""


def attention_snippet(model: str, text: str, *, layer: int, head: int, special_tokens: bool = True) -> str:
    """A program of plain transformers that prints the map of one head, rounded to 3 decimals as in the notebook.

    `model` is what `from_pretrained` takes; without
    `special_tokens`, names of special tokens in the text are plain text.
    """
    plain = "" if special_tokens else ", split_special_tokens=True"
    return f"""\
import pandas as pd
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({model!r})
# Without "eager" today's transformers returns no attention maps, and says nothing about it.
model = AutoModelForCausalLM.from_pretrained({model!r}, dtype=torch.float32, attn_implementation="eager").eval()

inputs = tokenizer({text!r}, return_tensors="pt"{plain})
with torch.inference_mode():
    output = model(**inputs, output_attentions=True)

tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
attention = output.attentions[{layer}][0][{head}]  # layer {layer}, head {head}, both counted from 0
print(pd.DataFrame(attention.numpy().round(3), index=tokens, columns=tokens))
"""
