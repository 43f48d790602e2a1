"""GPT-2's vocabulary, as it ships with the project."""

from pathlib import Path

from tokenizers import Tokenizer

VOCABULARY = 50257
END_OF_TEXT = 50256
TOKENIZER_FILE = Path(__file__).parent.parent / "gpt_core" / "bundled" / "tokenizer.json"


def load_tokenizer() -> Tokenizer:
    """GPT-2's tokenizer."""
    return Tokenizer.from_file(str(TOKENIZER_FILE))
