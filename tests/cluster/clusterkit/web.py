"""The program of the test image `web`: a server that does as it is told, so that a test sees what its node does.

GET /env and /args tell what it was given, /file?path reads a file, /exit?code ends it, /sick and /well turn /health.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit


class Handler(BaseHTTPRequestHandler):
    well = True

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        status, body = self.answer(url.path, dict(parse_qsl(url.query)))
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, object]:
        if path == "/env":
            return 200, dict(os.environ)
        if path == "/args":
            return 200, sys.argv[1:]
        if path == "/file":
            return 200, Path(query["path"]).read_text()
        if path == "/exit":
            print(f"told to exit with {query['code']}", flush=True)
            os._exit(int(query["code"]))
        if path in {"/sick", "/well"}:
            Handler.well = path == "/well"
        return (200 if Handler.well else 503), None

    def log_message(self, *_: object) -> None:
        """Silence: the log is for what a test looks for."""


def main() -> None:
    flags = argparse.ArgumentParser()
    flags.add_argument("--host", default="127.0.0.1")
    flags.add_argument("--port", type=int, default=8000)
    flags.add_argument("--linger", type=float, default=0.0, help="seconds between SIGTERM and the end")
    flags.add_argument("rest", nargs="*")
    given = flags.parse_args()
    server = ThreadingHTTPServer((given.host, given.port), Handler)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("serving", flush=True)
    ended.wait()
    print("lingering", flush=True)
    time.sleep(given.linger)


if __name__ == "__main__":
    main()
