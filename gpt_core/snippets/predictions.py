"""Code for the Predictions page."""

from gpt_core.decoding import SamplingSettings

#: transformers' class for each stage that it has, and how its argument is written.
_CLASSES = {
    "logit_bias": "SequenceBiasLogitsProcessor",
    "repetition_penalty": "RepetitionPenaltyLogitsProcessor",
    "no_repeat_ngram": "NoRepeatNGramLogitsProcessor",
    "temperature": "TemperatureLogitsWarper",
    "top_k": "TopKLogitsWarper",
    "top_p": "TopPLogitsWarper",
    "min_p": "MinPLogitsWarper",
    "typical_p": "TypicalLogitsWarper",
}


def predictions_snippet(
    model: str,
    text: str,
    *,
    position: int,
    k: int,
    special_tokens: bool = True,
    settings: SamplingSettings | None = None,
) -> str:
    """A program of plain transformers that prints the most probable next tokens after one position, before and after
    the stages of `settings`, and the notebook's table of every position. `model` is what `from_pretrained` takes;
    without `special_tokens`, names of special tokens in the text are plain text.
    """
    settings = settings or SamplingSettings()
    plain = "" if special_tokens else ", split_special_tokens=True"
    stages = [stage for stage in settings.run_order if settings.is_active(stage)]
    classes = sorted(
        {_CLASSES[stage] for stage in stages if stage in _CLASSES and not _keeps_largest(settings, stage)}
    )
    imports = f"from transformers import AutoModelForCausalLM, AutoTokenizer{''.join(', ' + name for name in classes)}"
    lines = [line for stage in stages for line in _stage_lines(settings, stage)]
    return f"""\
import pandas as pd
import torch
{imports}

tokenizer = AutoTokenizer.from_pretrained({model!r})
model = AutoModelForCausalLM.from_pretrained({model!r}, dtype=torch.float32).eval()

inputs = tokenizer({text!r}, return_tensors="pt"{plain})
with torch.inference_mode():
    logits = model(**inputs).logits[0]

# The text so far, and the logits of what comes next, through each stage in its order.
context, scores = inputs["input_ids"][:, :{position + 1}], logits[[{position}]]
{"".join(line + chr(10) for line in lines)}
probs = logits[{position}].softmax(dim=-1, dtype=torch.float64)
drawn_from = scores[0].softmax(dim=-1, dtype=torch.float64)
for prob, token_id in zip(*probs.topk({k})):
    print(f"{{prob:.5f}}", f"{{drawn_from[token_id]:.5f}}", int(token_id), repr(tokenizer.decode([int(token_id)])))

tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
best = tokenizer.convert_ids_to_tokens(logits.argmax(dim=-1))
print(pd.DataFrame(zip(tokens, best), columns=["Sequence given", "Next token with highest prob"]))
"""


def _keeps_largest(settings: SamplingSettings, stage: str) -> bool:
    return stage == "temperature" and settings.greedy


def _stage_lines(settings: SamplingSettings, stage: str) -> list[str]:
    """The code of one stage."""
    if _keeps_largest(settings, stage):
        return [
            'scores = torch.full_like(scores, -float("inf")).scatter(1, scores.argmax(dim=-1, keepdim=True), 0.0)'
        ]
    if stage == "presence_penalty":
        return [
            (
                f"scores = scores - {settings.presence_penalty!r} * "
                "(torch.bincount(context[0], minlength=scores.shape[-1]) > 0)"
            )
        ]
    if stage == "frequency_penalty":
        return [
            (
                f"scores = scores - {settings.frequency_penalty!r} * "
                "torch.bincount(context[0], minlength=scores.shape[-1])"
            )
        ]
    value = (
        repr({(token_id,): bias for token_id, bias in settings.logit_bias})
        if stage == "logit_bias"
        else repr(getattr(settings, stage))
    )
    return [f"scores = {_CLASSES[stage]}({value})(context, scores)"]
