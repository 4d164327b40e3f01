from __future__ import annotations

import base64
import hmac
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey

from app.auth.algorithms import registry
from app.auth.revocations import Revocations
from app.auth.verifier import Verifier
from app.errors import InvalidToken, Unavailable
from tests.auth.clock import Clock
from tests.auth.mutants import mutant
from tests.tokens import AUDIENCE, TestIssuer, verifier

MUTANTS = 10_000


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time())


async def refused(by: Verifier, token: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        await by.verify(token)
    return caught.value.detail


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "Ed25519"])
async def test_a_token_of_either_kind_of_key_is_believed(tmp_path: Path, algorithm: str) -> None:
    issuer = TestIssuer(tmp_path, algorithm=algorithm)
    principal = await verifier(issuer).verify(issuer.user(7, "a b", roles=("admin",)))
    assert (principal.subject, principal.scopes, principal.roles) == ("7", frozenset("ab"), frozenset({"admin"}))


@pytest.mark.parametrize(
    ("audience", "meant"), [("mesh", True), ("things", True), (["x", "things"], True), ("x", False)]
)
async def test_a_token_may_mean_us_by_our_name_or_the_public_one(
    issuer: TestIssuer, audience: Any, meant: bool
) -> None:
    token = issuer.client("orders", aud=audience)
    if meant:
        assert (await verifier(issuer).verify(token)).caller == "orders"
    else:
        assert await refused(verifier(issuer), token) == "The token is meant for somebody else"


