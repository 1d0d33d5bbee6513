"""Wrong calls and failures: one line on standard error, and the exit code."""

from __future__ import annotations

import pytest

from berth_cli import main


@pytest.fixture
def berth(monkeypatch, capsys):
    """Run `berth` with arguments; returns exit code, output and errors."""

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["berth", *args])
        code = main.app()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_without_arguments_it_helps(berth) -> None:
    code, out, _ = berth()
    assert code == 0
    assert all(command in out for command in ("up", "chat", "top", "sessions", "demo"))


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["nope"], "nope"),
        (["up", "--workers", "x"], "--workers"),
        (["up", "--workers", "0"], "--workers"),
        (["up", "--gateway-port", "70000"], "--gateway-port"),
        (["up", "--nonsense"], "--nonsense"),
        (["sessions", "show"], "name"),
    ],
)
def test_a_wrong_call_names_what_is_wrong(berth, args: list[str], named: str) -> None:
    code, out, err = berth(*args)
    assert code == 2
    assert named in err
    assert err.count("\n") == 1
    assert out == ""


@pytest.mark.parametrize("command", [["chat"], ["top", "--once"], ["sessions", "list"]])
def test_no_fleet_is_said(berth, tmp_path, command: list[str]) -> None:
    code, _, err = berth(*command, "--state-dir", str(tmp_path))
    assert code == 1
    assert err == f"berth: no fleet runs from the state directory {tmp_path}: start one with `berth up`\n"


def test_a_state_directory_that_cannot_be_made_is_named(berth, tmp_path) -> None:
    (tmp_path / "file").touch()
    code, _, err = berth("up", "--json", "--state-dir", str(tmp_path / "file"))
    assert code == 1
    assert str(tmp_path / "file") in err


def test_nobody_at_the_gateway_is_said(berth) -> None:
    code, _, err = berth("sessions", "list", "--gateway", "http://127.0.0.1:1")
    assert code == 1
    assert "http://127.0.0.1:1" in err
