"""Rate limits: a caller's burst, its wait, and nothing begun for what is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth_gateway.auth import KeyRing
from berth_gateway.limits import Limiter
from berth_gateway.settings import AuthSettings, RateSettings

CHAT = {"model": "default", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}


@pytest.fixture
def make_limiter():
    """`make_limiter(per_second=…)` with a clock of its own: `limiter.clock.now`."""

    def make(**settings):
        clock = SimpleNamespace(now=1000.0)
        limiter = Limiter(RateSettings(**settings), lambda: clock.now)
        return limiter, clock

    return make


def taken(limiter, name="a", **own) -> int:
    """How many go at once."""
    count = 0
    while limiter.take(name, **own) == 0:
        count += 1
    return count


# The buckets ------------------------------------------------------------------------------------------------------


def test_a_burst_then_one_by_one(make_limiter):
    limiter, clock = make_limiter(per_second=4.0)
    assert taken(limiter) == 8
    assert limiter.take("a") == pytest.approx(0.25)
    clock.now += 0.25
    assert taken(limiter) == 1
    clock.now += 3600
    assert taken(limiter) == 8


def test_a_slow_rate_still_lets_one_in(make_limiter):
    limiter, clock = make_limiter(per_second=0.01)
    assert taken(limiter) == 1
    clock.now += 40
    assert limiter.take("a") == pytest.approx(60)


def test_refused_requests_cost_nothing(make_limiter):
    limiter, clock = make_limiter(per_second=1.0)
    taken(limiter)
    for _ in range(100):
        assert limiter.take("a") > 0
    clock.now += 1
    assert limiter.take("a") == 0


def test_callers_do_not_share(make_limiter):
    limiter, _ = make_limiter(per_second=1.0)
    assert (taken(limiter, "a"), taken(limiter, "b")) == (2, 2)


def test_a_rate_of_ones_own_goes_before(make_limiter):
    limiter, _ = make_limiter(per_second=1.0)
    assert taken(limiter, per_second=5.0) == 10
    alone, _ = make_limiter()
    assert taken(alone, per_second=3.0) == 6


def test_off_unless_asked(make_limiter):
    limiter, _ = make_limiter()
    assert not any(limiter.take("a") for _ in range(1000))
    assert len(limiter) == 0


def test_buckets_are_bounded_and_the_busy_ones_stay(make_limiter):
    limiter, _ = make_limiter(per_second=1.0, most_buckets=3)
    taken(limiter, "busy")
    for n in range(100):
        limiter.take(f"made-up-{n}")
        assert limiter.take("busy") > 0
    assert len(limiter) == 3


@given(st.floats(0.001, 1e6), st.lists(st.floats(0, 100), max_size=50))
def test_who_waits_as_told_is_let_in_and_never_more_than_the_rate(rate, pauses):
    now = [0.0]
    limiter = Limiter(RateSettings(per_second=rate), lambda: now[0])
    let_in = 0
    for pause in pauses:
        now[0] += pause
        wait_s = limiter.take("a")
        if wait_s:
            now[0] += wait_s
            assert limiter.take("a") == 0
        let_in += 1
    assert let_in <= max(1, 2 * rate) + now[0] * rate * (1 + 1e-6) + 1e-6


# Over HTTP --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def limited(start_gateway, start_worker, register, fast):
    """A gateway without keys that lets three requests in and the next in 20 s, its worker, and one open session."""
    client = await start_gateway(replace(fast, rate=RateSettings(per_second=0.05, burst_s=60.0)))
    worker = await start_worker()
    await register(client, worker)
    await client.open()
    return client, worker


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_beyond_the_rate_begins_nothing(limited, ask, stream):
    client, worker = limited
    path = "/v1/sessions/default/a/turns"
    for _ in range(2):
        assert (await client.call("POST", path, ask()))[0] == 200
    status, problem, headers = await client.call("POST", path, {**ask(), "stream": stream})
    assert (status, problem["type"], problem["status"]) == (429, "rate_limited", 429)
    assert headers["Content-Type"].startswith("application/problem+json")
    assert 1 <= int(headers["Retry-After"]) == problem["retry_after"] <= 20
    session = (await client.call("GET", "/v1/sessions/default/a"))[1]
    assert (session["turns"], session["state"], len(worker.seen)) == (2, "resident", 2)
    exposed = (await client.call("GET", "/metrics"))[1].decode()
    assert 'berth_gateway_refused_total{type="rate_limited"} 1.0' in exposed


async def test_a_session_beyond_the_rate_is_not_made(limited):
    client, _ = limited
    for _ in range(2):
        await client.call("POST", "/v1/sessions", {})
    status, problem, headers = await client.call("POST", "/v1/sessions", {"name": "more"})
    assert (status, problem["type"]) == (429, "rate_limited")
    assert "Retry-After" in headers
    assert (await client.call("GET", "/v1/sessions/default/more"))[0] == 404


@pytest.mark.parametrize("session", [{}, {"X_Session_ID": "more"}])
async def test_openais_clients_are_told_in_their_words(limited, session):
    client, worker = limited
    for _ in range(2):
        assert (await client.call("POST", "/v1/chat/completions", CHAT))[0] == 200
    status, body, headers = await client.call("POST", "/v1/chat/completions", CHAT, **session)
    assert (status, body["error"]["type"], body["error"]["code"]) == (429, "rate_limit_error", "rate_limited")
    assert int(headers["Retry-After"]) >= 1
    assert (await client.call("GET", "/v1/sessions/default/more"))[0] == 404
    assert len(worker.seen) == 2


async def test_what_begins_nothing_is_not_limited(limited):
    client, _ = limited
    for _ in range(2):
        await client.call("POST", "/v1/sessions", {})
    for _ in range(5):
        for path in ("/v1/sessions", "/v1/sessions/default/a", "/v1/models", "/healthz"):
            assert (await client.call("GET", path))[0] == 200


async def test_each_key_has_its_own(tmp_path, start_gateway, fast):
    keys = [
        {"sha256": hashlib.sha256(f"sk-{name}".encode()).hexdigest(), "name": name, "namespaces": ["*"], **more}
        for name, more in {"alice": {}, "bob": {"rate_limit": 0.05}, "carol": {}}.items()
    ]
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": keys}))
    rate = RateSettings(per_second=0.01, burst_s=100.0)
    client = await start_gateway(replace(fast, rate=rate, auth=AuthSettings(path, admin_token="adm")))

    async def let_in(name: str) -> int:
        for count in range(50):
            status, problem, _ = await client.call("POST", "/v1/sessions", {}, Authorization=f"Bearer sk-{name}")
            if status == 429:
                return count
            assert problem["type"] == "no_such_fleet"
        pytest.fail("never refused")

    assert [await let_in(name) for name in ("alice", "bob", "carol")] == [1, 5, 1]


@pytest.mark.parametrize("rate", ["0", "-1", "1e9", '"5"', "1e-9"])
def test_a_keys_odd_rate_stops_the_start(tmp_path, rate):
    path = tmp_path / "keys.json"
    path.write_text(f'{{"keys": [{{"sha256": "{"0" * 64}", "name": "a", "namespaces": ["*"], "rate_limit": {rate}}}]}}')
    with pytest.raises(ValueError, match="rate_limit"):
        KeyRing(path)
