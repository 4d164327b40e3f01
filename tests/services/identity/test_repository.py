"""That a family has ended is told, before its tokens have."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from app.resources import Resources
from app.services.identity import repository
from app.services.identity.alongside import alongside
from tests.services.conftest import until
from tests.services.identity.parties import Identity, redemption, refreshing

LIFE = timedelta(seconds=600 + 30)


def resources(identity: Identity) -> Resources:
    found = identity.running.process.resources
    assert found is not None
    return found


def told(identity: Identity) -> Mapping[str, float]:
    return resources(identity).revoked_sessions.notices


async def test_whoever_ends_a_family_it_is_told(identity: Identity) -> None:
    code = await identity.code()
    reused = await identity.ask(redemption(code))
    revoked, logged_out = [await identity.login(session_digest=digit * 64) for digit in "12"]
    sids = [(await identity.claims(a["access_token"]))["sid"] for a in (reused, revoked, logged_out)]
    assert told(identity) == {}
    begun = datetime.now(UTC)
    await identity.refused(redemption(code))
    await identity.ask({"client_id": "demo-web", "token": revoked["refresh_token"]}, path="/oauth/revoke")
    with identity.running.process.flask.app_context():
        assert await repository.revoke_families_of_session("2" * 64, "logout") == [sids[2]]
        assert await repository.revoke_families_of_session("2" * 64, "logout") == []
    ended = datetime.now(UTC)
    assert sorted(told(identity)) == sorted(sids)
    for end in told(identity).values():
        assert (begun + LIFE).timestamp() <= end <= (ended + LIFE).timestamp()
    for answer in (reused, revoked, logged_out):
        assert not await identity.is_active(answer["access_token"])
        assert await identity.refused(refreshing(answer["refresh_token"])) == "invalid_grant"


async def test_all_families_of_an_account_end_together(identity: Identity) -> None:
    answers = [await identity.login() for _ in range(2)]
    other = await identity.admin_login("openid")
    with identity.running.process.flask.app_context():
        ended = await repository.revoke_families_of_account(identity.people["user7"].id, "disabled")
    assert sorted(ended) == sorted(told(identity))
    assert len(ended) == 2
    assert not any([await identity.is_active(answer["access_token"]) for answer in answers])
    assert await identity.is_active(other["access_token"])


async def test_what_was_never_there_is_not_told(identity: Identity) -> None:
    with identity.running.process.flask.app_context():
        assert not await repository.revoke_family("nonsense", "logout")
    assert told(identity) == {}


async def test_who_starts_tells_again_what_has_ended_lately(identity: Identity) -> None:
    answer = await identity.login(session_digest="1" * 64)
    sid = (await identity.claims(answer["access_token"]))["sid"]
    with identity.running.process.flask.app_context():
        # As if it had happened while nobody could be told.
        await repository.tokens.revoke(sid, "logout", now=datetime.now(UTC))
    assert told(identity) == {}
    async with alongside(resources(identity)):
        await until(lambda: sid in told(identity))
