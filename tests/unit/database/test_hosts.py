"""Hosts: which of them a tenant may have us connect to."""

import pytest

from asyncctl.database.hosts import is_allowed, is_host


@pytest.mark.parametrize(
    ("host", "pattern"),
    [
        ("pg.example.com", "pg.example.com"),
        ("PG.Example.com.", "pg.example.com"),
        ("pg.example.com", "PG.example.COM."),
        ("pg.example.com", "*.example.com"),
        ("a.b.example.com", "*.example.com"),
        ("pg-2", "pg-[12]"),
        ("10.1.2.3", "10.1.*"),
        ("fd00::7", "fd00:*"),
        ("FD00::7", "fd00:*"),
        ("pg", "*"),
        ("10.1.2.3", "*"),
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("169.254.169.254", "169.254.169.254"),
    ],
)
def test_a_host_that_a_pattern_is_for(host, pattern):
    assert is_allowed(host, ["nothing", pattern])


@pytest.mark.parametrize(
    ("host", "pattern"),
    [
        ("pg.example.org", "*.example.com"),
        ("example.com", "*.example.com"),
        ("pg.example.com.evil.org", "*.example.com"),
        ("pgxexample.com", "pg.example.com"),
        ("10.1.evil.org", "10.1.*"),  # a name, which anybody can have
        ("10.1", "10.*"),  # to a resolver this is 10.0.0.1
        ("0x0a000001", "[0-9]*"),
        ("127.0.0.1", "*"),
        ("127.1.2.3", "127.*"),
        ("localhost", "*"),
        ("LOCALHOST.", "*host"),
        ("db.localhost", "*"),
        ("::1", "*"),
        ("::ffff:127.0.0.1", "*"),
        ("127.1", "*"),  # what a resolver takes for an address, this and the next three
        ("2130706433", "*"),
        ("0x7f000001", "*"),
        ("0177.0.0.1", "*"),
        ("0.0.0.0", "*"),
        ("::", "*"),
        ("169.254.169.254", "*"),
        ("fe80::1%eth0", "*"),
        ("224.0.0.1", "*"),
    ],
)
def test_a_host_that_a_pattern_is_not_for(host, pattern):
    assert not is_allowed(host, [pattern])


def test_no_pattern_allows_nothing():
    assert not is_allowed("pg.example.com", [])


def test_a_name_that_is_too_long_for_dns_is_no_host():
    assert is_host("a" * 253)
    assert not is_host("a" * 254)
