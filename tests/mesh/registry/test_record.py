from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.mesh.registry import record
from app.mesh.registry.record import Instance, Load, PoisonedRecord
from tests.mesh.actors import instance

NETWORKS = tuple(ip_network(n) for n in ("127.0.0.0/8", "::1/128", "10.0.0.0/8"))


def stored(**changes: Any) -> bytes:
    facts: dict[str, Any] = {"service": "users", "id": "users-1", "generation": 1, "url": "http://127.0.0.1:80"}
    return b"%d %b" % (facts["generation"], orjson.dumps(facts | changes))


def test_a_record_is_read_as_it_was_written() -> None:
    who = instance(version="1.2", zone="eu", weight=0.5, state="draining", sandbox="x", pid=7, started_at=1.5)
    assert record.decode(record.encode(who), NETWORKS) == who


def test_a_record_of_a_later_version_with_more_members_is_read() -> None:
    assert record.decode(stored(hedging="yes"), NETWORKS).id == "users-1"


@pytest.mark.parametrize(
    "url",
    ["http://10.1.2.3:80", "https://127.0.0.1:443", "http://[::1]:80", "http://localhost:80", "http://users.svc:80",
     "http://[::ffff:10.0.0.1]:80"],
)  # fmt: skip
def test_addresses_within_the_allowed_networks_pass(url: str) -> None:
    assert record.decode(stored(url=url), NETWORKS).url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254:80", "http://8.8.8.8:80", "http://[fe80::1]:80", "http://[::ffff:8.8.8.8]:80",
        "http://10.1.2.3", "http://10.1.2.3:80/", "http://10.1.2.3:80/admin", "http://10.1.2.3:80?x", "http://10.1.2.3:80#x",
        "http://user@10.1.2.3:80", "http://10.1.2.3:80@8.8.8.8:80", "ftp://10.1.2.3:80", "file:///etc/passwd", "10.1.2.3:80",
        "http://10.1.2.3:99999", "http://10.1.2.3:0", "http://:80", "http://a b:80", "http://a\r\nb:80", "http://exämple:80",
        "", "http://", "http://[::1:80", "http://-x:80", "http://a..b:80", "http://a_b:80",
    ],
)  # fmt: skip
def test_any_other_address_is_poison(url: str) -> None:
    with pytest.raises(PoisonedRecord):
        record.decode(stored(url=url), NETWORKS)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"1", b"1 ", b"1 {", b"1 null", b"1 []", b"{}", b"\xff\xfe", b"1 \xff", b"2 " + stored()[2:], stored()[2:],
        stored(service="Users"), stored(service="../x"), stored(id="a b"), stored(id=""), stored(id="a:b"), stored(generation=-1),
        stored(weight="1"), stored(weight=-1), stored(weight=1e9), stored(state="dead"), stored(state=None),
        stored(prefixes="/users"), stored(prefixes=["users"]), stored(prefixes=["/"]), stored(prefixes=["/users/"]),
        stored(prefixes=["/u"] * 65), stored(version="x" * 129), stored(version="a\nb"), stored(pid=-1), stored(pid=True),
        stored(id="x" * 20_000), b"1 " + b"[" * 10_000,
    ],
)  # fmt: skip
def test_malformed_records_are_poison_and_nothing_else(raw: bytes) -> None:
    with pytest.raises(PoisonedRecord):
        record.decode(raw, NETWORKS)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_poison(raw: bytes) -> None:
    for decode in (lambda: record.decode(raw, NETWORKS), lambda: record.decode_load(raw)):
        try:
            decode()
        except PoisonedRecord:
            continue


def test_load_is_read_with_the_time_of_its_beat() -> None:
    load = Load(in_flight=3, limit=10, loop_lag_seconds=0.25)
    assert record.decode_load(b"1763707000123 " + record.encode_load(load)) == (1763707000123, load)


@pytest.mark.parametrize("raw", [b"", b"{}", b"x {}", b"1 {", b'1 {"in_flight":-1}', b'1 {"loop_lag_seconds":"x"}'])
def test_malformed_load_is_poison(raw: bytes) -> None:
    with pytest.raises(PoisonedRecord):
        record.decode_load(raw)


@pytest.mark.parametrize(
    ("changes", "takes"),
    [({}, True), ({"state": "starting"}, False), ({"state": "draining"}, False), ({"state": "forced-out"}, False),
     ({"weight": 0.0}, False)],
)  # fmt: skip
def test_only_a_ready_instance_with_a_weight_takes_requests(changes: dict[str, Any], takes: bool) -> None:
    assert instance(**changes).takes_requests is takes


def test_an_instance_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        instance().state = "draining"  # type: ignore[misc]
    assert isinstance(hash(instance()), int)
    assert isinstance(instance(), Instance)
