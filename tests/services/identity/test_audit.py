"""What happens to tokens is written down: by whom, in whose name, from where; and never a token."""

from __future__ import annotations

from app.services.identity.account_store import AccountStore
from app.services.identity.journal import Entry
from tests.services.identity.parties import Identity, exchanging, redemption, refreshing


async def written(identity: Identity) -> list[Entry]:
    return (await AccountStore(identity.database).events())[::-1]


async def test_a_familys_life_is_written_down(identity: Identity) -> None:
    code = await identity.code()
    answer = await identity.ask(redemption(code))
    exchanged = await identity.ask(exchanging(answer["access_token"]), client="orders")
    await identity.refused(redemption(code))
    entries = await written(identity)
    assert [entry.event for entry in entries] == ["token_issued", "token_exchanged", "code_reused"]
    assert {entry.subject for entry in entries} == {"7"}
    assert [entry.client_id for entry in entries] == ["demo-web", "orders", "demo-web"]
    assert all(entry.address == "127.0.0.1" and entry.request_id for entry in entries)
    details = " ".join(entry.detail or "" for entry in entries)
    assert answer["scope"] in details
    for secret in (code, answer["access_token"], answer["refresh_token"], exchanged["access_token"]):
        assert secret not in details


async def test_a_revocation_is_written_down_once(identity: Identity) -> None:
    answer = await identity.login()
    for _ in range(2):
        await identity.ask({"client_id": "demo-web", "token": answer["refresh_token"]}, path="/oauth/revoke")
    await identity.refused(refreshing(answer["refresh_token"]))
    assert [entry.event for entry in await written(identity)] == ["token_issued", "token_revoked"]
