"""Rules of the network that need no connection: addresses, redirects, retries, pace."""

from __future__ import annotations

import base64
from datetime import datetime, timezone

import pytest

from dumont_gpu.errors import DumontError, UsageError
from dumont_gpu.sizes import MiB
from dumont_gpu.storage.addresses import parse_address, redirected
from dumont_gpu.storage.pace import ConnectionCount, RateLimit, Speedometer, is_slow
from dumont_gpu.storage.retry import parse_retry_after

# --- addresses --------------------------------------------------------------------------------------------------------


def test_an_address_is_taken_apart() -> None:
    address = parse_address("HTTPS://me:s%3Acret@Host.example:8443/a b/ü?q=1 2#part")
    assert address.origin == ("https", "host.example", 8443)
    assert address.target == "/a%20b/%C3%BC?q=1%202"
    assert address.authorization == "Basic " + base64.b64encode(b"me:s:cret").decode()
    assert parse_address("http://[::1]/x").authority == "[::1]"
    assert parse_address("https://host").target == "/"
    assert parse_address("https://host:443/%2F").absolute == "https://host/%2F"


def test_what_is_shown_holds_no_secret() -> None:
    address = parse_address("https://me:secret@host/x.dumont?X-Amz-Signature=secret")
    assert address.shown == "https://host/x.dumont?…"
    assert "secret" not in repr(address)


@pytest.mark.parametrize(
    "text",
    ["file:///secret", "ftp://secret/x", "http://", "https:///secret", "http://secret:port/", "http://secret:99999/",
     "//secret/x", "http://host/secret\nb", "http://[secret/x", "http://secret st/x", "", "secret",
     "http://secret" + "a" * 70 + ".example/"],
)  # fmt: skip
def test_what_is_no_http_address_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert "secret" not in str(caught.value)


def test_redirects_keep_credentials_for_the_same_server_only() -> None:
    start = parse_address("https://me:secret@host/x")
    assert redirected(start, "/y?sig=1").authorization == start.authorization
    assert redirected(start, "https://host:443/y").authorization == start.authorization
    for elsewhere in ("https://other/y", "https://host:8443/y", "//sub.host/y"):
        assert redirected(start, elsewhere).authorization == ""
    assert redirected(parse_address("http://me:secret@host/x"), "https://host/x").authorization == ""


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "FILE:/etc/passwd", "ftp://host/x", "gopher://x", "http://host/x", "javascript:1"],
)
def test_redirects_to_other_schemes_and_down_from_https_are_refused(location: str) -> None:
    with pytest.raises(DumontError):
        redirected(parse_address("https://host/x"), location)


# --- retries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("", None),
        (None, None),
        ("9" * 400, 999_999_999),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    now = datetime(2026, 11, 22, 12, 0, 0, tzinfo=timezone.utc)
    assert parse_retry_after(value, lambda: now) == seconds


# --- pace -------------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    speed = Speedometer(clock)
    for _ in range(60):  # a minute at 10 MiB/s, then a byte a second
        clock.now += 1
        speed.add(10 * MiB)
    assert speed.measure()[0] == pytest.approx(10 * MiB)
    for _ in range(15):
        clock.now += 1
        assert speed.add(1)
    rate, seconds = speed.measure()
    assert (rate, seconds) == (1, 15)
    assert is_slow(rate, seconds, [])


def test_slow_connections_are_those_below_the_floor_or_far_below_their_peers() -> None:
    fast, slow = 50.0 * MiB, 0.5 * MiB
    assert not is_slow(fast, 60, [fast] * 15)
    assert is_slow(slow, 15, [])
    assert not is_slow(slow, 14, [])
    assert is_slow(slow, 3, [fast] * 15)
    assert not is_slow(slow, 2, [fast] * 15)
    assert not is_slow(slow, 60, [slow] * 15)  # the link is slow, not the connection
    assert not is_slow(fast / 7, 60, [fast] * 15)
    assert not is_slow(slow, 60, [], floor=0)


def test_connections_grow_as_long_as_they_pay() -> None:
    clock = Clock()
    count = ConnectionCount(clock, latency=0.05)
    seen = []
    for rate in (100, 150, 200, 205, 400):
        seen.append(count.current)
        count.measured(rate)
    assert [*seen, count.current] == [16, 24, 32, 40, 32, 32]
    for _ in range(20):
        count = ConnectionCount(clock, latency=0.05)
        for rate in range(100):
            count.measured(2.0**rate)
    assert count.current == 64
    fixed = ConnectionCount(clock, latency=0.05, fixed=3)
    fixed.measured(1e9)
    assert fixed.current == 3


def test_a_near_server_gets_few_connections_to_begin_with() -> None:
    clock = Clock()
    count = ConnectionCount(clock, latency=0.001)
    assert count.current == 4
    count.measured(100)
    assert count.current == 12
    assert ConnectionCount(clock, latency=0.001, fixed=16).current == 16


def test_a_busy_server_gets_half_the_connections_once_per_moment() -> None:
    clock = Clock()
    count = ConnectionCount(clock, latency=0.05)
    for _ in range(16):
        count.refused()
    assert count.current == 8
    for _ in range(10):
        clock.now += 2
        count.refused()
    assert count.current == 1


def test_a_rate_limit_is_shared() -> None:
    clock = Clock()
    limit = RateLimit(1000, clock)
    assert limit.delay_after(500) == 0.5
    assert limit.delay_after(500) == 1.0
    clock.now += 10
    assert limit.delay_after(100) == pytest.approx(0.1)
    assert RateLimit(0, clock).delay_after(1 << 60) == 0
