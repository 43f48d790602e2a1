"""Plain, typed answers to questions about a causal language model and a text.

Knows nothing of web pages. Start with `load_model`, `tokenize_text` and `trace_text`.
"""
