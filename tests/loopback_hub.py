"""A hub on the loopback address: serves a folder as one repository, with ranges, tokens and broken connections."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import huggingface_hub.constants
import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ACCEPTED, NOT_ACCEPTED = "hf_accepted", "hf_not_accepted"


class LoopbackHub(ThreadingHTTPServer):
    """Serves ``folder`` as one repository: to anybody, or, as it does a data set, to the token :data:`ACCEPTED`.

    Args:
        folder: the files.
        repository: where the hub has it.
        gated: whether it asks for the token.

    ``cut_after``: once, after so many bytes of a file, the connection breaks. ``refuse_after``: so many files are
    given, further ones refused. ``gets`` holds path and Range header of every GET, ``made`` what was asked to be made,
    ``revisions`` those of which files were asked for.
    """

    def __init__(self, folder: Path, repository: str = "datasets/MahmoodLab/hest", gated: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.repository, self.gated = folder, repository, gated
        self.cut_after: int | None = None
        self.refuse_after: int | None = None
        self.gets: list[tuple[str, str | None]] = []
        self.made: list[dict[str, object]] = []
        self.revisions: list[str] = []

    @property
    def url(self) -> str:
        """What HF_ENDPOINT has to be."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(server: LoopbackHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """The library asks ``server`` alone, with an empty ``cache`` and no token but that of ``HF_TOKEN``."""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # HF_ENDPOINT is read when the library is imported, long before a test.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the library's own attempts
    yield server
    server.shutdown()
    server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_POST(self) -> None:
        """What a push asks for: leave, how files are to come (all in the commit itself), and the commit."""
        asked = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        if self.headers.get("Authorization") != f"Bearer {ACCEPTED}":
            return self._refuse(401, {})
        if self.path.endswith("/preupload/main"):
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(asked)["files"]]
            return self._reply({"files": [file | {"shouldIgnore": False} for file in files]})
        if self.path.endswith("/commit/main"):
            rows = [json.loads(line) for line in asked.splitlines()]
            for file in (row["value"] for row in rows if row["key"] == "file"):
                (self.server.folder / file["path"]).write_bytes(base64.b64decode(file["content"]))
            page = f"{self.server.url}/{self.server.repository}"
            return self._reply({"commitOid": COMMIT, "commitUrl": f"{page}/commit/{COMMIT}"})
        if self.path == "/api/repos/create":
            self.server.made.append(json.loads(asked))
        return self._reply({"url": f"{self.server.url}/{self.server.repository}", "warnings": [], "errors": []})

    def _reply(self, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _answer(self, with_body: bool) -> None:
        match = re.fullmatch(rf"/{self.server.repository}/resolve/(main|{COMMIT})/(.+)", unquote(self.path))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if self.server.gated and token != ACCEPTED:
            gated = {"X-Error-Code": "GatedRepo"} if token in ("", NOT_ACCEPTED) else {}
            wrong = {} if gated else {"X-Error-Message": "Invalid credentials in Authorization header"}
            return self._refuse(403 if token == NOT_ACCEPTED else 401, gated | wrong)
        if match is None or not (self.server.folder / match[2]).is_file():
            return self._refuse(404, {"X-Error-Code": "EntryNotFound"})
        if with_body and len(self.server.gets) == self.server.refuse_after:
            return self._refuse(403, {})
        self.server.revisions.append(match[1])
        content = (self.server.folder / match[2]).read_bytes()
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.server.gets.append((match[2], asked))
            self._send(content[start:])

    def _send(self, content: bytes) -> None:
        cut = self.server.cut_after
        if cut is None or cut >= len(content):
            self.wfile.write(content)
            return
        self.wfile.write(content[:cut])
        self.server.cut_after = None
        self.close_connection = True

    def _refuse(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()
