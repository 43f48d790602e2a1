"""A Llama-style model in a GGUF file, written as a folder that transformers loads: safetensors in float32.

Read only from a file whose digest is known: the gguf package trusts what it reads. Names of tensors and fields are
those of llama.cpp (github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpt_core.errors import DownloadError

#: llama.cpp's names within a block, and transformers'.
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
#: Kinds of token in `tokenizer.ggml.token_type` that no text is cut into by itself: control, user-defined.
_CONTROL, _USER_DEFINED = 3, 4


def write_safetensors(gguf: Path, folder: Path, *, report: Callable[[float, str], None]) -> None:
    """Write `gguf` into `folder`: config.json, model.safetensors (float32), tokenizer files.

    `report` hears the share done (0..1). Raises DownloadError where the file is no Llama-style model.
    """
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from safetensors.numpy import save_file

    report(0.0, "Reading the GGUF file")
    reader = GGUFReader(gguf)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    if fields.get("general.architecture") != "llama" or fields.get("tokenizer.ggml.model") != "gpt2":
        raise DownloadError("The file holds no Llama-style model with a byte-level tokenizer.")
    n_heads = int(fields["llama.attention.head_count"])
    n_kv_heads = int(fields.get("llama.attention.head_count_kv", n_heads))
    weights = {}
    for done, tensor in enumerate(reader.tensors):
        report(0.1 + 0.6 * done / len(reader.tensors), "Opening the 4-bit weights")
        values = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        values = values.reshape(tuple(int(n) for n in reversed(tensor.shape)))
        name = _name(tensor.name)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            values = _unpermute(values, n_heads if name.endswith("q_proj.weight") else n_kv_heads)
        weights[name] = np.ascontiguousarray(values)
    folder.mkdir()
    report(0.75, "Writing the weights")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = _config(fields, n_heads, n_kv_heads, tied="lm_head.weight" not in weights)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    report(0.9, "Writing the tokenizer")
    _write_tokenizer(fields, folder)
    report(1.0, "")


def _name(name: str) -> str:
    """transformers' name of a tensor that llama.cpp calls `name`."""
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    prefix, _, rest = name.partition(".")
    layer, _, part = rest.partition(".")
    stem, _, kind = part.rpartition(".")
    if prefix != "blk" or not layer.isdigit() or stem not in _BLOCK:
        raise DownloadError(f"The file holds a tensor {name[:80]!r} that a Llama-style model does not have.")
    return f"model.layers.{layer}.{_BLOCK[stem]}.{kind}"


def _unpermute(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of q or k `(n_heads * d_head, d_model)` from llama.cpp's order, in which the two halves that rotate
    together are neighbours, back to transformers' (llama.cpp, convert_hf_to_gguf.py, `permute`)."""
    half = weight.shape[0] // n_heads // 2
    return weight.reshape(n_heads, half, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def _config(fields: dict[str, Any], n_heads: int, n_kv_heads: int, *, tied: bool) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": int(fields["llama.embedding_length"]),
        "intermediate_size": int(fields["llama.feed_forward_length"]),
        "num_hidden_layers": int(fields["llama.block_count"]),
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": int(fields["llama.context_length"]),
        "rms_norm_eps": float(fields["llama.attention.layer_norm_rms_epsilon"]),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(fields["llama.rope.freq_base"])},
        "tie_word_embeddings": tied,
        "bos_token_id": int(fields["tokenizer.ggml.bos_token_id"]),
        "eos_token_id": int(fields["tokenizer.ggml.eos_token_id"]),
        "pad_token_id": int(fields["tokenizer.ggml.padding_token_id"]),
    }


def _write_tokenizer(fields: dict[str, Any], folder: Path) -> None:
    """Byte-level BPE that cuts digits apart first, as `tokenizer.ggml.pre` = smollm means (llama.cpp,
    src/llama-vocab.cpp)."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    if fields.get("tokenizer.ggml.pre") != "smollm":
        raise DownloadError(
            f"The tokenizer kind {str(fields.get('tokenizer.ggml.pre'))[:40]!r} is not known here."
        )
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    for kind, special in ((_CONTROL, True), (_USER_DEFINED, False)):
        named = [token for token, k in zip(tokens, kinds, strict=True) if int(k) == kind]
        added = [AddedToken(token, special=special, normalized=False) for token in named]
        tokenizer.add_special_tokens(added) if special else tokenizer.add_tokens(added)
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=tokens[int(fields["tokenizer.ggml.bos_token_id"])],
        eos_token=tokens[int(fields["tokenizer.ggml.eos_token_id"])],
        unk_token=tokens[int(fields["tokenizer.ggml.unknown_token_id"])],
        pad_token=tokens[int(fields["tokenizer.ggml.padding_token_id"])],
        model_max_length=int(fields["llama.context_length"]),
        chat_template=fields["tokenizer.chat_template"],
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)
