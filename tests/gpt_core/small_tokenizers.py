"""Small tokenizers of each kind that there is, made here, and the texts that are hard for them."""

import copy
import dataclasses
import json
from collections.abc import Callable

from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from gpt_core.model import LanguageModel

CORPUS = [
    "The cat sat on the mat, and the dog sat on the log. Hello hello world worlds!",
    "Byte pairs merge: low lower lowest, new newer newest, wide wider widest. 12 123 1234",
    "Déjà vu, naïve café, Straße, 日本語の文, Привет мир, שלום עולם, 👍🏽 👩‍👩‍👧",
] * 4

HARD_TEXTS = (
    "",
    " ",
    "   \n\n\t \r\n",
    "a",
    "The CS123 class was very intresting. I learned a lot.",
    "e\u0301 and \u00e9",  # NFD, NFC
    "👩‍👩‍👧‍👦🇩🇪🇫🇷👍🏽❤️‍🔥",
    "שלום \u202eabc\u202c عربي",
    "\x00\x01\x7f\x85\ufeff\u2028\u2029\u200b",
    "a" + "\u0301" * 500,
    "</script><script>alert(1)</script><!-- ]]>",
    "<img src=x onerror=alert(1)>",
    "![x](http://127.0.0.1:9/b.png) [a](javascript:0) $x$ :red[hi] `b`",
    "=1+1 @SUM -2+3 +4",
    "a<|endoftext|>b",
    "<|im_start|>user\nhi<|im_end|>",
    "日本語",
    "\U0001f468\U0001f3ff\u200d\U0001f9b0",
    "▁a ▁▁b<0x41>",
    "\ud800a\udfff",
    "<s></s><unk> [UNK]",
    "ffi ﬁ ① Å",
    "\r\n\r\n",
    "各\U000e0100 ᄀ\u1161\u11a8",
)

#: Any text, lone surrogates too, with what breaks pages and tokenizers mixed in.
ANY_TEXT = st.lists(
    st.text(st.characters(), max_size=6) | st.sampled_from([text for text in HARD_TEXTS if len(text) < 60]),
    max_size=5,
).map("".join)


def with_tokenizer(lm: LanguageModel, backend: Tokenizer) -> LanguageModel:
    """`lm` with another tokenizer; its network is not used here."""
    plain = copy.deepcopy(backend)
    plain.encode_special_tokens = True
    return dataclasses.replace(
        lm, tokenizer=PreTrainedTokenizerFast(tokenizer_object=backend), plain_tokenizer=plain
    )


def _train(
    tokenizer: Tokenizer, *, size: int = 400, alphabet: list[str] | None = None, **options: object
) -> None:
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet or [], show_progress=False, **options
    )
    tokenizer.train_from_iterator(CORPUS, trainer)


def _edit_model(tokenizer: Tokenizer, **changes: object) -> Tokenizer:
    state = json.loads(tokenizer.to_str())
    state["model"] |= changes
    return Tokenizer.from_str(json.dumps(state))


def _with_template(tokenizer: Tokenizer, start: str) -> Tokenizer:
    tokenizer.add_special_tokens([start])
    token_id = tokenizer.token_to_id(start)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, token_id)]
    )
    return tokenizer


def byte_level() -> Tokenizer:
    """As Llama 3: own pattern, whole words straight from the vocabulary, a start token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}{1,3}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    _train(tokenizer, alphabet=pre_tokenizers.ByteLevel.alphabet())
    return _with_template(_edit_model(tokenizer, ignore_merges=True), "<|begin_of_text|>")


def byte_level_nfc() -> Tokenizer:
    """As Qwen: canonical composition first."""
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    return tokenizer


def byte_level_prefixed() -> Tokenizer:
    """As RoBERTa: a space is put in front."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    _train(tokenizer, alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def _with_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """The same with a token for each single byte, and unknown stretches as one."""
    vocabulary = json.loads(tokenizer.to_str())["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    return _edit_model(tokenizer, vocab=vocabulary, byte_fallback=True, fuse_unk=True, unk_token="<unk>")


def marked() -> Tokenizer:
    """As Llama 2: ▁ for a space, one put in front, single bytes as a fallback, no cutting into words."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    _train(tokenizer, special_tokens=["<unk>", "</s>"])
    return _with_template(_with_bytes(tokenizer), "<s>")


def marked_first() -> Tokenizer:
    """As Mistral: ▁ put in front of the first word only, by the step that cuts."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    _train(tokenizer, special_tokens=["<unk>"])
    return _with_template(_with_bytes(tokenizer), "<s>")


def marked_bare() -> Tokenizer:
    """As Gemma: ▁ for a space, nothing in front, runs of ▁ and newlines among the added tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    _train(tokenizer, special_tokens=["<unk>"])
    tokenizer = _with_bytes(tokenizer)
    vocabulary = json.loads(tokenizer.to_str())["model"]
    # Two marks are one token of the vocabulary, reached by a merge, and an added token as well.
    tokenizer = _edit_model(
        tokenizer,
        vocab=vocabulary["vocab"] | {"▁▁": len(vocabulary["vocab"])},
        merges=[["▁", "▁"], *vocabulary["merges"]],
    )
    tokenizer.add_tokens([AddedToken("▁▁", normalized=False), AddedToken("\n\n", normalized=False)])
    return tokenizer


def unigram() -> Tokenizer:
    """As T5 and XLNet: likelihoods instead of merges, compatibility forms first, no fallback."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS[:2] * 4, trainer)
    return tokenizer


def wordpiece() -> Tokenizer:
    """As BERT: lower case, continuations marked by ##, spaces not kept."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def word_ends() -> Tokenizer:
    """As GPT-1: lower case, the end of a word marked by </w>, spaces not kept."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder()
    _train(tokenizer, special_tokens=["<unk>"], end_of_word_suffix="</w>")
    return tokenizer


def continuations() -> Tokenizer:
    """Byte pairs with continuations marked by ##."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    _train(tokenizer, special_tokens=["<unk>"], continuing_subword_prefix="##")
    return tokenizer


BYTE_PAIR_KINDS: dict[str, Callable[[], Tokenizer]] = {
    function.__name__: function
    for function in (
        byte_level,
        byte_level_nfc,
        byte_level_prefixed,
        marked,
        marked_first,
        marked_bare,
        word_ends,
        continuations,
    )
}
KINDS: dict[str, Callable[[], Tokenizer]] = {**BYTE_PAIR_KINDS, "unigram": unigram, "wordpiece": wordpiece}
