"""That a family has ended is told, before its tokens have."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.services.identity import notices, repository
from app.services.identity.notices import BoardNotices
from tests.services.identity.parties import Identity, redemption, refreshing

LIFE = timedelta(seconds=600 + 30)


class Heard:
    """A board that remembers what was put up."""

    def __init__(self) -> None:
        self.posts: dict[str, float] = {}

    async def post(self, found: dict[str, float]) -> bool:
        self.posts |= found
        return True


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    board = Heard()
    monkeypatch.setattr(notices, "current", lambda: BoardNotices(board.post))  # type: ignore[arg-type]
    return board.posts


async def test_whoever_ends_a_family_it_is_told(identity: Identity, heard: dict[str, float]) -> None:
    code = await identity.code()
    reused = await identity.ask(redemption(code))
    revoked, logged_out = [await identity.login(session_digest=digit * 64) for digit in "12"]
    sids = [(await identity.claims(a["access_token"]))["sid"] for a in (reused, revoked, logged_out)]
    assert heard == {}
    begun = datetime.now(UTC)
    await identity.refused(redemption(code))
    await identity.ask({"client_id": "demo-web", "token": revoked["refresh_token"]}, path="/oauth/revoke")
    with identity.running.process.flask.app_context():
        assert await repository.revoke_families_of_session("2" * 64, "logout") == [sids[2]]
        assert await repository.revoke_families_of_session("2" * 64, "logout") == []
        listed = await repository.recently_revoked()
        assert await repository.recently_revoked(datetime.now(UTC)) == []
    assert sorted(heard) == sorted(sids) == sorted(sid for sid, _ in listed)
    for sid, until in listed:
        assert begun + LIFE <= until <= datetime.now(UTC) + LIFE
        assert abs(until.timestamp() - heard[sid]) < 0.001
    for answer in (reused, revoked, logged_out):
        assert not await identity.is_active(answer["access_token"])
        assert await identity.refused(refreshing(answer["refresh_token"])) == "invalid_grant"


async def test_all_families_of_an_account_end_together(identity: Identity, heard: dict[str, float]) -> None:
    answers = [await identity.login() for _ in range(2)]
    other = await identity.admin_login("openid")
    with identity.running.process.flask.app_context():
        ended = await repository.revoke_families_of_account(identity.people["user7"].id, "disabled")
    assert len(ended) == len(heard) == 2
    assert not any([await identity.is_active(answer["access_token"]) for answer in answers])
    assert await identity.is_active(other["access_token"])


async def test_without_a_board_nobody_is_told(identity: Identity) -> None:
    with identity.running.process.flask.app_context():
        await notices.NullNotices().revoked("sid", datetime.now(UTC))
        assert not await repository.revoke_family("nonsense", "logout")
