"""Where a request came from: what a client makes up is not believed."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from serving.access.origin import UNKNOWN, client_address, counted_address

PROXY, OTHER, CLIENT, LIE = "10.0.0.1", "10.0.0.2", "203.0.113.7", "198.51.100.9"
TRUSTED = ("10.0.0.0/24", "2001:db8:1::/48")

addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
rubbish = st.text(max_size=80)


def test_nobody_is_believed_unless_named() -> None:
    assert client_address(CLIENT, [LIE], ()) == CLIENT
    assert client_address(CLIENT, [LIE], TRUSTED) == CLIENT
    assert client_address("127.0.0.1", [LIE], TRUSTED) == "127.0.0.1"


def test_a_named_proxy_is_believed_for_what_it_heard_itself() -> None:
    assert client_address(PROXY, [CLIENT], TRUSTED) == CLIENT
    assert client_address(PROXY, [f"{LIE}, {CLIENT}"], TRUSTED) == CLIENT
    assert client_address(PROXY, [LIE, CLIENT], TRUSTED) == CLIENT  # two headers are one list
    assert client_address(PROXY, [f"{LIE}, {CLIENT}, {OTHER}"], TRUSTED) == CLIENT
    assert client_address(PROXY, [], TRUSTED) == PROXY


def test_the_own_proxy_vouches_for_one_hop_only() -> None:
    assert client_address("127.0.0.1", [CLIENT], (), through_own=True) == CLIENT
    assert client_address("127.0.0.1", [f"{LIE}, 127.0.0.1"], (), through_own=True) == "127.0.0.1"
    assert client_address(LIE, [f"{LIE}, {CLIENT}"], (), through_own=True) == CLIENT
    assert client_address("127.0.0.1", [f"{LIE}, {CLIENT}, {PROXY}"], TRUSTED, through_own=True) == CLIENT


def test_forms_of_an_address() -> None:
    for written, read in {
        "203.0.113.7:4711": "203.0.113.7",
        "[2001:DB8::7]:4711": "2001:db8::7",
        '"[2001:db8::7]"': "2001:db8::7",
        "2001:db8:0:0::7": "2001:db8::7",
        "fe80::1%eth0": "fe80::1",
        "::ffff:203.0.113.7": "203.0.113.7",
    }.items():
        assert client_address(PROXY, [written], TRUSTED) == read
    for written in (
        "unknown",
        "_hidden",
        "",
        "203.0.113.7:x",
        "203.0.113.7:",
        "[203.0.113.7]",
        "[2001:db8::7",
        "1.2.3",
        "0x7f.1",
        "203.0.113.007",
    ):
        assert client_address(PROXY, [written], TRUSTED) == PROXY
    assert client_address("testclient", [LIE], TRUSTED) == UNKNOWN


@given(addresses, st.lists(st.one_of(addresses, rubbish), max_size=300))
def test_without_proxies_the_peer_is_the_client(peer: str, claimed: list[str]) -> None:
    expected = ip_address(peer)
    mapped = getattr(expected, "ipv4_mapped", None)
    assert client_address(peer, [", ".join(claimed)], ()) == str(mapped or expected)


@given(st.lists(st.one_of(addresses, rubbish), max_size=300), addresses)
def test_what_stands_left_of_an_unbelieved_hop_changes_nothing(claimed: list[str], heard: str) -> None:
    truth = client_address(PROXY, [heard], TRUSTED)
    if not any(truth.startswith(start) for start in ("10.0.0.", "2001:db8:1:")):
        assert client_address(PROXY, [*claimed, heard], TRUSTED) == truth


@given(rubbish, st.lists(rubbish, max_size=20), st.booleans())
def test_rubbish_gives_an_address_or_says_unknown(peer: str, values: list[str], own: bool) -> None:
    found = client_address(peer, values, TRUSTED, own)
    assert found == UNKNOWN or str(ip_address(found)) == found


@given(st.lists(st.integers(1, 254).map(lambda n: f"10.0.0.{n}"), min_size=100, max_size=400))
def test_hundreds_of_hops(hops: list[str]) -> None:
    assert client_address(PROXY, [f"{LIE}, {CLIENT}", *hops], TRUSTED) == CLIENT
    assert client_address(PROXY, [", ".join(hops)], TRUSTED) == hops[0]


def test_an_ipv6_client_is_counted_by_its_network() -> None:
    assert counted_address("2001:db8::1:2:3:4") == counted_address("2001:db8::ffff:1:1:1") == "2001:db8::/64"
    assert counted_address("2001:db8:0:1::1") != counted_address("2001:db8::1")
    assert counted_address(CLIENT) == CLIENT
    assert counted_address(UNKNOWN) == UNKNOWN
