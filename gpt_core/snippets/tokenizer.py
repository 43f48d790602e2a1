"""Code for the Tokenizer page."""


def tokenizer_snippet(model: str, text: str, *, word: str, special_tokens: bool) -> str:
    """A program of plain transformers that prints the ids, vocabulary strings and decoded text of `text`, and whether
    `word` is a token.

    `model` is what `from_pretrained` takes; `special_tokens` as in `tokenizer.tokenize_text`.
    """
    plain = "" if special_tokens else ", split_special_tokens=True"
    return f"""\
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({model!r})
text = {text!r}

ids = tokenizer(text{plain})["input_ids"]
print(ids)
print(tokenizer.convert_ids_to_tokens(ids))
print(repr(tokenizer.decode(ids)))
print({word!r} in tokenizer.get_vocab())
"""
