"""Signing keys: when they change, and that nobody notices."""

from __future__ import annotations

import asyncio
import hashlib
import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from app import settings
from app.data import Database
from app.errors import Misconfigured, Unavailable
from app.services.identity import algorithms, keys, tokens
from app.services.identity.algorithms import Algorithm
from app.services.identity.key_store import KeyRing, KeyRows, open_ring
from app.services.identity.keys import Key, Plan, Policy, Seal, Turn
from app.services.identity.models import signing_keys

DAY = timedelta(days=1)
POLICY = Policy("ES256", turn=30 * DAY, overlap=DAY, afterlife=timedelta(minutes=15))
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
PRIVATE = algorithms.generate("ES256")


class Clock:
    """The time of day, and the seconds that have passed."""

    def __init__(self, now: datetime = NOW) -> None:
        self.start = self.now = now

    def __call__(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return (self.now - self.start).total_seconds()


def made(turn: Turn, *, readable: bool = True) -> Key:
    kid = f"{turn.signs_from:%F %T %f}"
    private = PRIVATE if readable else None
    return Key(kid, turn.algorithm, {}, turn.signs_from, turn.signs_until, turn.published_until, private)


def carried_out(found: list[Key], plan: Plan) -> list[Key]:
    return [key for key in found if key.kid not in plan.forget] + [made(turn) for turn in plan.add]


def ring(database: Database, clock: Clock, *, policy: Policy = POLICY, secret: str = "a") -> KeyRing:
    rows = KeyRows(database, Seal(secret, production=True))
    return KeyRing(rows, policy, now=clock, clock=clock.monotonic)


async def rows(database: Database) -> int:
    async with database.reading() as session:
        return len((await session.execute(select(signing_keys))).all())


def test_the_first_key_signs_at_once_and_the_next_is_known_a_day_before() -> None:
    (first,) = keys.plan([], NOW, POLICY).add
    assert first.signs_from <= NOW < first.signs_until
    assert first.signs_until - first.signs_from == POLICY.turn
    key = made(first)
    assert keys.plan([key], NOW, POLICY) == Plan()
    eve = key.signs_until - DAY
    assert keys.plan([key], eve - timedelta(seconds=1), POLICY) == Plan()
    (second,) = keys.plan([key], eve, POLICY).add
    assert second.signs_from == key.signs_until
    both = [key, made(second)]
    assert keys.signer(both, eve, POLICY) == key
    assert keys.published(both, eve) == both
    assert keys.signer(both, key.signs_until, POLICY) == both[1]


def test_an_old_key_is_forgotten_when_what_it_signed_is_over() -> None:
    (first,) = keys.plan([], NOW, POLICY).add
    both = [made(first), made(keys.plan([made(first)], first.signs_until - DAY, POLICY).add[0])]
    over = first.signs_until + POLICY.afterlife
    assert keys.plan(both, over - timedelta(seconds=1), POLICY) == Plan()
    assert keys.published(both, over - timedelta(seconds=1)) == both
    assert keys.plan(both, over, POLICY) == Plan(forget=(both[0].kid,))
    assert keys.published(both, over) == both[1:]


def test_all_processes_come_to_the_same_plan() -> None:
    assert keys.plan([], NOW, POLICY) == keys.plan([], NOW + timedelta(seconds=3), POLICY)


def test_a_key_that_cannot_be_read_does_not_stand_in_the_way() -> None:
    (first,) = keys.plan([], NOW, POLICY).add
    foreign = made(first, readable=False)
    (second,) = keys.plan([foreign], NOW, POLICY).add
    assert (second.signs_from, second.signs_until) == (NOW, first.signs_until)
    both = [foreign, made(second)]
    assert keys.signer(both, NOW, POLICY) == both[1]
    assert keys.published(both, NOW) == both


def test_another_algorithm_begins_at_once_and_the_old_keys_stay_known() -> None:
    old = made(keys.plan([], NOW, POLICY).add[0])
    other = Policy("EdDSA", POLICY.turn, POLICY.overlap, POLICY.afterlife)
    both = carried_out([old], keys.plan([old], NOW, other))
    signer = keys.signer(both, NOW, other)
    assert signer is not None
    assert signer.algorithm == "EdDSA"
    assert len(keys.published(both, NOW)) == 2


@given(
    st.lists(st.timedeltas(min_value=timedelta(0), max_value=20 * DAY), max_size=20),
    st.timedeltas(min_value=timedelta(minutes=1), max_value=40 * DAY),
    st.timedeltas(min_value=timedelta(seconds=1), max_value=10 * DAY),
)
def test_there_is_always_a_signer_whatever_the_policy(
    steps: list[timedelta], turn: timedelta, overlap: timedelta
) -> None:
    policy, now, found = Policy("ES256", turn, overlap, timedelta(minutes=15)), NOW, list[Key]()
    for step in [timedelta(0), *steps]:
        now += step
        found = carried_out(found, keys.plan(found, now, policy))
        assert keys.plan(found, now, policy) == Plan()
        signer = keys.signer(found, now, policy)
        assert signer is not None
        assert signer in keys.published(found, now)
        assert len(found) <= 4


def test_a_sealed_key_opens_with_its_secret_alone() -> None:
    sealed = Seal("a", production=True).close(PRIVATE)
    assert sealed.count(".") == 4
    opened = Seal("a", production=True).open(sealed)
    assert opened is not None
    assert opened.as_dict(private=True) == PRIVATE.as_dict(private=True)
    for other in (Seal("b", production=True), Seal(None, production=False)):
        assert other.open(sealed) is None
    assert Seal("a", production=True).open("nonsense") is None


def test_production_needs_a_secret() -> None:
    with pytest.raises(Misconfigured, match="MESH_IDENTITY__KEY_SECRET"):
        Seal(None, production=True)
    Seal(None, production=False)


@pytest.mark.parametrize("algorithm", algorithms.OURS)
def test_a_key_is_called_by_its_thumbprint(algorithm: Algorithm) -> None:
    key = algorithms.generate(algorithm).as_dict(private=False)
    required = {name: key[name] for name in ("crv", "kty", "x", "y") if name in key}
    canonical = json.dumps(required, sort_keys=True, separators=(",", ":")).encode()
    assert key["kid"] == urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()
    assert (key["use"], key["alg"]) == ("sig", algorithm)


# In the database


@pytest.mark.parametrize("algorithm", algorithms.OURS)
async def test_what_one_process_signs_another_one_can_verify(database: Database, algorithm: Algorithm) -> None:
    policy = Policy(algorithm, POLICY.turn, POLICY.overlap, POLICY.afterlife)
    here, there = (ring(database, Clock(), policy=policy) for _ in range(2))
    key = await here.signer()
    token = tokens.sign({"iss": "i", "exp": NOW.timestamp() + 60}, key, kind=tokens.ACCESS_TOKEN_TYPE)
    assert tokens.key_id(token) == key.kid
    known = await there.find(key.kid)
    assert known is not None
    assert tokens.read(token, known, issuer="i", now=NOW) is not None
    assert tokens.read(token, known, issuer="another", now=NOW) is None
    assert tokens.read(token, known, issuer="i", now=NOW + timedelta(seconds=60)) is None
    assert tokens.read(token[:-9] + "AAAAAAAAA", known, issuer="i", now=NOW) is None


async def test_processes_that_begin_at_once_make_one_key(database: Database) -> None:
    rings = [ring(database, Clock()) for _ in range(5)]
    signers = await asyncio.gather(*(one.signer() for one in rings))
    assert len({key.kid for key in signers}) == 1
    assert await rows(database) == 1


async def test_a_rotation_is_seen_everywhere_before_it_signs(database: Database) -> None:
    clock = Clock()
    here, there = ring(database, clock), ring(database, clock)
    first = await here.signer()
    assert (await there.signer()).kid == first.kid
    clock.now = first.signs_until - DAY
    assert (await here.signer()).kid == first.kid
    second = (await here.published())[-1]
    assert second.kid != first.kid
    assert [key.kid for key in await there.published()] == [first.kid, second.kid]
    clock.now = first.signs_until
    assert (await here.signer()).kid == (await there.signer()).kid == second.kid
    assert await there.find(first.kid) is not None
    clock.now = first.published_until
    assert await here.find(first.kid) is None
    assert await there.find(first.kid) is None
    assert await rows(database) == 1


async def test_keys_are_read_once_in_a_while(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    one = ring(database, clock)
    await one.signer()

    async def fail(_: object) -> list[Key]:
        raise Unavailable("the database is away")

    monkeypatch.setattr(KeyRows, "all", fail)
    await one.signer()
    clock.now += timedelta(minutes=2)
    # It is looked at again, in vain; what is known goes on counting.
    await one.signer()
    with pytest.raises(Unavailable):
        await ring(database, clock).signer()


async def test_after_the_secret_has_changed_a_new_key_signs(database: Database) -> None:
    clock = Clock()
    old = await ring(database, clock, secret="a").signer()
    changed = ring(database, clock, secret="b")
    assert (await changed.signer()).kid != old.kid
    assert old.kid in [key.kid for key in await changed.published()]


async def test_the_private_key_is_not_in_the_database(database: Database) -> None:
    key = await open_ring(database, settings.load()).signer()
    assert key.private is not None
    async with database.reading() as session:
        (row,) = (await session.execute(select(signing_keys))).all()
    secret = str(key.private.as_dict(private=True)["d"])
    assert all(secret not in str(value) for value in row)
    assert json.loads(row.public)["kid"] == row.kid == key.kid
