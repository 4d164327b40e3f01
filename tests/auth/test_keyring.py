from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from app.auth import keyring
from app.auth.keyring import Keyring
from app.errors import Unavailable
from tests.auth.clock import Clock
from tests.tokens import TestIssuer

FRESH, RETRY = 300.0, 5.0


class Source:
    """The issuer's key set: it counts, and it may be slow, away, or talk nonsense."""

    def __init__(self, *issuers: TestIssuer) -> None:
        self.issuers = list(issuers)
        self.fetches = 0
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None
        self.raw: bytes | None = None

    async def __call__(self) -> bytes:
        self.fetches += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.raw if self.raw is not None else document(*self.issuers)


def document(*issuers: TestIssuer) -> bytes:
    return json.dumps({"keys": [key for issuer in issuers for key in issuer.jwks["keys"]]}).encode()


@asynccontextmanager
async def ring(source: Source, clock: Clock, *, disk: Path | None = None) -> AsyncIterator[Keyring]:
    keys = Keyring(source, fresh_seconds=FRESH, retry_seconds=RETRY, disk=disk, clock=clock)
    try:
        yield keys
    finally:
        await keys.aclose()


async def settled(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def other(tmp_path: Path) -> TestIssuer:
    return TestIssuer(tmp_path)


async def test_a_key_is_fetched_once_and_then_at_hand(issuer: TestIssuer, clock: Clock) -> None:
    source = Source(issuer)
    async with ring(source, clock) as keys:
        for _ in range(3):
            found = await keys.find(issuer.kid, "ES256")
            assert found is not None
            assert found.thumbprint() == issuer.kid
    assert source.fetches == 1


async def test_a_hundred_who_wait_wait_for_one_flight(issuer: TestIssuer, clock: Clock) -> None:
    source = Source(issuer)
    source.gate = asyncio.Event()
    async with ring(source, clock) as keys:
        waiting = [asyncio.create_task(keys.find(issuer.kid, "ES256")) for _ in range(100)]
        await settled(lambda: source.fetches)
        waiting[0].cancel()
        source.gate.set()
        found = await asyncio.gather(*waiting[1:])
    assert all(key is not None for key in found)
    assert source.fetches == 1


async def test_an_unknown_key_makes_us_ask_again_but_seldom(
    issuer: TestIssuer, other: TestIssuer, clock: Clock
) -> None:
    source = Source(issuer)
    async with ring(source, clock) as keys:
        assert await keys.find(issuer.kid, "ES256") is not None
        clock.now += RETRY - 0.001
        for number in range(50):
            assert await keys.find(f"nobody's {number}", "ES256") is None
        assert source.fetches == 1
        clock.now += 0.001
        for number in range(50):
            assert await keys.find(f"nobody's {number}", "ES256") is None
        assert source.fetches == 2
        source.issuers.append(other)
        clock.now += RETRY
        assert await keys.find(other.kid, "ES256") is not None
        assert source.fetches == 3


async def test_an_old_set_serves_on_while_it_is_fetched_anew(issuer: TestIssuer, clock: Clock) -> None:
    source = Source(issuer)
    async with ring(source, clock) as keys:
        await keys.find(issuer.kid, "ES256")
        source.gate = asyncio.Event()
        clock.now += FRESH
        assert await keys.find(issuer.kid, "ES256") is not None
        assert await keys.find(issuer.kid, "ES256") is not None
        await settled(lambda: source.fetches == 2)
        source.gate.set()
        await settled(lambda: keys.describe()["age_seconds"] == 0)
        assert await keys.find(issuer.kid, "ES256") is not None
    assert source.fetches == 2


@pytest.mark.parametrize("trouble", ["away", "nonsense", "empty"])
async def test_the_last_good_set_is_kept_while_the_issuer_gives_none(
    issuer: TestIssuer, clock: Clock, trouble: str
) -> None:
    source = Source(issuer)
    async with ring(source, clock) as keys:
        await keys.find(issuer.kid, "ES256")
        source.error = Unavailable("away") if trouble == "away" else None
        source.raw = b"<html>" if trouble == "nonsense" else b'{"keys": []}'
        for _ in range(3):
            clock.now += FRESH
            before = source.fetches
            assert await keys.find(issuer.kid, "ES256") is not None
            await settled(lambda: source.fetches > before and keys._flight is None)  # noqa: B023  # called here
            assert await keys.find("nobody's", "ES256") is None
        assert source.fetches == 4


async def test_a_key_that_was_withdrawn_counts_no_more(issuer: TestIssuer, other: TestIssuer, clock: Clock) -> None:
    source = Source(issuer, other)
    async with ring(source, clock) as keys:
        assert await keys.find(other.kid, "ES256") is not None
        source.issuers.remove(other)
        clock.now += FRESH
        await keys.find(issuer.kid, "ES256")
        await settled(lambda: keys.describe()["keys"] == [issuer.kid])
        assert await keys.find(other.kid, "ES256") is None


async def test_without_any_key_it_says_when_to_come_again_and_does_not_ask_for_each(
    issuer: TestIssuer, clock: Clock
) -> None:
    source = Source(issuer)
    source.error = Unavailable("away")
    async with ring(source, clock) as keys:
        for _ in range(10):
            with pytest.raises(Unavailable) as refused:
                await keys.find(issuer.kid, "ES256")
            assert refused.value.retry_after == 1.0
        assert source.fetches == 1
        source.error = None
        clock.now += RETRY
        assert await keys.find(issuer.kid, "ES256") is not None


async def test_who_starts_while_the_issuer_is_away_has_the_copy_on_disk(
    issuer: TestIssuer, clock: Clock, tmp_path: Path
) -> None:
    disk = tmp_path / "cache" / "things.jwks"
    async with ring(Source(issuer), clock, disk=disk) as keys:
        await keys.find(issuer.kid, "ES256")
    assert [path.name for path in disk.parent.iterdir()] == ["things.jwks"]
    away = Source()
    away.error = Unavailable("away")
    async with ring(away, clock, disk=disk) as keys:
        assert await keys.find(issuer.kid, "ES256") is not None


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"keys": 7}', b"\xff", b'{"keys": [7, null, {"kid": 7}]}'])
async def test_a_broken_copy_on_disk_is_no_copy(
    issuer: TestIssuer, clock: Clock, tmp_path: Path, content: bytes
) -> None:
    disk = tmp_path / "things.jwks"
    disk.write_bytes(content)
    async with ring(Source(issuer), clock, disk=disk) as keys:
        assert await keys.find(issuer.kid, "ES256") is not None
    assert keyring.parse(disk.read_bytes()).keys() == {issuer.kid}


