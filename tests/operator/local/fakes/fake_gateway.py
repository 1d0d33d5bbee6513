"""A gateway without sessions: keeps registered workers in a file that all gateways of a state directory share."""

import argparse
import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

LOCK = threading.Lock()


def make_handler(ledger, token, refusal):
    class Handler(BaseHTTPRequestHandler):
        def answer(self, status, body=b""):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def read(self):
            return json.loads(ledger.read_text()) if ledger.exists() else {}

        def allowed(self):
            if self.headers.get("Authorization") == f"Bearer {token}":
                return True
            self.answer(401)
            return False

        def do_GET(self):
            if self.path in ("/readyz", "/healthz"):
                self.answer(200)
            elif self.allowed():
                self.answer(200, json.dumps(list(self.read().values())).encode())

        def change(self, edit):
            with LOCK:
                workers = self.read()
                edit(workers)
                draft = ledger.with_suffix(".draft")
                draft.write_text(json.dumps(workers))
                draft.replace(ledger)
            self.answer(200)

        def do_PUT(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self.allowed():
                return
            if refusal:
                self.answer(409, json.dumps({"type": "conflict", "detail": refusal}).encode())
                return
            id_ = unquote(self.path.rpartition("/")[2])
            state = {"id": id_, "slots": 4, "fingerprint": "f", "suspect": False, "running": [], "idle": []}
            self.change(lambda workers: workers.__setitem__(id_, state | body))

        def do_DELETE(self):
            if self.allowed():
                id_ = unquote(self.path.rpartition("/")[2])
                self.change(lambda workers: workers.pop(id_, None))

        def log_message(self, *_):
            pass

    return Handler


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--admin-port", type=int)
    parser.add_argument("--admin-token-file", type=Path)
    parser.add_argument("--refuse", metavar="WHY", help="take no worker")
    options, _ = parser.parse_known_args()
    token = options.admin_token_file
    handler = make_handler(token.parent / "registered.json", token.read_text().strip(), options.refuse)
    try:
        public = ThreadingHTTPServer(("127.0.0.1", options.port), handler)
        admin = ThreadingHTTPServer(("127.0.0.1", options.admin_port), handler)
    except OSError as error:
        print(f"berth_gateway: cannot listen on port {options.port}: {error.strerror}", file=sys.stderr)
        sys.exit(1)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    threading.Thread(target=admin.serve_forever, daemon=True).start()
    url = {"url": f"http://127.0.0.1:{public.server_port}", "admin": f"http://127.0.0.1:{admin.server_port}"}
    print(json.dumps({"event": "ready", "pid": os.getpid()} | url), flush=True)
    public.serve_forever()


main()
