"""A stand-in for the Hugging Face hub on this machine: its API and its files, and everything that goes wrong with it.

Answers as huggingface.co does where `gpt_core.hub` asks: /api/models/NAME[/revision/COMMIT]?blobs=true and
/NAME/resolve/COMMIT/FILE with ranges.
"""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
PORTAL = b"<html><body>Welcome! Please sign in to the network.</body></html>"


@dataclass
class Repository:
    """A model on the stand-in, and how it misbehaves."""

    files: dict[str, bytes]
    commit: str = COMMIT
    name: str = ""
    """What it is called now, where that is not what was asked for."""
    licence: str = "mit"
    status: int = 200
    """Answered to every request."""
    headers: dict[str, str] = field(default_factory=dict)
    file_status: int = 200
    """Answered to requests for weights."""
    portal: str = ""
    """`api` or `files`: a sign-in page comes instead, with status 200."""
    wrong: bool = False
    """The weights that come are not those of the hash."""
    bytes_per_second: float = 0.0
    """How fast the weights come; 0 for at once."""
    cut: int = 0
    """After so many bytes of the weights the connection breaks, each time."""
    stalls: bool = False
    """Nothing of the weights comes after the first thousand bytes."""
    parameters: int = 0
    """As the hub counts them; 0 where it does not say."""
    gated: bool = False
    """Everybody may see it, and nobody may have its files; the answer that refuses one does not say why."""
    endless: bool = False
    """Every answer leads elsewhere."""

    @property
    def whole(self) -> int:
        """Bytes of the weights."""
        return len(self.files["model.safetensors"])


@dataclass
class HubStandIn:
    """A running stand-in."""

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    datasets: set[str] = field(default_factory=set)
    """Names of its datasets."""
    requests: list[str] = field(default_factory=list)
    """Paths that were asked for, weights with their range."""

    def weights_sent(self) -> list[str]:
        """The requests for weights."""
        return [path for path in self.requests if ".safetensors" in path and "index" not in path]


def read_model(folder: Path) -> dict[str, bytes]:
    """The files of a folder that `save_pretrained` wrote."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def git_digest(content: bytes) -> str:
    """git's name of a blob, by git's own formula."""
    return hashlib.sha1(b"blob " + str(len(content)).encode() + b"\0" + content).hexdigest()


def _describe(name: str, repository: Repository) -> dict[str, Any]:
    siblings = []
    for file, content in repository.files.items():
        entry: dict[str, Any] = {"rfilename": file, "size": len(content), "blobId": git_digest(content)}
        if file.endswith((".safetensors", ".bin")):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
        siblings.append(entry)
    told = {"id": repository.name or name, "sha": repository.commit, "siblings": siblings, "tags": []}
    told["gated"] = "manual" if repository.gated else False
    told["cardData"] = {"license": repository.licence}
    if repository.parameters:
        told["safetensors"] = {"parameters": {"F32": repository.parameters}, "total": repository.parameters}
    return told


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubStandIn

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        wanted = self.headers.get("Range", "")
        self.hub.requests.append(f"{path} {wanted}".strip())
        is_api = path.startswith("/api/models/")
        rest = path.removeprefix("/api/models/") if is_api else path.removeprefix("/")
        name, _, tail = rest.partition("/revision/" if is_api else "/resolve/")
        repository = self.hub.repositories.get(name)
        if path.removeprefix("/api/datasets/") in self.hub.datasets:
            told = {"id": path.removeprefix("/api/datasets/"), "sha": COMMIT, "siblings": [], "tags": []}
            self.answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})
        elif repository is None:
            # What the hub says of a repository that it does not have, or does not show.
            self.answer(401, b"{}", {"X-Error-Code": "RepoNotFound"} if is_api else {})
        elif repository.endless:
            self.answer(307, b"", {"Location": self.path})
        elif repository.status != 200:
            self.answer(repository.status, b"{}", repository.headers)
        elif is_api and repository.portal == "api":
            self.answer(200, PORTAL, {"Content-Type": "text/html"})
        elif is_api and tail and tail != repository.commit:
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif is_api:
            self.answer(
                200, json.dumps(_describe(name, repository)).encode(), {"Content-Type": "application/json"}
            )
        else:
            self.answer_file(repository, tail.partition("/")[2], wanted)

    def answer_file(self, repository: Repository, file: str, wanted: str) -> None:
        content = repository.files.get(file)
        is_weight = file.endswith(".safetensors")
        if content is None:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif repository.gated:
            self.answer(403, b"", {})
        elif repository.portal == "files":
            self.answer(200, PORTAL, {"Content-Type": "text/html"})
        elif is_weight and repository.file_status != 200:
            self.answer(repository.file_status, b"", repository.headers)
        else:
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            if is_weight and repository.wrong:
                content = content[:-1] + bytes([content[-1] ^ 1])
            self.answer(206 if wanted else 200, content[start:], {}, repository if is_weight else None)

    def answer(
        self, status: int, content: bytes, headers: dict[str, str], quirks: Repository | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        try:
            self.send_body(content, quirks)
        except OSError:
            self.close_connection = True  # the reader went away

    def send_body(self, content: bytes, quirks: Repository | None) -> None:
        if quirks is not None and quirks.cut:
            self.wfile.write(content[: quirks.cut])
            self.close_connection = len(content) > quirks.cut
        elif quirks is not None and quirks.stalls:
            if len(content) == quirks.whole:
                self.wfile.write(content[:1000])
                self.wfile.flush()
            time.sleep(5)
            self.close_connection = True
        elif quirks is not None and quirks.bytes_per_second:
            step = max(1, int(quirks.bytes_per_second / 20))
            for start in range(0, len(content), step):
                self.wfile.write(content[start : start + step])
                self.wfile.flush()
                time.sleep(0.05)
        else:
            self.wfile.write(content)


@contextmanager
def run_hub() -> Iterator[HubStandIn]:
    """A stand-in on a free port of this machine."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    handler.hub = hub = HubStandIn(url=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
