"""A conversation with the Hugging Face hub that can be stopped at any moment and whose failures are sentences."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import httpx2
from filelock import Timeout
from huggingface_hub import hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

from gpt_core.control import Control
from gpt_core.errors import DownloadError, GptCoreError, InputError

#: Seconds without a byte after which a connection counts as broken.
STALL_SECONDS = 15.0

T = TypeVar("T")


def endpoint() -> str | None:
    """The hub's address as HF_ENDPOINT names it now; None for huggingface_hub's own."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


@contextlib.contextmanager
def open_file(name: str, commit: str, file: str, offset: int) -> Iterator[httpx2.Response]:
    """The answer with a file's bytes from `offset` on; raises what huggingface_hub raises where there are none."""
    headers = (
        build_hf_headers()
        | ({"Range": f"bytes={offset}-"} if offset else {})
        | {"Accept-Encoding": "identity"}
    )
    timeout = httpx2.Timeout(STALL_SECONDS)
    url = hf_hub_url(name, file, revision=commit, endpoint=endpoint())
    with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        yield response


class BrokenError(DownloadError):
    """A connection that may be tried again."""


def run_beside(
    work: Callable[[threading.Event], T],
    control: Control,
    name: str,
    watch: Callable[[], None] = lambda: None,
) -> T:
    """The result of `work`, done in a thread of its own, so that a silent network does not keep us from stopping.

    `work` gets an event that says that nobody waits any more.
    """
    stop, over = threading.Event(), threading.Event()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work(stop))
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            errors.append(error)
        finally:
            over.set()

    threading.Thread(target=run, name="gpt_core-hub", daemon=True).start()
    try:
        while not over.wait(0.1):
            control.check()
            watch()
    except BaseException:
        stop.set()
        over.wait(1.0)
        raise
    if errors:
        sentence = _sentence(errors[0], name)
        if sentence is errors[0]:
            raise sentence
        raise sentence from errors[0]
    watch()
    return results[0]


def _sentence(error: BaseException, name: str) -> BaseException:
    """The error of the closed set that says what went wrong between here and the hub."""
    kept = "The models on this machine go on working."
    if isinstance(error, Timeout):
        return DownloadError(
            f"Another program is fetching {name} now. Wait until it is done, then try again."
        )
    if isinstance(error, (GptCoreError, OSError)) and not isinstance(
        error, (HfHubHTTPError, OfflineModeIsEnabled, ConnectionError)
    ):
        return error
    if isinstance(error, OfflineModeIsEnabled):
        return DownloadError(
            f"HF_HUB_OFFLINE is set, so nothing is fetched from the hub. Start without it to fetch {name}. {kept}"
        )
    if isinstance(error, GatedRepoError):
        return gated_sentence(name)
    if isinstance(error, RevisionNotFoundError):
        return InputError(f"{name} has no such revision any more. Fetch its newest one by its name alone.")
    if isinstance(error, RepositoryNotFoundError):
        return InputError(
            f"The hub has no model called {name}, or it is private. Check the name; for a private model run "
            "`hf auth login`, or set HF_TOKEN before the start."
        )
    if isinstance(error, HFValidationError):
        return InputError(f"{name} is no name of a model on the hub.")
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status == 401:
            return DownloadError(
                f"The hub does not accept the token that is set here (401) for {name}. Run `hf auth login` again, or "
                "set HF_TOKEN to a valid one."
            )
        if status == 403:
            return DownloadError(
                f"The hub refuses {name} to this account (403). A token with the right to read it is needed: run "
                "`hf auth login`, or set HF_TOKEN."
            )
        if status == 404:
            return InputError(f"The hub does not have {name}, or not this file of it. Check the name.")
        if status == 429:
            wait = error.response.headers.get("Retry-After", "")
            when = f"Try again in {wait} s." if wait.isdigit() else "Try again in a few minutes."
            return DownloadError(f"The hub takes no more requests from here for now (429). {when} {kept}")
        return DownloadError(f"The hub cannot answer now ({status}). Try again later. {kept}")
    if isinstance(error, httpx2.TooManyRedirects):
        return DownloadError(
            f"The hub's answers about {name} lead round in a circle. Check HF_ENDPOINT. {kept}"
        )
    if isinstance(error, (httpx2.TransportError, ConnectionError)):
        text = str(error) or type(error).__name__
        if "CERTIFICATE" in text.upper() or "SSL" in text.upper():
            return DownloadError(
                f"The hub's certificate cannot be checked ({text[:120]}). A proxy may stand between: name its "
                f"certificates in SSL_CERT_FILE. {kept}"
            )
        if isinstance(error, httpx2.ConnectError):
            return DownloadError(f"The hub cannot be reached ({text[:120]}). Check the connection. {kept}")
        return BrokenError(f"The hub does not answer ({text[:120]}). Try again later. {kept}")
    if isinstance(error, (ValueError, TypeError, KeyError, AttributeError)):
        return not_the_hub(name)
    return error


def gated_sentence(name: str) -> DownloadError:
    """What to say of a model whose owners want to know who takes it."""
    return DownloadError(
        f"{name} is gated: its owners ask you to accept their terms on its page first. Do so, then give a token of "
        "your account: run `hf auth login`, or set HF_TOKEN before the start."
    )


def not_the_hub(name: str) -> DownloadError:
    """What to say where somebody else answered."""
    return DownloadError(
        f"What answered about {name} is not the hub: its answer is not what was asked for. A network that wants you "
        "to sign in first answers like this: open any page in the browser, then try again."
    )
