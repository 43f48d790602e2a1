"""What a first reader would wait for, begun beforehand: the imports of the model stack, and the default model."""

import contextlib
import functools
import threading

_stack_lock = threading.Lock()


def import_stack() -> None:
    """Import torch and transformers, in one thread at a time: transformers' lazy modules do not survive two."""
    with _stack_lock:
        import gpt_core.trace  # noqa: F401


@functools.cache
def start_warmup() -> threading.Thread:
    """Begin once per process, in the background; the first reader's own request joins what runs already."""
    thread = threading.Thread(target=_warm_up, name="gpt_core-warmup", daemon=True)
    thread.start()
    return thread


def _warm_up() -> None:
    import_stack()
    from gpt_core.catalog import default_model_id
    from gpt_core.engine import shared_engine
    from gpt_core.errors import GptCoreError
    from gpt_core.tasks import LoadTask

    with contextlib.suppress(GptCoreError):  # whoever asks for the model is told why
        shared_engine().submit(LoadTask(model=default_model_id()), session="warmup")
