"""A proxy before a server that hides what only a Roster has: behind it stands any far end that speaks the API."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HIDDEN = ("/api/roster/",)


@contextmanager
def hiding_proxy(port: int, meddle: Callable[[str, str], int | None] = lambda verb, path: None) -> Iterator[str]:
    """The address of a proxy before a local port; `meddle` may answer a status in place of the server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status = 404 if self.path.startswith(HIDDEN) else meddle(self.command, self.path)
            if status is not None:
                self.tell(status, b"", {"location": "http://127.0.0.1:1/"} if status == 302 else {})
                return
            behind = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                behind.request(self.command, self.path.split("?dry_run")[0], body or None, dict(self.headers))
                got = behind.getresponse()
                kept = {n: v for n, v in got.getheaders() if n.lower() in ("content-type", "x-ratelimit-reset")}
                self.tell(got.status, got.read(), kept)
            finally:
                behind.close()

        def tell(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a test reads its own output."""

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{served.server_port}"
    finally:
        served.shutdown()
        served.server_close()
        thread.join()
