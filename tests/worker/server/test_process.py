"""The worker as a process: its flags, its ready line, its signals; and a real model inside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from berth_worker import boot, flags
from berth_worker.models.errors import ModelError

DEADLINE_S = 60
SMALL = [
    "--model",
    "berth-tiny",
    "--threads",
    "1",
    "--slots",
    "4",
    "--check-memory",
    "busy",
    "--max-total-tokens",
    "4096",
]


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "berth_worker", *args]


@contextmanager
def running(*args: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A worker that printed its ready line."""
    process = subprocess.Popen(command(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate()


def refused(*args: str) -> str:
    """Run a worker that must not start; return its last line on stderr."""
    done = subprocess.run(command(*args), capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def post(url: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
        return json.load(response)


@pytest.fixture(scope="module")
def worker() -> Iterator[dict[str, Any]]:
    with running(*SMALL, "--pod-uid", "pod-1", "--page-size", "8", "--chunked-prefill-size", "32") as (_, ready):
        yield ready


def test_the_ready_line_says_where_and_who(worker):
    assert worker["event"] == "ready"
    assert worker["id"].startswith("pod-1.")
    os.kill(worker["pid"], 0)
    with urllib.request.urlopen(worker["url"] + "/health", timeout=DEADLINE_S) as response:
        assert response.status == 200


def test_a_sessions_turns_equal_whole_history_requests(worker):
    """With the real model: KV kept across turns, pages and chunks gives the tokens that a recomputation gives."""
    url, sampling = worker["url"], {"temperature": 0, "max_new_tokens": 24, "ignore_eos": True}
    session = post(url, "/open_session", {"capacity_of_str_len": 4000, "streaming": True})
    history: list[int] = [256]
    prompts: list[tuple[list[int], list[int]]] = []
    for text in ("my cat is called Milo", "what is my cat called?", "and what else do you know about it? " * 3):
        new = [*b"<|user|>", *text.encode(), 257]
        ids = history + new if history == [256] else new
        turn = post(
            url, "/generate", {"input_ids": ids, "session_params": {"id": session}, "sampling_params": sampling}
        )
        prompts.append((history + new, turn["output_ids"]))
        history += new + turn["output_ids"]
    assert turn["meta_info"]["cached_tokens"] == turn["meta_info"]["prompt_tokens"] - len(new) - 1
    for prompt, output in prompts:
        post(url, "/flush_cache", {})
        whole = post(url, "/generate", {"input_ids": prompt, "sampling_params": sampling})
        assert (whole["output_ids"], whole["meta_info"]["cached_tokens"]) == (output, 0)


def test_branches_share_kv_and_equal_whole_prompt_requests(worker):
    """With the real model: branches of a session that does not stream; three at once, then cut, replaced, deeper."""
    url, sampling = worker["url"], {"temperature": 0, "max_new_tokens": 16, "ignore_eos": True}
    session = post(url, "/open_session", {"capacity_of_str_len": 2000})

    def ask(history: list[int], text: str, rid: str | None = None, **options: Any) -> tuple[list[int], dict[str, Any]]:
        """Continue `rid`; return the whole prompt that this stands for, and the answer."""
        new = [*b"<|user|>", *text.encode(), 257]
        params = {"id": session, "rid": rid, **options}
        return history + new, post(
            url, "/generate", {"input_ids": new, "session_params": params, "sampling_params": sampling}
        )

    post(url, "/flush_cache", {})
    prompt, root = ask([], "my cat is called Milo")
    rid, whole = root["meta_info"]["id"], prompt + root["output_ids"]
    with ThreadPoolExecutor() as pool:
        texts = ("what is my cat called?", "who are you?", "what is my cat called? " * 4)
        branches = list(pool.map(lambda text: ask(whole, text, rid), texts))
    branches.append(ask(whole[:20], "and now?", rid, offset=20, replace=True))
    branches.append(ask(prompt, "tell me more", rid, drop_previous_output=True))
    again, answer = branches[-1]
    branches.append(ask(again + answer["output_ids"], "go on", answer["meta_info"]["id"]))
    assert all(branch["meta_info"]["cached_tokens"] >= 16 for _, branch in branches)
    for known, branch in branches:
        post(url, "/flush_cache", {})
        alone = post(url, "/generate", {"input_ids": known, "sampling_params": sampling})
        assert (alone["output_ids"], alone["meta_info"]["cached_tokens"]) == (branch["output_ids"], 0)
        assert branch["meta_info"]["prompt_tokens"] == len(known)
    post(url, "/close_session", {"session_id": session})


def test_logprobs_of_a_session_equal_whole_history_ones(worker):
    url, sampling = worker["url"], {"temperature": 0, "max_new_tokens": 6, "ignore_eos": True}
    session = post(url, "/open_session", {"capacity_of_str_len": 4000, "streaming": True})
    options = {"return_logprob": True, "logprob_start_len": 0, "sampling_params": sampling}
    first = post(url, "/generate", {"input_ids": list(b"hello there"), "session_params": {"id": session}} | options)
    history = [*b"hello there", *first["output_ids"]]
    turn = post(url, "/generate", {"input_ids": list(b" again"), "session_params": {"id": session}} | options)
    whole = post(url, "/generate", {"input_ids": history + list(b" again")} | options)
    for kind in ("input_token_logprobs", "output_token_logprobs"):
        got, expected = turn["meta_info"][kind], whole["meta_info"][kind]
        assert [entry[1] for entry in got] == [entry[1] for entry in expected]
        known = [(mine[0], other[0]) for mine, other in zip(got, expected, strict=True) if other[0] is not None]
        assert all(mine == pytest.approx(other, abs=1e-4) for mine, other in known)
    assert turn["meta_info"]["input_token_logprobs"][0][0] is None
    assert turn["meta_info"]["cached_tokens"] == len(history) - 1


def test_sessions_at_once_do_not_disturb_each_other(worker):
    """More sessions than slots, at once, under the busy check: each answers as it does alone."""
    url, sampling = worker["url"], {"temperature": 0.8, "max_new_tokens": 12, "seed": 5, "ignore_eos": True}
    failures: list[BaseException] = []

    def converse(number: int) -> None:
        try:
            session = post(url, "/open_session", {"capacity_of_str_len": 4000, "streaming": True})
            history: list[int] = []
            for turn in range(3):
                new = list(f"session {number} turn {turn}".encode())
                body = {"input_ids": new, "session_params": {"id": session}, "sampling_params": sampling}
                output = post(url, "/generate", body)["output_ids"]
                assert (
                    output
                    == post(url, "/generate", {"input_ids": history + new, "sampling_params": sampling})["output_ids"]
                )
                history += new + output
            post(url, "/close_session", {"session_id": session})
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=converse, args=(number,)) for number in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert not failures


def test_sigterm_lets_the_running_turn_finish_and_exits_with_0():
    with running(*SMALL) as (process, ready):
        body = {"text": "a", "stream": True, "sampling_params": {"max_new_tokens": 400, "ignore_eos": True}}
        request = urllib.request.Request(ready["url"] + "/generate", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
            response.readline()
            process.send_signal(signal.SIGTERM)
            rest = response.read()
        assert rest.endswith(b"data: [DONE]\n\n")
        assert b'"length":400' in rest
        assert process.wait(DEADLINE_S) == 0


def test_the_token_file_is_read(tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    settings = flags.settings(["--model", "berth-tiny", "--host", "0.0.0.0", "--token-file", str(token)])
    assert settings.server.token == "s3cret"


def test_a_taken_port_is_named_before_the_model_is_loaded(worker):
    port = worker["url"].rpartition(":")[2]
    assert port in refused(*SMALL, "--port", port)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json"),
        (lambda folder: (folder / "generation_config.json").write_text('{"eos_token_id": "x"}'), "generation_config"),
    ],
)
def test_a_broken_checkpoint_is_named(tmp_path, damage: Callable[[Path], None], named):
    folder = tmp_path / "model"
    shutil.copytree(Path(flags.__file__).parent / "builtin" / "berth_tiny", folder)
    damage(folder)
    with pytest.raises(ModelError, match=named):
        boot.load(flags.settings(["--model", str(folder)]))


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([], "--model"),
        (["--model", "/nowhere"], "/nowhere"),
        (["--model", "berth-tiny", "--page-size", "0"], "--page-size"),
        (["--model", "berth-tiny", "--page-size", "257"], "--page-size"),
        (["--model", "berth-tiny", "--slots", "many"], "--slots"),
        (["--model", "berth-tiny", "--dtype", "float16"], "--dtype"),
        (["--model", "berth-tiny", "--retract-every", "0"], "--retract-every"),
        (["--model", "berth-tiny", "--queue-timeout", "-1"], "--queue-timeout"),
        (["--model", "berth-tiny", "--port", "70000"], "--port"),
        (["--model", "berth-tiny", "--host", "0.0.0.0"], "--token-file"),
        (["--model", "berth-tiny", "--token-file", "/nowhere"], "/nowhere"),
        (["--model", "berth-tiny", "--max-total-tokens", "8"], "--max-total-tokens"),
    ],
)
def test_flags_that_make_no_sense_are_named(args, named, capsys):
    with pytest.raises(SystemExit) as left:
        flags.settings(args)
    assert left.value.code == 2
    assert named in capsys.readouterr().err.splitlines()[-1]


def test_flags_reach_the_settings():
    settings = flags.settings(["--model", "berth-tiny", "--slots", "3", "--queue-limit", "9", "--check-memory", "busy"])
    assert (settings.cache.slots, settings.schedule.queue_limit, settings.cache.check) == (3, 9, "busy")
    assert (settings.server.host, settings.server.token) == ("127.0.0.1", None)


def test_the_context_is_the_least_of_model_flag_and_pool():
    def context(*args: str) -> int:
        return boot.load(flags.settings(["--model", "berth-tiny", *args])).model.context_length

    assert context("--max-total-tokens", "100000") == 4096
    assert context("--context-length", "100") == 100
    assert context("--max-total-tokens", "100", "--page-size", "16") == 96
