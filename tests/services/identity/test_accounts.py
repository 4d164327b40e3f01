from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.identity import accounts
from app.services.identity.accounts import Account, Attempt, Lockout, LoginFailed, Why, canonical, lockout

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
POLICY = Lockout()
ADA = Account(1, "7", "ada", "Ada", "", (), False, NOW)


@dataclass
class OneAccount:
    """Knows one account; `locked` refuses to count."""

    account: Account = ADA
    locked: bool = False
    forgiven: int = 0
    hashes: list[str] = field(default_factory=lambda: ["hash of right"])

    async def attempt(self, username: str, policy: Lockout, now: datetime) -> Attempt | None:
        if username != self.account.username:
            return None
        return Attempt(self.account, self.hashes[-1], not self.locked, now if self.locked else None)

    async def forgive(self, account_id: int) -> None:
        self.forgiven += 1

    async def replace_hash(self, account_id: int, *, old: str, new: str) -> None:
        assert old == self.hashes[-1]
        self.hashes.append(new)


@dataclass
class Counted:
    """Passwords that tell how often, and against what, they were verified."""

    decoy: str = "decoy"
    verified: list[str] = field(default_factory=list)

    async def hash(self, text: str) -> str:
        return f"new hash of {text}"

    async def verify(self, text: str, hashed: str) -> bool:
        self.verified.append(hashed)
        return hashed.endswith(f"hash of {text}")

    def needs_rehash(self, hashed: str) -> bool:
        return not hashed.startswith("new")


async def log_in(known: OneAccount, username: str, password: str, passwords: Counted | None = None) -> Account:
    return await accounts.log_in(username, password, known, passwords or Counted(), policy=POLICY, now=NOW)


async def failure(known: OneAccount, username: str, password: str, passwords: Counted) -> LoginFailed:
    with pytest.raises(LoginFailed) as caught:
        await log_in(known, username, password, passwords)
    return caught.value


def test_the_pause_begins_with_the_fifth_failure_and_doubles_to_its_maximum() -> None:
    assert [lockout(n, POLICY) for n in range(5)] == [None] * 5
    pauses = [lockout(n, POLICY) for n in range(5, 17)]
    seconds = [pause.total_seconds() for pause in pauses if pause is not None]
    assert seconds == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]


@given(st.integers(min_value=0, max_value=10**9))
def test_no_number_of_failures_shortens_the_pause_or_exceeds_the_longest(failures: int) -> None:
    pause, following = lockout(failures, POLICY), lockout(failures + 1, POLICY)
    assert pause is None or (following is not None and pause <= following <= POLICY.longest)


@pytest.mark.parametrize("typed", ["ada", "ADA", " Ada ", "\N{FULLWIDTH LATIN SMALL LETTER A}da"])
def test_a_user_name_has_one_form(typed: str) -> None:
    assert canonical(typed) == "ada"
    assert canonical(canonical(typed)) == "ada"


async def test_the_right_password_logs_in_and_is_forgiven_what_was_wrong_before() -> None:
    known = OneAccount()
    assert await log_in(known, "Ada", "right") == ADA
    assert known.forgiven == 1


async def test_a_hash_of_old_parameters_is_replaced_at_the_login() -> None:
    known = OneAccount()
    await log_in(known, "ada", "right")
    assert known.hashes == ["hash of right", "new hash of right"]
    await log_in(known, "ada", "right")
    assert len(known.hashes) == 2


@pytest.mark.parametrize(
    ("known", "username", "password", "why", "against"),
    [
        (OneAccount(), "nobody", "right", "unknown", "decoy"),
        (OneAccount(), "ada", "wrong", "wrong", "hash of right"),
        (OneAccount(locked=True), "ada", "right", "locked", "decoy"),
        (OneAccount(account=replace(ADA, disabled=True)), "ada", "right", "disabled", "hash of right"),
    ],
)
async def test_every_failure_costs_one_verification_and_says_the_same(
    known: OneAccount, username: str, password: str, why: Why, against: str
) -> None:
    passwords = Counted()
    error = await failure(known, username, password, passwords)
    assert error.why == why
    assert passwords.verified == [against]
    assert (error.status, error.detail) == (403, LoginFailed("wrong").detail)
    assert known.forgiven == 0


@pytest.mark.parametrize(("username", "password"), [("a\0da", "x"), ("a" * 101, "x"), ("ada", "x" * 1025)])
async def test_what_no_account_can_have_is_refused_before_anything_is_asked(username: str, password: str) -> None:
    passwords = Counted()
    assert (await failure(OneAccount(), username, password, passwords)).why == "malformed"
    assert passwords.verified == []


def test_a_session_is_known_by_the_digest_of_a_long_random_token() -> None:
    (token, digest), (other, _) = accounts.new_session_token(), accounts.new_session_token()
    assert token != other
    assert len(token) >= 43
    assert digest == accounts.session_digest(token)
    assert token not in digest