def segment(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def test_a_signature_is_never_left_out_nor_made_with_a_public_key(issuer: TestIssuer) -> None:
    strict, good = verifier(issuer), issuer.user(7)
    head, payload, signature = good.split(".")
    await strict.verify(good)
    unsigned = segment({"typ": "at+jwt", "alg": "none", "kid": issuer.kid})
    for token in (f"{unsigned}.{payload}.", f"{unsigned}.{payload}.{signature}", f"{head}.{payload}."):
        await refused(strict, token)
    confused = {"typ": "at+jwt", "alg": "HS256", "kid": issuer.kid}
    for secret in (issuer.key.as_pem(private=False), json.dumps(issuer.jwks["keys"][0]).encode()):
        signed = f"{segment(confused)}.{payload}"
        mac = hmac.digest(secret, signed.encode(), "sha256")
        token = f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
        assert await refused(strict, token) == "The token's algorithm is not accepted"


async def test_a_key_that_a_token_brings_along_is_not_used(issuer: TestIssuer, tmp_path: Path) -> None:
    thief = TestIssuer(tmp_path)
    for header in (
        {"jwk": thief.key.as_dict(private=False)},
        {"jku": "http://127.0.0.1:1/keys"},
        {"x5u": "http://127.0.0.1:1/chain"},
    ):
        token = thief.sign({"sub": "7", "client_id": "x"}, header=header | {"kid": issuer.kid})
        assert await refused(verifier(issuer), token) == "The token's header is not acceptable"
    assert await refused(verifier(issuer), thief.user(7)) == "The token's key is not known"
    named = thief.sign({"sub": "7", "client_id": "x"}, header={"kid": issuer.kid})
    assert await refused(verifier(issuer), named) == "The token's signature is wrong"


async def test_a_payload_that_is_no_object_is_refused_though_it_is_signed(issuer: TestIssuer) -> None:
    head = {"typ": "at+jwt", "alg": "ES256", "kid": issuer.kid}
    for payload in (b"[]", b"7", b"null", b"\xff", b"{", b"[" * 3000, b'{"x":' + b"[" * 2000 + b"]" * 2000 + b"}"):
        await refused(verifier(issuer), jws.serialize_compact(head, payload, issuer.key, registry=registry))


async def test_brackets_in_brackets_are_no_failure_of_ours_however_deep_we_stand(issuer: TestIssuer) -> None:
    strict, good = verifier(issuer), issuer.user(7)
    await strict.verify(good)
    _, payload, signature = good.split(".")
    for depth in range(200, 1030, 10):
        raw = f'{{"typ":"at+jwt","alg":"ES256","kid":"{issuer.kid}","x":{"[" * depth}{"]" * depth}}}'
        head = base64.urlsafe_b64encode(raw.encode()).rstrip(b"=").decode()
        with pytest.raises(InvalidToken):
            await _from_below(strict, f"{head}.{payload}.{signature}", frames=100)


async def _from_below(by: Verifier, token: str, *, frames: int) -> None:
    """Verify as a request does, with so many frames above."""
    if frames:
        await _from_below(by, token, frames=frames - 1)
    else:
        await by.verify(token)


async def test_what_is_too_long_is_not_even_looked_at(issuer: TestIssuer) -> None:
    long = issuer.user(7, "a" * 9000)
    assert await refused(verifier(issuer), long) == "The token is too long"
    assert (await verifier(issuer, max_token_bytes=20_000).verify(long)).subject == "7"


@pytest.mark.parametrize("token", ["\ud800", "a.\udcff.b", "é" * 10, "\0", ""])
async def test_what_no_header_could_carry_is_refused_as_well(issuer: TestIssuer, token: str) -> None:
    await refused(verifier(issuer), token)


async def test_times_are_compared_with_the_clock_that_was_given(issuer: TestIssuer, clock: Clock) -> None:
    strict = verifier(issuer, clock=clock)
    token = issuer.user(7, iat=clock.now, exp=clock.now + 60)
    clock.now += 89.9
    await strict.verify(token)
    early = issuer.user(7, iat=clock.now + 30.5, exp=clock.now + 60)
    assert await refused(strict, early) == "The token is not valid yet"


# ------------------------------------------------------------------------------------------------ memory


async def test_a_token_is_verified_once_and_then_recalled_until_it_expires(issuer: TestIssuer, clock: Clock) -> None:
    strict = verifier(issuer, clock=clock)
    token = issuer.user(7, iat=clock.now, exp=clock.now + 60)
    assert strict.recall(token) is None
    principal = await strict.verify(token)
    assert strict.recall(token) is principal
    clock.now += 89.9
    assert strict.recall(token) is principal
    clock.now += 0.1
    with pytest.raises(InvalidToken, match="expired"):
        strict.recall(token)
    assert await refused(strict, token) == "The token has expired"
    assert strict.describe()["tokens_known"] == 0


async def test_so_many_tokens_are_remembered_and_no_more(issuer: TestIssuer) -> None:
    strict = verifier(issuer, cached_tokens=3)
    tokens = [issuer.user(number) for number in range(5)]
    for token in tokens:
        await strict.verify(token)
    assert strict.describe()["tokens_known"] == 3
    assert [strict.recall(token) is not None for token in tokens] == [False, False, True, True, True]
    assert (await strict.verify(tokens[0])).subject == "0"


async def test_what_was_refused_is_not_remembered(issuer: TestIssuer) -> None:
    strict = verifier(issuer)
    for number in range(20):
        await refused(strict, f"{issuer.user(number)}x")
        await refused(strict, issuer.user(number, aud="x"))
    assert strict.describe()["tokens_known"] == 0


async def test_neither_its_repr_nor_its_facts_hold_a_token(issuer: TestIssuer) -> None:
    strict, token = verifier(issuer), issuer.user(7)
    await strict.verify(token)
    assert token not in repr(vars(strict))
    assert repr(strict) == "<Verifier for mesh, things, 1 tokens known>"


# ------------------------------------------------------------------------------------------------ ended sessions


async def test_a_session_that_has_ended_takes_its_tokens_along_at_once(issuer: TestIssuer, clock: Clock) -> None:
    revocations = Revocations(clock)
    strict = verifier(issuer, clock=clock, revocations=revocations)
    known, fresh, others = (issuer.user(7), issuer.user(7), issuer.user(7, sid="family-2"))
    await strict.verify(known)
    revocations.heard({"family-1": clock.now + 600})
    with pytest.raises(InvalidToken, match="session has ended"):
        strict.recall(known)
    assert await refused(strict, fresh) == "The session has ended"
    assert (await strict.verify(others)).session == "family-2"
    assert (await strict.verify(issuer.client("orders"))).caller == "orders"


async def test_without_any_key_nobody_knows_rather_than_everybody_is_refused(issuer: TestIssuer) -> None:
    away = verifier(issuer)

    async def fetch() -> bytes:
        raise Unavailable("away")

    away._keyring._fetch = fetch
    with pytest.raises(Unavailable):
        await away.verify(issuer.user(7))
    # What is wrong without any key is wrong all the same.
    await refused(away, "nonsense")


# ------------------------------------------------------------------------------------------------ mutants


async def test_of_ten_thousand_forgeries_none_is_believed_and_none_is_a_failure(issuer: TestIssuer) -> None:
    strict, rng = verifier(issuer), random.Random(20261128)
    good = [
        issuer.user(7),
        issuer.user(8, roles=("admin",)),
        issuer.client("orders"),
        issuer.user(7, act={"sub": "orders"}),
    ]
    foreign = ECKey.generate_key("P-256")
    for token in good:
        await strict.verify(token)
    for number in range(MUTANTS):
        await refused(strict, mutant(good[number % len(good)], rng, foreign))
    assert strict.describe()["tokens_known"] == len(good)
    assert AUDIENCE in repr(strict)
