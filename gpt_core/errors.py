"""What can go wrong, as a closed set. A message of these is shown to the reader as it is.

GptCoreError
├── InputError            a value that a reader gave is outside what is possible
│   └── ContextLengthError    more tokens than the model has positions
├── ModelLoadError        a model cannot be loaded
│   └── DamagedError          its files are not those that were published
├── DownloadError         a model cannot be brought to this machine
├── UnsupportedError      this model cannot serve this view exactly
├── MemoryLimitError      the work would need more memory than it may have
├── CancelledError        the reader stopped the work
│   └── AbandonedError        whoever asked for it has gone
└── DeadlineError         the work took longer than it may
"""


class GptCoreError(Exception):
    """Its message is shown to the reader: it names the limit, the value, and what to do instead."""


class InputError(GptCoreError):
    """A value outside the possible range."""


class ContextLengthError(InputError):
    """A text with more tokens than the model's context length."""


class ModelLoadError(GptCoreError):
    """A model that cannot be loaded, with the reason."""


class DamagedError(ModelLoadError):
    """A model whose files are not those that were published."""


class DownloadError(GptCoreError):
    """A model that cannot be brought to this machine, with the reason."""


class UnsupportedError(GptCoreError):
    """A view that this model cannot serve exactly."""


class MemoryLimitError(GptCoreError):
    """Work that would need more memory than it may have."""


class CancelledError(GptCoreError):
    """Work that was stopped on request."""


class AbandonedError(CancelledError):
    """Work that nobody waits for any more: whoever asked for it has gone."""


class DeadlineError(GptCoreError):
    """Work that passed its deadline."""
