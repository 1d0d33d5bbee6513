"""The operator's command line: what it is told, and one clear line for what makes no sense."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from berth_operator.__main__ import main, parser, settings_of
from berth_operator.kube.settings import KubeSettings, Times


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "admin.token"
    path.write_text("hush\n")
    return path


def least(token: Path) -> list[str]:
    return [
        *("--gateway-admin", "http://gateway:8081/"),
        *("--admin-token-file", str(token)),
        *("--worker-image", "berth/worker:1"),
        *("--worker-token-secret", "berth-worker"),
    ]


def settings(token: Path, *more: str) -> KubeSettings:
    return settings_of(parser().parse_args([*least(token), *more]))


def test_the_least(token: Path) -> None:
    made = settings(token)
    assert (made.gateways, made.admin_token) == (("http://gateway:8081",), "hush")
    assert (made.pods.image, made.pods.token_secret) == ("berth/worker:1", "berth-worker")
    assert (made.namespaces, made.kubeconfig, made.host, made.port) == ((), None, "127.0.0.1", 8082)
    assert made.times == Times()
    assert "hush" not in repr(made)


def test_all_of_it(token: Path) -> None:
    made = settings(
        token,
        *("--gateway-admin", "https://other:8081"),
        *("--namespace", "team", "--namespace", "lab", "--namespace", "team"),
        *("--kubeconfig", str(token), "--host", "0.0.0.0", "--port", "0"),
        *("--resync-s", "5", "--absent-s", "6", "--session-status-s", "7", "--unreachable-s", "8", "--start-s", "9.5"),
    )
    assert made.gateways == ("http://gateway:8081", "https://other:8081")
    assert made.namespaces == ("team", "lab")
    assert made.kubeconfig == str(token)
    assert (made.host, made.port) == ("0.0.0.0", 0)
    times = made.times
    assert (times.resync_s, times.absent_s, times.session_status_s) == (5, 6, 7)
    assert (times.unreachable_s, times.start_s) == (8, 9.5)


def test_an_operator_of_some_namespaces_serves_these(token: Path) -> None:
    assert settings(token).serves("anywhere")
    some = settings(token, "--namespace", "team")
    assert some.serves("team")
    assert not some.serves("lab")


@pytest.mark.parametrize(
    ("flag", "value", "line"),
    [
        ("--gateway-admin", "gateway:8081", "'gateway:8081' is not a URL that begins with http:// or https://"),
        ("--gateway-admin", "http://", "'http://' is not a URL"),
        ("--gateway-admin", "http://[::1", "is not a URL"),
        ("--worker-image", "", "'' is empty, or has blanks in it"),
        ("--worker-token-secret", "a b", "'a b' is not a name of Kubernetes"),
        ("--namespace", "team-*", "'team-*' is not a name of Kubernetes"),
        ("--namespace", "", "'' is not a name of Kubernetes"),
        ("--port", "eighty", "'eighty' is not a port from 0 to 65535"),
        ("--port", "70000", "'70000' is not a port"),
        ("--port", "-1", "'-1' is not a port"),
        ("--resync-s", "soon", "'soon' is not a number of seconds above 0 and below a day"),
        ("--absent-s", "0", "'0' is not a number of seconds"),
        ("--start-s", "nan", "'nan' is not a number of seconds"),
        ("--unreachable-s", "-3", "'-3' is not a number of seconds"),
        ("--session-status-s", "inf", "'inf' is not a number of seconds"),
        ("--log-format", "xml", "invalid choice: 'xml'"),
    ],
)
def test_a_value_that_makes_no_sense_is_told_by_its_flag(
    token: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str, line: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*least(token), f"{flag}={value}"])
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {flag}: " in last
    assert line in last


@pytest.mark.parametrize("flag", ["--gateway-admin", "--admin-token-file", "--worker-image", "--worker-token-secret"])
def test_what_is_missing_is_named(token: Path, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    arguments = least(token)
    at = arguments.index(flag)
    with pytest.raises(SystemExit) as ended:
        main(arguments[:at] + arguments[at + 2 :])
    assert ended.value.code == 2
    assert flag in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "No such file"),
        (b"\n", "holds no token"),
        (b"\xff\xfe", "can't decode"),
        (b"two\nlines", "holds no token of printable ASCII"),
    ],
)
def test_a_token_that_is_none_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, line: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        main(least(path))
    assert ended.value.code == 1
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("berth_operator: ")
    assert line in told


def test_a_kubeconfig_that_is_not_there_is_told_by_its_flag(
    token: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*least(token), "--kubeconfig", str(tmp_path / "none")])
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"berth_operator: --kubeconfig {tmp_path / 'none'}: there is no such file\n"


def test_a_cluster_that_cannot_be_found_is_told_in_one_line(token: Path, tmp_path: Path) -> None:
    """As a program: it sets up the logs of its process."""
    (tmp_path / "config").write_text("apiVersion: v1\nkind: Config\ncurrent-context: away\n")
    command = [sys.executable, "-m", "berth_operator", *least(token), "--kubeconfig", str(tmp_path / "config")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stdout) == (1, "")
    (told,) = ended.stderr.splitlines()
    assert told.startswith("berth_operator: no way to reach a cluster: ")
