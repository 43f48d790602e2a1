"""Bytes, as readers see them."""


def size_text(n_bytes: float) -> str:
    """`900 bytes`, `12.5 kB`, `1.0 MB`, `551 MB`, `1.5 GB`, in powers of ten."""
    if n_bytes < 1000:
        return f"{n_bytes:.0f} bytes"
    if n_bytes < 100_000:
        return f"{n_bytes / 1e3:,.1f} kB"
    if n_bytes < 1e9:
        return f"{n_bytes / 1e6:,.{1 if n_bytes < 10e6 else 0}f} MB"
    return f"{n_bytes / 1e9:,.1f} GB"