async def test_a_disk_that_cannot_be_written_is_no_trouble(issuer: TestIssuer, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with ring(Source(issuer), clock, disk=tmp_path / "file" / "things.jwks") as keys:
        assert await keys.find(issuer.kid, "ES256") is not None


async def test_keys_can_be_fetched_before_anybody_wants_them(issuer: TestIssuer, clock: Clock) -> None:
    source = Source(issuer)
    async with ring(source, clock) as keys:
        keys.warm()
        await settled(lambda: keys.describe()["keys"])
        await keys.find(issuer.kid, "ES256")
    assert source.fetches == 1


def public(key: Any, **more: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": "k", **more}


FOREIGN: dict[str, dict[str, Any]] = {
    "RSA": public(RSAKey.generate_key(2048)),
    "another curve": public(ECKey.generate_key("P-384")),
    "X25519": public(OKPKey.generate_key("X25519")),
    "a secret": {**OctKey.generate_key(256).as_dict(), "kid": "k"},
    "for encryption": public(ECKey.generate_key("P-256"), use="enc"),
    "for another algorithm": public(ECKey.generate_key("P-256"), alg="HS256"),
    "for another curve's algorithm": public(ECKey.generate_key("P-256"), alg="EdDSA"),
    "no point of the curve": public(ECKey.generate_key("P-256"), x="AAAA"),
    "no type": {"kid": "k"},
    "unknown type": {"kid": "k", "kty": "XX"},
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
def test_keys_that_are_not_believed_are_passed_over(issuer: TestIssuer, foreign: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no key of use"):
        keyring.parse(json.dumps({"keys": [foreign]}).encode())
    both = keyring.parse(json.dumps({"keys": [foreign, *issuer.jwks["keys"]]}).encode())
    assert both.keys() == {issuer.kid}


def test_a_private_part_that_was_published_by_mistake_is_not_read(issuer: TestIssuer) -> None:
    raw = json.dumps({"keys": [{**issuer.key.as_dict(private=True), "kid": "k"}]}).encode()
    assert not keyring.parse(raw)["k"].is_private


async def test_a_key_is_for_the_algorithm_of_its_kind_alone(issuer: TestIssuer, tmp_path: Path, clock: Clock) -> None:
    edwards = TestIssuer(tmp_path, algorithm="EdDSA")
    async with ring(Source(issuer, edwards), clock) as keys:
        assert await keys.find(issuer.kid, "EdDSA") is None
        assert await keys.find(edwards.kid, "ES256") is None
        assert await keys.find(edwards.kid, "EdDSA") is not None
        assert await keys.find(edwards.kid, "Ed25519") is not None
        assert await keys.find(issuer.kid, "HS256") is None
