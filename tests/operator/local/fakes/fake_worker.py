"""A worker without an engine: says that it is ready, answers /health, ends on SIGTERM.

The model's name is what it does: `missing` and `dies` end it before it is ready, `mute` never gets ready.
"""

import argparse
import json
import os
import signal
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--pod-uid")
    options, rest = parser.parse_known_args()
    print(json.dumps({"options": rest}), file=sys.stderr, flush=True)
    if options.model == "missing":
        print("berth_worker: no model at 'missing'", file=sys.stderr)
        sys.exit(2)
    if options.model == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if options.model == "mute":
        threading.Event().wait()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    url = f"http://127.0.0.1:{server.server_port}"
    print("a line that is not the ready line", flush=True)
    word = {"event": "ready", "url": url, "id": f"{options.pod_uid}.{uuid.uuid4()}", "pid": os.getpid()}
    print(json.dumps(word), flush=True)
    server.serve_forever()


main()
