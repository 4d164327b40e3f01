"""When a person is asked something: to log in, to allow. Rules without I/O (OpenID Connect Core 1.0, 3.1.2)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlencode

# Of our own making: a login no older than this satisfies prompt=login and any max_age, or it would be asked for forever.
SINCE = "login_since"


def prompts(prompt: str | Collection[str] | None) -> frozenset[str]:
    """The words of the parameter ``prompt``."""
    words = prompt.split() if isinstance(prompt, str) else prompt
    return frozenset(words or ())


def login_needed(
    auth_time: datetime | None,
    *,
    prompt: frozenset[str],
    max_age: int | None,
    since: datetime | None,
    now: datetime,
) -> bool:
    """Whether somebody must log in (again) before the request is answered.

    Args:
        auth_time: of the present login, if there is one.
        since: when the login was asked for, if it was; who makes this up could as well leave the prompt out, and a client
            that insists looks at ``auth_time`` in the ID token.
    """
    if auth_time is None:
        return True
    if since is not None and since <= auth_time:
        return False
    if prompt & {"login", "select_account"}:
        return True
    return max_age is not None and now - auth_time > timedelta(seconds=max_age)


def consent_needed(
    scopes: Collection[str], *, trusted: bool, given: Collection[str], prompt: Collection[str]
) -> bool:  # fmt: skip
    """Whether the account must be asked to allow `scopes`, of which it has allowed `given` before."""
    if "consent" in prompt:
        return True
    return not trusted and not set(scopes) <= set(given)


def since_of(value: str | None) -> datetime | None:
    """The moment in the parameter `SINCE`, if it is one."""
    if value is None or not (value.isascii() and value.isdigit() and len(value) <= 10):
        return None
    return datetime.fromtimestamp(int(value), UTC)


def with_since(query: str, now: datetime) -> str:
    """A query string that says when a login was asked for."""
    pairs = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name != SINCE]
    return urlencode([*pairs, (SINCE, str(int(now.timestamp())))])
