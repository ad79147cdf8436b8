"""A read-only server of one folder that answers as S3 does to HEAD and GET with a range: benchmarks read it over loopback.

python -m benchmarks.range_server FOLDER     prints its port; object BUCKET/KEY is the file FOLDER/KEY
"""

from __future__ import annotations

import os
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class Objects(BaseHTTPRequestHandler):
    """One connection, kept open."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def _answer(self, *, has_body: bool) -> None:
        path = (ROOT / unquote(urlsplit(self.path).path).split("/", 2)[2]).resolve()
        if not path.is_relative_to(ROOT) or not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = path.stat().st_size
        spec = _RANGE.fullmatch(self.headers.get("Range", ""))
        first, last = (int(spec[1]), min(int(spec[2]), size - 1)) if spec else (0, size - 1)
        self.send_response(206 if spec else 200)
        if spec:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("ETag", f'"{size:x}"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if has_body:
            self._send(path, first, last + 1)

    def _send(self, path: Path, at: int, end: int) -> None:
        self.wfile.flush()
        with path.open("rb") as file:
            while at < end:
                at += os.sendfile(self.connection.fileno(), file.fileno(), at, end - at)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Objects)
    print(server.server_port, flush=True)
    server.serve_forever()
