"""Plain, typed answers to questions about a causal language model and a text.

Knows nothing of web pages. Start with `load_model`, `tokenize_text` and `trace_text`.
"""

import os

# Before torch's first tensor: weights on large pages (Linux, where the system allows it) are read up to a tenth faster.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
