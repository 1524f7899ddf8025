"""A server on the loopback interface that speaks what downloads use of the Hugging Face hub's protocol.

``/datasets/<repo>/resolve/<revision>/<path>`` answers with the metadata headers and a redirect to the
content on another host (localhost, not 127.0.0.1), as the hub does for large files; the content honours
Range. Any other path serves that file.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class HubServer(ThreadingHTTPServer):
    """Serves ``files`` (path -> bytes). ``requests`` records (method, path, Range header or None), ``tokens``
    the Authorization headers beside them.

    ``cuts`` holds one number per coming answer of content: the connection closes after that many bytes;
    when ``cuts`` is used up, answers are whole. ``status`` is the answer to every request when it is set.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.tokens: list[str | None] = []
        self.cuts: list[int] = []
        self.status: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, repo: str, revision: str, path: str, content: bytes) -> None:
        self.files[f"/datasets/{repo}/resolve/{revision}/{path}"] = content

    def content_requests(self) -> list[str | None]:
        """The Range headers of all GET requests that reached content, in order."""
        return [span for method, path, span in self.requests if method == "GET" and path[:10] != "/datasets/"]


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        span = self.headers.get("Range")
        self.server.requests.append((self.command, self.path, span))
        self.server.tokens.append(self.headers.get("Authorization"))
        content = self.server.files.get(self.path.removeprefix("/content"))
        if self.server.status is not None:
            self._head(self.server.status)
        elif content is None:
            self._head(404, {"X-Error-Code": "EntryNotFound"})
        elif self.path.startswith("/datasets/"):
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            revision = self.path.split("/resolve/")[1].split("/")[0]
            self._head(
                302,
                {
                    "Location": f"http://localhost:{self.server.server_port}/content{self.path}",
                    "ETag": etag,
                    "X-Linked-ETag": etag,
                    "X-Linked-Size": str(len(content)),
                    "X-Repo-Commit": revision,
                },
            )
        else:
            self._send(content, span, body)

    def _send(self, content: bytes, span: str | None, body: bool) -> None:
        start = int(span.removeprefix("bytes=").split("-")[0]) if span else 0
        if span and start >= len(content):
            self._head(416, {"Content-Range": f"bytes */{len(content)}"})
            return
        part = content[start:]
        headers = {"Accept-Ranges": "bytes", "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        if span:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._head(206 if span else 200, headers, len(part))
        if body:
            cut = self.server.cuts.pop(0) if self.server.cuts else len(part)
            self.wfile.write(part[:cut])
            self.close_connection = cut < len(part)

    def _head(self, status: int, headers: dict[str, str] | None = None, length: int = 0) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """Run a ``HubServer`` for the length of a ``with`` block."""
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
