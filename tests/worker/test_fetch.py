"""A checkpoint comes from a hub whole, or one line says why not. The hub is a stand-in with the real one's routes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from berth_worker.fetch import wanted
from berth_worker.server.checkpoint import FILES

COMMIT = "c0ffee" + "0" * 34
REPO = "someone/tiny"
CHECKPOINT = {
    "model.safetensors": bytes(range(256)) * 400,
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "merges.txt": b"a b",
}
MORE = {
    "README.md": b"# Tiny",
    "pytorch_model.bin": b"pickle",
    "consolidated.safetensors": b"again",
    "original/params.json": b"{}",
}


@dataclass
class Hub:
    """`files` of one repository; `refuse`: (status, error code) for everything; `token`: who may read it."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: CHECKPOINT | MORE)
    sizes: dict[str, int] = field(default_factory=dict)
    """What is said instead of a file's true size."""
    token: str | None = None
    refuse: tuple[int, str] | None = None
    no_tree: bool = False
    cut: set[str] = field(default_factory=set)
    """Files of which half comes before the connection ends."""
    sent: Counter[str] = field(default_factory=Counter)

    def refusal(self, path: str, authorization: str | None) -> tuple[int, str] | None:
        if self.token is not None and authorization != f"Bearer {self.token}":
            return 401, "RepoNotFound"
        if self.refuse is not None:
            return self.refuse
        if REPO not in path:
            return 404, "RepoNotFound"
        if path.startswith("/api/") and path.rpartition("/")[2] not in ("main", COMMIT):
            return 404, "RevisionNotFound"
        if self.no_tree and "/tree/" in path:
            return 403, ""
        return None

    def listing(self, path: str) -> object:
        sizes = {name: self.sizes.get(name, len(data)) for name, data in self.files.items()}
        if "/tree/" in path:
            return [{"type": "file", "path": n, "size": s, "oid": self.etag(n)} for n, s in sizes.items()]
        siblings = [{"rfilename": n, "size": s, "blobId": self.etag(n)} for n, s in sizes.items()]
        return {"id": REPO, "sha": COMMIT, "siblings": siblings}

    def etag(self, name: str) -> str:
        return hashlib.sha1(self.files[name], usedforsecurity=False).hexdigest()


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            headers = {"Content_Length": str(len(body))} | headers
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            refusal = hub.refusal(path, self.headers.get("Authorization"))
            if refusal is not None:
                self.answer(refusal[0], b"{}", X_Error_Code=refusal[1])
            elif path.startswith("/api/"):
                self.answer(200, json.dumps(hub.listing(path)).encode(), Content_Type="application/json")
            else:
                self.file(path.partition(f"/resolve/{COMMIT}/")[2])

        do_HEAD = do_GET  # noqa: N815 - the name that the server looks for

        def file(self, name: str) -> None:
            whole = hub.files[name]
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            body = whole[start:]
            marks = {"ETag": f'"{hub.etag(name)}"', "X_Repo_Commit": COMMIT, "Content_Length": str(len(body))}
            if start:
                marks["Content_Range"] = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
            if self.command == "GET":
                hub.sent[name] += 1
                body = body[: len(body) // 2] if name in hub.cut else body
            self.answer(206 if start else 200, body, **marks)
            self.close_connection = name in hub.cut

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def hub():
    made = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(made))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def fetch(hub, tmp_path):
    """Run it as an init container would; returns (status, stdout, stderr)."""

    def run(*flags: str, repo: str = REPO, to: Path = tmp_path / "model", **env: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "berth_worker.fetch", "--repo", repo, "--to", str(to), *flags]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=clean | {"HF_ENDPOINT": hub.url} | env,
            timeout=240,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def here(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_what_a_worker_reads_comes_and_nothing_else(fetch, tmp_path):
    status, said, errors = fetch()
    assert (status, errors) == (0, "")
    assert here(tmp_path / "model") == CHECKPOINT
    assert json.loads(said) == {
        "event": "fetched",
        "repo": REPO,
        "commit": COMMIT,
        "files": len(CHECKPOINT),
        "bytes": sum(map(len, CHECKPOINT.values())),
    }


def test_everything_that_a_gateway_is_served_is_wanted():
    assert all(wanted(name) for name in FILES)


def test_what_is_there_is_not_brought_again(fetch, hub):
    assert fetch()[0] == 0
    hub.sent.clear()
    assert fetch("--revision", COMMIT)[0] == 0
    assert not hub.sent


def test_another_revision_in_the_same_folder_is_the_other_one(fetch, hub, tmp_path):
    old = CHECKPOINT["config.json"].replace(b"llama", b"qwen2")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_bytes(old)
    assert len(old) == len(CHECKPOINT["config.json"])
    assert fetch()[0] == 0
    assert hub.sent["config.json"] == 1
    assert here(tmp_path / "model") == CHECKPOINT


def test_the_token_opens_a_private_model(fetch, hub):
    hub.token = "secret"
    assert fetch(HF_TOKEN="secret")[0] == 0
    for env, why in (({}, "HF_TOKEN is not set"), ({"HF_TOKEN": "wrong"}, "the token in HF_TOKEN has no access")):
        status, said, errors = fetch(**env)
        assert (status, said) == (2, "")
        assert errors == f"berth_worker.fetch: error: there is no {REPO}, or it is private and {why}\n"


REFUSED = {
    "no such model": (
        {"repo": "someone/else"},
        None,
        "there is no someone/else, or it is private and HF_TOKEN is not set",
    ),
    "no such revision": ({"flags": ["--revision", "v9"]}, None, f"{REPO} has no revision v9"),
    "gated": ({}, (403, "GatedRepo"), f"{REPO} is gated, and HF_TOKEN is not set"),
    "no name of a model": ({"repo": "a/b/c"}, None, "--repo a/b/c: "),
    "forbidden": ({}, (403, ""), f"the hub refuses {REPO} (403): HF_TOKEN is not set"),
}


@pytest.mark.parametrize(("call", "refuse", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_what_a_person_has_to_mend_is_one_line(fetch, hub, call, refuse, why):
    hub.refuse = refuse
    status, said, errors = fetch(*call.get("flags", ()), **{k: v for k, v in call.items() if k != "flags"})
    assert (status, said) == (2, "")
    assert errors.startswith(f"berth_worker.fetch: error: {why}")
    assert errors.count("\n") == 1


def test_without_safetensors_there_is_nothing_to_serve(fetch, hub):
    del hub.files["model.safetensors"]
    status, _, errors = fetch()
    assert (status, errors.strip().rpartition(": ")[2]) == (2, f"{REPO} at main has no weights as safetensors")
    assert not hub.sent


def test_a_model_that_does_not_fit_is_not_begun(fetch, hub, tmp_path):
    hub.sizes["model.safetensors"] = 10**18
    status, _, errors = fetch()
    assert status == 2
    assert errors.startswith(
        f"berth_worker.fetch: error: no space in {tmp_path / 'model'}: 1000000000.0 GB are to come"
    )
    assert not hub.sent


def test_a_folder_that_cannot_be_made_is_told(fetch, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, errors = fetch(to=tmp_path / "file" / "model")
    assert (status, errors) == (2, f"berth_worker.fetch: error: --to {tmp_path / 'file' / 'model'}: Not a directory\n")


def test_a_hub_that_is_away_may_be_asked_again(fetch, hub):
    for env in ({"HF_ENDPOINT": "http://127.0.0.1:1"}, {}):
        hub.refuse = (500, "")
        status, said, errors = fetch(**env)
        assert (status, said, errors.count("\n")) == (1, "", 1)


def test_a_download_that_breaks_off_goes_on_where_it_was(fetch, hub, tmp_path):
    hub.cut = {"model.safetensors"}
    status, said, errors = fetch()
    assert (status, said) == (1, "")
    assert errors.splitlines()[-1].startswith(f"berth_worker.fetch: error: {REPO} cannot be had now: ")
    assert "model.safetensors" not in here(tmp_path / "model")
    hub.cut.clear()
    hub.sent.clear()
    assert fetch()[0] == 0
    assert here(tmp_path / "model") == CHECKPOINT
    assert hub.sent["model.safetensors"] == 1


def test_a_folder_that_only_has_something_is_not_taken_for_whole(fetch, hub, tmp_path):
    """As the hub's own client does where the hub denies it the second of its answers."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_bytes(CHECKPOINT["config.json"])
    hub.no_tree = True
    status, said, errors = fetch()
    assert (status, said) == (1, "")
    assert errors.splitlines()[-1].startswith(
        f"berth_worker.fetch: error: {REPO} did not come whole: chat_template.jinja"
    )
