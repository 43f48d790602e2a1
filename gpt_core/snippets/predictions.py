"""Code for the Predictions page."""


def predictions_snippet(model: str, text: str, *, position: int, k: int, special_tokens: bool = True) -> str:
    """A program of plain transformers that prints the most probable next tokens after one position, and the
    notebook's table of every position. `model` is what `from_pretrained` takes; without
    `special_tokens`, names of special tokens in the text are plain text.
    """
    plain = "" if special_tokens else ", split_special_tokens=True"
    return f"""\
import pandas as pd
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({model!r})
model = AutoModelForCausalLM.from_pretrained({model!r}, dtype=torch.float32).eval()

inputs = tokenizer({text!r}, return_tensors="pt"{plain})
with torch.inference_mode():
    logits = model(**inputs).logits[0]

probs = logits[{position}].softmax(dim=-1, dtype=torch.float64)
for prob, token_id in zip(*probs.topk({k})):
    print(f"{{prob:.5f}}", int(token_id), repr(tokenizer.decode([int(token_id)])))

tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
best = tokenizer.convert_ids_to_tokens(logits.argmax(dim=-1))
print(pd.DataFrame(zip(tokens, best), columns=["Sequence given", "Next token with highest prob"]))
"""
