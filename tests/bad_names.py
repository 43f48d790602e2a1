"""What people type where a model's name or folder is asked for, and what is none."""

#: No model is called so, anywhere: paths, other systems' paths, too many parts, too long, with a NUL.
NO_MODEL_NAMES = (
    "../../etc/passwd",
    "/etc",
    "C:\\x",
    "\\\\host\\s",
    "~/.ssh",
    "a/b/c",
    "x--y",
    "x" * 200,
    "a\0b",
)
